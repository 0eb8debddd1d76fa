"""Deadlines of a state machine: one heap for all of them, and nothing to do while none is due."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Entries that mean nothing any more are swept out of the heap when they outnumber the others.
_SWEEP_AT = 64


class Timers(Generic[K]):
    """One deadline for each key.

    To put a deadline off, as each heartbeat does, costs no heap operation: the old entry stays and
    is moved when it comes up.
    """

    __slots__ = ("_deadlines", "_heap", "_queued", "_sequence")

    def __init__(self) -> None:
        self._deadlines: dict[K, float] = {}
        # The time of the earliest heap entry of each key; never later than its deadline.
        self._queued: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, key: K) -> bool:
        return key in self._deadlines

    @property
    def heap_size(self) -> int:
        return len(self._heap)

    def set(self, key: K, deadline: float) -> None:
        """Make ``deadline`` the one of ``key``, in place of any other."""
        self._deadlines[key] = deadline
        queued = self._queued.get(key)
        if queued is None or deadline < queued:
            self._push(key, deadline)
            if len(self._heap) > _SWEEP_AT + 2 * len(self._deadlines):
                self._sweep()

    def cancel(self, key: K) -> None:
        self._deadlines.pop(key, None)

    def next_deadline(self) -> float | None:
        """Not later than any deadline."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[K]:
        """The keys whose deadline is over, earliest first; they have none any more."""
        found = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, key = heappop(heap)
            if self._queued.get(key) != at:
                continue  # an earlier entry took its place
            del self._queued[key]
            deadline = self._deadlines.get(key)
            if deadline is None:
                continue
            if deadline > at:  # it was put off: its turn comes, maybe in this call
                self._push(key, deadline)
            else:
                del self._deadlines[key]
                found.append(key)
        return found

    def _push(self, key: K, deadline: float) -> None:
        self._sequence += 1
        self._queued[key] = deadline
        heappush(self._heap, (deadline, self._sequence, key))

    def _sweep(self) -> None:
        self._queued = dict(self._deadlines)
        self._heap = [(at, n, key) for n, (key, at) in enumerate(self._queued.items())]
        self._sequence = len(self._heap)
        heapify(self._heap)
