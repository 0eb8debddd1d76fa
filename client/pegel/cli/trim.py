"""``pegel topics trim``: delete the oldest records of a topic."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from pegel.cli.options import cluster_options, connect, json_option, run
from pegel.cli.output import print_json, print_table
from pegel.cli.times import parse_time

if TYPE_CHECKING:
    from pegel.admin.types import PartitionDescription
    from pegel.client import AsyncClient
    from pegel.types import TopicPartition


@click.command()
@click.argument("name")
@cluster_options
@click.option("--partition", "only", type=click.IntRange(min=0), help="Only this partition.")
@click.option(
    "--before-offset",
    type=click.IntRange(min=0),
    metavar="N",
    help="Delete what is before offset N; needs --partition.",
)
@click.option(
    "--before-time",
    metavar="TIME",
    help="Delete what is older: 2h, 2d, 2026-01-31T12:00, or Unix milliseconds.",
)
@click.option("--all", "everything", is_flag=True, help="Delete every record there is now.")
@click.option("--execute", is_flag=True, help="Do it; without this it is only shown.")
@json_option()
def trim(
    name: str,
    bootstrap: str,
    timeout: float,
    only: int | None,
    before_offset: int | None,
    before_time: str | None,
    everything: bool,
    execute: bool,
    as_json: bool,
) -> None:
    """Delete the oldest records of a topic, on every replica. It cannot be undone.

    Whole segments leave the disk at once; of a segment that is cut the beginning is hidden.

    \b
    pegel topics trim orders --before-time 2d                        # shows what would go
    pegel topics trim orders --before-time 2d --execute
    pegel topics trim orders --partition 0 --before-offset 1200 --execute
    """
    given = [before_offset is not None, before_time is not None, everything]
    if sum(given) != 1:
        raise click.UsageError("give one of --before-offset, --before-time and --all")
    if before_offset is not None and only is None:
        raise click.UsageError("--before-offset needs --partition: offsets differ between them")
    now = datetime.now().astimezone()
    at_ms = None if before_time is None else parse_time(before_time, now, "--before-time")

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            found = await _partitions(client, name, only, timeout)
            targets = await _targets(client, name, found, before_offset, at_ms, timeout)
            starts = {p.partition: p.start_offset or 0 for p in found}
            if execute:
                done = await client.admin.delete_records(targets, timeout=timeout)
                targets = {tp: done[tp] for tp in targets}
        rows = [
            (tp.partition, starts[tp.partition], max(offset, starts[tp.partition]))
            for tp, offset in sorted(targets.items())
        ]
        _show(name, rows, execute=execute, as_json=as_json)

    run(work())


async def _partitions(
    client: AsyncClient, name: str, only: int | None, timeout: float
) -> list[PartitionDescription]:
    from pegel.errors import PegelError

    topic = await client.admin.describe_topic(name, offsets=True, timeout=timeout)
    found = [p for p in topic.partitions if only in {None, p.partition}]
    if not found:
        raise PegelError(f"{name} has the partitions 0 to {len(topic.partitions) - 1}, not {only}")
    headless = [p.partition for p in found if p.end_offset is None]
    if headless:
        raise PegelError(f"{name}-{headless[0]} has no leader: `pegel explain {name}` says why")
    return found


async def _targets(
    client: AsyncClient,
    name: str,
    partitions: list[PartitionDescription],
    before_offset: int | None,
    at_ms: int | None,
    timeout: float,
) -> dict[TopicPartition, int]:
    """Where each log is to begin."""
    from pegel.errors import PegelError
    from pegel.types import TopicPartition

    ends = {TopicPartition(name, p.partition): p.end_offset or 0 for p in partitions}
    if before_offset is not None:
        for tp, end in ends.items():
            if before_offset > end:
                raise PegelError(f"{tp} ends at {end}: it can be trimmed up to there, not beyond")
        return dict.fromkeys(ends, before_offset)
    if at_ms is None:
        return ends
    found = await client.admin.list_offsets(dict.fromkeys(ends, at_ms), timeout=timeout)
    # Nothing as young as that: everything goes.
    return {tp: found[tp].offset if found[tp].offset >= 0 else end for tp, end in ends.items()}


def _show(name: str, rows: list[tuple[int, int, int]], *, execute: bool, as_json: bool) -> None:
    if as_json:
        partitions = [
            {"partition": p, "start_offset": start, "new_start_offset": new, "records": new - start}
            for p, start, new in rows
        ]
        print_json({"topic": name, "executed": execute, "partitions": partitions})
        return
    columns = ["partition", "start", "new start", "records"]
    print_table(columns, [[p, s, n, n - s] for p, s, n in rows], right=range(4))
    total = sum(new - start for _, start, new in rows)
    if execute:
        click.echo(f"deleted {total:,} records")
    else:
        click.echo(f"{total:,} records would be deleted: --execute does it")
