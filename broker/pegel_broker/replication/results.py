"""What handlers ask of the replica manager, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.results import Buffer

CONSUMER_ID = -1


@dataclass(slots=True)
class PartitionProduceResult:
    """``leader_id`` and ``leader_epoch`` tell a client that came too late where to go (KIP-951).

    ``record_errors``: index in the batch and message of each record that was refused (KIP-467).
    """

    error: ErrorCode = ErrorCode.NONE
    base_offset: int = -1
    log_append_time: int = -1
    log_start_offset: int = -1
    message: str | None = None
    leader_id: int = -1
    leader_epoch: int = -1
    record_errors: Sequence[tuple[int, str]] = ()


class FetchItem(NamedTuple):
    """One partition of a fetch; epochs are -1 where the client does not tell.

    Named by ``topic`` or, where that is empty, by ``topic_id``: what a request does not say is not
    filled in, for a name and an id may part while a fetch session lives.
    """

    topic: str
    topic_id: UUID
    partition: int
    fetch_offset: int
    max_bytes: int
    current_leader_epoch: int = -1
    last_fetched_epoch: int = -1
    log_start_offset: int = -1


class FetchPlan(NamedTuple):
    """One fetch, sessions resolved. ``replica_id`` is -1 for a consumer."""

    items: Sequence[FetchItem]
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    replica_id: int = CONSUMER_ID
    replica_epoch: int = -1
    read_committed: bool = False
    rack: str = ""
    # Clients that send a rack know that a follower may answer (Fetch v11, KIP-392).
    allow_follower: bool = False


@dataclass(slots=True)
class PartitionFetchResult:
    """``diverging`` is the largest epoch common to both logs and its end here (KIP-595)."""

    error: ErrorCode = ErrorCode.NONE
    high_watermark: int = -1
    last_stable_offset: int = -1
    log_start_offset: int = -1
    records: list[Buffer] = field(default_factory=list)
    size: int = 0
    diverging: tuple[int, int] | None = None
    preferred_read_replica: int = -1
    leader_id: int = -1
    leader_epoch: int = -1


class OffsetResult(NamedTuple):
    """``offset`` -1 where nothing was found."""

    error: ErrorCode
    offset: int = -1
    timestamp: int = -1
    leader_epoch: int = -1


class EpochEndResult(NamedTuple):
    error: ErrorCode
    leader_epoch: int = -1
    end_offset: int = -1


class TrimResult(NamedTuple):
    """DeleteRecords: ``low_watermark`` is the smallest log start offset of the live replicas."""

    error: ErrorCode
    low_watermark: int = -1
