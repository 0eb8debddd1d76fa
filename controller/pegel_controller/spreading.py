"""Who waits until every live broker has applied a metadata change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

# Brokers that live and have not applied an index.
Behind = Callable[[int], Sequence[int]]


class Spreading:
    """Waits by index; ``check`` is called when a broker has applied more, or was fenced."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def wait(self, index: int, timeout: float, behind: Behind) -> None:
        """Return when no live broker is behind ``index``, or after ``timeout`` seconds.

        Raises:
            Exception: what ``fail`` was called with.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((index, waiter))
        self.check(behind)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            self._waiting = [(i, w) for i, w in self._waiting if w is not waiter]

    def check(self, behind: Behind) -> None:
        left = []
        for index, waiter in self._waiting:
            if waiter.done():
                continue
            if behind(index):
                left.append((index, waiter))
            else:
                waiter.set_result(None)
        self._waiting = left

    def fail(self, error: Exception) -> None:
        """Leadership was lost: nobody will ever tell."""
        waiting, self._waiting = self._waiting, []
        for _, waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # whoever waits still gets it; nobody waiting is no error
