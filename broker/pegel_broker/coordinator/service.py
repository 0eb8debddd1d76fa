"""The coordinators of one broker: follows the metadata, and knows where a key is coordinated."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_broker.coordinator.kinds import BY_TOPIC, GROUPS, CoordinatorKind
from pegel_broker.coordinator.partitioning import partition_for
from pegel_broker.coordinator.replica_log import ReplicaLog
from pegel_broker.coordinator.runtime import CoordinatorRuntime
from pegel_broker.group.counters import GroupCounters
from pegel_broker.group.options import GroupOptions
from pegel_broker.group.shard import GroupShard
from pegel_broker.replication.manager import ReplicaManager
from pegel_broker.replication.partition import Leader
from pegel_controller.config import BROKER_CONFIGS, Value, broker_value
from pegel_controller.metadata import MetadataDelta, MetadataImage
from pegel_controller.rpc.messages import CreatableTopic

# Where nothing belongs to a partition, because the topic is not there yet.
NO_PARTITION = -1


class Coordinators:
    """One runtime for each kind; a new kind is made in the constructor and added to ``runtimes``.

    Everything is called on the event loop.
    """

    def __init__(
        self,
        world: World,
        replicas: ReplicaManager,
        options: GroupOptions,
        *,
        commit_timeout: float,
    ) -> None:
        self.image = MetadataImage()
        self.group_counters = GroupCounters()
        self.groups = CoordinatorRuntime(
            GROUPS.topic,
            world.clock,
            lambda: GroupShard(options, world.random, self.group_counters),
            commit_timeout=commit_timeout,
            on_loaded=self._forget_deleted_topics,
        )
        self.runtimes = (self.groups,)
        self._replicas = replicas

    # -- metadata

    def apply(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Take over and give up partitions, after the replica manager took the same delta."""
        self.image = image
        for runtime in self.runtimes:
            for partition in runtime.partitions():
                hosted = runtime.hosted(partition)
                assert hosted is not None
                log = hosted.log
                assert isinstance(log, ReplicaLog)
                replica = self._replicas.hosted(runtime.topic, partition)
                if replica is not log.hosted or not log.is_current:
                    runtime.unload(partition)
            topic = image.topics_by_name.get(runtime.topic)
            changed = None if topic is None else delta.topics_changed.get(topic.topic_id)
            for partition in () if changed is None else changed.partitions:
                replica = self._replicas.hosted(runtime.topic, partition)
                if (
                    replica is not None
                    and isinstance(replica.core.state, Leader)
                    and replica.log.offline is None
                    and runtime.hosted(partition) is None
                ):
                    runtime.load(partition, ReplicaLog(self._replicas, replica))
        if delta.topics_deleted:
            for partition in self.groups.partitions():
                self._forget_deleted_topics(partition)

    def _forget_deleted_topics(self, partition: int) -> None:
        """A topic may have been deleted while nobody coordinated the groups that read it."""
        self.groups.call(partition, lambda shard, _now: shard.forget_offsets(self._topic_id))

    def _topic_id(self, topic: str) -> UUID | None:
        state = self.image.topics_by_name.get(topic)
        return None if state is None else state.topic_id

    # -- where

    def partition_of(self, kind: CoordinatorKind, key: str) -> int:
        """The partition that ``key`` belongs to, ``NO_PARTITION`` while there is no topic."""
        topic = self.image.topics_by_name.get(kind.topic)
        return NO_PARTITION if topic is None else partition_for(key, len(topic.partitions))

    def group_partition(self, group_id: str) -> int:
        return self.partition_of(GROUPS, group_id)

    def locate(self, kind: CoordinatorKind, key: str) -> tuple[ErrorCode, int]:
        """The broker that coordinates ``key``, -1 with an error."""
        partition = self.partition_of(kind, key)
        if partition != NO_PARTITION:
            leader = self.image.topics_by_name[kind.topic].partitions[partition].leader
            broker = self.image.brokers.get(leader)
            if broker is not None and not broker.fenced:
                return ErrorCode.NONE, leader
        return ErrorCode.COORDINATOR_NOT_AVAILABLE, -1

    async def close(self) -> None:
        """Whoever waits is told to look for another coordinator."""
        for runtime in self.runtimes:
            await runtime.close()


def internal_topic(
    name: str, image: MetadataImage, node_id: int, static_configs: Mapping[str, str]
) -> CreatableTopic | None:
    """How an internal topic is to be created; None for any other name.

    Where fewer brokers than the replication factor are registered, as in a cluster of one for
    development, there are as many replicas as brokers. (Kafka refuses to make the topic then, and
    no consumer group works.)
    """
    kind = BY_TOPIC.get(name)
    if kind is None:
        return None

    def setting(key: str) -> Value:
        return broker_value(image, BROKER_CONFIGS[key], static_configs, node_id)

    partitions, factor = setting(kind.partitions_setting), setting(kind.replication_setting)
    assert isinstance(partitions, int)
    assert isinstance(factor, int)
    return CreatableTopic(
        name,
        partitions,
        max(1, min(factor, len(image.brokers))),
        configs=(
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("segment.bytes", str(setting(kind.segment_bytes_setting))),
        ),
    )
