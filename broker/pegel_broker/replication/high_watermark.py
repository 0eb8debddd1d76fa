"""The high watermark: what every in-sync replica holds, and so can no longer be lost."""

from __future__ import annotations

from collections.abc import Iterable


def next_high_watermark(current: int, stable_offset: int, follower_ends: Iterable[int]) -> int:
    """The smallest end over the leader's stable log and its in-sync followers; never moves back.

    ``follower_ends`` are those of the *maximal* ISR: an expansion that is still in flight counts,
    for the controller may already have committed it and may choose that replica as leader. A
    replica that has not fetched from this leader yet has the end -1 and holds everything back.
    """
    return max(current, min((stable_offset, *follower_ends)))
