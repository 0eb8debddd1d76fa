"""What changed between two images; unchanged parts are skipped by identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from pegel_controller.metadata.image import (
    BrokerState,
    ConfigKeyPair,
    MetadataImage,
    PartitionState,
    TopicState,
)

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class PartitionDelta:
    old: PartitionState | None
    new: PartitionState


@dataclass(frozen=True, slots=True)
class TopicDelta:
    """`partitions` has only those that differ, by ascending partition number."""

    old: TopicState | None
    new: TopicState
    partitions: Mapping[int, PartitionDelta]


@dataclass(frozen=True, slots=True)
class Change:
    """Old and new broker; None where it did not or does not exist."""

    old: BrokerState | None
    new: BrokerState | None


@dataclass(frozen=True, slots=True)
class ConfigChange:
    old: Mapping[str, str]
    new: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MetadataDelta:
    topics_changed: Mapping[UUID, TopicDelta]
    topics_deleted: Mapping[UUID, TopicState]
    brokers_changed: Mapping[int, Change]
    configs_changed: Mapping[ConfigKeyPair, ConfigChange]

    @property
    def empty(self) -> bool:
        return not (
            self.topics_changed
            or self.topics_deleted
            or self.brokers_changed
            or self.configs_changed
        )

    @staticmethod
    def between(old: MetadataImage, new: MetadataImage) -> "MetadataDelta":
        """Every difference; deterministic order (that of the images, then removals)."""
        changed: dict[UUID, TopicDelta] = {}
        deleted: dict[UUID, TopicState] = {}
        if old.topics_by_id is not new.topics_by_id:
            for topic_id, topic in new.topics_by_id.items():
                before = old.topics_by_id.get(topic_id)
                if before is not topic and before != topic:
                    changed[topic_id] = _topic_delta(before, topic)
            deleted = {k: t for k, t in old.topics_by_id.items() if k not in new.topics_by_id}
        brokers = {k: Change(o, n) for k, o, n in _differences(old.brokers, new.brokers)}
        configs = {
            k: ConfigChange(o or {}, n or {}) for k, o, n in _differences(old.configs, new.configs)
        }
        return MetadataDelta(changed, deleted, brokers, configs)


def _differences(old: Mapping[K, V], new: Mapping[K, V]) -> list[tuple[K, V | None, V | None]]:
    if old is new:
        return []
    found: list[tuple[K, V | None, V | None]] = [
        (key, old.get(key), value) for key, value in new.items() if old.get(key) != value
    ]
    found.extend((key, value, None) for key, value in old.items() if key not in new)
    return found


def _topic_delta(old: TopicState | None, new: TopicState) -> TopicDelta:
    before = () if old is None else old.partitions
    partitions = {}
    for number, state in enumerate(new.partitions):
        previous = before[number] if number < len(before) else None
        if previous is not state and previous != state:
            partitions[number] = PartitionDelta(previous, state)
    return TopicDelta(old, new, partitions)
