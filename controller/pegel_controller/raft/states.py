"""One small class per state of a Raft node; nothing is kept that the state does not need."""

from __future__ import annotations

from dataclasses import dataclass, field

from pegel_controller.raft.progress import Progress


@dataclass(slots=True)
class Follower:
    deadline: float  # when to campaign
    leader_id: int | None = None
    heard_at: float = float("-inf")  # when the leader was last heard


@dataclass(slots=True)
class PreCandidate:
    deadline: float
    votes: dict[int, bool] = field(default_factory=dict)


@dataclass(slots=True)
class Candidate:
    deadline: float
    votes: dict[int, bool] = field(default_factory=dict)


@dataclass(slots=True)
class PendingRead:
    token: int  # the round a quorum must have answered
    index: int


@dataclass(slots=True)
class Leader:
    first_index: int  # of its own term's no-op
    elected_at: float
    heartbeat_at: float
    progress: dict[int, Progress] = field(default_factory=dict)  # everybody but itself
    sequence: int = 0  # rounds begun; a round proves leadership once a quorum answers it
    round_sent_at: dict[int, float] = field(default_factory=dict)
    reads: list[PendingRead] = field(default_factory=list)
    round_pending: bool = False
    transfer_to: int | None = None
    transfer_deadline: float = float("inf")
    transfer_sent: bool = False


State = Follower | PreCandidate | Candidate | Leader
