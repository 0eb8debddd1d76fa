"""Compacts logs in the background, one at a time: reads, filters, writes aside, swaps.

The files of a pass are made beside the old ones (``.cleaned``), synced, and named ``.swap`` before
an old one goes: a crash leaves either the old segments or enough to finish (``load.finish_swaps``).

The event loop takes the old segments out of the log at the moment at which the swap is put into the
read queue. Reads queued before see the old files, reads queued later the new ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from pegel.record.batch import iter_batches, whole_batches_size
from pegel.record.compression import Buffer, CorruptBatchError
from pegel.seams import World
from pegel.seams.disk import Disk, DiskQueue, File
from pegel_broker.log import compaction
from pegel_broker.log.checkpoints import (
    CLEANER_FILE,
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    TIME_INDEX_SUFFIX,
)
from pegel_broker.log.errors import CorruptLogError
from pegel_broker.log.index import MAX_RELATIVE_OFFSET, SegmentIndex
from pegel_broker.log.manager import LogManager
from pegel_broker.log.segment import (
    CLEANED_SUFFIX,
    SWAP_SUFFIX,
    Segment,
    remove_if_there,
    remove_segment_files,
    write_tail,
)
from pegel_broker.log.stored_log import StoredLog

_log = logging.getLogger("pegel.broker")
T = TypeVar("T")

# Read, filtered and written in one go. Between two such steps the thread rests for as long as the
# step took: compaction shares the interpreter with the event loop and must not take half of it.
CHUNK_BYTES = 256 * 1024
# The order in which the files of a segment are renamed: the log tells that all is there.
_SUFFIXES = (OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, LOG_SUFFIX)


class _GivenUpError(Exception):
    """The log was truncated, deleted or failed while it was being compacted."""


class Cleaner:
    """Looks every ``interval`` seconds for logs whose policy is ``compact`` and compacts them."""

    def __init__(self, world: World, logs: LogManager, interval: float) -> None:
        self._world = world
        self._logs = logs
        self._interval = interval
        self._queue: DiskQueue | None = None
        # The segments that the pass under way goes over, as it knows them.
        self._expected: set[Segment] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            while await self.clean_dirtiest():
                pass

    def close(self) -> None:
        if self._queue is not None:
            self._queue.close()

    async def clean_dirtiest(self) -> bool:
        """One pass over the log with the largest share of dirt; False where none is due."""
        now_ms = self._world.clock.wall_ms()
        due = [
            (compaction.dirty_ratio(spans, log.cleaned_offset), log)
            for log in self._logs.logs()
            if log.config.compact_policy and log.offline is None and not log.deleted
            for spans in [_cleanable(log, now_ms)]
            if compaction.is_due(
                spans, log.cleaned_offset, min_ratio=log.config.min_cleanable_dirty_ratio,
                now_ms=now_ms, max_lag_ms=log.config.max_compaction_lag_ms,
            )
        ]  # fmt: skip
        if not due:
            return False
        await self.clean(max(due, key=lambda entry: entry[0])[1])
        return True

    async def clean(self, log: StoredLog) -> None:
        """One pass: as many keys as fit, then every segment up to where they reach."""
        spans = _cleanable(log, self._world.clock.wall_ms())
        before = log.size_bytes
        self._expected = _below(log, spans)
        try:
            keys = await self._read_keys(log, spans)
            rules = compaction.Rules(
                self._world.clock.wall_ms(), log.config.delete_retention_ms, _producer_ends(log)
            )
            reached = [span for span in spans if span.base < keys.end_offset]
            for group in compaction.group(
                reached, max_bytes=log.config.segment_bytes, max_offsets=MAX_RELATIVE_OFFSET
            ):
                await self._clean_group(log, group, keys, rules)
        except _GivenUpError:
            return
        except (CorruptLogError, OSError) as error:
            # Files that a truncation has cut, or retention removed, are not what was to be read.
            changed = log.truncation is not None or _below(log, spans) != self._expected
            if log.deleted or changed:
                return
            if isinstance(error, CorruptLogError):
                log.fail(str(error))
            else:
                log.keeper.directory.fail(f"{type(error).__name__}: {error}")
            return
        log.cleaned_offset = max(log.cleaned_offset, keys.end_offset)
        log.keeper.mark(CLEANER_FILE)
        _log.info(
            "compacted %s-%d up to offset %d: %d bytes of %d are left",
            log.topic, log.partition, keys.end_offset, log.size_bytes, before,
        )  # fmt: skip

    # -- steps

    async def _step(self, call: Callable[[], T]) -> T:
        """Run ``call`` off the loop, and let the loop have its turn."""
        if self._queue is None:
            self._queue = self._world.new_disk_queue("log-cleaner")
        began = self._world.clock.monotonic()
        result = await self._queue.submit(call)
        await asyncio.sleep(self._world.clock.monotonic() - began)
        return result

    async def _read_keys(
        self, log: StoredLog, spans: Sequence[compaction.SegmentSpan]
    ) -> compaction.KeyMap:
        keys = compaction.KeyMap(max(log.cleaned_offset, log.log_start_offset))
        for span in spans:
            if span.next_base <= keys.end_offset:
                continue
            source = _Source(log, span)
            try:
                while (chunk := await self._step(source.next_chunk)) is not None:
                    if not await self._step(lambda c=chunk, s=source: s.note(keys, c)):  # type: ignore[misc]
                        return keys
                    _check(log)
            finally:
                source.close()
        return keys

    async def _clean_group(
        self,
        log: StoredLog,
        group: Sequence[compaction.SegmentSpan],
        keys: compaction.KeyMap,
        rules: compaction.Rules,
    ) -> None:
        disk = log.keeper.directory.disk
        target = _Target(disk, log, group)
        changed = len(group) > 1
        try:
            await self._step(target.open)
            for span in group:
                source = _Source(log, span)
                try:
                    while (chunk := await self._step(source.next_chunk)) is not None:
                        step = _filter(chunk, keys, rules, group[-1].next_base - 1, target, source)
                        changed |= await self._step(step)
                        _check(log)
                finally:
                    source.close()
            if not changed:
                await self._step(target.discard)
                return
            await self._step(target.finish)
        except (_GivenUpError, CorruptLogError):
            await self._step(target.discard)
            raise
        except BaseException:
            target.close()
            raise
        await self._swap(log, group, target)

    async def _swap(
        self, log: StoredLog, group: Sequence[compaction.SegmentSpan], target: _Target
    ) -> None:
        """Put the new segment in the place of the old ones, in the log and then on disk."""
        bases = {span.base for span in group}
        old = [segment for segment in log.segments if segment.base_offset in bases]
        try:
            _check(log)
            if len(old) != len(group):  # retention took some of them
                raise _GivenUpError
        except _GivenUpError:
            await self._step(target.discard)
            raise
        at = log.segments.index(old[0])
        log.segments[at : at + len(old)] = [target.segment]
        self._expected.difference_update(old)
        self._expected.add(target.segment)
        log.next_read = None
        log.forget_tail(group[-1].next_base)
        directory = log.keeper.directory
        for segment in old:
            directory.drop_reader(segment)
        log.swapping = directory.reads.submit(lambda: _swap_files(log, target, old))
        try:
            await log.swapping
        finally:
            log.on_swapped()


def _filter(
    chunk: Buffer,
    keys: compaction.KeyMap,
    rules: compaction.Rules,
    last_offset: int,
    target: _Target,
    source: _Source,
) -> Callable[[], bool]:
    def step() -> bool:
        """Whether the chunk changed."""
        try:
            kept = compaction.compact(chunk, keys, rules, last_offset=last_offset)
        except CorruptBatchError as error:
            raise source.damage(error) from None
        target.add([piece for piece, _ in kept])
        return sum(len(piece) for piece, _ in kept) != len(chunk)

    return step


def _check(log: StoredLog) -> None:
    if log.deleted or log.offline is not None or log.truncation is not None:
        raise _GivenUpError


def _cleanable(log: StoredLog, now_ms: int) -> Sequence[compaction.SegmentSpan]:
    """The sealed segments whose files are whole, as far as they may be compacted."""
    spans = []
    for segment, following in zip(log.segments, log.segments[1:], strict=False):
        if segment.index is not None or following.base_offset > log.recovery_point:
            break
        spans.append(
            compaction.SegmentSpan(
                segment.base_offset, following.base_offset, segment.size, segment.largest_timestamp
            )
        )
    unstable = log.producers.first_unstable_offset
    safe = log.high_watermark if unstable is None else min(unstable, log.high_watermark)
    return compaction.cleanable(
        spans, safe_offset=safe, newest_ms=now_ms - log.config.min_compaction_lag_ms
    )


def _below(log: StoredLog, spans: Sequence[compaction.SegmentSpan]) -> set[Segment]:
    """The segments that the log has now where ``spans`` were."""
    return {segment for segment in log.segments if segment.base_offset < spans[-1].next_base}


def _producer_ends(log: StoredLog) -> dict[int, int]:
    return {
        producer_id: batches[-1].last_offset
        for producer_id, (_, batches, _) in log.producers.describe().items()
        if batches
    }


class _Source:
    """Reads a segment from its beginning, whole batches at a time. Runs in the cleaner's queue."""

    def __init__(self, log: StoredLog, span: compaction.SegmentSpan) -> None:
        self._disk = log.keeper.directory.disk
        self._path = Segment(log.folder, span.base, 0).path()
        self._size = span.size
        self._position = 0
        self._file: File | None = None

    def next_chunk(self) -> bytes | None:
        """None at the end. Raises CorruptLogError."""
        if self._position >= self._size:
            return None
        if self._file is None:
            self._file = self._disk.open(self._path)
        wanted = CHUNK_BYTES
        while True:
            chunk = self._file.read(self._position, min(wanted, self._size - self._position))
            size = whole_batches_size(chunk)
            if size:
                break
            if len(chunk) < wanted:
                raise CorruptLogError(self._path, self._position, "no whole batch is here")
            wanted *= 2
        self._position += size
        return chunk[:size]

    def note(self, keys: compaction.KeyMap, chunk: bytes) -> bool:
        """Take the chunk's keys in; False where there is no room for all of them."""
        try:
            return all(keys.add(chunk, at, header) for at, header in iter_batches(chunk))
        except CorruptBatchError as error:
            raise self.damage(error) from None

    def damage(self, error: CorruptBatchError) -> CorruptLogError:
        return CorruptLogError(self._path, self._position, f"compaction: {error}")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _Target:
    """The new segment, written aside. Runs in the cleaner's queue, but for ``segment``."""

    def __init__(self, disk: Disk, log: StoredLog, group: Sequence[compaction.SegmentSpan]) -> None:
        self._disk = disk
        self._interval = log.config.index_interval_bytes
        first = next(s for s in log.segments if s.base_offset == group[0].base)
        self.segment = Segment(log.folder, first.base_offset, first.created_ms)
        self.segment.first_timestamp = first.first_timestamp
        self.segment.entry_synced = True
        self._index = SegmentIndex()
        self._file: File | None = None

    def open(self) -> None:
        self.discard()
        self._file = self._disk.open(self.segment.path(LOG_SUFFIX + CLEANED_SUFFIX), create=True)

    def add(self, pieces: Sequence[Buffer]) -> None:
        assert self._file is not None
        if not pieces:
            return
        self._file.append(pieces)
        segment = self.segment
        for piece in pieces:
            _, header = next(iter_batches(piece))
            relative = header.last_offset - segment.base_offset
            self._index.add(
                relative, segment.size, len(piece), header.max_timestamp, self._interval
            )
            segment.size += len(piece)
        segment.written = segment.size

    def finish(self) -> None:
        """Everything on stable storage, and named so that a crash is finished, not undone."""
        assert self._file is not None
        self._file.sync()
        self.close()
        self._index.add_time_entry()
        self.segment.max_timestamp = self._index.max_timestamp
        path = self.segment.path
        disk = self._disk
        for suffix, data in (
            (OFFSET_INDEX_SUFFIX, self._index.offsets),
            (TIME_INDEX_SUFFIX, self._index.times),
        ):
            write_tail(disk, path(suffix + CLEANED_SUFFIX), 0, bytes(data), sync=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        self.close()
        for suffix in _SUFFIXES:
            remove_if_there(self._disk, self.segment.path(suffix + CLEANED_SUFFIX))


def _swap_files(log: StoredLog, target: _Target, old: Sequence[Segment]) -> None:
    """In the read queue."""
    disk, segment = log.keeper.directory.disk, target.segment
    try:
        for suffix in _SUFFIXES:
            disk.rename(segment.path(suffix + CLEANED_SUFFIX), segment.path(suffix + SWAP_SUFFIX))
        disk.sync_directory(log.folder)
        for replaced in reversed(old[1:]):
            remove_segment_files(disk, replaced)
        for suffix in _SUFFIXES:
            disk.rename(segment.path(suffix + SWAP_SUFFIX), segment.path(suffix))
        disk.sync_directory(log.folder)
    except FileNotFoundError:
        if not log.deleted:
            raise
