"""``pegel cluster``: the brokers, and how the partitions are doing."""

from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import click

from pegel.cli.balance import balance, drain, elect, moves, remove
from pegel.cli.events import events, health
from pegel.cli.options import cluster_options, connect, json_option, run
from pegel.cli.output import highlight, print_json, print_table
from pegel.cli.quorum import quorum

if TYPE_CHECKING:
    from pegel.admin.types import ClusterDescription, Reassignment, TopicDescription


# Commands that only an installation with brokers has.
MORE_COMMANDS = "pegel.commands.cluster"


class _WithMore(click.Group):
    """Finds further sub-commands through entry points, so that none of them is imported here."""

    def _found(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=MORE_COMMANDS)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._found()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in self._found():
            command = self._found()[cmd_name].load()
            assert isinstance(command, click.Command)
        return command


@click.group(cls=_WithMore)
def cluster() -> None:
    """Look at the cluster, share its load, empty and remove brokers.

    \b
    pegel cluster describe
    pegel cluster health
    pegel cluster events --follow
    pegel cluster balance        plan even shares; --apply carries the plan out
    pegel cluster drain 3        empty broker 3
    """


for command in (events, health, balance, drain, moves, elect, quorum, remove):
    cluster.add_command(command)


@cluster.command()
@cluster_options
@json_option()
def describe(bootstrap: str, timeout: float, as_json: bool) -> None:
    """Show brokers, the controller, and partitions that need attention.

    \b
    pegel cluster describe
    pegel cluster describe --json | jq '.brokers | length'
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            found, topics, moves = await asyncio.gather(
                client.admin.describe_cluster(timeout=timeout),
                client.admin.list_topics(internal=True, timeout=timeout),
                client.admin.list_reassignments(timeout=timeout),
            )
        if as_json:
            print_json(_document(found, topics, moves))
        else:
            _print(found, topics, moves)

    run(work())


def _load(topics: list[TopicDescription]) -> dict[int, dict[str, int]]:
    """For each broker: partitions led, replicas held, replicas in sync."""
    load: dict[int, dict[str, int]] = {}

    def count(node_id: int, what: str) -> None:
        entry = load.setdefault(node_id, {"leaders": 0, "replicas": 0, "in_sync": 0})
        entry[what] += 1

    for topic in topics:
        for p in topic.partitions:
            if p.leader >= 0:
                count(p.leader, "leaders")
            for node_id in p.replicas:
                count(node_id, "replicas")
            for node_id in p.isr:
                count(node_id, "in_sync")
    return load


def _totals(topics: list[TopicDescription], moves: list[Reassignment]) -> dict[str, int]:
    from pegel.health import under_replicated

    partitions = [p for topic in topics for p in topic.partitions]
    return {
        "topics": len(topics),
        "partitions": len(partitions),
        "under_replicated": len(under_replicated(topics, moves)),
        "offline": sum(p.leader < 0 for p in partitions),
        "moving": len(moves),
    }


def _document(
    found: ClusterDescription, topics: list[TopicDescription], moves: list[Reassignment]
) -> dict[str, object]:
    load = _load(topics)
    nothing = {"leaders": 0, "replicas": 0, "in_sync": 0}
    brokers = [
        {
            "id": b.node_id,
            "host": b.host,
            "port": b.port,
            "rack": b.rack,
            "fenced": b.fenced,
            **load.get(b.node_id, nothing),
        }
        for b in found.brokers
    ]
    return {
        "cluster_id": found.cluster_id,
        "controller_id": found.controller_id,
        "brokers": brokers,
        **_totals(topics, moves),
    }


def _print(
    found: ClusterDescription, topics: list[TopicDescription], moves: list[Reassignment]
) -> None:
    totals = _totals(topics, moves)
    click.echo(
        f"cluster {found.cluster_id}: {len(found.brokers)} brokers, {totals['topics']} topics, "
        f"{totals['partitions']} partitions"
    )
    load = _load(topics)
    rows = []
    for b in found.brokers:
        counts = load.get(b.node_id, {})
        state = highlight("fenced", "red") if b.fenced else highlight("live", "green")
        rows.append(
            [
                b.node_id,
                f"{b.host}:{b.port}",
                b.rack or "",
                state,
                counts.get("leaders", 0),
                counts.get("replicas", 0),
                counts.get("in_sync", 0),
            ]
        )
    columns = ["broker", "address", "rack", "state", "leads", "replicas", "in sync"]
    print_table(columns, rows, right=(0, 4, 5, 6))
    if totals["offline"]:
        click.echo(highlight(f"{totals['offline']} partitions have no leader", "red"))
    if totals["under_replicated"]:
        click.echo(
            highlight(f"{totals['under_replicated']} partitions are under-replicated", "yellow")
        )
    if totals["moving"]:
        click.echo(f"{totals['moving']} partitions move: pegel cluster moves")
