"""``pegel users``: who may log in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pegel.cli.options import (
    arguments_checked,
    cluster_options,
    connect,
    json_option,
    read_password,
    run,
)
from pegel.cli.output import print_json, print_table
from pegel.scram import MAX_ITERATIONS, MIN_ITERATIONS

if TYPE_CHECKING:
    from pegel.admin.types import UserDescription


@click.group(short_help="List, add and delete users.")
def users() -> None:
    """Who may log in, where brokers ask for that (`pegel up --sasl`).

    A change holds for log-ins from then on: connections that are open stay open. There are no
    rights: a user who is let in may do everything.

    \b
    pegel users list
    pegel users add alice            asks for the password; adds alice, or changes it
    pegel users delete alice
    """


@users.command("list")
@cluster_options
@json_option()
def list_users(bootstrap: str, timeout: float, as_json: bool) -> None:
    """List users and the mechanisms that they can log in with; PLAIN works for all of them."""

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            found = await client.admin.describe_users(timeout=timeout)
        if as_json:
            print_json({"users": [_document(user) for user in found]})
        elif not found:
            click.echo("there are no users; add one with `pegel users add NAME`")
        else:
            rows = [
                [user.name, ", ".join(f"{c.mechanism} ({c.iterations})" for c in user.credentials)]
                for user in found
            ]
            print_table(["user", "mechanisms (iterations)"], rows)

    run(work())


@users.command()
@click.argument("name")
@click.option(
    "--new-password-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Its first line is the new user's password. [default: ask, or the first line of standard "
    "input where that is no terminal]",
)
@click.option(
    "--iterations",
    type=click.IntRange(MIN_ITERATIONS, MAX_ITERATIONS),
    default=MIN_ITERATIONS,
    show_default=True,
    help="Hashes that a guess costs.",
)
@cluster_options
def add(
    name: str, new_password_file: str | None, iterations: int, bootstrap: str, timeout: float
) -> None:
    """Add a user, or give one another password."""
    if new_password_file is not None:
        password = read_password(new_password_file)
    elif sys.stdin.isatty():
        password = click.prompt(
            f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True
        )
    else:
        password = sys.stdin.readline().rstrip("\r\n")

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            with arguments_checked():
                await client.admin.set_user(name, password, iterations=iterations, timeout=timeout)
        click.echo(f"user {name} can log in")

    run(work())


@users.command()
@click.argument("name")
@cluster_options
def delete(name: str, bootstrap: str, timeout: float) -> None:
    """Delete a user; connections that are open stay open."""

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            await client.admin.delete_user(name, timeout=timeout)
        click.echo(f"user {name} is gone")

    run(work())


def _document(user: UserDescription) -> dict[str, object]:
    return {
        "user": user.name,
        "credentials": [
            {"mechanism": c.mechanism, "iterations": c.iterations} for c in user.credentials
        ],
    }
