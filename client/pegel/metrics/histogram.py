"""A histogram that costs one bisect and two additions for each observation."""

from __future__ import annotations

from bisect import bisect_left

# 0.5 ms to 10 s: what requests and acknowledgements take.
SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# 0.1 ms to 2.5 s: what a write, a sync or a turn of the event loop takes.
SHORT_SECONDS = (0.0001, 0.00025, *SECONDS[:12])


class Histogram:
    """Counts by upper bound, as Prometheus has it (a value equal to a bound is within it).

    One writer. A reader on another thread may see a sum that is an observation ahead of the
    counts, or behind; the counts themselves always agree with each other.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)
