"""Pauses between attempts: growing, bounded, and spread so that clients do not march in step."""

from __future__ import annotations

import random

# The time in which a failed-over partition is expected back: poll it closely until then.
_EAGER_ATTEMPTS = 40


class Backoff:
    """Exponential pauses in seconds for things that stay broken (a broker that is down)."""

    __slots__ = ("_first", "_longest", "_random", "attempts")

    def __init__(self, first: float, longest: float, rng: random.Random) -> None:
        self._first, self._longest = first, longest
        self._random = rng
        self.attempts = 0

    def next(self) -> float:
        """The pause before the next attempt."""
        pause = self._first * 2.0 ** min(self.attempts, 20)
        self.attempts += 1
        return min(pause, self._longest) * self._random.uniform(0.8, 1.2)

    def reset(self) -> None:
        self.attempts = 0


def retry_pause(attempts: int, first: float, longest: float, rng: random.Random) -> float:
    """The pause before retry number ``attempts`` (from 0), in seconds.

    Flat at first: while a new leader is being elected, each doubling would be added to the time
    for which nothing can be written. After some forty tries the cause is another, and it doubles.
    """
    doublings = max(0, attempts - _EAGER_ATTEMPTS)
    pause = first * (1.5 if attempts > 10 else 1.0) * 2.0 ** min(doublings, 20)
    return min(pause, longest) * rng.uniform(0.8, 1.2)
