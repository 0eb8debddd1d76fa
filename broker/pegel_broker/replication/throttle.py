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
REVIEW_SECONDS = 5.0


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
    """The automatic throttle of moves: a small share of the time, less where others are busy.

    A move is a background transfer as LEDBAT (RFC 6817) has it: it learns from its own delays.
    A round that takes twice as long as the quickest of late says that clients' requests do so
    too, and halves the share of time that the move works; others let it grow again, slowly. A move
    that would never end, because records come in faster than it copies them, takes more in spite.

    ``slice_bytes`` is how much one round may ask for: no more than the event loop takes in
    within ``SLICE_SECONDS``, whether a batch holds one record or a thousand.
    """

    __slots__ = ("_floor", "_lag", "_quickest", "_reviewed_at", "_share", "slice_bytes")

    def __init__(self) -> None:
        self.slice_bytes = SLICE_BYTES_MIN
        self._share = SHARE_MIN
        self._floor = SHARE_MIN  # what it needs in order to end
        self._quickest = _Quickest()
        self._lag: int | None = None
        self._reviewed_at = float("-inf")

    def on_more(self) -> None:
        """There is more to copy than at the last review: a lag that grows by it means nothing."""
        self._lag = None

    def rest(self, now: float, took: float, held: float, lag: int) -> float:
        """Seconds to rest after a full round.

        Args:
            now: on the monotonic clock, in seconds.
            took: seconds of the round, of which it ``held`` the event loop of this broker.
            lag: records that are still to be copied.
        """
        self._review(now, lag)
        if took > BUSY_FACTOR * self._quickest.of(now, took):
            self._share /= 2
        else:
            self._share += SHARE_STEP
        self._share = min(max(self._share, SHARE_MIN), SHARE_MAX)
        if held > SLICE_SECONDS:
            self._resize(max(self.slice_bytes // 2, SLICE_BYTES_MIN))
        elif held < SLICE_SECONDS / 4:
            self._resize(min(self.slice_bytes * 2, SLICE_BYTES_MAX))
        share = max(self._share, self._floor)
        return min(took * (1 / share - 1), LONGEST_REST)

    def _resize(self, size: int) -> None:
        if size != self.slice_bytes:
            self.slice_bytes = size
            self._quickest = _Quickest()  # a round of another size takes another time

    def _review(self, now: float, lag: int) -> None:
        if now - self._reviewed_at < REVIEW_SECONDS:
            return
        if self._lag is not None and lag >= self._lag:
            self._floor = min(2 * self._floor, 1.0)
        self._lag, self._reviewed_at = lag, now


class _Quickest:
    """The smallest of the values of late: of this window of time and the one before."""

    __slots__ = ("_began_at", "_last", "_this")

    def __init__(self) -> None:
        self._began_at = float("-inf")
        self._this = self._last = float("inf")

    def of(self, now: float, value: float) -> float:
        """The smallest, this ``value`` included."""
        if now - self._began_at >= QUICKEST_WINDOW_SECONDS:
            self._began_at = now
            self._last, self._this = self._this, value
        self._this = min(self._this, value)
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
