"""One timer for a deadline that mostly moves back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pegel.seams.beat import EARLY_MAX

# Seconds. A timer that is later than that says that the loop, or the process, stood still.
STOOD_STILL = 0.050
READ_FIRST = 0.001


class DeadlineTimer:
    """Calls ``on_due`` at the deadline or before it, where that has moved back meanwhile.

    When the loop stood still, a turn for reading comes first: uvloop runs the timers that are due
    before it reads again, and silence must not be judged while what breaks it waits in a socket.
    """

    def __init__(self, monotonic: Callable[[], float], on_due: Callable[[], None]) -> None:
        self._monotonic = monotonic
        self._on_due = on_due
        self._handle: asyncio.TimerHandle | None = None
        self._at = float("inf")  # uvloop's handles do not all tell
        self._has_read = False

    def arm(self, deadline: float) -> None:
        """Be called by ``deadline``; an earlier one that is armed stays."""
        if self._handle is not None:
            if self._at <= deadline:
                return
            self._handle.cancel()
        self._at, self._has_read = deadline, False
        self._handle = asyncio.get_running_loop().call_at(deadline + EARLY_MAX, self._fire)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        if not self._has_read and self._monotonic() > self._at + STOOD_STILL:
            self._has_read = True
            self._handle = asyncio.get_running_loop().call_later(READ_FIRST, self._fire)
            return
        self._handle = None
        self._on_due()
