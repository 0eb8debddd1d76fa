"""New replicas on this broker: made by the metadata, many of them a slice at a time.

A topic of a thousand partitions is one entry of the metadata log. Taken in one piece it would hold
the event loop up for as long as all of its replicas take, and every produce to other topics too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from pegel.logs import Event
from pegel_broker.metrics.stats import TopicStats
from pegel_broker.replication.configs import TopicConfigs
from pegel_broker.replication.found import open_log
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.isr import may_be_in_sync
from pegel_broker.replication.partition import Partition
from pegel_controller.metadata.image import INTERNAL_TOPICS, PartitionState

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

_log = logging.getLogger("pegel.broker")

# New replicas that are made in one turn of the event loop: some milliseconds.
SLICE = 32


class Arrivals:
    """Replicas that the metadata gives to this broker, and that are not hosted yet.

    Each is made from the metadata of that moment, not of the one at which it came. Until then the
    broker answers as one that has not heard of the topic.
    """

    def __init__(self, manager: ReplicaManager) -> None:
        self._manager = manager
        self._waiting: dict[tuple[UUID, int], None] = {}
        self._made = 0
        self._handle: asyncio.Handle | None = None
        # Called when the last one is hosted: a create of topics waits to hear of it.
        self.on_all_here: Callable[[], None] = lambda: None

    def pending(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, topic: str, topic_id: UUID, numbers: list[int]) -> bool:
        """Whether these new replicas wait for their slices; else they are to be made at once.

        Few are, and those of internal topics, whose coordinators look for them.
        """
        if topic in INTERNAL_TOPICS or len(self._waiting) + len(numbers) <= SLICE:
            return False
        for number in numbers:
            self._waiting[topic_id, number] = None
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._make)
        return True

    def _make(self) -> None:
        self._handle = None
        manager = self._manager
        for topic_id, number in list(self._waiting)[:SLICE]:
            del self._waiting[topic_id, number]
            topic = manager.image.topics_by_id.get(topic_id)
            if topic is not None:  # deleted meanwhile
                manager.update(topic.name, topic_id, number, topic.partitions[number])
                self._made += 1
        if self._waiting:
            self._handle = asyncio.get_running_loop().call_soon(self._make)
        else:
            _log.info(Event("hosts", new_partitions=self._made))
            self._made = 0
            self.on_all_here()

    def close(self) -> None:
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()


def host(
    manager: ReplicaManager,
    configs: TopicConfigs,
    topic: str,
    topic_id: UUID,
    number: int,
    state: PartitionState,
) -> HostedPartition:
    """A replica with its log, which is opened or made on the disk's queue.

    Raises:
        LogError: its log cannot be made.
    """
    values, config = configs.of(topic)
    log = open_log(manager.logs, manager.node_id, (topic, number), topic_id, state, config)
    core = Partition(
        topic, number, manager.node_id,
        lambda broker, epoch: may_be_in_sync(manager.image, (topic_id, number), broker, epoch),
    )  # fmt: skip
    stats = manager.topic_stats.setdefault(topic, TopicStats(topic))
    hosted = HostedPartition(core, log, topic_id, manager.purgatory, stats)
    hosted.min_insync_replicas = configs.minimum(topic)
    hosted.set_throttled(manager.node_id, values)
    return hosted
