"""What brokers are asked, and answer, where a leader has to be found by the logs (KIP-966)."""

from dataclasses import dataclass
from uuid import UUID

from pegel_controller.metadata.wire import Wire

# Topic id, partition, leader epoch.
Wanted = tuple[UUID, int, int]


@dataclass(frozen=True, slots=True)
class LogEnd(Wire):
    """How far a replica's log goes while nobody leads in `leader_epoch`, so that it stands still.

    `last_epoch`: the leader epoch of its last record, -1 where it has none. `end_offset`: what is
    before it is in the files.
    """

    topic_id: UUID
    partition: int
    leader_epoch: int
    last_epoch: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class ReportLogEndsRequest(Wire):
    """The answer to `ends_wanted` of a heartbeat: those of the logs that stand still by now."""

    broker_id: int
    broker_epoch: int
    ends: tuple[LogEnd, ...]


@dataclass(frozen=True, slots=True)
class ReportLogEndsResponse(Wire):
    error: int = 0
    message: str = ""
