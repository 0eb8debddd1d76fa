"""What all admin calls share: the cluster, time-outs, one request to one broker by its id."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from pegel.cluster import Cluster
from pegel.errors import PegelError, TopicNotFoundError
from pegel.protocol.schema import Message

M = TypeVar("M", bound=Message)
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="AdminBase")


def soon_known(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """A topic made a moment ago is not known to every broker of an Apache Kafka cluster.

    So a call about a topic that is not there is repeated for ``ClientOptions.topic_grace``.
    """

    @functools.wraps(method)
    async def call(self: S, *args: P.args, **settings: P.kwargs) -> R:
        cluster = self._cluster
        clock, patience = cluster.clock, settings.get("timeout")
        started = clock.monotonic()
        ends = started + cluster.options.topic_grace
        if isinstance(patience, int | float):
            ends = min(ends, started + patience)
        attempts = 0
        while True:
            try:
                return await method(self, *args, **settings)
            except TopicNotFoundError:
                left = ends - clock.monotonic()
                if left <= 0:
                    raise
            await asyncio.sleep(min(left, cluster.retry_pause(attempts)))
            if isinstance(patience, int | float):
                settings["timeout"] = max(0.001, started + patience - clock.monotonic())
            attempts += 1

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, R]], call)


def brokers_share_ms(timeout: float) -> int:
    """Of a call's seconds, the milliseconds that the broker may use: its answer comes in time."""
    return int(1000 * max(0.8 * timeout, timeout - 1.0))


class AdminBase:
    """Holds what the mixins of ``Admin`` need."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _timeout(self, timeout: float | None) -> float:
        return self._cluster.options.request_timeout if timeout is None else timeout

    async def _ask_broker(
        self, node_id: int, request: Message, response_type: type[M], timeout: float
    ) -> M:
        """One request to one broker by its id."""
        metadata = self._cluster.metadata
        if node_id not in metadata.view.brokers:
            await metadata.refresh(timeout=timeout)
        endpoint = metadata.view.brokers.get(node_id)
        if endpoint is None:
            known = ", ".join(map(str, sorted(metadata.view.brokers)))
            raise PegelError(f"there is no live broker {node_id}; live are {known}")
        return await self._cluster.pool.ask(endpoint, request, response_type, timeout=timeout)
