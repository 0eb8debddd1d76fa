"""Which prefix of a segment's bytes is valid, and whether what follows is a torn tail or damage."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from pegel.record.batch import HEADER_SIZE, BatchHeader, check_batch, read_header
from pegel.record.compression import CorruptBatchError
from pegel_broker.log.index import MAX_RELATIVE_OFFSET

Buffer = bytes | bytearray | memoryview
Reader = Callable[[int, int], Buffer]
"""Reads up to ``size`` bytes from a byte position; shorter only at the end of the file."""

SCAN_CHUNK_BYTES = 1 << 20
HEADER_SCAN_CHUNK_BYTES = 64 << 10  # larger batches are jumped over
# A search for valid batches after an invalid one checksums at most so many bytes. Past them it
# says "found", since refusing a log wrongly loses nothing, and cutting one wrongly does.
SEARCH_BUDGET_BYTES = 256 << 20


class ScanEnd(NamedTuple):
    """Where a scan stopped: the byte after the last valid batch, and the offset after it.

    ``problem`` says why the batch at ``position`` is not valid; None at the end of the file.
    ``cut_short``: the file ends within that batch, and what is there of it may be its beginning.
    """

    position: int
    next_offset: int
    problem: str | None
    cut_short: bool = False


def scan_batches(
    read: Reader,
    size: int,
    position: int,
    next_offset: int,
    on_batch: Callable[[int, BatchHeader], None],
    *,
    gaps: bool = False,
    checksums: bool = True,
) -> ScanEnd:
    """Go through the batches of a segment of ``size`` bytes from ``position`` on.

    ``next_offset`` is the offset that the first one must have (``gaps``: or more, as compaction
    leaves them). Without ``checksums`` only the headers are looked at.
    """
    chunk_size = SCAN_CHUNK_BYTES if checksums else HEADER_SCAN_CHUNK_BYTES
    chunk: Buffer = b""
    start = position  # of the chunk
    while position < size:
        at = position - start
        if len(chunk) - at < HEADER_SIZE:
            chunk, start, at = read(position, chunk_size), position, 0
            if len(chunk) < HEADER_SIZE:
                few = f"{size - position} bytes are no header"
                return ScanEnd(position, next_offset, few, cut_short=True)
        header = read_header(chunk, at)
        problem = _header_problem(header, next_offset, gaps)
        cut_short = problem is None and header.size > size - position
        if cut_short:
            problem = f"a batch of {header.size} bytes, {size - position} are here"
        if problem is None and checksums:
            if header.size > len(chunk) - at:
                wanted = max(header.size, SCAN_CHUNK_BYTES)
                chunk, start, at = read(position, wanted), position, 0
            try:
                check_batch(chunk, at, header)
            except CorruptBatchError as error:
                problem = str(error)
        if problem is not None:
            return ScanEnd(position, next_offset, problem, cut_short)
        on_batch(position, header)
        position += header.size
        next_offset = header.next_offset
    return ScanEnd(position, next_offset, None)


def _header_problem(header: BatchHeader, next_offset: int, gaps: bool) -> str | None:
    if header.batch_length < HEADER_SIZE - 12:
        return f"a batch cannot be {header.batch_length} bytes long"
    if header.magic != 2:
        return f"magic is {header.magic}, not 2"
    if header.last_offset_delta < 0 or header.last_offset_delta > MAX_RELATIVE_OFFSET:
        return f"last offset delta is {header.last_offset_delta}"
    if header.base_offset != next_offset and (header.base_offset < next_offset or not gaps):
        return f"base offset is {header.base_offset}, not {next_offset}"
    return None


def find_valid_batch(read: Reader, size: int, position: int, next_offset: int) -> int | None:
    """Byte position of a valid batch at or after ``position``, whatever stands before it.

    A candidate has magic 2 and a base offset from ``next_offset`` on, within one segment's reach;
    its checksum decides. (An offset is written big-endian, so its upper half is known.)
    """
    uppers = sorted({next_offset >> 32, (next_offset + MAX_RELATIVE_OFFSET) >> 32})
    heads = b"|".join(re.escape(upper.to_bytes(4, "big")) for upper in uppers)
    candidate = re.compile(b"(?=(?:" + heads + b").{12}\x02)", re.DOTALL)
    budget = SEARCH_BUDGET_BYTES
    while size - position >= HEADER_SIZE:
        chunk = bytes(read(position, SCAN_CHUNK_BYTES))
        if len(chunk) < HEADER_SIZE:
            break
        for match in candidate.finditer(chunk, 0, len(chunk) - 1):
            at = match.start()
            if len(chunk) - at < HEADER_SIZE:
                break
            header = read_header(chunk, at)
            if (
                _header_problem(header, next_offset, True) is None
                and header.size <= size - position - at
                and header.base_offset - next_offset <= MAX_RELATIVE_OFFSET
            ):
                budget -= header.size
                if budget < 0 or _is_valid(read(position + at, header.size), header):
                    return position + at
        if len(chunk) < SCAN_CHUNK_BYTES:
            break
        position += len(chunk) - HEADER_SIZE + 1
    return None


def _is_valid(batch: Buffer, header: BatchHeader) -> bool:
    try:
        check_batch(batch, 0, header)
    except CorruptBatchError:
        return False
    return True


def evidence(
    *, next_offset: int, recovery_point: int, high_watermark: int, valid_after: bool
) -> str:
    """In words, why ``is_damage`` says so: why what follows ``next_offset`` is not cut off."""
    end = max(recovery_point, high_watermark)
    if end <= next_offset:
        why = "valid batches follow it" if valid_after else "no write that was cut short looks so"
        return f"this is offset {next_offset}, and {why}: nothing is cut off"
    known = "acknowledged" if high_watermark >= recovery_point else "synced to disk"
    return (
        f"this is offset {next_offset}, and records up to offset {end - 1} were {known}: "
        "nothing is cut off"
    )


def is_damage(
    *,
    next_offset: int,
    recovery_point: int,
    high_watermark: int,
    valid_after: bool,
    cut_short: bool,
    page_cache_lost: bool,
) -> bool:
    """Is an invalid batch at ``next_offset`` damage, rather than the torn end of the last write?

    What is below the recovery point was synced. What is below the high watermark was committed,
    and what has a valid batch after it was written before it: both lie in the page cache, so a
    crash of the process alone loses neither, while a crash of the host (``page_cache_lost``) may
    lose any of it. Such a host is not trusted with the leadership before it has caught up.

    A crash of the process alone leaves of the last write its beginning (``cut_short``): a batch
    that is all there and not valid was changed by something else, and may have been acknowledged
    since the high watermark was last put down.
    """
    if next_offset < recovery_point:
        return True
    if page_cache_lost:
        return False
    return next_offset < high_watermark or valid_after or not cut_short
