"""Waiting for the metadata log to grow."""

from __future__ import annotations

import asyncio

from pegel_controller.metadata_feed import MetadataFeed
from pegel_controller.rpc.messages import MetadataEntry


def test_a_wait_that_runs_out_as_an_entry_comes_ends_without_an_error() -> None:
    async def main() -> None:
        feed = MetadataFeed()
        waiting = asyncio.ensure_future(feed.changed(0.0))
        for _ in range(2):
            await asyncio.sleep(0)  # the time-out has cancelled the wait, which has not run yet
        feed.append(MetadataEntry(1, 1, b""))
        await waiting

    asyncio.run(main())


def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    async def main() -> None:
        feed = MetadataFeed()
        waiting = asyncio.ensure_future(feed.changed(10.0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not feed._waiters

    asyncio.run(main())
