"""``pegel cluster quorum``: the controllers, who leads them, and who votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pegel.cli.options import cluster_options, connect, json_option, run
from pegel.cli.output import highlight, print_json, print_table

if TYPE_CHECKING:
    from pegel.admin.types import QuorumDescription


@click.group(invoke_without_command=True)
@cluster_options
@json_option()
@click.pass_context
def quorum(context: click.Context, bootstrap: str, timeout: float, as_json: bool) -> None:
    """Show who votes on the cluster's metadata, or change that while it runs.

    \b
    pegel cluster quorum
    pegel cluster quorum add 4@host:9093     controller 4, which runs there
    pegel cluster quorum remove 1
    """
    if context.invoked_subcommand is not None:
        return

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            found = await client.admin.describe_quorum(timeout=timeout)
        if as_json:
            print_json(_document(found))
        else:
            _print(found)

    run(work())


@quorum.command()
@click.argument("controller", metavar="ID@HOST:PORT")
@cluster_options
def add(controller: str, bootstrap: str, timeout: float) -> None:
    """Have a controller vote that runs already.

    Start it with --controllers naming those that vote now, and its own --controller-listen.
    """
    node_id, at, address = controller.partition("@")
    host, colon, port = address.rpartition(":")
    if not (at and colon and host and node_id.isdigit() and port.isdigit()):
        raise click.BadParameter(f"{controller!r} is not ID@HOST:PORT, such as 4@127.0.0.1:9093")

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            await client.admin.add_controller(
                int(node_id), host.strip("[]"), int(port), timeout=timeout
            )
        click.echo(f"controller {node_id} votes")

    run(work())


@quorum.command()
@click.argument("node", type=int)
@cluster_options
def remove(node: int, bootstrap: str, timeout: float) -> None:
    """Have a controller vote no more; it can be stopped afterwards.

    Refused where the others could not decide without it.
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            await client.admin.remove_controller(node, timeout=timeout)
        click.echo(f"controller {node} votes no more")

    run(work())


def _document(found: QuorumDescription) -> dict[str, object]:
    def shown(replicas: object) -> list[dict[str, object]]:
        assert isinstance(replicas, tuple)
        return [
            {"id": r.node_id, "address": r.address, "log_end_offset": r.log_end_offset,
             "lag": found.high_watermark - r.log_end_offset if r.log_end_offset >= 0 else None}
            for r in replicas
        ]  # fmt: skip

    return {
        "leader_id": found.leader_id,
        "leader_epoch": found.leader_epoch,
        "high_watermark": found.high_watermark,
        "voters": shown(found.voters),
        "observers": shown(found.observers),
    }


def _print(found: QuorumDescription) -> None:
    rows = []
    for replica in (*found.voters, *found.observers):
        if replica.node_id == found.leader_id:
            state = highlight("leads", "green")
        else:
            state = "votes" if replica in found.voters else "observes"
        known = replica.log_end_offset >= 0
        lag = max(0, found.high_watermark - replica.log_end_offset) if known else "?"
        rows.append([replica.node_id, state, replica.address or "", lag])
    click.echo(f"metadata log at offset {found.high_watermark}, epoch {found.leader_epoch}")
    print_table(["node", "state", "address", "behind"], rows, right=(0, 3))
