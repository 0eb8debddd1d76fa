"""Rebuilding the producer table of a log from its snapshots and the headers of its batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pegel.record.batch import HEADER_SIZE, BatchHeader, read_header
from pegel.seams.disk import Disk
from pegel_broker.log import recovery
from pegel_broker.log.checkpoints import OFFSET_INDEX_SUFFIX, SNAPSHOT_SUFFIX, segment_name
from pegel_broker.log.index import find_indexed_byte
from pegel_broker.log.producer_state import ProducerTable, SnapshotError
from pegel_broker.log.segment import (
    IndexFile,
    Segment,
    indexed_position,
    read_if_there,
    remove_if_there,
)

# A snapshot keeps one batch of each producer; the others that tell a retry from a gap are read
# again from so many bytes before it.
REFILL_BYTES = 512 << 10


def load_producers(
    disk: Disk,
    folder: str,
    segments: Sequence[Segment],
    snapshots: Sequence[int],
    log_end_offset: int,
) -> tuple[ProducerTable, list[int]]:
    """The table as of ``log_end_offset``, and the offsets of the snapshots that are good.

    Takes the newest snapshot at or below the log end, then reads the headers after it. Snapshots
    beyond the end, and torn ones, are removed: what they say is not true of this log.
    """
    table = ProducerTable()
    start = segments[0].base_offset
    good = sorted(snapshots)
    while good:
        offset = good[-1]
        path = f"{folder}/{segment_name(offset, SNAPSHOT_SUFFIX)}"
        data = read_if_there(disk, path)
        if offset <= log_end_offset and data is not None:
            try:
                table = ProducerTable.decode_snapshot(data)
            except SnapshotError:
                pass
            else:
                start = max(start, offset)
                break
        remove_if_there(disk, path)
        good.pop()
    if len(table):
        _refill(disk, segments, start, table)
    for number, segment in enumerate(segments):
        following = segments[number + 1].base_offset if number + 1 < len(segments) else None
        if start < log_end_offset and (following is None or following > start):
            position = indexed_position(disk, segment, start - 1)
            _replay(disk, segment, position, start, log_end_offset, _updater(table))
    return table, good


def _updater(table: ProducerTable) -> Callable[[BatchHeader], None]:
    return lambda header: table.update(header, header.base_offset)


def _refill(disk: Disk, segments: Sequence[Segment], offset: int, table: ProducerTable) -> None:
    """Read headers of the last ``REFILL_BYTES`` before ``offset``, within one segment."""
    before = [s for s in segments if s.base_offset < offset]
    if not before:
        return
    segment = before[-1]
    position = indexed_position(disk, segment, offset - 1) - REFILL_BYTES
    if position > 0:
        if segment.index is not None:
            position = find_indexed_byte(segment.index.offsets, position)
        else:
            index = IndexFile(disk, segment.path(OFFSET_INDEX_SUFFIX))
            position = index.find_indexed_byte(position)
    _replay(disk, segment, max(position, 0), 0, offset, table.refill)


def _replay(
    disk: Disk,
    segment: Segment,
    position: int,
    start: int,
    end: int,
    take: Callable[[BatchHeader], None],
) -> None:
    """Give ``take`` the headers of producers' batches with ``start`` <= base offset < ``end``."""
    if segment.size - position < HEADER_SIZE:
        return

    def on_batch(_position: int, header: BatchHeader) -> None:
        if header.producer_id >= 0 and start <= header.base_offset < end:
            take(header)

    file = disk.open(segment.path())
    try:
        first = read_header(file.read(position, HEADER_SIZE))
        recovery.scan_batches(
            file.read, segment.size, position, first.base_offset, on_batch,
            gaps=True, checksums=False,
        )  # fmt: skip
    finally:
        file.close()
