"""Bodies of the controller RPC: one request and one response per method.

Each travels as a msgpack array of its fields in this order (`to_wire`,
`from_wire`); fields are only ever appended, with a default. `error` is a Kafka
error code (0 = none), `message` Kafka's wording for it.
"""

from dataclasses import dataclass
from uuid import UUID

from pegel_controller.metadata.history import Event
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc.credential_messages import (
    AlterCredentialsRequest,
    AlterCredentialsResponse,
)
from pegel_controller.rpc.quorum_messages import (
    AddVoterRequest,
    ChangeVoterResponse,
    RemoveVoterRequest,
)
from pegel_controller.rpc.reassignment_messages import (
    AlterReassignmentsRequest,
    AlterReassignmentsResponse,
)
from pegel_controller.rpc.recovery_messages import (
    ReportLogEndsRequest,
    ReportLogEndsResponse,
    Wanted,
)

NO_UUID = UUID(int=0)
# Topic id, partition, leader epoch.
HandOver = tuple[UUID, int, int]


@dataclass(frozen=True, slots=True)
class RegisterBrokerRequest(Wire):
    """`boot_id` names the boot of the host; `clean_shutdown` that the last run ended cleanly."""

    broker_id: int
    incarnation: UUID
    host: str
    port: int
    rack: str | None = None
    boot_id: str = ""
    clean_shutdown: bool = False
    cluster_id: str = ""
    log_dirs: tuple[UUID, ...] = ()
    advertised_http_port: int = -1


@dataclass(frozen=True, slots=True)
class RegisterBrokerResponse(Wire):
    error: int = 0
    message: str = ""
    broker_epoch: int = -1
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class HeartbeatRequest(Wire):
    """`applied_index`: metadata index this broker has applied. `lease_remaining_ms` informs."""

    broker_id: int
    broker_epoch: int
    applied_index: int
    wants_fence: bool = False
    wants_shutdown: bool = False
    lease_remaining_ms: int = -1


@dataclass(frozen=True, slots=True)
class HeartbeatResponse(Wire):
    """The lease of `lease_ms` counts from when the broker SENT the heartbeat.

    `hand_over`: (topic id, partition, leader epoch) that another replica is to lead. The broker
    stops accepting writes for them and says so with `resign`. `ends_wanted`: partitions that nobody
    leads in that leader epoch; the broker says with `report_log_ends` how far its logs go.
    """

    error: int = 0
    message: str = ""
    caught_up: bool = False
    fenced: bool = True
    should_shut_down: bool = False
    lease_ms: int = 0
    hand_over: tuple[HandOver, ...] = ()
    ends_wanted: tuple[Wanted, ...] = ()


@dataclass(frozen=True, slots=True)
class ResignRequest(Wire):
    """`partitions`: (topic id, partition, leader epoch) that the broker leads no more."""

    broker_id: int
    broker_epoch: int
    partitions: tuple[HandOver, ...]


@dataclass(frozen=True, slots=True)
class ResignResponse(Wire):
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class IsrMember(Wire):
    """`broker_epoch` -1: unknown to the leader, not checked (KIP-903)."""

    broker_id: int
    broker_epoch: int = -1


@dataclass(frozen=True, slots=True)
class AlterPartitionItem(Wire):
    """`detail`: what the leader knows of the cause, for people."""

    topic_id: UUID
    partition: int
    leader_epoch: int
    partition_epoch: int
    new_isr: tuple[IsrMember, ...]
    leader_recovery_state: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AlterPartitionRequest(Wire):
    broker_id: int
    broker_epoch: int
    partitions: tuple[AlterPartitionItem, ...]


@dataclass(frozen=True, slots=True)
class AlterPartitionResult(Wire):
    topic_id: UUID
    partition: int
    error: int = 0
    leader: int = -1
    leader_epoch: int = -1
    isr: tuple[int, ...] = ()
    leader_recovery_state: int = 0
    partition_epoch: int = -1


@dataclass(frozen=True, slots=True)
class AlterPartitionResponse(Wire):
    error: int = 0
    message: str = ""
    partitions: tuple[AlterPartitionResult, ...] = ()


@dataclass(frozen=True, slots=True)
class CreatableTopic(Wire):
    """-1 / -1 take the defaults. `assignments`: (partition, replicas)."""

    name: str
    num_partitions: int = -1
    replication_factor: int = -1
    assignments: tuple[tuple[int, tuple[int, ...]], ...] = ()
    configs: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class CreateTopicsRequest(Wire):
    topics: tuple[CreatableTopic, ...]
    validate_only: bool = False
    timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class CreateTopicResult(Wire):
    name: str
    topic_id: UUID = NO_UUID
    error: int = 0
    message: str | None = None
    num_partitions: int = -1
    replication_factor: int = -1


@dataclass(frozen=True, slots=True)
class CreateTopicsResponse(Wire):
    topics: tuple[CreateTopicResult, ...] = ()
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class DeletableTopic(Wire):
    """By name, or by id when the name is None."""

    name: str | None = None
    topic_id: UUID = NO_UUID


@dataclass(frozen=True, slots=True)
class DeleteTopicsRequest(Wire):
    topics: tuple[DeletableTopic, ...]
    timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class DeleteTopicResult(Wire):
    name: str | None
    topic_id: UUID = NO_UUID
    error: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteTopicsResponse(Wire):
    topics: tuple[DeleteTopicResult, ...] = ()
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class CreatePartitionsTopic(Wire):
    """`count` is the new total; `assignments` (or None) has replicas of each new partition."""

    name: str
    count: int
    assignments: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class CreatePartitionsRequest(Wire):
    topics: tuple[CreatePartitionsTopic, ...]
    validate_only: bool = False
    timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class TopicResult(Wire):
    name: str
    error: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True)
class CreatePartitionsResponse(Wire):
    topics: tuple[TopicResult, ...] = ()
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class ConfigOperation(Wire):
    """`operation` as Kafka: 0 set, 1 delete, 2 append, 3 subtract (ignored in full mode)."""

    key: str
    operation: int = 0
    value: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigResource(Wire):
    """`resource_type` as Kafka: 2 topic, 4 broker (name "" = cluster default)."""

    resource_type: int
    resource_name: str
    operations: tuple[ConfigOperation, ...]


@dataclass(frozen=True, slots=True)
class AlterConfigsRequest(Wire):
    """`full`: the legacy AlterConfigs, which replaces all dynamic configs of the resource."""

    resources: tuple[ConfigResource, ...]
    validate_only: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class ConfigResourceResult(Wire):
    resource_type: int
    resource_name: str
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class AlterConfigsResponse(Wire):
    resources: tuple[ConfigResourceResult, ...] = ()
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class ElectLeadersRequest(Wire):
    """`election_type` 0 preferred, 1 unclean. `partitions` None: all."""

    election_type: int
    partitions: tuple[tuple[str, int], ...] | None = None
    timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class ElectLeaderResult(Wire):
    topic: str
    partition: int
    error: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ElectLeadersResponse(Wire):
    """`awaited`: (topic, partition) that a live leader was asked to hand over first."""

    partitions: tuple[ElectLeaderResult, ...] = ()
    error: int = 0
    message: str = ""
    awaited: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class AllocateProducerIdsRequest(Wire):
    broker_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True)
class AllocateProducerIdsResponse(Wire):
    error: int = 0
    message: str = ""
    first_producer_id: int = -1
    count: int = 0


@dataclass(frozen=True, slots=True)
class UnregisterBrokerRequest(Wire):
    broker_id: int


@dataclass(frozen=True, slots=True)
class UnregisterBrokerResponse(Wire):
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class UpdateOfflineReplicasRequest(Wire):
    """All log directories and replicas (topic id, partition) of a broker that failed.

    `reasons`: why, for each of the replicas; "" where its whole directory failed.
    """

    broker_id: int
    broker_epoch: int
    offline_log_dirs: tuple[UUID, ...] = ()
    partitions: tuple[tuple[UUID, int], ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateOfflineReplicasResponse(Wire):
    error: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class MetadataFetchRequest(Wire):
    """Committed entries after `from_index` (exclusive); waits up to `max_wait_ms` for one.

    `applied_index`: up to where the broker serves what it has fetched.
    """

    broker_id: int
    from_index: int
    max_wait_ms: int = 10_000
    max_bytes: int = 4_194_304
    applied_index: int = -1


@dataclass(frozen=True, slots=True)
class MetadataEntry(Wire):
    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MetadataFetchResponse(Wire):
    """Either entries, or a snapshot (its index in `snapshot_index`) to start from."""

    error: int = 0
    message: str = ""
    entries: tuple[MetadataEntry, ...] = ()
    snapshot: bytes | None = None
    snapshot_index: int = -1
    commit_index: int = -1


@dataclass(frozen=True, slots=True)
class EventsRequest(Wire):
    """What happened later than event `after`; `topic` "" and `partition` -1 for everything.

    Waits up to `max_wait_ms` where there is nothing yet.
    """

    after: int = 0
    topic: str = ""
    partition: int = -1
    limit: int = 1_000
    max_wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class EventsResponse(Wire):
    """`last`: the event to ask on from. `first`: the oldest one that is still known."""

    error: int = 0
    message: str = ""
    events: tuple[Event, ...] = ()
    last: int = 0
    first: int = 1


@dataclass(frozen=True, slots=True)
class StatusRequest(Wire):
    pass


@dataclass(frozen=True, slots=True)
class VoterStatus(Wire):
    """Times are milliseconds before the answer; -1: never, or not known."""

    node_id: int
    host: str = ""
    port: int = -1
    log_end_index: int = -1
    last_heard_ms: int = -1
    is_voter: bool = True
    last_caught_up_ms: int = -1


@dataclass(frozen=True, slots=True)
class StatusResponse(Wire):
    """Answer of describe_quorum / status."""

    error: int = 0
    message: str = ""
    leader_id: int = -1
    term: int = -1
    commit_index: int = -1
    voters: tuple[VoterStatus, ...] = ()
    observers: tuple[VoterStatus, ...] = ()
    cluster_id: str = ""


METHODS: dict[str, tuple[type[Wire], type[Wire]]] = {
    "register_broker": (RegisterBrokerRequest, RegisterBrokerResponse),
    "heartbeat": (HeartbeatRequest, HeartbeatResponse),
    "resign": (ResignRequest, ResignResponse),
    "report_log_ends": (ReportLogEndsRequest, ReportLogEndsResponse),
    "alter_partition": (AlterPartitionRequest, AlterPartitionResponse),
    "create_topics": (CreateTopicsRequest, CreateTopicsResponse),
    "delete_topics": (DeleteTopicsRequest, DeleteTopicsResponse),
    "create_partitions": (CreatePartitionsRequest, CreatePartitionsResponse),
    "alter_configs": (AlterConfigsRequest, AlterConfigsResponse),
    "alter_credentials": (AlterCredentialsRequest, AlterCredentialsResponse),
    "elect_leaders": (ElectLeadersRequest, ElectLeadersResponse),
    "alter_reassignments": (AlterReassignmentsRequest, AlterReassignmentsResponse),
    "allocate_producer_ids": (AllocateProducerIdsRequest, AllocateProducerIdsResponse),
    "unregister_broker": (UnregisterBrokerRequest, UnregisterBrokerResponse),
    "update_offline_replicas": (UpdateOfflineReplicasRequest, UpdateOfflineReplicasResponse),
    "metadata_fetch": (MetadataFetchRequest, MetadataFetchResponse),
    "events": (EventsRequest, EventsResponse),
    "status": (StatusRequest, StatusResponse),
    "add_voter": (AddVoterRequest, ChangeVoterResponse),
    "remove_voter": (RemoveVoterRequest, ChangeVoterResponse),
}
"""Method name → (request, response): the one table server and channel derive from."""
