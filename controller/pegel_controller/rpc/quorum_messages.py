"""Bodies of the RPC that changes who votes (KIP-853); the rules of `rpc.messages` hold."""

from dataclasses import dataclass

from pegel_controller.metadata.wire import Wire


@dataclass(frozen=True, slots=True)
class AddVoterRequest(Wire):
    """`cluster_id` None is not checked."""

    node_id: int
    host: str
    port: int
    cluster_id: str | None = None
    timeout_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class RemoveVoterRequest(Wire):
    node_id: int
    cluster_id: str | None = None
    timeout_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class ChangeVoterResponse(Wire):
    error: int = 0
    message: str = ""
