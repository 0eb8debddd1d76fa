"""One question to several brokers: whoever is slow gets company, the first answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

from pegel.errors import AuthenticationError, ConnectionFailedError, is_shut_out
from pegel.network.pool import Endpoint

T = TypeVar("T")

# A broker that has not answered for so long gets company: the next one is asked too.
_HEDGE = 0.15


async def ask_hedged(
    candidates: Sequence[Endpoint], ask: Callable[[Endpoint], Coroutine[None, None, T]]
) -> T:
    """The first answer; a broker that is slow to give it gets company.

    For questions alone: what changes something might be done twice.

    Raises:
        ConnectionFailedError: no broker answers. AuthenticationError: as soon as one says so.
    """
    left = iter(candidates)
    running: dict[asyncio.Task[T], None] = {}  # in the order of asking
    last_error: BaseException | None = None
    shut_out = True
    try:
        while True:
            endpoint = next(left, None)
            if endpoint is not None:
                running[asyncio.create_task(ask(endpoint))] = None
            elif not running:
                tried = ", ".join(str(e) for e in candidates[:5])
                failed = ConnectionFailedError(
                    f"no broker answers; tried {tried}; last error: {last_error}"
                )
                failed.shut_out = shut_out
                raise failed
            await asyncio.wait(
                running,
                timeout=None if endpoint is None else _HEDGE,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in [task for task in running if task.done()]:
                del running[task]
                error = task.exception()
                if error is None:
                    return task.result()
                if isinstance(error, AuthenticationError):
                    raise error  # users are the whole cluster's: no other one would say else
                last_error = error
                shut_out &= is_shut_out(error)
    finally:
        for task in running:
            task.add_done_callback(_retrieve)  # ClosedError, where the client closes meanwhile
            task.cancel()


def _retrieve(task: asyncio.Task[T]) -> None:
    """Nobody waits for it any more: its error is no news."""
    if not task.cancelled():
        task.exception()
