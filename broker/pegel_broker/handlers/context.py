"""What a request handler gets: who asks, and the parts of the broker that can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pegel.protocol.schema import Message
from pegel.seams import World
from pegel_broker.coordinator.service import Coordinators
from pegel_broker.producer_ids import ProducerIds
from pegel_broker.replication.fetch_session import FetchSessionCache
from pegel_broker.replication.manager import ReplicaManager
from pegel_controller.metadata import MetadataImage
from pegel_controller.metadata.wire import Wire


class Controllers(Protocol):
    """The way to the active controller."""

    controller_id: int

    async def call(
        self, method: str, request: Wire, timeout: float, *, retry_sent: bool = True
    ) -> Wire: ...


@dataclass(slots=True)
class Broker:
    """The broker as its handlers see it; ``image`` is replaced with each metadata change."""

    world: World
    node_id: int
    image: MetadataImage
    replicas: ReplicaManager
    controllers: Controllers
    sessions: FetchSessionCache
    producer_ids: ProducerIds
    # The values that this node was started with, by Kafka's key names.
    static_configs: Mapping[str, str]
    coordinators: Coordinators
    # Internal topics that are being created, by name.
    creating: dict[str, asyncio.Future[None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One decoded request. ``version`` decides what the response may carry."""

    broker: Broker
    message: Message
    version: int
    client_id: str | None
    peer: str


Answer = Message | None | asyncio.Future[Message] | Awaitable[Message]
Handler = Callable[[Request], Answer]


class CloseConnectionError(Exception):
    """The connection is to be closed: the protocol offers no way to tell what is wrong."""
