"""Producer ids in blocks from the controller, so that most are handed out without asking it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Allocate = Callable[[], Awaitable[tuple[int, int]]]


class ProducerIds:
    """``allocate()`` returns the first id of a new block and its size; it may raise."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._next = 0
        self._end = 0
        self._lock = asyncio.Lock()

    async def next(self) -> int:
        """An id that no other producer of the cluster ever got."""
        async with self._lock:
            if self._next == self._end:
                first, count = await self._allocate()
                self._next, self._end = first, first + count
            self._next += 1
            return self._next - 1
