"""Picking whole batches out of a segment file, for a fetch or a look-up by time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pegel.record.batch import HEADER_SIZE, read_header
from pegel.record.compression import CorruptBatchError
from pegel.record.decode import decode_batch
from pegel_broker.log.results import Buffer, ReadResult, TimestampOffset

Reader = Callable[[int, int], Buffer]

_PLACE = struct.Struct(">qi11xi")  # base offset, length, last offset delta
_MAX_OFFSET = 2**63 - 1
_TIME_CHUNK_BYTES = 64 << 10


class WouldBlockError(Exception):
    """A read that the event loop may not wait for."""


class MisreadError(Exception):
    """Bytes at ``position`` of a segment that are no batch where one must be."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(problem)
        self.position = position
        self.problem = problem


class FileRead(NamedTuple):
    """What was read, and the byte position after it (where the next read will go on)."""

    result: ReadResult
    next_position: int


def _place(chunk: Buffer, at: int, position: int) -> tuple[int, int, int]:
    """Base offset, offset after the batch, and size; checked to be possible."""
    base, length, delta = _PLACE.unpack_from(chunk, at)
    if length < HEADER_SIZE - 12 or delta < 0 or base < 0:
        raise MisreadError(position + at, f"length {length}, base offset {base}, delta {delta}")
    return base, base + delta + 1, length + 12


def read_batches(
    read: Reader,
    position: int,
    end: int,
    offset: int,
    limit_offset: int,
    max_bytes: int,
    *,
    min_one: bool,
    slack: int,
    end_offset: int,
) -> FileRead:
    """Whole batches from the one that holds ``offset`` on, of the bytes before ``end``.

    ``position`` is the start of a batch at or before it, with about ``slack`` bytes between.
    ``end_offset``: no batch of the segment reaches it. A base offset is outside of the checksum;
    without this bound damage in one would look like a log that never gets there.

    Raises:
        MisreadError: the bytes are no batches.
        WouldBlockError: from ``read``.
    """
    wanted = max_bytes + slack
    while True:
        chunk = read(position, min(max(wanted, HEADER_SIZE), end - position))
        size = len(chunk)
        at = 0
        next_offset = -1
        batch_size = 0
        while size - at >= HEADER_SIZE:  # to the batch that holds the offset
            base, next_offset, batch_size = _place(chunk, at, position)
            if next_offset > offset:
                if next_offset > end_offset:
                    raise MisreadError(position + at, f"offset {next_offset - 1} of {end_offset}")
                break
            at += batch_size
        else:
            if at == 0:
                raise MisreadError(position, f"{size} bytes where a batch must be")
            if position + at >= end:  # a gap left by compaction, up to the segment's end
                return FileRead(ReadResult([], 0, offset, offset), end)
            position += at
            wanted = max_bytes + HEADER_SIZE
            continue
        if next_offset > limit_offset or (batch_size > max_bytes and not min_one):
            return FileRead(ReadResult([], 0, offset, offset), position + at)
        if at + batch_size > size:
            if position + at + batch_size > end:
                raise MisreadError(position + at, f"a batch of {batch_size} bytes ends beyond")
            position += at
            wanted = max(batch_size, max_bytes)
            continue
        return _gather(chunk, at, base, position, limit_offset, max_bytes)


def _gather(
    chunk: Buffer, start: int, first_offset: int, position: int, limit_offset: int, max_bytes: int
) -> FileRead:
    """Whole batches of ``chunk`` from ``start`` on; the first one whatever its size."""
    at = start
    next_offset = first_offset
    size = len(chunk)
    while size - at >= HEADER_SIZE:
        base, following, batch_size = _place(chunk, at, position)
        if base < next_offset:
            raise MisreadError(position + at, f"base offset {base} after {next_offset - 1}")
        if (
            at + batch_size > size
            or following > limit_offset
            or (at + batch_size - start > max_bytes and at > start)
        ):
            break
        at += batch_size
        next_offset = following
    records = memoryview(chunk)[start:at]
    return FileRead(ReadResult([records], at - start, first_offset, next_offset), position + at)


def find_timestamp(
    read: Reader, position: int, end: int, timestamp: int, start_offset: int
) -> TimestampOffset | None:
    """The first record at or after ``start_offset`` with at least ``timestamp``, in file order."""
    chunk: Buffer = b""
    chunk_at = position
    while end - position >= HEADER_SIZE:
        at = position - chunk_at
        if len(chunk) - at < HEADER_SIZE:
            chunk = read(position, min(_TIME_CHUNK_BYTES, end - position))
            chunk_at, at = position, 0
        _base, next_offset, size = _place(chunk, at, chunk_at)
        header = read_header(chunk, at)
        if header.max_timestamp >= timestamp and next_offset > start_offset:
            batch = chunk if at + size <= len(chunk) else read(position, size)
            found = _find_in_batch(batch, at if batch is chunk else 0, timestamp, start_offset)
            if found is not None:
                return found
        position += size
    return None


def find_timestamp_in(
    batches: Sequence[Buffer], timestamp: int, start_offset: int
) -> TimestampOffset | None:
    """As ``find_timestamp``, in batches that are in memory."""
    for batch in batches:
        header = read_header(batch)
        if header.max_timestamp >= timestamp and header.next_offset > start_offset:
            found = _find_in_batch(batch, 0, timestamp, start_offset)
            if found is not None:
                return found
    return None


def _find_in_batch(
    buffer: Buffer, position: int, timestamp: int, start_offset: int
) -> TimestampOffset | None:
    header = read_header(buffer, position)
    if header.uses_log_append_time:
        first = max(header.base_offset, start_offset)
        return TimestampOffset(first, header.max_timestamp, header.partition_leader_epoch)
    try:
        columns = decode_batch(buffer, position)
    except CorruptBatchError:  # a producer's own nonsense under a good checksum: go by the header
        first = max(header.base_offset, start_offset)
        return TimestampOffset(first, header.max_timestamp, header.partition_leader_epoch)
    for offset, record_timestamp in zip(columns.offsets, columns.timestamps, strict=True):
        if record_timestamp >= timestamp and offset >= start_offset:
            return TimestampOffset(offset, record_timestamp, header.partition_leader_epoch)
    return None


def find_batch_end(read: Reader, position: int, end: int, offset: int) -> tuple[int, int]:
    """Byte position of the first batch that reaches to ``offset``, and its base offset.

    ``(end, offset)`` where all batches before ``end`` are below ``offset``.
    """
    while end - position >= HEADER_SIZE:
        base, next_offset, size = _place(read(position, HEADER_SIZE), 0, position)
        if next_offset > offset:
            return position, base
        position += size
    return end, offset
