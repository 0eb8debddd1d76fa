"""Disk queues for tests: one that runs each call on the loop's next turn, and one held by hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from pegel.seams.disk import Outcome

T = TypeVar("T")


class LoopDiskQueue:
    """A ``DiskQueue`` without a thread: each call runs in a turn of its own, in order.

    While ``held`` nothing runs: a disk that hangs. ``release()`` lets it go on.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.held = False
        self.closed = False
        self.dropped = False
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Outcome[Any]], None]]] = deque()
        self._scheduled = False

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.run(call, lambda outcome: outcome.settle(future))
        return future

    def run(self, call: Callable[[], T], done: Callable[[Outcome[T]], None]) -> None:
        if self.dropped:
            return  # of a process that is dead: nothing is done, nobody is told
        if self.closed:
            raise RuntimeError("this disk queue is closed")
        self._jobs.append((call, done))
        self._schedule()

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False
        self._schedule()

    def drop(self) -> None:
        """The process is killed: nothing queued is done any more."""
        self._jobs.clear()
        self.closed = self.dropped = True

    def close(self) -> None:
        self.closed = True
        self.held = False
        while self._jobs:  # who waits is told in a turn of the loop, as by a thread
            call, done = self._jobs.popleft()
            asyncio.get_running_loop().call_soon(done, Outcome(call, Exception))

    def _schedule(self) -> None:
        if self._jobs and not self._scheduled and not self.held:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            if self._jobs and not self.held:
                self._run_one()
        finally:
            self._schedule()

    def _run_one(self) -> None:
        call, done = self._jobs.popleft()
        done(Outcome(call, Exception))


class LoopDiskQueues:
    """Makes queues and remembers them by name, for ``World.new_disk_queue``."""

    def __init__(self) -> None:
        self.made: list[LoopDiskQueue] = []

    def __call__(self, name: str) -> LoopDiskQueue:
        queue = LoopDiskQueue(name)
        self.made.append(queue)
        return queue

    def drop(self) -> None:
        """Drop all queues made so far."""
        for queue in self.made:
            queue.drop()

    def named(self, name: str) -> LoopDiskQueue:
        """The newest queue of that name."""
        return next(q for q in reversed(self.made) if q.name == name)
