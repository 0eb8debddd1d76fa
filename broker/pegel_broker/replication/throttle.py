"""How fast replicas that are not in sync may be copied: KIP-73's limits, and the pace of a move.

Replicas in sync are never held back: their copies are what acknowledges writes.
"""

from __future__ import annotations

from collections.abc import Iterable

UNLIMITED = 2**63 - 1
# A limit lets through at once what it would have let through in this time.
BURST_SECONDS = 1.0
# A move works at most this share of the time on a cluster at leisure, at least that on a busy one.
SHARE_MAX = 1 / 16
SHARE_MIN = 1 / 64
SHARE_STEP = 1 / 512
# Where a round takes this many times as long as the quickest, the cluster is busy.
BUSY_FACTOR = 2.0
QUICKEST_WINDOW_SECONDS = 30.0
# However long the rounds, a move goes on: a round each quarter of a second.
LONGEST_REST = 0.25
# One round asks for no more than the event loop takes in within this time.
SLICE_SECONDS = 0.002
SLICE_BYTES_MIN = 16 * 1024
SLICE_BYTES_MAX = 256 * 1024
REVIEW_SECONDS = 2.0


class RateLimit:
    """Bytes per second. What is taken may exceed what is available; the debt is waited for."""

    __slots__ = ("_balance", "_updated_at", "rate")

    def __init__(self, rate: int = UNLIMITED) -> None:
        assert rate > 0
        self.rate = rate
        self._balance = rate * BURST_SECONDS
        self._updated_at: float | None = None

    @property
    def limited(self) -> bool:
        return self.rate < UNLIMITED

    def set_rate(self, rate: int) -> None:
        if rate != self.rate:
            self.rate = rate
            self._balance = min(self._balance, rate * BURST_SECONDS)

    def take(self, now: float, size: int) -> None:
        """``size`` bytes were sent or received at ``now`` (seconds)."""
        if self.limited:
            self._fill(now)
            self._balance -= size

    def wait(self, now: float) -> float:
        """Seconds until there is room again; 0 where there is."""
        if not self.limited:
            return 0.0
        self._fill(now)
        return max(0.0, -self._balance / self.rate)

    def _fill(self, now: float) -> None:
        if self._updated_at is not None:
            earned = (now - self._updated_at) * self.rate
            self._balance = min(self._balance + earned, self.rate * BURST_SECONDS)
        self._updated_at = now


class CatchUpPace:
    """The automatic throttle of a broker's moves: a small share of the time, less where it is busy.

    A move is a background transfer as LEDBAT (RFC 6817) has it: it learns from its own delays.
    A round that takes twice as long as the quickest of late says that clients' requests do so
    too, and halves the share of time that the move works; others let it grow again, slowly. A move
    most of whose work is to keep up with new records would hardly end, and takes more in spite.

    ``slice_bytes`` is how much one round may ask for: no more than the event loop takes in
    within ``SLICE_SECONDS``, whether a batch holds one record or a thousand.
    """

    __slots__ = ("_floor", "_reviewed", "_reviewed_at", "_share", "slice_bytes")

    def __init__(self) -> None:
        self.slice_bytes = SLICE_BYTES_MIN
        self._share = SHARE_MIN
        self._floor = SHARE_MIN  # what it needs in order to end
        self._reviewed: tuple[int, int] | None = None
        self._reviewed_at = float("-inf")

    def on_change(self) -> None:
        """Other partitions are copied than at the last review: nothing can be compared with it."""
        self._reviewed = None

    def rest(self, took: float, quickest: float, held: float) -> float:
        """Seconds to rest after a full round.

        Args:
            took: seconds of the round, of which it ``held`` the event loop of this broker.
            quickest: a round with the same leader of late.
        """
        if took > BUSY_FACTOR * quickest:
            self._share /= 2
        else:
            self._share += SHARE_STEP
        self._share = min(max(self._share, SHARE_MIN), SHARE_MAX)
        if held > SLICE_SECONDS:
            self.slice_bytes = max(self.slice_bytes // 2, SLICE_BYTES_MIN)
        elif held < SLICE_SECONDS / 4:
            self.slice_bytes = min(self.slice_bytes * 2, SLICE_BYTES_MAX)
        share = max(self._share, self._floor)
        return min(took * (1 / share - 1), LONGEST_REST)

    def review_due(self, now: float) -> bool:
        return now - self._reviewed_at >= REVIEW_SECONDS

    def review(self, now: float, position: int, lag: int) -> None:
        """Whether it gets nearer to its end.

        Args:
            now: on the monotonic clock, in seconds.
            position: the log end offsets of all that is copied, summed up.
            lag: records that are still to be copied.
        """
        if self._reviewed is not None:
            copied, nearer = position - self._reviewed[0], self._reviewed[1] - lag
            if nearer < copied / 2:
                self._floor = min(2 * self._floor, 1.0)
        self._reviewed, self._reviewed_at = (position, lag), now


class Quickest:
    """The shortest round of late: of this window of time and the one before."""

    __slots__ = ("_began_at", "_last", "_size", "_this")

    def __init__(self) -> None:
        self._size = 0
        self._began_at = float("-inf")
        self._this = self._last = float("inf")

    def of(self, now: float, took: float, size: int) -> float:
        """The shortest, this one included; one of another ``size`` is not comparable."""
        if size != self._size:
            self._size, self._began_at, self._this = size, now, float("inf")
            self._last = float("inf")
        elif now - self._began_at >= QUICKEST_WINDOW_SECONDS:
            self._began_at = now
            self._last, self._this = self._this, float("inf")
        self._this = min(self._this, took)
        return min(self._this, self._last)


def throttled_replicas(entries: Iterable[str]) -> frozenset[tuple[int, int]] | None:
    """(partition, broker) pairs of ``*.replication.throttled.replicas``; None for ``*``: all.

    Entries that are no ``partition:broker`` name nothing, as in Kafka; what sets them is checked.
    """
    found = set()
    for entry in entries:
        if entry == "*":
            return None
        partition, _, broker = entry.partition(":")
        if partition.isdigit() and broker.isdigit():
            found.add((int(partition), int(broker)))
    return frozenset(found)
