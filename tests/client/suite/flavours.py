"""One scenario, two clients: the synchronous one as it is, the asynchronous one step by step."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pegel import AsyncClient, Client, ClientOptions
from pegel.consumer.consumer import Consumer
from pegel.credentials import Credentials
from pegel.producer.batch import Delivery, ManyDelivery
from pegel.producer.producer import Producer

OPTIONS = ClientOptions(request_timeout=20.0)
FLAVOURS = ("asyncio", "sync")


@contextmanager
def connect(
    flavour: str,
    bootstrap: str,
    credentials: Credentials | None = None,
    options: ClientOptions = OPTIONS,
) -> Iterator[Any]:
    """A client of that flavour, with the synchronous one's way of being called."""
    if flavour == "sync":
        with Client(bootstrap, credentials=credentials, options=options) as client:
            yield client
        return
    with asyncio.Runner() as runner:

        async def make() -> AsyncClient:
            return AsyncClient(bootstrap, credentials=credentials, options=options)

        with Driven(runner.run(make()), runner) as client:
            yield client
        left = asyncio.all_tasks(runner.get_loop())
        assert not left, f"left behind: {left}"


class Driven:
    """Runs each call of an asynchronous object to its end; its loop stands still in between."""

    def __init__(self, inner: Any, runner: asyncio.Runner) -> None:
        self._inner, self._runner = inner, runner

    def _run(self, function: Any, *args: Any, **settings: Any) -> Any:
        async def work() -> Any:
            result = function(*args, **settings)
            return await result if inspect.iscoroutine(result) else result

        result = self._runner.run(work())
        wrapped = isinstance(result, Consumer | Producer | Delivery | ManyDelivery)
        return Driven(result, self._runner) if wrapped else result

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name == "admin":
            return Driven(value, self._runner)
        if not callable(value):
            return value
        return lambda *args, **settings: self._run(value, *args, **settings)

    def result(self, timeout: float | None = None) -> Any:
        async def wait() -> Any:
            async with asyncio.timeout(timeout):
                return await self._inner

        return self._run(wait)

    def batches(self) -> Iterator[Any]:
        while True:
            yield self._run(self._inner.next_batch)

    def __iter__(self) -> Driven:
        return self

    def __next__(self) -> Any:
        return self._run(self._inner.__anext__)

    def __enter__(self) -> Driven:
        self._run(self._inner.__aenter__)
        return self

    def __exit__(self, *error: Any) -> None:
        self._run(self._inner.__aexit__, *error)
