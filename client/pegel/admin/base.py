"""What all admin calls share: the cluster, time-outs, one request to one broker by its id."""

from __future__ import annotations

from typing import TypeVar

from pegel.cluster import Cluster
from pegel.errors import PegelError
from pegel.protocol.schema import Message

M = TypeVar("M", bound=Message)


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
