"""Fake brokers on a loop in a thread of their own, for tests that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fake_broker import FakeCluster


@contextmanager
def served(brokers: int = 1) -> Iterator[FakeCluster]:
    """A running cluster; what it holds may be looked at while nothing is asked of it."""
    ready = threading.Event()
    found: list[tuple[FakeCluster, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with FakeCluster(brokers) as cluster:
            stop = asyncio.Event()
            found.append((cluster, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    cluster, loop, stop = found[0]
    try:
        yield cluster
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
