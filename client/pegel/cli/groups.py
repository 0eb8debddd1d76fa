"""``pegel groups``: who reads what, how far behind, and where a group goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pegel.cli.options import cluster_options, connect, json_option, run
from pegel.cli.output import highlight, print_json, print_table
from pegel.cli.times import parse_time, show_seconds

if TYPE_CHECKING:
    from pegel.admin.types import GroupDescription, PartitionLag
    from pegel.client import AsyncClient
    from pegel.types import CommittedOffset, TopicPartition

# Of Kafka's classic and new groups.
_STATES = ("Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Dead",
           "Assigning", "Reconciling")  # fmt: skip
_COLORS = {"Stable": "green", "Empty": "yellow", "Dead": "red"}


def _known_states(
    _context: click.Context, _option: click.Parameter, given: Sequence[str]
) -> tuple[str, ...]:
    """As brokers spell them: they answer one that is none with no groups."""
    spelt = {state.lower(): state for state in _STATES}
    for state in given:
        if state.lower() not in spelt:
            raise click.BadParameter(f"{state!r} is none of {', '.join(_STATES)}")
    return tuple(spelt[state.lower()] for state in given)


@click.group()
def groups() -> None:
    """Look at consumer groups, and move their offsets.

    \b
    pegel groups list
    pegel groups describe billing
    pegel groups reset-offsets billing --to-earliest            # says what it would do
    pegel groups reset-offsets billing --to-earliest --execute
    """


@groups.command("list")
@cluster_options
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="STATE",
    callback=_known_states,
    help="Only groups in this state (Stable, Empty, …); may be repeated.",
)
@json_option()
def list_groups(bootstrap: str, timeout: float, states: tuple[str, ...], as_json: bool) -> None:
    """List groups.

    \b
    pegel groups list
    pegel groups list --state Empty --json | jq -r '.groups[].group'
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            listed = await client.admin.list_groups(states=states, timeout=timeout)
            names = [g.group for g in listed if g.protocol_type in {"consumer", ""}]
            described = await client.admin.describe_groups(names, timeout=timeout)
        rows = [
            (g, described.get(g.group)) for g in listed
        ]  # a group may have gone between the two
        if as_json:
            print_json({"groups": [
                {"group": g.group, "state": g.state, "type": g.type,
                 "members": None if d is None else len(d.members),
                 "assignor": None if d is None else d.assignor,
                 "coordinator": None if d is None else d.coordinator}
                for g, d in rows
            ]})  # fmt: skip
        elif not rows:
            click.echo("no groups; `pegel consume TOPIC --group NAME` begins one")
        else:
            table = [
                [g.group, _state(g.state), g.type,
                 *(("", "", "") if d is None else (len(d.members), d.assignor, d.coordinator))]
                for g, d in rows
            ]  # fmt: skip
            columns = ["group", "state", "type", "members", "assignor", "coordinator"]
            print_table(columns, table, right=(3, 5))

    run(work())


@groups.command()
@click.argument("names", nargs=-1, required=True)
@cluster_options
@json_option("Print one JSON document, or one per line for several groups.")
def describe(names: tuple[str, ...], bootstrap: str, timeout: float, as_json: bool) -> None:
    """Show members, offsets and lag of groups.

    Lag is counted in records, and as the age of the oldest record that was not read.

    \b
    pegel groups describe billing
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            for name in names:
                group = await client.admin.describe_group(name, timeout=timeout)
                lags = await client.admin.group_lag(name, seconds=True, timeout=timeout)
                if as_json:
                    print_json(_details(group, lags))
                else:
                    _print_group(group, lags)

    run(work())


@groups.command()
@click.argument("names", nargs=-1, required=True)
@cluster_options
@json_option()
def delete(names: tuple[str, ...], bootstrap: str, timeout: float, as_json: bool) -> None:
    """Delete groups that have no members, and their offsets.

    \b
    pegel groups delete billing
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            for name in names:
                await client.admin.delete_group(name, timeout=timeout)
                if not as_json:
                    click.echo(f"deleted group {name}")
        if as_json:
            print_json({"deleted": list(names)})

    run(work())


@groups.command("reset-offsets")
@click.argument("name")
@cluster_options
@click.option(
    "--topic", "topics", multiple=True, metavar="TOPIC[:P,…]",
    help="Default: the topics that the group has offsets of.",
)  # fmt: skip
@click.option("--to-earliest", is_flag=True, help="To the first record that is still there.")
@click.option("--to-latest", is_flag=True, help="To the end: skip what was not read.")
@click.option("--to-time", metavar="TIME", help="10m (ago), 2h, 2026-11-23T20:05, milliseconds.")
@click.option("--to-offset", type=click.IntRange(min=0), help="To this offset.")
@click.option("--shift-by", type=int, help="Forward, or back if negative, by so many records.")
@click.option("--execute", is_flag=True, help="Do it. Without this, only say what would be done.")
@json_option()
def reset_offsets(
    name: str,
    bootstrap: str,
    timeout: float,
    topics: tuple[str, ...],
    to_earliest: bool,
    to_latest: bool,
    to_time: str | None,
    to_offset: int | None,
    shift_by: int | None,
    execute: bool,
    as_json: bool,
) -> None:
    """Let a group go on elsewhere. Its members must be stopped.

    \b
    pegel groups reset-offsets billing --to-earliest
    pegel groups reset-offsets billing --topic orders:0,3 --to-time 2h --execute
    pegel groups reset-offsets billing --shift-by -100 --execute
    """
    wanted = [to_earliest, to_latest, to_time is not None, to_offset is not None,
              shift_by is not None]  # fmt: skip
    if sum(wanted) != 1:
        raise click.UsageError(
            "give one of --to-earliest, --to-latest, --to-time, --to-offset and --shift-by"
        )
    time = None if to_time is None else parse_time(to_time, datetime.now(UTC), "--to-time")
    if to_earliest:
        time = -2

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            before = await client.admin.group_offsets(name, timeout=timeout)
            partitions = await _chosen(client, topics, before, name, timeout)
            after = await _targets(client, partitions, before, time, to_offset, shift_by, timeout)
            if execute:
                await client.admin.alter_group_offsets(name, after, timeout=timeout)
            members = 0 if execute else await _members(client, name, timeout)
        _report(name, before, after, execute, members, as_json)

    run(work())


async def _members(client: AsyncClient, name: str, timeout: float) -> int:
    """How many a group has; 0 where there is no such group."""
    from pegel.errors import GroupNotFoundError

    try:
        return len((await client.admin.describe_group(name, timeout=timeout)).members)
    except GroupNotFoundError:
        return 0


async def _chosen(
    client: AsyncClient,
    topics: Sequence[str],
    before: Mapping[TopicPartition, CommittedOffset],
    name: str,
    timeout: float,
) -> list[TopicPartition]:
    from pegel.errors import GroupNotFoundError
    from pegel.types import TopicPartition

    if not topics:
        if not before:
            raise GroupNotFoundError(
                f"group {name!r} has no offsets; name the topics with --topic to give it some"
            )
        return sorted(before)
    chosen: set[TopicPartition] = set()
    for text in topics:
        topic, colon, numbers = text.partition(":")
        known = await client.admin.describe_topic(topic, timeout=timeout)
        try:
            indexes = (
                [int(n) for n in numbers.split(",")] if colon else range(len(known.partitions))
            )
        except ValueError:
            raise click.BadParameter(
                f"{text!r} is not TOPIC or TOPIC:0,3", param_hint="--topic"
            ) from None
        for index in indexes:
            if not 0 <= index < len(known.partitions):
                last = len(known.partitions) - 1
                raise click.BadParameter(
                    f"{topic} has partitions 0 to {last}, not {index}", param_hint="--topic"
                )
            chosen.add(TopicPartition(topic, index))
    return sorted(chosen)


async def _targets(
    client: AsyncClient,
    partitions: Sequence[TopicPartition],
    before: Mapping[TopicPartition, CommittedOffset],
    time: int | None,
    offset: int | None,
    shift: int | None,
    timeout: float,
) -> dict[TopicPartition, int]:
    """The new offsets, all of them between the first and the last of their partition."""
    async with client.consumer(partitions=partitions) as consumer:
        starts, ends = await consumer.beginning_offsets(), await consumer.end_offsets()
        if time is not None:
            found = await consumer.offsets_at(time)
        else:
            found = dict(ends)
            for tp in partitions:
                if offset is not None:
                    found[tp] = offset
                elif shift is not None:
                    found[tp] = (before[tp].offset if tp in before else ends[tp]) + shift
    return {tp: min(max(found[tp], starts[tp]), ends[tp]) for tp in partitions}


def _report(
    name: str,
    before: Mapping[TopicPartition, CommittedOffset],
    after: Mapping[TopicPartition, int],
    executed: bool,
    members: int,
    as_json: bool,
) -> None:
    old = {tp: before[tp].offset if tp in before else None for tp in after}
    if as_json:
        print_json({"group": name, "executed": executed, "members": members, "offsets": [
            {"topic": tp.topic, "partition": tp.partition, "before": old[tp], "after": offset}
            for tp, offset in sorted(after.items())
        ]})  # fmt: skip
        return
    rows: list[list[object]] = []
    for tp, offset in sorted(after.items()):
        known = old[tp]
        change = "" if known is None else f"{offset - known:+d}"
        rows.append([tp.topic, tp.partition, known, offset, change])
    print_table(["topic", "partition", "before", "after", "change"], rows, right=(1, 2, 3, 4))
    if executed:
        click.echo(f"done: group {name} goes on there, in {len(after)} partitions")
    elif members:
        click.echo(f"nothing was changed; group {name} has {members} members now: stop them, "
                   "or --execute will be refused")  # fmt: skip
    else:
        click.echo("nothing was changed; add --execute to do it")


def _state(state: str) -> str:
    color = _COLORS.get(state)
    return highlight(state, color) if color else state


def _details(group: GroupDescription, lags: Sequence[PartitionLag]) -> dict[str, object]:
    return {
        "group": group.group,
        "state": group.state,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
        "members": [
            {
                "member_id": m.member_id,
                "instance_id": m.instance_id,
                "client_id": m.client_id,
                "host": m.host,
                "partitions": [[tp.topic, tp.partition] for tp in m.partitions],
            }
            for m in group.members
        ],
        "partitions": [
            {
                "topic": lag.topic,
                "partition": lag.partition,
                "committed": None if lag.committed is None else lag.committed.offset,
                "start_offset": lag.start_offset,
                "end_offset": lag.end_offset,
                "lag": lag.records,
                "lag_seconds": None if lag.seconds is None else round(lag.seconds, 3),
            }
            for lag in lags
        ],
        "lag": sum(lag.records for lag in lags),
    }


def _print_group(group: GroupDescription, lags: Sequence[PartitionLag]) -> None:
    assignor = f", {group.assignor}" if group.assignor else ""
    click.echo(
        f"{group.group}: {_state(group.state)}, {len(group.members)} members{assignor}, "
        f"coordinator {group.coordinator}, {sum(lag.records for lag in lags):,} records behind"
    )
    owner = {tuple(tp): m for m in group.members for tp in m.partitions}
    rows: list[list[object]] = []
    for lag in lags:
        member = owner.get((lag.topic, lag.partition))
        behind = "" if lag.seconds is None or not lag.records else show_seconds(lag.seconds)
        rows.append(
            [
                lag.topic,
                lag.partition,
                "none" if lag.committed is None else lag.committed.offset,
                lag.end_offset,
                highlight(str(lag.records), "yellow") if lag.records else 0,
                behind,
                "" if member is None else member.instance_id or member.client_id,
                "" if member is None else member.host,
            ]
        )
    idle = [m for m in group.members if not m.partitions]
    columns = ["topic", "partition", "committed", "end", "lag", "behind", "member", "host"]
    if rows:
        print_table(columns, rows, right=(1, 2, 3, 4, 5))
    for m in idle:
        click.echo(f"{m.instance_id or m.client_id} at {m.host} has no partition")
