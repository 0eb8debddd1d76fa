"""Every record of the metadata log: one declaration per type.

A Raft entry is a msgpack array of records applied atomically; a record is
`[type, version, fields…]`. Fields are only ever appended, with a default, so
that an older node reads a newer record (DESIGN §4).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar
from uuid import UUID

import msgpack

from pegel_controller.metadata.wire import Wire


class UnknownRecordError(ValueError):
    """A record type this release does not know: applying around it would diverge."""


class Record(Wire):
    """Base of all metadata records. `record_type` and `version` go before the fields."""

    __slots__ = ()
    record_type: ClassVar[int] = -1
    version: ClassVar[int] = 0


RECORD_TYPES: dict[int, type[Record]] = {}
R = TypeVar("R", bound=type[Record])


def _declare(record_type: int, version: int = 0) -> Callable[[R], R]:
    def register(cls: R) -> R:
        assert record_type not in RECORD_TYPES, f"record type {record_type} declared twice"
        cls.record_type = record_type
        cls.version = version
        RECORD_TYPES[record_type] = cls
        return cls

    return register


@_declare(1)
@dataclass(frozen=True, slots=True)
class ClusterIdRecord(Record):
    cluster_id: str


@_declare(2)
@dataclass(frozen=True, slots=True)
class FeatureRecord(Record):
    name: str
    level: int


@_declare(3)
@dataclass(frozen=True, slots=True)
class EntryTimeRecord(Record):
    """First in an entry: the wall clock of the controller that proposed it. For people only."""

    at_ms: int


@_declare(10)
@dataclass(frozen=True, slots=True)
class BrokerRegisteredRecord(Record):
    """A new incarnation; it starts fenced. `boot_id` names the boot of its host."""

    node_id: int
    broker_epoch: int
    incarnation: UUID
    host: str
    port: int
    rack: str | None
    boot_id: str
    log_dirs: tuple[UUID, ...] = ()
    advertised_http_port: int = -1


@_declare(11)
@dataclass(frozen=True, slots=True)
class BrokerFencedRecord(Record):
    node_id: int
    broker_epoch: int
    reason: str = ""


@_declare(12)
@dataclass(frozen=True, slots=True)
class BrokerUnfencedRecord(Record):
    node_id: int
    broker_epoch: int


@_declare(13)
@dataclass(frozen=True, slots=True)
class BrokerShutdownRequestedRecord(Record):
    node_id: int
    broker_epoch: int


@_declare(14)
@dataclass(frozen=True, slots=True)
class BrokerUnregisteredRecord(Record):
    node_id: int
    broker_epoch: int


@_declare(15)
@dataclass(frozen=True, slots=True)
class BrokerOfflineDirsRecord(Record):
    """All that a broker cannot read or write any more, until it registers anew.

    `reasons`: why, for each of the replicas; "" where its whole directory failed.
    """

    node_id: int
    broker_epoch: int
    offline_log_dirs: tuple[UUID, ...]
    offline_replicas: tuple[tuple[UUID, int], ...] = ()
    reasons: tuple[str, ...] = ()


@_declare(16)
@dataclass(frozen=True, slots=True)
class ControllerRegisteredRecord(Record):
    """Where a controller listens that joined the running cluster (KIP-853)."""

    node_id: int
    host: str
    port: int


@_declare(17)
@dataclass(frozen=True, slots=True)
class ControllerUnregisteredRecord(Record):
    """A controller that votes no more, whatever configuration files still say."""

    node_id: int


@_declare(20)
@dataclass(frozen=True, slots=True)
class TopicRecord(Record):
    name: str
    topic_id: UUID


@_declare(21)
@dataclass(frozen=True, slots=True)
class PartitionRecord(Record):
    topic_id: UUID
    partition: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0


@_declare(22)
@dataclass(frozen=True, slots=True)
class PartitionChangeRecord(Record):
    """The whole new mutable state of a partition; partition epoch grows by one.

    Absolute values, not differences, so that replay needs no rules. `reason` is
    the cause for `pegel explain`: killed, hung, too slow, caught up, ordered,
    preferred, shutdown, page cache lost, unclean, reassigned, moved …

    Empty `replicas`: they, and a reassignment that is under way, stay as they are.
    `original` are the replicas before the reassignment, for who cancels it.
    """

    topic_id: UUID
    partition: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    last_known_elr: tuple[int, ...]
    leader: int
    leader_epoch: int
    partition_epoch: int
    leader_recovery_state: int = 0
    reason: str = ""
    replicas: tuple[int, ...] = ()
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    original: tuple[int, ...] = ()
    detail: str = ""


@_declare(23)
@dataclass(frozen=True, slots=True)
class TopicRemovedRecord(Record):
    topic_id: UUID


@_declare(30)
@dataclass(frozen=True, slots=True)
class ConfigRecord(Record):
    """Sets (or with value None removes) one key. `resource_type` as in Kafka: 2 topic, 4 broker."""

    resource_type: int
    resource_name: str
    key: str
    value: str | None


@_declare(40)
@dataclass(frozen=True, slots=True)
class ProducerIdsRecord(Record):
    """`next_producer_id` is the first id that was not handed out yet."""

    node_id: int
    broker_epoch: int
    next_producer_id: int


@_declare(50)
@dataclass(frozen=True, slots=True)
class ScramCredentialRecord(Record):
    """What proves that a user knows the password, and not the password (RFC 5802).

    `mechanism` as in Kafka: 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
    """

    user: str
    mechanism: int
    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@_declare(51)
@dataclass(frozen=True, slots=True)
class ScramCredentialRemovedRecord(Record):
    user: str
    mechanism: int


@_declare(52)
@dataclass(frozen=True, slots=True)
class InterBrokerSecretRecord(Record):
    """The password by which brokers know each other; whoever reads this log has it."""

    secret: bytes = field(repr=False)


def encode_records(records: Iterable[Record]) -> bytes:
    """One Raft entry."""
    packed = msgpack.packb([[r.record_type, r.version, *r.to_wire()] for r in records])
    assert isinstance(packed, bytes)
    return packed


def decode_records(data: bytes) -> list[Record]:
    """Inverse of `encode_records`. Raises `ValueError` (`UnknownRecordError`)."""
    try:
        items = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"not a metadata entry: {error}") from None
    if type(items) is not list:
        raise ValueError("a metadata entry must be an array")
    return [decode_record(item) for item in items]


def decode_record(item: object) -> Record:
    """One record from its `[type, version, fields…]` array. Raises `ValueError`."""
    if type(item) is not list or len(item) < 2 or type(item[0]) is not int:
        raise ValueError("a metadata record must be an array of type, version, fields")
    cls = RECORD_TYPES.get(item[0])
    if cls is None:
        raise UnknownRecordError(f"unknown metadata record type {item[0]}")
    return cls.from_wire(item[2:])


RecordBatch = Sequence[Record]
