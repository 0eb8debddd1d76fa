"""What the planner is told of a cluster, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pegel.types import TopicPartition


class PlanError(ValueError):
    """No plan can do what was asked; the text says what would be possible."""


@dataclass(frozen=True, slots=True)
class BrokerLoad:
    """``live``: it may take replicas and lead."""

    node_id: int
    rack: str | None = None
    live: bool = True


@dataclass(frozen=True, slots=True)
class PartitionLoad:
    """``replicas``: preferred leader first. ``size_bytes`` is one replica's size."""

    partition: TopicPartition
    replicas: tuple[int, ...]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """New replicas of one partition, and why, in words."""

    partition: TopicPartition
    before: tuple[int, ...]
    after: tuple[int, ...]
    size_bytes: int
    reasons: tuple[str, ...]

    @property
    def added(self) -> tuple[int, ...]:
        return tuple(b for b in self.after if b not in self.before)

    @property
    def removed(self) -> tuple[int, ...]:
        return tuple(b for b in self.before if b not in self.after)

    @property
    def bytes_to_copy(self) -> int:
        return self.size_bytes * len(self.added)


@dataclass(frozen=True, slots=True)
class Share:
    """What one broker has: replicas, of how many it is the preferred leader, their bytes."""

    replicas: int = 0
    leaders: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """``moves`` by partition; the shares of every broker before and after."""

    moves: tuple[Move, ...]
    before: dict[int, Share]
    after: dict[int, Share]

    @property
    def bytes_to_copy(self) -> int:
        return sum(move.bytes_to_copy for move in self.moves)


def shares(brokers: Iterable[int], partitions: Sequence[PartitionLoad]) -> dict[int, Share]:
    """Each broker's share, those without any included."""
    found = {broker: [0, 0, 0] for broker in sorted(brokers)}
    for p in partitions:
        for broker in p.replicas:
            entry = found.get(broker)
            if entry is None:
                entry = found[broker] = [0, 0, 0]
            entry[0] += 1
            entry[2] += p.size_bytes
        found[p.replicas[0]][1] += 1
    return {broker: Share(*entry) for broker, entry in found.items()}
