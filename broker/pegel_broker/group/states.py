"""The states of a group, its deadlines, and what its writes to the log stand for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.join_group import JoinGroupResponse


class State(Enum):
    """With the names that Kafka's tools print."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


LEGAL_TRANSITIONS = {
    State.EMPTY: {State.PREPARING_REBALANCE, State.DEAD},
    State.PREPARING_REBALANCE: {State.COMPLETING_REBALANCE, State.EMPTY, State.DEAD},
    State.COMPLETING_REBALANCE: {State.STABLE, State.PREPARING_REBALANCE, State.DEAD},
    State.STABLE: {State.PREPARING_REBALANCE, State.DEAD},
    State.DEAD: set(),
}


class TimerKind(Enum):
    """What a deadline is for."""

    MEMBER = "member"
    JOIN = "join"
    SYNC = "sync"
    RETENTION = "retention"


class TimerKey(NamedTuple):
    kind: TimerKind
    group_id: str = ""
    member_id: str = ""


@dataclass(frozen=True, slots=True)
class GroupAssignment:
    """Context of the write that makes a generation's assignment (or an empty group) last."""

    group_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class StaticRejoin:
    """Context of the write that gives a static member's place to its new member id."""

    group_id: str
    generation: int
    member_id: str
    leader_told: str | None


def join_refused(error: ErrorCode, member_id: str, version: int) -> JoinGroupResponse:
    """Before version 7 the name of the protocol cannot be null."""
    return JoinGroupResponse(
        error_code=error, member_id=member_id, protocol_name=None if version >= 7 else ""
    )
