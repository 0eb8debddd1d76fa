"""``pegel produce``: lines from standard input become records."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, cast

import click

from pegel.cli.lines import Columns, JsonLines, PlainLines, Split
from pegel.cli.options import (
    arguments_checked,
    cluster_options,
    connect,
    json_option,
    parse_pairs,
    run,
)
from pegel.cli.output import print_json

if TYPE_CHECKING:
    from pegel.producer.batch import ManyDelivery
    from pegel.producer.producer import Producer

_CHUNK_BYTES = 1 << 20
_CHUNKS_AHEAD = 4
# Acknowledgements are looked at this far behind, so that a failure ends the command early.
_UNCHECKED_CALLS = 256
_SHOW_AFTER, _SHOW_EVERY = 1.0, 0.5
# Without an acknowledgement for so many seconds the command says what it waits for.
_TELL_AFTER, _LOOK_EVERY = 2.0, 0.1
# What ends a delivery is that nothing moves (``--timeout``), not that much lies before it.
_DELIVERY_TIMEOUT_MIN = 600.0


@click.command()
@click.argument("topic")
@cluster_options
@click.option(
    "-k", "--key-separator", metavar="S", help=r"The key is what stands before S (\t is a tab)."
)
@click.option(
    "-H", "--header", "header", multiple=True, metavar="NAME=VALUE", help="For every record."
)
@click.option(
    "--json-lines",
    is_flag=True,
    help="Each line is a record as `pegel consume --json` prints it: key, value, headers, "
    "partition (unless --partition says so), timestamp.",
)
@click.option("-p", "--partition", type=click.IntRange(min=0), help="Default: by key, else evenly.")
@click.option(
    "--acks",
    type=click.Choice(["0", "1", "all"]),
    default="all",
    show_default=True,
    help="Who must have a record: nobody, its leader, every in-sync replica.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    show_default=True,
)
@json_option("Print what was written as one JSON document.")
def produce(
    topic: str,
    bootstrap: str,
    timeout: float,
    key_separator: str | None,
    header: tuple[str, ...],
    json_lines: bool,
    partition: int | None,
    acks: str,
    compression: str,
    as_json: bool,
) -> None:
    """Write each line of standard input to TOPIC.

    \b
    seq 1000 | pegel produce numbers
    echo "alice:10 euros" | pegel produce payments --key-separator :
    pegel produce logs --compression zstd < app.log
    echo '{"key": "alice", "value": {"euros": 10}, "headers": {"from": "shop"}}' |
        pegel produce payments --json-lines
    pegel consume orders --from-beginning --exit-at-end --json | pegel produce copy --json-lines
    """
    if json_lines and key_separator is not None:
        raise click.UsageError("a JSON line names its key; leave --key-separator out")
    separator = None
    if key_separator is not None:
        separator = key_separator.replace("\\t", "\t").encode()
        if not separator:
            raise click.BadParameter("it is empty", param_hint="--key-separator")

    headers = tuple((k, v.encode()) for k, v in parse_pairs(header, "--header"))
    if json_lines:
        split: Split = JsonLines(headers)
    else:
        split = PlainLines(separator, headers)

    async def work() -> None:
        from pegel.errors import PegelError

        lines = _Lines(sys.stdin.fileno())
        async with connect(bootstrap, timeout) as client:
            producer = client.producer(
                acks=cast(Literal[0, 1, "all"], acks if acks == "all" else int(acks)),
                compression=cast(Literal["none", "gzip", "snappy", "lz4", "zstd"], compression),
                linger_ms=2.0,
                delivery_timeout=max(timeout, _DELIVERY_TIMEOUT_MIN),
            )
            job = _Job(producer, topic, partition, split)
            interrupted = False
            try:
                await _unless_stuck(job, job.write(lines), timeout)
            except asyncio.CancelledError:
                interrupted = True
                raise
            finally:
                job.hide_progress()
                with suppress(PegelError):  # that of the writing is the one to see
                    await producer.close(timeout=job.patience)
                if interrupted:
                    await job.tell_interrupted()
        job.report(as_json)

    run(work())


async def _unless_stuck(job: _Job, writing: Coroutine[None, None, None], timeout: float) -> None:
    """Write, unless the oldest lines that are not acknowledged stay so for ``timeout`` seconds.

    Raises:
        DeliveryTimeoutError: they do; it says why. PegelError: the writing failed.
    """
    from pegel.errors import DeliveryTimeoutError

    task = asyncio.ensure_future(writing)
    oldest, since, told = None, time.monotonic(), ""
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_EVERY))[0]:
            now, found = time.monotonic(), job.oldest_unacknowledged()
            if found is None or found is not oldest:
                oldest, since = found, now
                continue
            waited, why = now - since, job.obstacle()
            if waited >= timeout:
                job.patience = 0.0
                raise DeliveryTimeoutError(
                    f"no acknowledgement in {timeout:.3g} s: {why}; {job.acknowledged} records "
                    "before were acknowledged, those after may have been written"
                )
            if waited >= _TELL_AFTER and why != told:
                job.hide_progress()
                click.echo(f"pegel: waiting for an acknowledgement: {why}", err=True)
                told = why
    finally:
        task.cancel()
        await asyncio.wait({task})
    task.result()


class _Lines:
    """Reads a file in a thread of its own: a terminal or a pipe may keep silent for long.

    A daemon thread, so that Ctrl-C need not wait for the end of a read.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(_CHUNKS_AHEAD)
        # The line that has not ended, in the pieces in which it came.
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._before = 0
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    def _read(self) -> None:
        import os

        chunk = b"start"
        while chunk:
            self._room.acquire()
            try:
                chunk = os.read(self._fd, _CHUNK_BYTES)
            except OSError:
                chunk = b""
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:
                return  # the command ended

    async def next(self) -> list[bytes]:
        """More whole lines, without their ends; empty at the end of the input.

        Raises:
            RecordTooLargeError: a line is longer than a record can be; it is not read to its end.
        """
        from pegel.config import MAX_BATCH_BYTES
        from pegel.errors import RecordTooLargeError

        while True:
            chunk = await self._chunks.get()
            self._room.release()
            if not chunk:
                rest, self._rest = b"".join(self._rest), []
                self._chunks.put_nowait(b"")
                return [rest] if rest else []
            first, *lines = chunk.split(b"\n")
            self._rest.append(first)
            self._rest_size += len(first)
            if self._rest_size > MAX_BATCH_BYTES:
                raise RecordTooLargeError(
                    f"line {self._before + 1} is longer than {MAX_BATCH_BYTES} bytes, "
                    "and more do not fit in a request"
                )
            if lines:
                lines.insert(0, b"".join(self._rest))
                self._rest = [lines.pop()]
                self._rest_size = len(self._rest[0])
                self._before += len(lines)
                return [line.removesuffix(b"\r") for line in lines]


class _Job:
    """Sends lines and counts them."""

    def __init__(self, producer: Producer, topic: str, partition: int | None, split: Split) -> None:
        self._producer, self._topic, self._partition = producer, topic, partition
        self._split = split
        self._started = time.monotonic()
        self._shown = 0.0
        self._unchecked: deque[ManyDelivery] = deque()
        self.patience = 10.0  # seconds for what is on its way when the command ends
        self.lines = 0
        self.acknowledged = 0
        self.size = 0

    async def write(self, lines: _Lines) -> None:
        while chunk := await lines.next():
            columns = self._split(chunk, self.lines)
            self.lines += len(chunk)
            self.size += sum(map(len, chunk))
            await self._send(columns)
            while self._unchecked and (
                self._unchecked[0].done or len(self._unchecked) > _UNCHECKED_CALLS
            ):
                await self._check()
            self._show_progress()
        while self._unchecked:
            await self._check()
            self._show_progress()

    async def _send(self, columns: Columns) -> None:
        """One call for each partition that the records name, or for all of them."""
        if self._partition is not None or columns.partitions is None:
            await self._send_to(self._partition, columns)
            return
        chosen: dict[int | None, list[int]] = {}
        for index, partition in enumerate(columns.partitions):
            chosen.setdefault(partition, []).append(index)
        for partition, indexes in chosen.items():
            await self._send_to(partition, columns.of(indexes))

    async def _send_to(self, partition: int | None, columns: Columns) -> None:
        timestamps = columns.timestamps
        now = time.time_ns() // 1_000_000
        with arguments_checked():
            self._unchecked.append(
                await self._producer.send_many_soon(
                    self._topic,
                    columns.values,
                    keys=columns.keys,
                    headers=columns.headers,
                    partition=partition,
                    timestamps=None
                    if timestamps is None
                    else [now if t is None else t for t in timestamps],
                )
            )

    async def tell_interrupted(self) -> None:
        """After Ctrl-C, and after what was on its way had its time."""
        from pegel.errors import PegelError

        for delivery in self._unchecked:
            with suppress(PegelError):
                self.acknowledged += (await delivery).count
        click.echo(
            f"pegel: interrupted; {self.acknowledged:,} records were acknowledged, "
            "others may have been written",
            err=True,
        )

    def oldest_unacknowledged(self) -> ManyDelivery | None:
        return next((d for d in self._unchecked if not d.done), None)

    def obstacle(self) -> str:
        """Why nothing is acknowledged, and what tells more."""
        why = self._producer.obstacle() or "the broker does not answer"
        return f"{why}; `pegel explain {self._topic}` and `pegel cluster health` tell more"

    async def _check(self) -> None:
        self.acknowledged += (await self._unchecked[0]).count
        self._unchecked.popleft()

    def _show_progress(self) -> None:
        now = time.monotonic()
        if now - self._started < _SHOW_AFTER or now - self._shown < _SHOW_EVERY:
            return
        if not sys.stderr.isatty():
            return
        self._shown = now
        rate = self.acknowledged / (now - self._started)
        click.echo(f"\r\x1b[K{self.acknowledged:,} records, {rate:,.0f}/s", err=True, nl=False)

    def hide_progress(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)

    def report(self, as_json: bool) -> None:
        seconds = time.monotonic() - self._started
        if as_json:
            print_json(
                {
                    "topic": self._topic,
                    "records": self.acknowledged,
                    "bytes": self.size,
                    "seconds": round(seconds, 3),
                }
            )
        elif sys.stderr.isatty():
            click.echo(f"{self.acknowledged:,} records in {seconds:.1f} s", err=True)
