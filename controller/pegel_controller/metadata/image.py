"""The immutable metadata image; `apply` shares everything that did not change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from pegel_controller.metadata.records import (
    BrokerFencedRecord,
    BrokerOfflineDirsRecord,
    BrokerRegisteredRecord,
    BrokerShutdownRequestedRecord,
    BrokerUnfencedRecord,
    BrokerUnregisteredRecord,
    ClusterIdRecord,
    ConfigRecord,
    ControllerRegisteredRecord,
    ControllerUnregisteredRecord,
    EntryTimeRecord,
    FeatureRecord,
    InterBrokerSecretRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Record,
    ScramCredentialRecord,
    ScramCredentialRemovedRecord,
    TopicRecord,
    TopicRemovedRecord,
)
from pegel_controller.metadata.wire import Wire

NO_LEADER = -1
RESOURCE_TOPIC = 2
RESOURCE_BROKER = 4
# Written by brokers for themselves; clients see them marked as such.
INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state"})


@dataclass(frozen=True, slots=True)
class PartitionState(Wire):
    """Invariants: leader ∈ ISR or -1; ISR ⊆ replicas; ISR ∩ ELR = ∅.

    While a reassignment is under way (KIP-455) `replicas` are the target's, preferred leader
    first, then those in `removing`; `adding` are the target's new ones, and `original` is what
    a cancelled reassignment gives back. All three are empty otherwise.

    `last_known_elr`: those who left ISR or ELR with their page cache while no more was acknowledged
    (KIP-966), the last of them first; it leads where both are empty.
    """

    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    elr: tuple[int, ...] = ()
    last_known_elr: tuple[int, ...] = ()
    leader_recovery_state: int = 0
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    reason: str = ""
    original: tuple[int, ...] = ()

    @property
    def preferred_leader(self) -> int:
        return self.replicas[0]

    @property
    def reassigning(self) -> bool:
        return bool(self.original)

    @property
    def target(self) -> tuple[int, ...]:
        """The replicas that this partition is to have in the end."""
        return tuple(r for r in self.replicas if r not in self.removing)

    @property
    def replication_factor(self) -> int:
        """Replicas that hold data by right: a move neither asks for more in sync nor for fewer."""
        return len(self.original) or len(self.replicas)


@dataclass(frozen=True, slots=True)
class TopicState(Wire):
    name: str
    topic_id: UUID
    partitions: tuple[PartitionState, ...]


@dataclass(frozen=True, slots=True)
class BrokerState(Wire):
    node_id: int
    host: str
    port: int
    rack: str | None
    broker_epoch: int
    incarnation: UUID
    boot_id: str
    fenced: bool = True
    shutting_down: bool = False
    log_dirs: tuple[UUID, ...] = ()
    offline_log_dirs: tuple[UUID, ...] = ()
    advertised_http_port: int = -1
    # (topic id, partition) of replicas whose log failed; sorted.
    offline_replicas: tuple[tuple[UUID, int], ...] = ()

    @property
    def eligible(self) -> bool:
        """May join an ISR or lead (KIP-841)."""
        return not self.fenced and not self.shutting_down

    def eligible_for(self, partition: tuple[UUID, int]) -> bool:
        """May join the ISR of this partition or lead it: its log there has not failed."""
        return self.eligible and partition not in self.offline_replicas


@dataclass(frozen=True, slots=True)
class ScramCredential(Wire):
    """What proves that a user knows the password (RFC 5802); `mechanism` as in Kafka."""

    mechanism: int
    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


ConfigKeyPair = tuple[int, str]


@dataclass(frozen=True, slots=True)
class MetadataImage:
    """All cluster metadata as of Raft index `index`. Never mutated."""

    cluster_id: str = ""
    index: int = 0
    topics_by_name: Mapping[str, TopicState] = field(default_factory=dict)
    topics_by_id: Mapping[UUID, TopicState] = field(default_factory=dict)
    brokers: Mapping[int, BrokerState] = field(default_factory=dict)
    configs: Mapping[ConfigKeyPair, Mapping[str, str]] = field(default_factory=dict)
    features: Mapping[str, int] = field(default_factory=dict)
    next_producer_id: int = 0
    last_broker_epoch: int = 0
    # Controllers that joined or left the running cluster; None: left. The first ones are known
    # from the nodes' configuration.
    controllers: Mapping[int, tuple[str, int] | None] = field(default_factory=dict)
    # By user, then by mechanism.
    credentials: Mapping[str, Mapping[int, ScramCredential]] = field(default_factory=dict)
    inter_broker_secret: bytes = field(default=b"", repr=False)

    def apply(self, records: Iterable[Record], index: int) -> "MetadataImage":
        """The image after `records`, atomically. Raises `ValueError` if one does not fit."""
        return _Builder(self).apply(records).build(index)

    def partition(self, topic: str, partition: int) -> PartitionState | None:
        state = self.topics_by_name.get(topic)
        if state is None or not 0 <= partition < len(state.partitions):
            return None
        return state.partitions[partition]


class _Builder:
    """Copies a map when it first changes and a topic's partitions once per entry."""

    __slots__ = (
        "_base",
        "_brokers",
        "_cluster_id",
        "_configs",
        "_controllers",
        "_credentials",
        "_features",
        "_last_broker_epoch",
        "_next_producer_id",
        "_open",
        "_removed",
        "_secret",
    )

    def __init__(self, base: MetadataImage) -> None:
        self._base = base
        self._brokers: dict[int, BrokerState] | None = None
        self._configs: dict[ConfigKeyPair, Mapping[str, str]] | None = None
        self._features: dict[str, int] | None = None
        self._controllers = base.controllers
        self._credentials: dict[str, Mapping[int, ScramCredential]] | None = None
        self._secret = base.inter_broker_secret
        self._open: dict[UUID, tuple[str, list[PartitionState]]] = {}
        self._removed: set[UUID] = set()
        self._cluster_id = base.cluster_id
        self._next_producer_id = base.next_producer_id
        self._last_broker_epoch = base.last_broker_epoch

    def apply(self, records: Iterable[Record]) -> "_Builder":
        for record in records:
            self._apply_one(record)
        return self

    def _apply_one(self, record: Record) -> None:
        match record:
            case PartitionChangeRecord():
                self._change_partition(record)
            case PartitionRecord(topic_id, partition, replicas, isr, leader, epoch, part_epoch):
                partitions = self._partitions(topic_id)
                if partition != len(partitions):
                    raise ValueError(f"partition {partition} does not follow {len(partitions)}")
                partitions.append(PartitionState(replicas, isr, leader, epoch, part_epoch))
            case TopicRecord(name, topic_id):
                self._open[topic_id] = (name, [])
            case TopicRemovedRecord(topic_id):
                name = self._name(topic_id)
                self._open.pop(topic_id, None)
                self._removed.add(topic_id)
                self._config_map().pop((RESOURCE_TOPIC, name), None)
            case ConfigRecord():
                self._change_config(record)
            case ProducerIdsRecord():
                self._next_producer_id = record.next_producer_id
            case ClusterIdRecord(cluster_id):
                self._cluster_id = cluster_id
            case EntryTimeRecord():
                pass
            case FeatureRecord(name, level):
                if self._features is None:
                    self._features = dict(self._base.features)
                self._features[name] = level
            case ControllerRegisteredRecord(node_id, host, port):
                self._controllers = {**self._controllers, node_id: (host, port)}
            case ControllerUnregisteredRecord(node_id):
                self._controllers = {**self._controllers, node_id: None}
            case ScramCredentialRecord() | ScramCredentialRemovedRecord():
                self._change_credential(record)
            case InterBrokerSecretRecord(secret):
                self._secret = secret
            case _:
                self._change_broker(record)

    def _change_partition(self, r: PartitionChangeRecord) -> None:
        partitions = self._partitions(r.topic_id)
        old = partitions[r.partition]
        moves = bool(r.replicas)
        partitions[r.partition] = PartitionState(
            r.replicas or old.replicas,
            r.isr,
            r.leader,
            r.leader_epoch,
            r.partition_epoch,
            r.elr,
            r.last_known_elr,
            r.leader_recovery_state,
            r.adding if moves else old.adding,
            r.removing if moves else old.removing,
            r.reason,
            r.original if moves else old.original,
        )

    def _change_config(self, r: ConfigRecord) -> None:
        configs = self._config_map()
        values = dict(configs.get((r.resource_type, r.resource_name), {}))
        if r.value is None:
            values.pop(r.key, None)
        else:
            values[r.key] = r.value
        if values:
            configs[r.resource_type, r.resource_name] = values
        else:
            configs.pop((r.resource_type, r.resource_name), None)

    def _change_credential(self, r: ScramCredentialRecord | ScramCredentialRemovedRecord) -> None:
        if self._credentials is None:
            self._credentials = dict(self._base.credentials)
        own = dict(self._credentials.get(r.user, {}))
        if isinstance(r, ScramCredentialRecord):
            own[r.mechanism] = ScramCredential(
                r.mechanism, r.iterations, r.salt, r.stored_key, r.server_key
            )
        else:
            own.pop(r.mechanism, None)
        if own:
            self._credentials[r.user] = own
        else:
            self._credentials.pop(r.user, None)

    def _change_broker(self, record: Record) -> None:
        if self._brokers is None:
            self._brokers = dict(self._base.brokers)
        brokers = self._brokers
        match record:
            case BrokerRegisteredRecord() as r:
                brokers[r.node_id] = BrokerState(
                    r.node_id,
                    r.host,
                    r.port,
                    r.rack,
                    r.broker_epoch,
                    r.incarnation,
                    r.boot_id,
                    log_dirs=r.log_dirs,
                    advertised_http_port=r.advertised_http_port,
                )
                self._last_broker_epoch = r.broker_epoch
            case BrokerFencedRecord(node_id):
                brokers[node_id] = replace(self._broker(node_id), fenced=True)
            case BrokerUnfencedRecord(node_id):
                brokers[node_id] = replace(self._broker(node_id), fenced=False)
            case BrokerShutdownRequestedRecord(node_id):
                brokers[node_id] = replace(self._broker(node_id), shutting_down=True)
            case BrokerOfflineDirsRecord(node_id, _, dirs, failed):
                brokers[node_id] = replace(
                    self._broker(node_id), offline_log_dirs=dirs, offline_replicas=failed
                )
            case BrokerUnregisteredRecord(node_id):
                brokers.pop(node_id, None)
            case _:
                raise ValueError(f"record {type(record).__name__} has no rule")

    def _broker(self, node_id: int) -> BrokerState:
        assert self._brokers is not None
        broker = self._brokers.get(node_id)
        if broker is None:
            raise ValueError(f"broker {node_id} is not registered")
        return broker

    def _config_map(self) -> dict[ConfigKeyPair, Mapping[str, str]]:
        if self._configs is None:
            self._configs = dict(self._base.configs)
        return self._configs

    def _name(self, topic_id: UUID) -> str:
        if topic_id in self._open:
            return self._open[topic_id][0]
        topic = self._base.topics_by_id.get(topic_id)
        if topic is None or topic_id in self._removed:
            raise ValueError(f"topic id {topic_id} does not exist")
        return topic.name

    def _partitions(self, topic_id: UUID) -> list[PartitionState]:
        opened = self._open.get(topic_id)
        if opened is None:
            name = self._name(topic_id)
            opened = (name, list(self._base.topics_by_id[topic_id].partitions))
            self._open[topic_id] = opened
        return opened[1]

    def build(self, index: int) -> MetadataImage:
        base = self._base
        by_name, by_id = base.topics_by_name, base.topics_by_id
        if self._open or self._removed:
            new_name, new_id = dict(by_name), dict(by_id)
            for topic_id in self._removed:
                old = new_id.pop(topic_id, None)
                if old is not None:
                    del new_name[old.name]
            for topic_id, (name, partitions) in self._open.items():
                topic = TopicState(name, topic_id, tuple(partitions))
                new_name[name] = topic
                new_id[topic_id] = topic
            by_name, by_id = new_name, new_id
        return MetadataImage(
            self._cluster_id,
            index,
            by_name,
            by_id,
            base.brokers if self._brokers is None else self._brokers,
            base.configs if self._configs is None else self._configs,
            base.features if self._features is None else self._features,
            self._next_producer_id,
            self._last_broker_epoch,
            self._controllers,
            base.credentials if self._credentials is None else self._credentials,
            self._secret,
        )
