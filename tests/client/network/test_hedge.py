"""One question to several brokers: the answer of one ends the others without a word."""

from __future__ import annotations

import asyncio
import gc

from pegel.errors import ClosedError
from pegel.network.hedge import ask_hedged
from pegel.network.pool import Endpoint


def test_who_is_no_longer_waited_for_may_fail_in_silence() -> None:
    """A command with a wrong password printed a traceback of its own client's end."""
    told: list[object] = []

    async def ask(endpoint: Endpoint) -> int:
        if endpoint.node_id == 2:
            return 2
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ClosedError("the client is closed") from None
        raise AssertionError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: told.append(context)
        )
        candidates = [Endpoint(1, "a", 1), Endpoint(2, "b", 2)]
        assert await ask_hedged(candidates, ask) == 2
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    gc.collect()
    assert told == []
