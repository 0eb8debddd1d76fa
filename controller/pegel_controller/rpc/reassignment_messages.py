"""Bodies of the RPC that moves replicas; the rules of `rpc.messages` hold."""

from dataclasses import dataclass

from pegel_controller.metadata.wire import Wire


@dataclass(frozen=True, slots=True)
class ReassignablePartition(Wire):
    """`replicas` None cancels a reassignment that is under way."""

    topic: str
    partition: int
    replicas: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class AlterReassignmentsRequest(Wire):
    partitions: tuple[ReassignablePartition, ...]
    allow_replication_factor_change: bool = True
    timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class ReassignmentResult(Wire):
    topic: str
    partition: int
    error: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True)
class AlterReassignmentsResponse(Wire):
    partitions: tuple[ReassignmentResult, ...] = ()
    error: int = 0
    message: str = ""
