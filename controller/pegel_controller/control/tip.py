"""The speculative image (committed + proposed) with its indexes: by broker, who moves, and what
nobody leads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from pegel_controller.config import topic_value
from pegel_controller.control.partitions import next_partition
from pegel_controller.metadata.image import NO_LEADER, MetadataImage, PartitionState
from pegel_controller.metadata.records import (
    BrokerFencedRecord,
    BrokerRegisteredRecord,
    BrokerUnfencedRecord,
    BrokerUnregisteredRecord,
    PartitionChangeRecord,
    PartitionRecord,
    Record,
    TopicRemovedRecord,
)

PartitionKey = tuple[UUID, int]


class Tip:
    """Collects the records of one request and applies them to the image as it goes."""

    def __init__(self, image: MetadataImage, static: Mapping[str, str]) -> None:
        self.image = image
        self.static = static
        self._partitions_of: dict[int, dict[PartitionKey, None]] = {}
        # Partitions whose reassignment is under way, in the order in which they began.
        self.moving: dict[PartitionKey, None] = {}
        self.leaderless: dict[PartitionKey, None] = {}
        # Brokers that are fenced, or that hold replicas and are registered no more.
        self.absent: dict[int, None] = {b: None for b, s in image.brokers.items() if s.fenced}
        for topic in image.topics_by_id.values():
            for number, partition in enumerate(topic.partitions):
                self._index(topic.topic_id, number, partition.replicas)
                if partition.reassigning:
                    self.moving[topic.topic_id, number] = None
                if partition.leader == NO_LEADER:
                    self.leaderless[topic.topic_id, number] = None
        for broker in self._partitions_of:
            if broker not in image.brokers:
                self.absent[broker] = None

    def apply(self, records: Sequence[Record]) -> None:
        """Raises `ValueError` where one does not fit; the tip is as it was then."""
        if not records:
            return
        image = self.image.apply(records, self.image.index)
        for record in records:
            if isinstance(record, PartitionChangeRecord):
                if record.replicas:
                    self._move(record)
                if record.leader == NO_LEADER:
                    self.leaderless[record.topic_id, record.partition] = None
                elif self.leaderless:
                    self.leaderless.pop((record.topic_id, record.partition), None)
            elif isinstance(record, PartitionRecord):
                self._index(record.topic_id, record.partition, record.replicas)
            elif isinstance(record, TopicRemovedRecord):
                topic = self.image.topics_by_id[record.topic_id]
                for number, partition in enumerate(topic.partitions):
                    self.moving.pop((topic.topic_id, number), None)
                    self.leaderless.pop((topic.topic_id, number), None)
                    for broker in partition.replicas:
                        self._partitions_of[broker].pop((topic.topic_id, number), None)
            elif isinstance(
                record, BrokerRegisteredRecord | BrokerFencedRecord | BrokerUnregisteredRecord
            ):
                self.absent[record.node_id] = None
            elif isinstance(record, BrokerUnfencedRecord):
                self.absent.pop(record.node_id, None)
        self.image = image

    def _index(self, topic_id: UUID, number: int, replicas: Sequence[int]) -> None:
        for broker in replicas:
            self._partitions_of.setdefault(broker, {})[topic_id, number] = None

    def _move(self, record: PartitionChangeRecord) -> None:
        """Other replicas; one partition changes them at most once in what is applied at a time."""
        key = (record.topic_id, record.partition)
        for broker in self.partition(key).replicas:
            if broker not in record.replicas:
                self._partitions_of[broker].pop(key, None)
        self._index(*key, record.replicas)
        if record.original:
            self.moving[key] = None
        else:
            self.moving.pop(key, None)

    def partitions_of(self, broker: int) -> list[PartitionKey]:
        """Partitions with a replica on `broker`, in order of creation."""
        return list(self._partitions_of.get(broker, ()))

    def eligible(self, broker: int) -> bool:
        state = self.image.brokers.get(broker)
        return state is not None and state.eligible

    def eligible_for(self, key: PartitionKey) -> Callable[[int], bool]:
        """Which brokers may join the ISR of this partition, or lead it."""

        def eligible(broker: int) -> bool:
            state = self.image.brokers.get(broker)
            return state is not None and state.eligible_for(key)

        return eligible

    def partition(self, key: PartitionKey) -> PartitionState:
        return self.image.topics_by_id[key[0]].partitions[key[1]]

    def policy(self, topic_id: UUID) -> tuple[int, bool]:
        """(min.insync.replicas, unclean.leader.election.enable)."""
        name = self.image.topics_by_id[topic_id].name
        min_isr = topic_value(self.image, name, "min.insync.replicas", self.static)
        key = "unclean.leader.election.enable"
        unclean = topic_value(self.image, name, key, self.static)
        assert isinstance(min_isr, int)
        return min_isr, bool(unclean)

    def without(
        self, broker: int, reason: str, *, lost: bool = False, emptied: bool = False
    ) -> list[Record]:
        """Changes that take an ineligible broker out of every ISR, and leaders off it.

        `lost`: its page cache is gone; `emptied`: and so is a log directory.
        """
        changes: list[Record] = []
        policies: dict[UUID, tuple[int, bool]] = {}
        for key in self.partitions_of(broker):
            old = self.partition(key)
            if not (
                broker in old.isr
                or (lost and broker in old.elr)
                or (emptied and broker in old.last_known_elr)
            ):
                continue
            min_isr, unclean = policies.get(key[0]) or self.policy(key[0])
            policies[key[0]] = (min_isr, unclean)
            isr = tuple(r for r in old.isr if r != broker)
            gone = broker if lost else -1
            change = next_partition(
                *key, old, isr, self.eligible_for(key),
                min_isr=min_isr, unclean=unclean, lost=gone, emptied=emptied, reason=reason,
            )  # fmt: skip
            if change is not None:
                changes.append(_with_who_is_needed(change) if lost else change)
        return changes

    def revive(self, broker: int) -> list[Record]:
        """Elections that became possible because `broker` was unfenced."""
        changes: list[Record] = []
        for key in self.partitions_of(broker):
            old = self.partition(key)
            if old.leader != -1:
                continue
            min_isr, unclean = self.policy(key[0])
            change = next_partition(
                *key, old, old.isr, self.eligible_for(key),
                min_isr=min_isr, unclean=unclean, reason="returned",
            )  # fmt: skip
            if change is not None:
                changes.append(change)
        return changes


def _with_who_is_needed(change: PartitionChangeRecord) -> PartitionChangeRecord:
    """For people: nobody is trusted any more, and no list that they see names who is waited for."""
    if change.isr or change.elr or not change.last_known_elr:
        return change
    first = change.last_known_elr[0]
    told = (
        f"log ends are compared when broker {first} is back, and the others are or had their time"
    )
    return replace(change, detail=told)
