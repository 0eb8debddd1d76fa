"""What the admin calls answer: typed, in the words of the field."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import IntEnum

from pegel.types import CommittedOffset, TopicPartition


class ConfigResourceType(IntEnum):
    """What a configuration belongs to."""

    TOPIC = 2
    BROKER = 4


class ConfigSource(IntEnum):
    """Where a value comes from, the strongest first."""

    UNKNOWN = 0
    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One configuration key of a resource; a sensitive value is ``None``."""

    name: str
    value: str | None
    source: ConfigSource
    read_only: bool
    sensitive: bool
    documentation: str | None = None


@dataclass(frozen=True, slots=True)
class BrokerDescription:
    node_id: int
    host: str
    port: int
    rack: str | None
    fenced: bool


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """``controller_id`` is the broker to which admin requests may be sent, -1 if unknown."""

    cluster_id: str
    controller_id: int
    brokers: tuple[BrokerDescription, ...]


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """One partition; ``leader`` is -1 while there is none.

    ``eligible_leader_replicas`` (KIP-966) is ``None`` where the broker does not tell;
    ``start_offset`` and ``end_offset`` are ``None`` unless asked for and known.
    """

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    offline_replicas: tuple[int, ...]
    eligible_leader_replicas: tuple[int, ...] | None = None
    start_offset: int | None = None
    end_offset: int | None = None


@dataclass(frozen=True, slots=True)
class TopicDescription:
    name: str
    topic_id: uuid.UUID
    is_internal: bool
    partitions: tuple[PartitionDescription, ...]

    @property
    def replication(self) -> int:
        """Replicas of the first partition, which is what all were created with."""
        return len(self.partitions[0].replicas) if self.partitions else 0


@dataclass(frozen=True, slots=True)
class LogDirReplica:
    topic: str
    partition: int
    size_bytes: int
    offset_lag: int


@dataclass(frozen=True, slots=True)
class LogDir:
    """A log directory of one broker; ``error`` names why it is offline, if it is."""

    node_id: int
    path: str
    error: str | None
    total_bytes: int
    usable_bytes: int
    replicas: tuple[LogDirReplica, ...]


@dataclass(frozen=True, slots=True)
class ElectionResult:
    """``error`` is ``None`` where a new leader was elected or none was needed."""

    topic: str
    partition: int
    error: str | None
    elected: bool


@dataclass(frozen=True, slots=True)
class GroupListing:
    """One group; ``type`` and ``state`` are "" where an old broker does not tell them."""

    group: str
    state: str
    type: str
    protocol_type: str


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member; ``instance_id`` is set for static members (KIP-345)."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """``assignor`` is "" while the group has none; ``coordinator`` is a broker's id."""

    group: str
    state: str
    protocol_type: str
    assignor: str
    coordinator: int
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is behind in one partition.

    ``committed`` is ``None`` where the group has no offset: then nothing is known to be read, and
    ``records`` counts from the start. ``seconds`` is the age of the oldest unread record, 0.0 where
    there is none, ``None`` where it was not asked for.
    """

    topic: str
    partition: int
    committed: CommittedOffset | None
    start_offset: int
    end_offset: int
    records: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Reassignment:
    """A move under way. ``replicas`` are those of its target, then those in ``removing``."""

    partition: TopicPartition
    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]

    @property
    def target(self) -> tuple[int, ...]:
        return tuple(r for r in self.replicas if r not in self.removing)


@dataclass(frozen=True, slots=True)
class ReassignmentResult:
    """``error`` is the broker's reason where a move was refused, else ``None``."""

    partition: TopicPartition
    error: str | None


@dataclass(frozen=True, slots=True)
class QuorumReplica:
    """One controller, or one that only follows the metadata log.

    ``address`` is host:port where it is known. Times are milliseconds of the wall clock; -1:
    never, or not known (the leader fetches from nobody).
    """

    node_id: int
    address: str | None
    log_end_offset: int
    last_fetch_ms: int
    last_caught_up_ms: int


@dataclass(frozen=True, slots=True)
class QuorumDescription:
    """Who decides on the metadata. ``leader_id`` is -1 while nobody leads."""

    leader_id: int
    leader_epoch: int
    high_watermark: int
    voters: tuple[QuorumReplica, ...]
    observers: tuple[QuorumReplica, ...]


@dataclass(frozen=True, slots=True)
class UserCredential:
    """What a user can log in with; ``iterations`` is what a guess costs, in hashes."""

    mechanism: str
    iterations: int


@dataclass(frozen=True, slots=True)
class UserDescription:
    """A user who may log in."""

    name: str
    credentials: tuple[UserCredential, ...]
