"""The thread in which a synchronous client's event loop runs, and the ways into it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import uvloop

from pegel.consumer.group import Hook
from pegel.errors import ClosedError, RequestTimeoutError
from pegel.network.pool import forked
from pegel.types import TopicPartition

T = TypeVar("T")

_STOP_TIMEOUT = 5.0


class Portal:
    """Runs coroutines of the asynchronous client, and waits for them from any other thread."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._work, name="pegel-client", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @property
    def foreign(self) -> bool:
        """Whether this is the child of a fork: the thread stayed in the parent."""
        return self._process != os.getpid()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, or its error. Interrupted (Ctrl-C), it is cancelled.

        Raises:
            ClosedError: the client was closed, or made before a fork, in the parent.
        """
        if self.foreign:  # nobody would answer
            work.close()
            raise forked(self._process)
        if self._closed:
            work.close()
            raise ClosedError("the client is closed")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("called from the client's own thread, which it would block")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClosedError("the client was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def run(self, function: Callable[..., T], *args: Any, **settings: Any) -> T:
        """The result of a plain function, run where the client's objects live."""

        async def work() -> T:
            return function(*args, **settings)

        return self.call(work())

    def hook(self, function: Hook | None) -> Hook | None:
        """The user's hook in a thread of its own, so that it may call this client."""
        if function is None:
            return None

        async def call(partitions: list[TopicPartition]) -> None:
            result = await asyncio.to_thread(function, partitions)
            if isinstance(result, Awaitable):
                await result

        return call

    def stop(self) -> None:
        """End the thread; waits ``_STOP_TIMEOUT`` seconds at most."""
        if self._closed or self.foreign:
            return
        self._closed = True

        async def wind_up() -> None:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest)
            await self._loop.shutdown_default_executor()

        done = asyncio.run_coroutine_threadsafe(wind_up(), self._loop)
        try:
            done.result(_STOP_TIMEOUT)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_TIMEOUT)
            if not self._thread.is_alive():
                self._loop.close()


class Pending(Generic[T]):
    """The fate of what was sent soon: ``result`` waits for it."""

    def __init__(self, portal: Portal, inner: Awaitable[T], done: Callable[[], bool]) -> None:
        self._portal, self._inner, self._done = portal, inner, done

    @property
    def done(self) -> bool:
        """Whether ``result`` would not wait."""
        return self._done()

    def result(self, timeout: float | None = None) -> T:
        """Wait until it is acknowledged.

        Raises:
            RequestTimeoutError: not within ``timeout`` seconds; it may still be written.
            PegelError: why it was not.
        """
        return self._portal.call(self._wait(timeout))

    async def _wait(self, timeout: float | None) -> T:
        try:
            async with asyncio.timeout(timeout):
                return await self._inner
        except TimeoutError:
            raise RequestTimeoutError(f"no acknowledgement in {timeout} s") from None
