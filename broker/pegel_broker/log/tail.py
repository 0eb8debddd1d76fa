"""The newest batches of a log, in memory: what is not yet written, and some that just was."""

from __future__ import annotations

from bisect import bisect_right

from pegel_broker.log.results import Buffer, ReadResult

_COMPACT_AT = 64


class Tail:
    """Batches by base offset, up to the log end. ``first_offset`` is -1 while it is empty."""

    __slots__ = ("_buffers", "_head", "_offsets")

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._buffers: list[Buffer] = []
        self._head = 0  # what is before it was dropped

    def __len__(self) -> int:
        return len(self._offsets) - self._head

    @property
    def first_offset(self) -> int:
        return self._offsets[self._head] if self._head < len(self._offsets) else -1

    @property
    def second_offset(self) -> int:
        """Base offset of the second batch, -1 if there is none."""
        return self._offsets[self._head + 1] if self._head + 1 < len(self._offsets) else -1

    def append(self, base_offset: int, batch: Buffer) -> None:
        self._offsets.append(base_offset)
        self._buffers.append(batch)

    def drop_first(self) -> None:
        """Forget the oldest batch."""
        head = self._head
        self._buffers[head] = b""
        self._head = head = head + 1
        if head == len(self._offsets):
            self.clear()
        elif head >= _COMPACT_AT and head * 2 >= len(self._offsets):
            del self._offsets[:head]
            del self._buffers[:head]
            self._head = 0

    def clear(self) -> None:
        self._offsets.clear()
        self._buffers.clear()
        self._head = 0

    def batches(self) -> list[Buffer]:
        return self._buffers[self._head :]

    def read(
        self, offset: int, max_bytes: int, limit_offset: int, end_offset: int, min_one: bool
    ) -> ReadResult:
        """Batches from the one that holds ``offset`` (>= ``first_offset``) on, all of them below
        ``limit_offset``; ``end_offset`` is the log's."""
        offsets, buffers = self._offsets, self._buffers
        start = index = bisect_right(offsets, offset, self._head) - 1
        assert index >= self._head, "the offset is before the tail"
        size = 0
        count = len(offsets)
        next_offset = offset
        while index < count:
            following = offsets[index + 1] if index + 1 < count else end_offset
            length = len(buffers[index])
            if following > limit_offset or (
                size + length > max_bytes and not (min_one and index == start)
            ):
                break
            size += length
            index += 1
            next_offset = following
        if index == start:
            return ReadResult([], 0, offset, offset)
        return ReadResult(buffers[start:index], size, offsets[start], next_offset)
