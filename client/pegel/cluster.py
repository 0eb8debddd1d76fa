"""What the parts of one client share: its connections, its metadata, its clock and options."""

from __future__ import annotations

import asyncio
import random
from typing import TypeVar

from pegel.config import ClientOptions
from pegel.errors import PegelError, is_shut_out
from pegel.metadata import Metadata
from pegel.network.backoff import retry_pause
from pegel.network.pool import ConnectionPool
from pegel.protocol.schema import Message
from pegel.seams import Clock, Network

M = TypeVar("M", bound=Message)


class Cluster:
    """A client's view of one cluster."""

    def __init__(
        self,
        bootstrap: tuple[tuple[str, int], ...],
        *,
        network: Network,
        clock: Clock,
        rng: random.Random,
        options: ClientOptions,
    ) -> None:
        self.clock, self.random, self.options = clock, rng, options
        self.pool = ConnectionPool(network, clock, rng, options)
        self.metadata = Metadata(bootstrap, self.pool, clock, rng, options)

    async def ask_any(
        self,
        request: Message,
        response_type: type[M],
        *,
        timeout: float | None = None,
        patience: float | None = None,
    ) -> M:
        """Ask one broker after another until one answers.

        Args:
            patience: seconds for one broker before the next is asked, so that one that hangs does
                not use up the time-out; for requests that may be made twice.

        Raises:
            ConnectionFailedError, RequestTimeoutError: none did within the time-out.
            UnsupportedVersionError: the brokers do not speak this API.
        """
        wait = self.options.request_timeout if timeout is None else timeout
        deadline = self.clock.monotonic() + wait
        last_error: PegelError | None = None
        attempts = 0
        shut_out = 0  # rounds in which every broker closed the connection at the first request
        while True:
            shut = True
            for endpoint in self.metadata.endpoints():
                left = deadline - self.clock.monotonic()
                if left <= 0:
                    break
                turn = left if patience is None else min(left, patience)
                try:
                    async with asyncio.timeout(turn):
                        return await self.pool.ask(endpoint, request, response_type, timeout=turn)
                except TimeoutError:
                    shut = False
                except PegelError as error:
                    if not error.retriable:
                        raise
                    shut &= is_shut_out(error)
                    if last_error is None or left > wait / 10:  # else of a moment's remainder
                        last_error = error
            shut_out = shut_out + 1 if shut else 0
            left = deadline - self.clock.monotonic()
            if left <= 0 or (last_error is not None and self.metadata.stays_out(shut_out)):
                raise last_error or self.metadata.no_answer(wait)
            await asyncio.sleep(min(left, self.retry_pause(attempts)))
            attempts += 1

    async def ask_hedged(self, request: Message, response_type: type[M], *, timeout: float) -> M:
        """A question that any broker can answer; one that is silent costs a moment only.

        Raises:
            ConnectionFailedError, RequestTimeoutError: no broker answers within ``timeout``.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self.metadata.ask_hedged(
                    lambda broker: self.pool.ask(broker, request, response_type, timeout=timeout)
                )
        except TimeoutError:
            raise self.metadata.no_answer(timeout) from None

    def retry_pause(self, attempts: int) -> float:
        """Seconds to wait before retry number ``attempts``, counted from 0."""
        options = self.options
        return retry_pause(attempts, options.retry_backoff, options.retry_backoff_max, self.random)

    async def close(self) -> None:
        await self.metadata.close()
        await self.pool.close()
