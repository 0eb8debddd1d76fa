"""What another configuration means for the partitions that this broker hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pegel_broker.log.config import LogConfig
from pegel_broker.replication.hosted import HostedPartition
from pegel_controller.config import (
    BROKER_CONFIGS,
    Value,
    broker_value,
    effective_topic_config,
)
from pegel_controller.metadata import MetadataDelta
from pegel_controller.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager


class TopicConfigs:
    """What holds for each topic, worked out once for all partitions of one metadata image."""

    def __init__(self, manager: ReplicaManager) -> None:
        self._manager = manager
        self._found: dict[str, tuple[Mapping[str, Value], LogConfig]] = {}

    def of(self, topic: str) -> tuple[Mapping[str, Value], LogConfig]:
        """The typed values by Kafka's names, and what a log needs of them."""
        found = self._found.get(topic)
        if found is None:
            manager = self._manager
            values = effective_topic_config(
                manager.image, topic, manager.options.static_configs, manager.node_id
            )
            found = self._found[topic] = (values, LogConfig.from_values(values))
        return found

    def minimum(self, topic: str) -> int:
        """min.insync.replicas."""
        found = self.of(topic)[0]["min.insync.replicas"]
        assert isinstance(found, int)
        return found

    def clear(self) -> None:
        """The metadata is another."""
        self._found.clear()


def take_minimums(manager: ReplicaManager, delta: MetadataDelta) -> None:
    """Take min.insync.replicas alone, before the partitions' new states.

    One delta may hold a raise and, later, replicas that left the ISR. By the old minimum the high
    watermark would pass those that left, who are eligible by the new one. It is not moved here: a
    lower minimum does not go with the ISR as it was before.
    """
    for hosted in _concerned(manager, delta):
        hosted.min_insync_replicas = manager.configs.minimum(hosted.core.topic)


def take(manager: ReplicaManager, delta: MetadataDelta) -> None:
    """Take all the rest, after the partitions' new states."""
    if _concerns_brokers(delta):
        _set_limits(manager)
    for hosted in _concerned(manager, delta):
        _configure(manager, hosted)


def _concerns_brokers(delta: MetadataDelta) -> bool:
    return any(kind == RESOURCE_BROKER for kind, _ in delta.configs_changed)


def _concerned(manager: ReplicaManager, delta: MetadataDelta) -> list[HostedPartition]:
    if _concerns_brokers(delta):
        return manager.all_hosted()
    topics = {name for kind, name in delta.configs_changed if kind == RESOURCE_TOPIC}
    if not topics:
        return []
    return [hosted for hosted in manager.all_hosted() if hosted.core.topic in topics]


def _set_limits(manager: ReplicaManager) -> None:
    """The rates of KIP-73, from the dynamic configuration of this broker or of all."""
    static = manager.options.static_configs
    for side, limit in (("leader", manager.leader_limit), ("follower", manager.follower_limit)):
        key = BROKER_CONFIGS[f"{side}.replication.throttled.rate"]
        rate = broker_value(manager.image, key, static, manager.node_id)
        assert isinstance(rate, int)
        limit.set_rate(rate)


def _configure(manager: ReplicaManager, hosted: HostedPartition) -> None:
    values, config = manager.configs.of(hosted.core.topic)
    hosted.log.update_config(config)
    paced = hosted.paced
    hosted.set_throttled(manager.node_id, values)
    if hosted.paced != paced:
        manager.change_pace(hosted)
    hosted.advance()
