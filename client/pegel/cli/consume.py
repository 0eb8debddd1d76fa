"""``pegel consume``: records become lines of standard output."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import click

from pegel.cli.options import arguments_checked, cluster_options, connect, leave_broken_pipe, run
from pegel.cli.times import parse_time

if TYPE_CHECKING:
    from pegel.client import AsyncClient
    from pegel.consumer.consumer import Consumer
    from pegel.types import ConsumerBatch, TopicPartition

_END_POLL = 0.1
# Seconds without a record after which it is worth a look whether one can come at all.
_SILENCE = 3.0
# Partitions named in one line; the rest is counted.
_NAMED_MAX = 5


@click.command()
@click.argument("topic")
@cluster_options
@click.option("-p", "--partition", type=click.IntRange(min=0), multiple=True, help="Default: all.")
@click.option(
    "-g", "--group", help="Share the partitions with a group, and go on where it stopped."
)
@click.option(
    "--from-beginning",
    is_flag=True,
    help="Start at the first record, not at the end; with --group where it has no offset.",
)
@click.option("--offset", type=int, help="Start there; -5 means five before the end.")
@click.option(
    "--since", metavar="TIME", help="Start there: 10m (ago), 2h, 2026-11-23T20:05, milliseconds."
)
@click.option("-n", "--max-records", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--exit-at-end", is_flag=True, help="Stop at what is the end now.")
@click.option("--committed", is_flag=True, help="Leave out aborted transactions.")
@click.option("--with-keys", is_flag=True, help="Print key, tab, value.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per record.")
def consume(
    topic: str,
    bootstrap: str,
    timeout: float,
    partition: tuple[int, ...],
    group: str | None,
    from_beginning: bool,
    offset: int | None,
    since: str | None,
    max_records: int | None,
    exit_at_end: bool,
    committed: bool,
    with_keys: bool,
    as_json: bool,
) -> None:
    """Print the records of TOPIC as lines, until Ctrl-C.

    \b
    pegel consume orders
    pegel consume orders --from-beginning --exit-at-end | wc -l
    pegel consume orders --partition 0 --offset 1000 --max-records 10 --json
    pegel consume orders --since 10m --with-keys
    pegel consume orders --group billing --from-beginning
    """
    starts = [from_beginning, offset is not None, since is not None]
    if sum(starts) > 1:
        raise click.UsageError("give one of --from-beginning, --offset and --since")
    if group is not None and (offset is not None or since is not None):
        raise click.UsageError(
            "a group goes on where it stopped; `pegel groups reset-offsets` moves it"
        )
    timestamp = None if since is None else parse_time(since, datetime.now(UTC), "--since")
    style: Style = "json" if as_json else "keys" if with_keys else "values"

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            with arguments_checked():
                consumer = client.consumer(
                    *(() if partition else (topic,)),
                    partitions=[(topic, p) for p in partition] or None,
                    group=group,
                    offset_reset="earliest" if from_beginning else "latest",
                    isolation="read_committed" if committed else "read_uncommitted",
                )
                await consumer.start()
            async with consumer:
                await _seek(consumer, offset, timestamp)
                with suppress(asyncio.CancelledError):  # Ctrl-C: what was printed is committed
                    await _print(consumer, _Silence(client, topic), style, max_records, exit_at_end)
                await _commit_printed(consumer)

    # Ctrl-C is how this command ends.
    run(work(), interrupt_code=0)


Style = Literal["json", "keys", "values"]


async def _seek(consumer: Consumer, offset: int | None, timestamp: int | None) -> None:
    if timestamp is not None:
        await consumer.seek_to_time(timestamp)
    if offset is None:
        return
    starts, ends = await consumer.beginning_offsets(), await consumer.end_offsets()
    if offset >= 0:
        _check_range(offset, starts, ends)
    for tp, end in ends.items():
        wanted = offset if offset >= 0 else end + offset
        consumer.seek(tp, min(max(starts[tp], wanted), end))


def _check_range(
    offset: int, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]
) -> None:
    """Say where there is no such offset; an error where no partition has it yet."""
    from pegel.errors import OffsetOutOfRangeError

    short = {tp: end for tp, end in ends.items() if end < offset}
    told = _named([f"{tp} ends at {end}" for tp, end in short.items()])
    if short and len(short) == len(ends):
        raise OffsetOutOfRangeError(f"offset {offset} is beyond the end: {told}")
    if short:
        click.echo(f"pegel: offset {offset} is beyond the end: {told}; read from there", err=True)
    for tp, start in starts.items():
        if offset < start:
            text = f"pegel: {tp} begins at {start}: what was before is deleted; read from there"
            click.echo(text, err=True)


def _named(things: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(things) - _NAMED_MAX
    return ", ".join(things[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


class _Silence:
    """Says why nothing comes, where that is because partitions have no leader."""

    def __init__(self, client: AsyncClient, topic: str) -> None:
        self._client, self._topic = client, topic
        self._told: list[int] = []

    async def explain(self, consumer: Consumer) -> None:
        """Nothing came for a while: say once which of the consumer's partitions nobody leads."""
        from pegel.errors import PegelError

        with suppress(PegelError):  # whoever reads tells of a cluster that is gone
            found = await self._client.admin.describe_topic(self._topic)
            mine = {tp.partition for tp in consumer.assignment}
            without = [p.partition for p in found.partitions if p.leader < 0]
            lost = [partition for partition in without if partition in mine]
            if lost and lost != self._told:
                named = _named([f"{self._topic}-{p}" for p in lost])
                click.echo(
                    f"pegel: no leader: {named}; their records come when a broker that has "
                    f"them is back (pegel explain {self._topic} {lost[0]})",
                    err=True,
                )
            self._told = lost


async def _print(
    consumer: Consumer,
    silence: _Silence,
    style: Style,
    max_records: int | None,
    exit_at_end: bool,
) -> None:
    left = sys.maxsize if max_records is None else max_records
    ends: dict[TopicPartition, int] = {}
    if exit_at_end:
        await consumer.wait_for_assignment()
    while left > 0 and not (exit_at_end and await _at_end(consumer, ends)):
        batch = await consumer.next_batch(timeout=_END_POLL if exit_at_end else _SILENCE)
        if batch is None:
            if not exit_at_end:
                await silence.explain(consumer)
            continue
        tp = batch_partition(batch)
        count = min(left, len(batch))
        if exit_at_end:
            # What was written after the end was taken is not asked for.
            end = ends.get(tp, sys.maxsize)
            while count and batch.offsets[count - 1] >= end:
                count -= 1
        left -= count
        if count:
            write_out(format_batch(batch, count, style))
        if count < len(batch):  # so that a group goes on there
            consumer.seek(tp, batch.offsets[count])


async def _commit_printed(consumer: Consumer) -> None:
    from pegel.errors import PegelError

    if consumer.has_group:
        try:
            await consumer.commit()
        except PegelError as error:
            click.echo(f"pegel: what was printed last will be read again: {error}", err=True)


async def _at_end(consumer: Consumer, ends: dict[TopicPartition, int]) -> bool:
    """Whether all partitions were read up to the end that they had when they came."""
    assigned = consumer.assignment
    if any(tp not in ends for tp in assigned):
        found = await consumer.end_offsets()
        for tp in assigned:
            ends.setdefault(tp, found.get(tp, 0))
            await consumer.position(tp)
    return consumer.reached({tp: ends[tp] for tp in assigned})


def batch_partition(batch: ConsumerBatch) -> TopicPartition:
    from pegel.types import TopicPartition

    return TopicPartition(batch.topic, batch.partition)


def write_out(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        leave_broken_pipe()


def format_batch(batch: ConsumerBatch, count: int, style: Style) -> bytes:
    """The first ``count`` records as lines."""
    if style == "json":
        return "".join(_json_lines(batch, count)).encode()
    values: Sequence[bytes | None] = batch.values[:count]
    plain = [b"" if v is None else v for v in values]
    if style == "keys":
        keys = [b"" if k is None else k for k in batch.keys[:count]]
        plain = [k + b"\t" + v for k, v in zip(keys, plain, strict=True)]
    plain.append(b"")
    return b"\n".join(plain)


def _json_lines(batch: ConsumerBatch, count: int) -> list[str]:
    lines: list[str] = []
    for i in range(count):
        document: dict[str, object] = {
            "topic": batch.topic,
            "partition": batch.partition,
            "offset": batch.offsets[i],
            "timestamp": batch.timestamps[i],
        }
        _put(document, "key", batch.keys[i])
        _put(document, "value", batch.values[i])
        headers = batch.headers[i]
        if headers:
            document["headers"] = [_header(name, value) for name, value in headers]
        lines.append(json.dumps(document, ensure_ascii=False) + "\n")
    return lines


def _header(name: str, value: bytes | None) -> dict[str, object]:
    header: dict[str, object] = {"name": name}
    _put(header, "value", value)
    return header


def _put(document: dict[str, object], name: str, data: bytes | None) -> None:
    """Text as it is; bytes that are no text in base64, under a name that says so."""
    if data is None:
        document[name] = None
        return
    try:
        document[name] = data.decode()
    except UnicodeDecodeError:
        document[f"{name}_base64"] = base64.b64encode(data).decode()
