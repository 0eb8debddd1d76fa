"""Which old segments may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SegmentFacts(NamedTuple):
    """``next_base`` is the base offset of the segment after it, or the log end offset."""

    next_base: int
    size: int
    largest_timestamp: int


def expired_segments(
    segments: Sequence[SegmentFacts],
    *,
    now_ms: int,
    log_start_offset: int,
    high_watermark: int,
    retention_ms: int,
    retention_bytes: int,
) -> int:
    """How many of the oldest ``segments`` to remove; those above the high watermark stay.

    A segment goes when its newest record is older than ``retention_ms``, when without it the log
    still holds ``retention_bytes``, or when it lies below the log start offset. -1: no limit.
    """
    excess = sum(s.size for s in segments) - retention_bytes if retention_bytes >= 0 else -1
    count = 0
    for segment in segments:
        if segment.next_base > high_watermark or segment.size == 0:
            break
        too_old = retention_ms >= 0 and now_ms - segment.largest_timestamp > retention_ms
        too_big = excess >= segment.size
        if not (too_old or too_big or segment.next_base <= log_start_offset):
            break
        excess -= segment.size
        count += 1
    return count
