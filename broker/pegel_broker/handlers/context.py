"""What a request handler gets: who asks, and the parts of the broker that can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pegel.protocol.schema import Message
from pegel.seams import World
from pegel_broker.coordinator.service import Coordinators
from pegel_broker.producer_ids import ProducerIds
from pegel_broker.replication.fetch_session import FetchSessionCache
from pegel_broker.replication.manager import ReplicaManager
from pegel_controller.metadata import BrokerState, MetadataDelta, MetadataImage
from pegel_controller.metadata.wire import Wire

if TYPE_CHECKING:
    from pegel_broker.network.session import Session

# Seconds. Long enough for a client to hear of the new leaders first.
LISTED_AFTER_FENCED = 5.0


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
    # When brokers that served were fenced, by this node's monotonic clock.
    fenced_at: dict[int, float] = field(default_factory=dict)
    # Set with each new image.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """The image that requests are answered from, from now on."""
        self.image = image
        self.changed.set()
        for broker_id, change in delta.brokers_changed.items():
            if change.old and change.new and change.new.fenced and not change.old.fenced:
                self.fenced_at[broker_id] = self.world.clock.monotonic()
            elif change.new is None or not change.new.fenced:
                self.fenced_at.pop(broker_id, None)

    def listed(self) -> Iterator[tuple[int, BrokerState]]:
        """The brokers that clients are told of: those that serve, and those that just did.

        librdkafka forgets the new leader of a partition where one response brings it and no longer
        names the old one: it takes its broker away with all that was on it, and asks again a
        second later. A dead broker that is named a little longer does no harm.
        """
        now = self.world.clock.monotonic()
        for broker_id, state in sorted(self.image.brokers.items()):
            at = self.fenced_at.get(broker_id)
            if not state.fenced or (at is not None and now < at + LISTED_AFTER_FENCED):
                yield broker_id, state


class Request(NamedTuple):
    """One decoded request. ``version`` decides what the response may carry.

    ``session`` is None where the listener does not ask who its clients are.
    """

    broker: Broker
    message: Message
    version: int
    client_id: str | None
    peer: str
    session: Session | None = None


Answer = Message | None | asyncio.Future[Message] | Awaitable[Message]
Handler = Callable[[Request], Answer]


class CloseConnectionError(Exception):
    """The connection is to be closed: the protocol offers no way to tell what is wrong."""
