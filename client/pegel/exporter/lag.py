"""Lag in seconds: when was the record written that a group has not read?

Two sources. While a partition is watched, its log end is noted with the time at each look: where a
committed offset falls between two looks, the time of its record is interpolated. For older offsets
the timestamp of the record itself is asked for, once for each offset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

# Looks that are remembered for each partition: an hour, at ten seconds each.
MAX_LOOKS = 360
# Looks that a speed is taken from.
TREND_LOOKS = 6


class EndHistory:
    """The log ends of one partition, by time (seconds). Both never fall.

    ``ends[i]`` is the offset of the next record at ``times[i]``.
    """

    __slots__ = ("_ends", "_times")

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._times: list[float] = []

    def note(self, end: int, now: float) -> None:
        """One look. A log end that fell (an unclean election, a new topic) starts anew."""
        ends, times = self._ends, self._times
        if ends and end < ends[-1]:
            ends.clear()
            times.clear()
        if len(ends) >= 2 and ends[-2] == ends[-1] == end:
            times[-1] = now  # nothing was written: the flat part has a beginning and an end
            return
        ends.append(end)
        times.append(now)
        if len(ends) > MAX_LOOKS:
            del ends[0], times[0]

    def written_at(self, offset: int) -> float | None:
        """About when the record at ``offset`` was written; None where that was before the first
        look, or is yet to be."""
        ends, times = self._ends, self._times
        after = bisect_right(ends, offset)  # the first look that had the record
        if after == 0 or after == len(ends):
            return None
        end, since = ends[after - 1], times[after - 1]
        share = (offset - end) / (ends[after] - end)
        return since + share * (times[after] - since)


class LagTrend:
    """Whether the lag of a group on a topic shrinks, and how quickly."""

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque(maxlen=TREND_LOOKS)

    def note(self, lag: int, now: float) -> None:
        self._looks.append((now, lag))

    def catch_up_seconds(self) -> float | None:
        """Time until the lag is gone at the present speed; 0 without lag, None if it grows."""
        if not self._looks or self._looks[-1][1] <= 0:
            return 0.0 if self._looks else None
        (began, before), (now, lag) = self._looks[0], self._looks[-1]
        if now <= began or lag >= before:
            return None
        return lag / ((before - lag) / (now - began))


class LagClock:
    """Lag in seconds of every group, from looks at the cluster. ``now`` is Unix time in seconds.

    Forgets what is not looked at any more (``keep``).
    """

    def __init__(self) -> None:
        self._ends: dict[tuple[str, int], EndHistory] = {}
        self._trends: dict[tuple[str, str], LagTrend] = {}
        # Timestamps that were asked for: offset and time in seconds, by partition and group.
        self._asked: dict[tuple[str, str, int], tuple[int, float]] = {}

    def note_end(self, topic: str, partition: int, end: int, now: float) -> None:
        self._ends.setdefault((topic, partition), EndHistory()).note(end, now)

    def note_lag(self, group: str, topic: str, lag: int, now: float) -> None:
        self._trends.setdefault((group, topic), LagTrend()).note(lag, now)

    def note_timestamp(
        self, group: str, topic: str, partition: int, offset: int, written_at: float
    ) -> None:
        """The record at ``offset`` says when it was written."""
        self._asked[group, topic, partition] = (offset, written_at)

    def written_at(self, group: str, topic: str, partition: int, offset: int) -> float | None:
        """When the first record that the group has not read was written; None: ask for it."""
        known = self._asked.get((group, topic, partition))
        if known is not None and known[0] == offset:
            return known[1]
        history = self._ends.get((topic, partition))
        return None if history is None else history.written_at(offset)

    def catch_up_seconds(self, group: str, topic: str) -> float | None:
        trend = self._trends.get((group, topic))
        return None if trend is None else trend.catch_up_seconds()

    def keep(self, partitions: set[tuple[str, int]], groups: set[str]) -> None:
        """Forget every other partition and group."""
        self._ends = {key: value for key, value in self._ends.items() if key in partitions}
        self._trends = {key: value for key, value in self._trends.items() if key[0] in groups}
        self._asked = {
            key: value for key, value in self._asked.items()
            if key[0] in groups and (key[1], key[2]) in partitions
        }  # fmt: skip
