"""The clock seam: a monotonic clock for decisions, a wall clock for what people read."""

from __future__ import annotations

import asyncio
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


class RealClock:
    """The running event loop's clock and the host's wall clock."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
