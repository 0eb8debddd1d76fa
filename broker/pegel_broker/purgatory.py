"""Where requests wait for data or for acknowledgement: no polling, one timer for all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from heapq import heappop, heappush

from pegel.seams.beat import EARLY_MAX

# Expired and finished entries are swept out of the heap when they outnumber the live ones.
_SWEEP_AT = 1_024


class Delayed:
    """One waiting operation. ``on_timeout`` runs once, unless ``done`` was set before."""

    __slots__ = ("deadline", "done")
    kind = "other"

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.done = False

    def on_timeout(self) -> None:
        raise NotImplementedError


class Purgatory:
    """Calls ``on_timeout`` of each operation that is not done by its deadline (loop time).

    It may be called as much before the deadline as a timer of the loop may fire early: to wait for
    the rest would be one more waking for each.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Delayed]] = []
        self._sequence = 0
        self._finished = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")  # uvloop's handles do not all tell

    def __len__(self) -> int:
        return len(self._heap) - self._finished

    def by_kind(self) -> Counter[str]:
        """How many wait of each kind; may be asked from another thread."""
        return Counter(entry[2].kind for entry in self._heap.copy() if not entry[2].done)

    def add(self, operation: Delayed) -> None:
        self._sequence += 1
        heappush(self._heap, (operation.deadline, self._sequence, operation))
        if self._timer is None or operation.deadline < self._timer_at:
            self._arm(operation.deadline)

    def finished(self) -> None:
        """An operation that was added is done; its entry goes when it is due, or in a sweep."""
        self._finished += 1
        if self._finished > _SWEEP_AT and self._finished * 2 > len(self._heap):
            self._heap = sorted(entry for entry in self._heap if not entry[2].done)
            self._finished = 0

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)
        self._timer_at = deadline

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time() + EARLY_MAX
        heap = self._heap
        while heap and (heap[0][2].done or heap[0][0] <= now):
            operation = heappop(heap)[2]
            if operation.done:
                self._finished = max(0, self._finished - 1)
            else:
                operation.done = True
                operation.on_timeout()
        if heap:
            self._arm(heap[0][0])

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()
