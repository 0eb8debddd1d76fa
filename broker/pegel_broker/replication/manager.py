"""All replicas of one broker: takes metadata, produce and fetch requests, and keeps the ISRs.

A thin shell around the pure ``Partition``: it owns the logs' callbacks, the purgatory, the replica
fetchers and the conversation with the controller about in-sync replicas.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from pegel.logs import Event
from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_broker.log.errors import LogError
from pegel_broker.log.manager import LogManager
from pegel_broker.log.partition_log import PartitionLog
from pegel_broker.metrics.stats import ReplicationStats, TopicStats
from pegel_broker.purgatory import Purgatory
from pegel_broker.replication import configs, fetching, offsets, producing, trimming
from pegel_broker.replication.fetchers import ReplicaFetchers
from pegel_broker.replication.hosted import DelayedProduce, HostedPartition
from pegel_broker.replication.hosting import Arrivals, host
from pegel_broker.replication.isr_sync import IsrSync
from pegel_broker.replication.partition import Follower, Leader, State
from pegel_broker.replication.results import (
    EpochEndResult,
    FetchItem,
    FetchPlan,
    OffsetResult,
    PartitionFetchResult,
    PartitionProduceResult,
    TrimResult,
)
from pegel_broker.replication.standing import StandingFetches
from pegel_broker.replication.throttle import RateLimit
from pegel_controller.metadata import MetadataDelta, MetadataImage, PartitionState
from pegel_controller.rpc.messages import AlterPartitionRequest, AlterPartitionResponse

_log = logging.getLogger("pegel.broker")


@dataclass(frozen=True, slots=True)
class ReplicationOptions:
    """Times in seconds unless the name says otherwise; Kafka's defaults but for the wait of a fetch
    while nothing happens, which only costs wake-ups."""

    lag_time_max: float = 30.0
    fetch_wait_max_ms: int = 2000
    fetch_max_bytes: int = 1024 * 1024
    fetch_response_max_bytes: int = 10 * 1024 * 1024
    static_configs: Mapping[str, str] = field(default_factory=dict)


class ReplicaManager:
    """Everything is called on the event loop.

    ``alter_partition`` sends to the active controller. ``broker_epoch`` is that of this
    registration. ``on_offline()`` is called where one more replica's log failed.
    """

    def __init__(
        self,
        world: World,
        node_id: int,
        logs: LogManager,
        options: ReplicationOptions,
        alter_partition: Callable[[AlterPartitionRequest], Awaitable[AlterPartitionResponse]],
        broker_epoch: Callable[[], int],
        on_offline: Callable[[], None] | None = None,
    ) -> None:
        self.world = world
        self.clock = world.clock
        self.node_id = node_id
        self.logs = logs
        self.options = options
        self.broker_epoch = broker_epoch
        self.image = MetadataImage()
        self.stats = ReplicationStats()
        self.topic_stats: dict[str, TopicStats] = {}
        self.purgatory = Purgatory()
        self._on_offline = on_offline
        self._lease_until = float("-inf")
        self._retired = False
        self._resigned: dict[HostedPartition, int] = {}
        self._hosted: dict[tuple[str, int], HostedPartition] = {}
        self._by_id: dict[tuple[UUID, int], HostedPartition] = {}
        self.offline: dict[tuple[UUID, int], str] = {}  # replicas whose log failed, and why
        self._fetchers = ReplicaFetchers(self)
        self.leader_limit = RateLimit()  # leader.replication.throttled.rate
        self.follower_limit = self._fetchers.limit
        self._isr = IsrSync(self, alter_partition)
        self.trimming: dict[HostedPartition, None] = {}  # with a DeleteRecords that waits
        self._strays_checked = False
        self.configs = configs.TopicConfigs(self)
        self.arrivals = Arrivals(self)
        self.standing = StandingFetches(self)

    # -- what there is

    def hosted(self, topic: str, partition: int) -> HostedPartition | None:
        return self._hosted.get((topic, partition))

    def all_hosted(self) -> list[HostedPartition]:
        """By topic and partition."""
        return [self._hosted[key] for key in sorted(self._hosted)]

    def find(self, item: FetchItem) -> HostedPartition | None:
        """What a fetch asks for, by name or by topic id."""
        if item.topic:
            return self._hosted.get((item.topic, item.partition))
        return self._by_id.get((item.topic_id, item.partition))

    def unsorted(self) -> list[HostedPartition]:
        """One atomic copy of what is hosted: for a reader on another thread."""
        return list(self._hosted.values())

    def why_not_hosted(self, topic: str, partition: int) -> ErrorCode:
        if self.image.partition(topic, partition) is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.NOT_LEADER_OR_FOLLOWER

    # -- the lease

    def on_lease(self, valid_until: float) -> None:
        """The controller confirmed this broker; monotonic time in seconds."""
        if not self._retired:
            self._lease_until = max(self._lease_until, valid_until)

    def resign(self) -> None:
        """Accept no more writes until the next lease: this broker was fenced."""
        self._lease_until = float("-inf")

    def retire(self) -> None:
        """Accept no more writes at all, before the controller is asked for new leaders.

        Otherwise both the old and the new leader would accept acks=1 until this broker has heard
        of the election.
        """
        self._retired = True
        self.resign()

    def hand_over(
        self, partitions: Iterable[tuple[UUID, int, int]]
    ) -> tuple[tuple[UUID, int, int], ...]:
        """Accept no more writes where (topic id, partition, leader epoch) says so.

        Returns everything that is resigned and still waits for its new leader: the controller is
        to be told of it, again and again until the epoch is over.
        """
        for topic_id, number, epoch in partitions:
            topic = self.image.topics_by_id.get(topic_id)
            hosted = None if topic is None else self._hosted.get((topic.name, number))
            if hosted is not None and hosted.topic_id == topic_id:
                state = hosted.core.state
                if isinstance(state, Leader) and state.epoch == epoch:
                    state.resigned = True
                    self._resigned[hosted] = epoch
        waiting = []
        for hosted, epoch in list(self._resigned.items()):
            state = hosted.core.state
            if isinstance(state, Leader) and state.epoch == epoch:
                waiting.append((hosted.topic_id, hosted.core.partition, epoch))
            else:
                del self._resigned[hosted]
        return tuple(waiting)

    def holds_lease(self, now: float) -> bool:
        """Whether no other broker can have been made leader of what this one leads."""
        return now < self._lease_until

    # -- metadata

    def apply(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Take committed metadata: roles, deletions, configurations. File work is queued.

        Many new replicas are made in later turns of the event loop, but not at the start, where
        everything is new and nobody is served yet.
        """
        self.image = image
        self.configs.clear()
        for topic_id in delta.topics_deleted:
            self._drop_topic(topic_id)
        configs.take_minimums(self, delta)
        for topic_id, topic in delta.topics_changed.items():
            name = topic.new.name
            new = [
                number
                for number, change in topic.partitions.items()
                if (name, number) not in self._hosted and self.node_id in change.new.replicas
            ]
            later = self._strays_checked and self.arrivals.take(name, topic_id, new)
            for number, change in topic.partitions.items():
                if not later or (name, number) in self._hosted:
                    self.update(name, topic_id, number, change.new)
        configs.take(self, delta)
        for broker_id, broker in delta.brokers_changed.items():
            if broker.new is not None and broker.new.eligible:
                self._isr.on_broker_eligible(broker_id)
        if delta.brokers_changed:
            trimming.on_brokers_changed(self)
            self.standing.on_brokers_changed()
        self._fetchers.close_idle()
        if not self._strays_checked:
            self._strays_checked = True
            self._drop_strays()

    def update(self, topic: str, topic_id: UUID, number: int, state: PartitionState) -> None:
        """One replica as the metadata have it: hosted, dropped, given a role."""
        key = (topic, number)
        hosted = self._hosted.get(key)
        if hosted is not None and hosted.topic_id != topic_id:
            self._drop(hosted)  # deleted and created again under the same name
            hosted = None
        if self.node_id not in state.replicas:
            if hosted is not None:
                self._drop(hosted)
                self._forget_stats(topic)
            return
        if hosted is None:
            try:
                hosted = self._host(topic, topic_id, number, state)
            except LogError as error:
                self._on_not_hosted(topic, number, error)
                return
        before, paced = hosted.core.state, hosted.paced
        hosted.take_membership(self.node_id, state)
        changed = hosted.core.update(
            self.clock.monotonic(), state, hosted.log.log_end_offset, hosted.log.high_watermark
        )
        if changed:
            self._change_role(hosted, before)
        elif paced != hosted.paced:
            self.change_pace(hosted)
        hosted.advance()
        if isinstance(hosted.core.state, Leader):
            self._isr.consider(hosted)

    def _host(
        self, topic: str, topic_id: UUID, number: int, state: PartitionState
    ) -> HostedPartition:
        hosted = host(self, self.configs, topic, topic_id, number, state)
        log = hosted.log
        log.on_stable = lambda _log: self._on_stable(hosted)
        log.on_offline = self._on_log_offline
        self._hosted[topic, number] = self._by_id[topic_id, number] = hosted
        if log.offline is not None:
            self._on_log_offline(log, log.offline)
            self._on_not_hosted(topic, number, log.offline)
        return hosted

    def _on_not_hosted(self, topic: str, number: int, reason: object) -> None:
        self.stats.metadata_errors += 1
        _log.error("cannot host %s-%d: %s", topic, number, reason)

    def _change_role(self, hosted: HostedPartition, before: State) -> None:
        state = hosted.core.state
        level = logging.INFO if isinstance(before, Leader) else logging.DEBUG
        self._fetchers.forget(hosted)
        if isinstance(before, Leader) and isinstance(state, Leader):
            # What was appended under the former epoch stays, and is committed under this one. To
            # call it refused would be wrong, and librdkafka, which takes that for "not persisted",
            # would write it once more under a new producer epoch.
            hosted.wake_readers()
        else:
            hosted.fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        at_ms = self.clock.wall_ms()
        if isinstance(state, Leader):
            hosted.log.assign_epoch(state.epoch)
            self._isr.watch_lag(hosted)
            _log.log(logging.DEBUG if self.arrivals else logging.INFO, Event(
                "leads", partition=hosted.name, epoch=state.epoch, isr=list(state.isr),
                offset=state.epoch_start_offset, at_ms=at_ms,
            ))  # fmt: skip
        elif isinstance(state, Follower):
            if hosted.log.offline is None:
                self._fetchers.follow(hosted)
            # A line for each partition only where this broker led before: there may be thousands.
            _log.log(level, Event(
                "follows", partition=hosted.name, epoch=state.epoch, leader=state.leader_id,
                offset=hosted.log.log_end_offset, at_ms=at_ms,
            ))  # fmt: skip
        else:
            _log.log(level, Event(
                "leaderless", partition=hosted.name, epoch=state.epoch, at_ms=at_ms
            ))  # fmt: skip

    def change_pace(self, hosted: HostedPartition) -> None:
        if isinstance(hosted.core.state, Follower) and hosted.log.offline is None:
            self._fetchers.follow(hosted)

    def on_caught_up(self, hosted: HostedPartition) -> None:
        """A paced follower holds all that is committed: it follows like the others from now on."""
        hosted.caught_up = True
        self.change_pace(hosted)

    def _drop_topic(self, topic_id: UUID) -> None:
        gone = [h for h in self._hosted.values() if h.topic_id == topic_id]
        for hosted in gone:
            self._drop(hosted)
        if gone:
            self._forget_stats(gone[0].core.topic)

    def _forget_stats(self, topic: str) -> None:
        if not any(name == topic for name, _ in self._hosted):
            self.topic_stats.pop(topic, None)

    def _drop(self, hosted: HostedPartition) -> None:
        """This broker holds the replica no longer: its files go."""
        del self._hosted[hosted.key]
        del self._by_id[hosted.topic_id, hosted.core.partition]
        self.offline.pop((hosted.topic_id, hosted.core.partition), None)
        self._fetchers.forget(hosted)
        self._isr.forget(hosted)
        hosted.log.on_stable = None
        hosted.fail_waiting(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        self.logs.delete(*hosted.key)

    def _drop_strays(self) -> None:
        """Logs on disk that the metadata gives to nobody here: deleted while this broker was."""
        for log in list(self.logs.logs()):
            if (log.topic, log.partition) not in self._hosted:
                _log.info("deleting stray log %s-%d", log.topic, log.partition)
                self.logs.delete(log.topic, log.partition)

    # -- logs

    def _on_stable(self, hosted: HostedPartition) -> None:
        if isinstance(hosted.core.state, Leader):
            hosted.on_stable()
        elif isinstance(hosted.core.state, Follower):
            self._fetchers.on_stable(hosted)

    def _on_log_offline(self, log: PartitionLog, reason: str) -> None:
        hosted = self._hosted.get((log.topic, log.partition))
        name = f"{log.topic}-{log.partition}"
        _log.error(Event("replica_offline", partition=name, reason=reason))
        if hosted is None or hosted.log is not log:
            return
        self._fetchers.forget(hosted)
        hosted.fail_waiting(ErrorCode.KAFKA_STORAGE_ERROR)
        by_itself = log.keeper.directory.offline is None
        self.offline[hosted.topic_id, hosted.core.partition] = reason if by_itself else ""
        if self._on_offline is not None:
            self._on_offline()

    # -- requests

    def produce(
        self,
        topic: str,
        partition: int,
        records: memoryview | None,
        acks: int,
        timeout_ms: int,
    ) -> PartitionProduceResult | DelayedProduce:
        """Append one batch; the operation where the acknowledgement has to wait."""
        hosted = self._hosted.get((topic, partition))
        if hosted is None:
            state = self.image.partition(topic, partition)
            if state is None:
                return PartitionProduceResult(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return PartitionProduceResult(
                ErrorCode.NOT_LEADER_OR_FOLLOWER,
                leader_id=state.leader,
                leader_epoch=state.leader_epoch,
            )
        if records is None:
            return PartitionProduceResult(
                ErrorCode.INVALID_RECORD, message="the request holds no record batch"
            )
        return producing.produce(self, hosted, records, acks, timeout_ms)

    def fetch(
        self, plan: FetchPlan
    ) -> list[PartitionFetchResult] | asyncio.Future[list[PartitionFetchResult]]:
        """Results in the order of the items; a future where there is something to wait for."""
        return fetching.fetch(self, plan)

    def list_offset(
        self,
        topic: str,
        partition: int,
        timestamp: int,
        *,
        current_leader_epoch: int = -1,
        debugging: bool = False,
    ) -> OffsetResult | asyncio.Future[OffsetResult]:
        """The offset for a time in ms, or for one of Kafka's special timestamps."""
        return offsets.list_offset(
            self, topic, partition, timestamp, current_leader_epoch, debugging=debugging
        )

    def end_offset_for_epoch(
        self, topic: str, partition: int, current_leader_epoch: int, leader_epoch: int
    ) -> EpochEndResult:
        """Where ``leader_epoch`` ends in the leader's log (KIP-101, KIP-279)."""
        return offsets.end_offset_for_epoch(
            self, topic, partition, current_leader_epoch, leader_epoch
        )

    def delete_records(
        self, topic: str, partition: int, offset: int, timeout_ms: int
    ) -> TrimResult | asyncio.Future[TrimResult]:
        """Delete what lies below ``offset`` (-1: the high watermark) on every live replica."""
        return trimming.delete_records(self, topic, partition, offset, timeout_ms)

    def on_follower_fetch(self, hosted: HostedPartition, plan: FetchPlan, item: FetchItem) -> None:
        """A follower holds everything below its fetch offset."""
        error = hosted.core.on_fetch(
            self.clock.monotonic(), plan.replica_id, plan.replica_epoch, item.fetch_offset,
            item.log_start_offset, hosted.log.log_end_offset,
        )  # fmt: skip
        if error is ErrorCode.NONE:
            hosted.advance()
            if hosted.core.has_follower_outside:
                self._isr.consider(hosted)
            if hosted.trims:
                hosted.on_low_watermark(trimming.low_watermark(self, hosted))

    def count_sent(self, item: FetchItem, size: int, *, to_follower: bool) -> None:
        """Record bytes that leave in a Fetch response."""
        if to_follower:
            self.stats.sent_bytes += size
        elif (hosted := self.find(item)) is not None:
            hosted.stats.sent_bytes += size

    def count_failed_fetch(self, item: FetchItem) -> None:
        """A consumer was answered with an error; partitions of other brokers count nowhere."""
        if (hosted := self.find(item)) is not None:
            hosted.stats.failed_fetch += 1

    def count_failed_produce(self, topic: str) -> None:
        """A batch was answered with an error; topics without a replica here count nowhere."""
        if (stats := self.topic_stats.get(topic)) is not None:
            stats.failed_produce += 1

    def watch_lag(self, hosted: HostedPartition) -> None:
        """The leader's log has grown: its followers are behind until they fetch."""
        self._isr.watch_lag(hosted)

    def preferred_replica(self, hosted: HostedPartition, rack: str, item: FetchItem) -> int:
        """An in-sync follower in the client's rack that has what it asks for, else -1 (KIP-392)."""
        state = hosted.core.state
        own = self.image.brokers.get(self.node_id)
        if not isinstance(state, Leader) or (own is not None and own.rack == rack):
            return -1
        for replica in state.isr:
            broker, progress = self.image.brokers.get(replica), state.followers.get(replica)
            if (
                broker is not None
                and progress is not None
                and broker.rack == rack
                and not broker.fenced
                and progress.log_start_offset <= item.fetch_offset <= progress.log_end_offset
            ):
                return replica
        return -1

    async def close(self) -> None:
        """Stop following and answer whoever waits; the logs stay open."""
        self.resign()
        self.arrivals.close()
        for hosted in self.all_hosted():
            hosted.fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self.standing.close()
        await self._isr.close()
        await self._fetchers.close()
        self.purgatory.close()
