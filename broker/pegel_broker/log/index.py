"""Arithmetic of Kafka's sparse index files.

An offset index (``.index``) maps the last offset of a batch, relative to the segment's base
offset, to the batch's byte position (two int32). A time index (``.timeindex``) maps the largest
timestamp so far to the offset that reached it (int64, int32). Both grow strictly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

Buffer = bytes | bytearray | memoryview

OFFSET_ENTRY = struct.Struct(">ii")
TIME_ENTRY = struct.Struct(">qi")
OFFSET_ENTRY_SIZE = 8
TIME_ENTRY_SIZE = 12
MAX_RELATIVE_OFFSET = 2**31 - 1


class IndexDamageError(ValueError):
    """An index that does not fit its segment; it is rebuilt from the segment."""


def last_at_most(count: int, key: Callable[[int], int], target: int) -> int:
    """Index of the last of ``count`` growing keys that is <= ``target``; -1 if there is none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if key(middle) <= target:
            low = middle + 1
        else:
            high = middle
    return low - 1


def find_position(entries: Buffer, relative_offset: int) -> int:
    """Byte position of the last indexed batch whose last offset is <= ``relative_offset``, or 0.

    The batch that holds the offset is this one or a later one.
    """
    unpack = OFFSET_ENTRY.unpack_from
    found = last_at_most(
        len(entries) // OFFSET_ENTRY_SIZE,
        lambda index: int(unpack(entries, index * OFFSET_ENTRY_SIZE)[0]),
        relative_offset,
    )
    return int(unpack(entries, found * OFFSET_ENTRY_SIZE)[1]) if found >= 0 else 0


def find_indexed_byte(entries: Buffer, position: int) -> int:
    """Byte position of the last indexed batch at or before byte ``position``, or 0."""
    unpack = OFFSET_ENTRY.unpack_from
    found = last_at_most(
        len(entries) // OFFSET_ENTRY_SIZE,
        lambda index: int(unpack(entries, index * OFFSET_ENTRY_SIZE)[1]),
        position,
    )
    return int(unpack(entries, found * OFFSET_ENTRY_SIZE)[1]) if found >= 0 else 0


def find_time(entries: Buffer, timestamp: int) -> int:
    """Relative offset of the last entry whose timestamp is < ``timestamp``, or 0.

    Every record before it is older than ``timestamp``, so a search may start there.
    """
    unpack = TIME_ENTRY.unpack_from
    found = last_at_most(
        len(entries) // TIME_ENTRY_SIZE,
        lambda index: int(unpack(entries, index * TIME_ENTRY_SIZE)[0]),
        timestamp - 1,
    )
    return int(unpack(entries, found * TIME_ENTRY_SIZE)[1]) if found >= 0 else 0


def last_time_entry(entries: Buffer) -> tuple[int, int]:
    """Timestamp and relative offset of the last entry, ``(-1, 0)`` if there is none."""
    if len(entries) < TIME_ENTRY_SIZE:
        return -1, 0
    timestamp, offset = TIME_ENTRY.unpack_from(entries, len(entries) - TIME_ENTRY_SIZE)
    return timestamp, offset


def check_offset_index(entries: Buffer, segment_size: int) -> None:
    """Raises IndexDamageError unless the entries can belong to a segment of that many bytes."""
    if len(entries) % OFFSET_ENTRY_SIZE:
        raise IndexDamageError(f"{len(entries)} bytes are no whole entries")
    last_offset, last_position = -1, -1
    for offset, position in OFFSET_ENTRY.iter_unpack(entries):
        if offset <= last_offset or position <= last_position or position >= segment_size:
            raise IndexDamageError(f"entry ({offset}, {position}) is out of order")
        last_offset, last_position = offset, position


def check_time_index(entries: Buffer) -> None:
    """Raises IndexDamageError unless timestamps grow and offsets do not fall."""
    if len(entries) % TIME_ENTRY_SIZE:
        raise IndexDamageError(f"{len(entries)} bytes are no whole entries")
    last_timestamp, last_offset = -1, -1
    for timestamp, offset in TIME_ENTRY.iter_unpack(entries):
        if timestamp <= last_timestamp or offset < last_offset:
            raise IndexDamageError(f"entry ({timestamp}, {offset}) is out of order")
        last_timestamp, last_offset = timestamp, offset


def offset_entries_below(entries: Buffer, relative_offset: int) -> int:
    """How many bytes of an offset index are for batches that end below ``relative_offset``."""
    unpack = OFFSET_ENTRY.unpack_from
    found = last_at_most(
        len(entries) // OFFSET_ENTRY_SIZE,
        lambda index: int(unpack(entries, index * OFFSET_ENTRY_SIZE)[0]),
        relative_offset - 1,
    )
    return (found + 1) * OFFSET_ENTRY_SIZE


def time_entries_below(entries: Buffer, relative_offset: int) -> int:
    """How many bytes of a time index are for offsets below ``relative_offset``."""
    unpack = TIME_ENTRY.unpack_from
    found = last_at_most(
        len(entries) // TIME_ENTRY_SIZE,
        lambda index: int(unpack(entries, index * TIME_ENTRY_SIZE)[1]),
        relative_offset - 1,
    )
    return (found + 1) * TIME_ENTRY_SIZE


class SegmentIndex:
    """Both indexes of a segment that is being written, in memory.

    ``max_timestamp`` is the largest timestamp in the segment (-1: none), reached first in the
    batch whose last offset, relative to the base, is ``max_timestamp_offset``. ``saved_offsets``
    and ``saved_times`` count the bytes that are in the files already.
    """

    __slots__ = ("bytes_since_entry", "max_timestamp", "max_timestamp_offset", "offsets",
                 "saved_offsets", "saved_times", "times")  # fmt: skip

    def __init__(self, offsets: bytearray | None = None, times: bytearray | None = None) -> None:
        self.offsets = bytearray() if offsets is None else offsets
        self.times = bytearray() if times is None else times
        self.saved_offsets = len(self.offsets)
        self.saved_times = len(self.times)
        self.bytes_since_entry = 0
        self.max_timestamp, self.max_timestamp_offset = last_time_entry(self.times)

    def add(
        self, relative_last_offset: int, position: int, size: int, timestamp: int, interval: int
    ) -> None:
        """Note a batch at ``position``; an entry is made each ``interval`` bytes, as Kafka does."""
        if timestamp > self.max_timestamp:
            self.max_timestamp = timestamp
            self.max_timestamp_offset = relative_last_offset
        if self.bytes_since_entry > interval:
            self.offsets += OFFSET_ENTRY.pack(relative_last_offset, position)
            self.add_time_entry()
            self.bytes_since_entry = 0
        self.bytes_since_entry += size

    def add_time_entry(self) -> None:
        """Enter the largest timestamp so far, unless it is there; also done when a segment ends."""
        if self.max_timestamp > last_time_entry(self.times)[0]:
            self.times += TIME_ENTRY.pack(self.max_timestamp, self.max_timestamp_offset)

    def truncate(self, relative_offset: int) -> None:
        """Drop what is for offsets at or above ``relative_offset``.

        ``max_timestamp`` then is that of the last entry left: the caller adds the batches that
        follow it.
        """
        del self.offsets[offset_entries_below(self.offsets, relative_offset) :]
        del self.times[time_entries_below(self.times, relative_offset) :]
        self.saved_offsets = min(self.saved_offsets, len(self.offsets))
        self.saved_times = min(self.saved_times, len(self.times))
        self.max_timestamp, self.max_timestamp_offset = last_time_entry(self.times)
        self.bytes_since_entry = 0

    def is_full(self, max_index_bytes: int) -> bool:
        return (
            len(self.offsets) + OFFSET_ENTRY_SIZE > max_index_bytes
            or len(self.times) + TIME_ENTRY_SIZE > max_index_bytes
        )
