"""What appends, reads and look-ups answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview


@dataclass(slots=True)
class AppendResult:
    """Where one append landed.

    ``log_append_time`` is in ms since the Unix epoch, -1 for a topic of CreateTime.
    ``duplicate``: an idempotent producer's retry; the offsets are those of the first append, and
    nothing was appended. ``bytes`` and ``count`` are sizes of what was appended (records).
    """

    first_offset: int
    last_offset: int
    log_append_time: int
    log_start_offset: int
    duplicate: bool
    bytes: int
    count: int


class ReadResult(NamedTuple):
    """Whole batches from a log; ``records`` are the pieces, in order, not joined.

    ``first_offset`` is the base offset of the first batch (it may be below the offset asked for)
    and ``next_offset`` the offset after the last; with no batch both are the offset asked for.
    """

    records: list[Buffer]
    size: int
    first_offset: int
    next_offset: int


class TimestampOffset(NamedTuple):
    """A record found by time: its offset, its timestamp (ms) and its leader epoch (-1: none)."""

    offset: int
    timestamp: int
    leader_epoch: int
