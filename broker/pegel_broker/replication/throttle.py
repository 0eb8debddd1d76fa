"""How fast replicas that are not in sync may be copied: KIP-73's limits, and the pace of a move.

Replicas in sync are never held back: their copies are what acknowledges writes.
"""

from __future__ import annotations

from collections.abc import Iterable

UNLIMITED = 2**63 - 1
# A limit lets through at once what it would have let through in this time.
BURST_SECONDS = 1.0
# A move rests this many times as long as its last round took: it works a fifth of the time.
REST_FACTOR = 4.0
# Below it a move that does not get nearer to its leader's end rests no more.
REST_FACTOR_MIN = 0.25
REVIEW_SECONDS = 2.0
# A move whose lag is not at least this much smaller after a review's time goes faster.
LAG_SHRINKS_TO = 0.9


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
    """The automatic throttle of moves: work a fifth of the time, and yield to who is busy.

    A round that takes longer because brokers are busy is followed by a longer rest, so clients
    keep the better part of a loaded machine and an idle one is still used. A move that would
    never end at that pace, because records come in faster than it copies them, rests less.
    """

    __slots__ = ("_factor", "_lag", "_reviewed_at")

    def __init__(self) -> None:
        self._factor = REST_FACTOR
        self._lag: int | None = None
        self._reviewed_at = float("-inf")

    def rest(self, now: float, took: float, lag: int) -> float:
        """Seconds to rest after a full round of ``took`` seconds that left ``lag`` records."""
        if now - self._reviewed_at >= REVIEW_SECONDS:
            if self._lag is not None and lag > self._lag * LAG_SHRINKS_TO:
                self._factor /= 2
                if self._factor < REST_FACTOR_MIN:
                    self._factor = 0.0
            self._lag, self._reviewed_at = lag, now
        return self._factor * took


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
