"""What happened to brokers and partitions, in the order of the metadata log.

Events are derived from committed records against the image before them, so that every controller
keeps the same history, and a snapshot carries it on. The newest `limit` events are kept.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from uuid import UUID

from pegel_controller.metadata import records as r
from pegel_controller.metadata.image import RESOURCE_TOPIC, MetadataImage, PartitionState
from pegel_controller.metadata.wire import Wire

EVENTS_MAX = 10_000

BROKER_REGISTERED = "broker registered"
BROKER_FENCED = "broker fenced"
BROKER_UNFENCED = "broker unfenced"
BROKER_SHUTTING_DOWN = "broker shutting down"
BROKER_UNREGISTERED = "broker unregistered"
LOG_DIRECTORY_FAILED = "log directory failed"
REPLICA_FAILED = "replica failed"
TOPIC_CREATED = "topic created"
TOPIC_DELETED = "topic deleted"
PARTITIONS_ADDED = "partitions added"
PARTITION_CHANGED = "partition changed"
CONFIG_CHANGED = "config changed"


@dataclass(frozen=True, slots=True)
class Event(Wire):
    """One thing that happened. Fields that do not apply have their defaults.

    `sequence` counts the events of a cluster from 1; `index` is that of the Raft entry, `at_ms`
    the wall clock (milliseconds) of the controller that proposed it, -1 where it did not say.
    `leader`, `isr`, `elr` and `replicas` are a partition's new state, `old_leader` and `old_isr`
    those before. `reason` is a word of the controller, `detail` what is known beyond it.
    """

    sequence: int
    index: int
    at_ms: int
    kind: str
    broker: int = -1
    topic: str = ""
    partition: int = -1
    reason: str = ""
    detail: str = ""
    leader: int = -1
    old_leader: int = -1
    leader_epoch: int = -1
    isr: tuple[int, ...] = ()
    old_isr: tuple[int, ...] = ()
    elr: tuple[int, ...] = ()
    replicas: tuple[int, ...] = ()


class History:
    """The newest events of one cluster."""

    def __init__(
        self, events: Sequence[Event] = (), next_sequence: int = 1, limit: int = EVENTS_MAX
    ) -> None:
        self._events = deque(events, maxlen=limit)
        self.next_sequence = next_sequence

    @property
    def events(self) -> tuple[Event, ...]:
        """Oldest first."""
        return tuple(self._events)

    @property
    def first_sequence(self) -> int:
        """The oldest event that is kept; `next_sequence` where there is none."""
        return self._events[0].sequence if self._events else self.next_sequence

    def after(
        self, sequence: int, *, topic: str = "", partition: int = -1, limit: int = EVENTS_MAX
    ) -> tuple[tuple[Event, ...], int]:
        """Events later than `sequence`, oldest first, at most `limit`; and where to go on.

        With `topic` (and `partition`) only its own events, and those of brokers: they are the
        causes.
        """
        chosen: list[Event] = []
        # A stranger may ask for what is later than any number can be.
        skip = min(max(0, sequence + 1 - self.first_sequence), len(self._events))
        last = max(sequence, self.first_sequence - 1)
        for event in islice(self._events, skip, None):
            if len(chosen) == limit:
                break
            last = event.sequence
            of_a_broker = event.broker >= 0 and not event.topic
            if not topic or of_a_broker or _concerns(event, topic, partition):
                chosen.append(event)
        return tuple(chosen), last

    def append(self, before: MetadataImage, records: Sequence[r.Record], index: int) -> None:
        """Take a committed entry; `before` is the image without it."""
        at_ms = -1
        names = {}  # topics that are made in this entry
        grown: dict[UUID, int] = {}
        for record in records:
            match record:
                case r.EntryTimeRecord(at_ms=time):
                    at_ms = time
                case r.TopicRecord(name, topic_id):
                    names[topic_id] = name
                    self._add(index, at_ms, TOPIC_CREATED, topic=name)
                case r.PartitionRecord() if record.topic_id not in names:
                    grown[record.topic_id] = grown.get(record.topic_id, 0) + 1
                case r.TopicRemovedRecord(topic_id):
                    name = _topic_name(before, names, topic_id)
                    self._add(index, at_ms, TOPIC_DELETED, topic=name)
                case r.PartitionChangeRecord():
                    self._change(before, names, record, index, at_ms)
                case r.ConfigRecord():
                    self._configure(record, index, at_ms)
                case _:
                    self._broker(before, record, index, at_ms)
        for topic_id, count in grown.items():
            name = _topic_name(before, names, topic_id)
            self._add(index, at_ms, PARTITIONS_ADDED, topic=name, detail=str(count))

    def _add(self, index: int, at_ms: int, kind: str, **fields: object) -> None:
        event = Event(self.next_sequence, index, at_ms, kind, **fields)  # type: ignore[arg-type]
        self._events.append(event)
        self.next_sequence += 1

    def _change(
        self,
        before: MetadataImage,
        names: dict[UUID, str],
        record: r.PartitionChangeRecord,
        index: int,
        at_ms: int,
    ) -> None:
        old = _partition(before, record)
        if old is not None and _is_silent(old, record):
            return
        name = _topic_name(before, names, record.topic_id)
        self._add(
            index, at_ms, PARTITION_CHANGED, topic=name, partition=record.partition,
            reason=record.reason, detail=record.detail, leader=record.leader,
            old_leader=-1 if old is None else old.leader, leader_epoch=record.leader_epoch,
            isr=record.isr, old_isr=() if old is None else old.isr, elr=record.elr,
            replicas=record.replicas or (() if old is None else old.replicas),
        )  # fmt: skip

    def _configure(self, record: r.ConfigRecord, index: int, at_ms: int) -> None:
        value = "unset" if record.value is None else record.value
        detail = f"{record.key}={value}"
        if record.resource_type == RESOURCE_TOPIC:
            self._add(index, at_ms, CONFIG_CHANGED, topic=record.resource_name, detail=detail)
        else:
            broker = int(record.resource_name) if record.resource_name else -1
            self._add(index, at_ms, CONFIG_CHANGED, broker=broker, detail=detail)

    def _broker(self, before: MetadataImage, record: r.Record, index: int, at_ms: int) -> None:
        match record:
            case r.BrokerRegisteredRecord(node_id=node):
                where = f"{record.host}:{record.port}"
                self._add(index, at_ms, BROKER_REGISTERED, broker=node, detail=where)
            case r.BrokerFencedRecord(node_id=node, reason=reason):
                self._add(index, at_ms, BROKER_FENCED, broker=node, reason=reason)
            case r.BrokerUnfencedRecord(node_id=node):
                self._add(index, at_ms, BROKER_UNFENCED, broker=node)
            case r.BrokerShutdownRequestedRecord(node_id=node):
                self._add(index, at_ms, BROKER_SHUTTING_DOWN, broker=node)
            case r.BrokerUnregisteredRecord(node_id=node):
                self._add(index, at_ms, BROKER_UNREGISTERED, broker=node)
            case r.BrokerOfflineDirsRecord(node_id=node):
                self._fail_replicas(before, record, index, at_ms)
            case _:
                pass  # producer ids and features are nobody's question

    def _fail_replicas(
        self, before: MetadataImage, record: r.BrokerOfflineDirsRecord, index: int, at_ms: int
    ) -> None:
        """One event for each replica that failed by itself, one for all of a directory."""
        node = record.node_id
        known = before.brokers.get(node)
        old = () if known is None else known.offline_replicas
        reasons = chain(record.reasons, repeat(""))
        told = zip(record.offline_replicas, reasons, strict=False)
        new = {key: reason for key, reason in told if key not in old}
        for (topic_id, partition), reason in new.items():
            if reason:
                name = _topic_name(before, {}, topic_id)
                self._add(
                    index, at_ms, REPLICA_FAILED, broker=node, topic=name, partition=partition,
                    detail=reason,
                )  # fmt: skip
        if not all(new.values()):
            self._add(index, at_ms, LOG_DIRECTORY_FAILED, broker=node)


def _concerns(event: Event, topic: str, partition: int) -> bool:
    return event.topic == topic and (
        partition < 0 or event.partition < 0 or event.partition == partition
    )


def _is_silent(old: PartitionState, record: r.PartitionChangeRecord) -> bool:
    """Whether only the partition epoch grows; what made it grow has an event of its own."""
    new = (record.leader_epoch, record.isr, record.elr, record.last_known_elr)
    return (
        new == (old.leader_epoch, old.isr, old.elr, old.last_known_elr)
        and record.leader_recovery_state == old.leader_recovery_state
        and not record.replicas
    )


def _topic_name(before: MetadataImage, made: dict[UUID, str], topic_id: UUID) -> str:
    if topic_id in made:
        return made[topic_id]
    topic = before.topics_by_id.get(topic_id)
    return "" if topic is None else topic.name


def _partition(before: MetadataImage, record: r.PartitionChangeRecord) -> PartitionState | None:
    topic = before.topics_by_id.get(record.topic_id)
    if topic is None or record.partition >= len(topic.partitions):
        return None
    return topic.partitions[record.partition]
