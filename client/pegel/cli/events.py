"""``pegel cluster events`` and ``pegel cluster health``."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pegel.cli.explain import clock_time, read_damage
from pegel.cli.options import cluster_options, connect, json_option, run
from pegel.cli.options import explain as one_line
from pegel.cli.output import highlight, print_json

if TYPE_CHECKING:
    from pegel.admin.events import ClusterEvent
    from pegel.admin.types import LogDir
    from pegel.health import Problem

_FOLLOW_WAIT = 5.0


@click.command()
@cluster_options
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--topic", default="", help="Only this topic, with what happened to brokers.")
@click.option("--last", type=click.IntRange(min=0), default=50, show_default=True,
              help="Events of the past to show.")  # fmt: skip
@json_option("Print one JSON document for each event.")
def events(
    bootstrap: str, timeout: float, follow: bool, topic: str, last: int, as_json: bool
) -> None:
    """Show what happened to brokers and partitions, from the metadata log.

    \b
    pegel cluster events --last 20
    pegel cluster events --follow --topic orders
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            past: list[ClusterEvent] = []
            after = 0
            while True:
                page = await client.admin.events(after=after, topic=topic, timeout=timeout)
                past = [*past, *page.events][-last:] if last else []
                if page.last == after or not page.events:
                    break
                after = page.last
            _print(past, as_json)
            while follow:
                page = await client.admin.events(
                    after=after, topic=topic, max_wait=_FOLLOW_WAIT, timeout=timeout
                )
                _print(page.events, as_json)
                after = page.last

    run(work(), interrupt_code=0 if follow else 1)


def _print(found: list[ClusterEvent] | tuple[ClusterEvent, ...], as_json: bool) -> None:
    from pegel.explain import describe_event

    for event in found:
        text = describe_event(event)
        if as_json:
            print_json({**asdict(event), "text": text})
        else:
            click.echo(f"{clock_time(event.at_ms)}  {text}")
    sys.stdout.flush()


@click.command()
@cluster_options
@json_option()
def health(bootstrap: str, timeout: float, as_json: bool) -> None:
    """Say whether the cluster is well; the exit code is for scripts.

    \b
    0  healthy
    1  degraded: everything works, but a replica or a broker is missing
    2  unavailable: a partition cannot be written, or no broker answers

    \b
    pegel cluster health || pegel cluster events --last 20
    """
    from pegel.errors import PegelError
    from pegel.health import Health, Problem, worst

    problems: list[Problem] = []

    async def work() -> None:
        try:
            problems.extend(await _find(bootstrap, timeout))
        except PegelError as error:
            text = f"the cluster does not answer: {one_line(error)}"
            problems.append(Problem(Health.UNAVAILABLE, text, "pegel up"))

    run(work())
    state = worst(problems)
    if as_json:
        print_json({
            "health": state.name.lower(),
            "problems": [
                {"health": p.health.name.lower(), "text": p.text, "command": p.command}
                for p in problems
            ],
        })  # fmt: skip
    else:
        colour = {Health.HEALTHY: "green", Health.DEGRADED: "yellow", Health.UNAVAILABLE: "red"}
        click.echo(highlight(state.name.lower(), colour[state]))
        for p in problems:
            click.echo(f"  {highlight(p.text, colour[p.health])}: {p.command}")
    sys.exit(int(state))


async def _find(bootstrap: str, timeout: float) -> list[Problem]:
    from pegel.admin.types import ConfigResourceType
    from pegel.errors import PegelError, UnsupportedFeatureError
    from pegel.health import Health, Problem, find_problems, without_moves

    async with connect(bootstrap, timeout) as client:
        cluster, topics, moves = await asyncio.gather(
            client.admin.describe_cluster(timeout=timeout),
            client.admin.list_topics(internal=True, timeout=timeout),
            client.admin.list_reassignments(timeout=timeout),
        )
        topics = without_moves(topics, moves)
        log_dirs: list[LogDir] = []
        silent: list[Problem] = []
        try:
            log_dirs = await client.admin.describe_log_dirs(timeout=timeout / 3)
        except PegelError as error:
            text = f"not every broker answers: {error}"
            silent.append(Problem(Health.DEGRADED, text, "pegel cluster events --last 20"))
        try:
            await client.admin.events(limit=1, timeout=timeout / 3)
        except UnsupportedFeatureError:
            pass  # not Pegel
        except PegelError as error:
            text = (
                f"no controller leads, so that leases run out and nothing can be written: {error}"
            )
            silent.append(Problem(Health.UNAVAILABLE, text, "start the controllers that are down"))
        short = [t for t in topics if any(len(p.isr) < len(p.replicas) for p in t.partitions)]
        minimum: dict[str, int] = {}
        for topic in short:
            entries = await client.admin.describe_config(
                ConfigResourceType.TOPIC, topic.name, timeout=timeout
            )
            minimum[topic.name] = next(
                (int(e.value or 1) for e in entries if e.name == "min.insync.replicas"), 1
            )
        damage = await read_damage(client, topics, timeout / 3)
    found = [*find_problems(cluster, topics, minimum, log_dirs, damage), *silent]
    return sorted(found, key=lambda problem: -problem.health)
