"""The clock seam: a monotonic clock for decisions, a wall clock for what people read."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks. Safety never depends on ``wall_ms``."""

    def monotonic(self) -> float:
        """Seconds on the event loop's own clock; comparable only within one process."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch, for record timestamps and logs."""
        ...


def give_way(seconds: float = 0.0005) -> None:
    """Let other threads run: for long work beside an event loop, never on it."""
    time.sleep(seconds)


class RealClock:
    """The host's monotonic clock, which is the event loop's too, and its wall clock."""

    def monotonic(self) -> float:
        # Not ``loop.time()``: uvloop reads the clock once per turn, and a lease must be checked
        # against now, not against the moment before the process was paused.
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
