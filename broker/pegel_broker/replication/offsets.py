"""Offsets by time and by leader epoch, as ListOffsets and OffsetForLeaderEpoch ask for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.errors import LogError
from pegel_broker.log.results import TimestampOffset
from pegel_broker.replication.results import EpochEndResult, OffsetResult

if TYPE_CHECKING:
    from pegel_broker.replication.hosted import HostedPartition
    from pegel_broker.replication.manager import ReplicaManager

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
DEBUGGING_CONSUMER = -2


def list_offset(
    manager: ReplicaManager,
    topic: str,
    partition: int,
    timestamp: int,
    current_leader_epoch: int,
    *,
    debugging: bool,
) -> OffsetResult | asyncio.Future[OffsetResult]:
    """``debugging``: any replica answers, and up to its log end."""
    hosted = manager.hosted(topic, partition)
    if hosted is None:
        return OffsetResult(manager.why_not_hosted(topic, partition))
    core, log = hosted.core, hosted.log
    error = (
        core.check_replica(current_leader_epoch)
        if debugging
        else core.check_leader(current_leader_epoch)
    )
    if error:
        return OffsetResult(error)
    if log.offline is not None:
        return OffsetResult(ErrorCode.KAFKA_STORAGE_ERROR)
    limit = log.log_end_offset if debugging else core.high_watermark
    # A new leader does not know yet how far its predecessor's high watermark had come: what it
    # would call the end may lie before records that were read already (KIP-207).
    settled = debugging or core.is_settled
    if timestamp == LATEST:
        if not settled:
            return OffsetResult(ErrorCode.OFFSET_NOT_AVAILABLE)
        return OffsetResult(ErrorCode.NONE, limit, -1, core.state.epoch)
    if timestamp in {EARLIEST, EARLIEST_LOCAL}:
        start = log.log_start_offset
        return OffsetResult(ErrorCode.NONE, start, -1, log.epoch_for_offset(start))
    if timestamp == LATEST_TIERED:
        return OffsetResult(ErrorCode.NONE, -1, -1, -1)
    if timestamp == MAX_TIMESTAMP:
        return _below(hosted, log.max_timestamp(), limit, settled=settled)
    if timestamp < 0:
        return OffsetResult(ErrorCode.UNSUPPORTED_VERSION)
    return _below(hosted, log.offset_for_timestamp(timestamp), limit, settled=settled)


def _below(
    hosted: HostedPartition,
    search: asyncio.Future[TimestampOffset | None],
    limit: int,
    *,
    settled: bool,
) -> asyncio.Future[OffsetResult]:
    """What was found, unless a consumer cannot read it yet."""

    async def wait() -> OffsetResult:
        try:
            found = await search
        except LogError as error:
            return OffsetResult(error.code)
        if found is None:
            return OffsetResult(ErrorCode.NONE)
        if found.offset >= limit:
            return OffsetResult(ErrorCode.NONE if settled else ErrorCode.OFFSET_NOT_AVAILABLE)
        return OffsetResult(ErrorCode.NONE, found.offset, found.timestamp, found.leader_epoch)

    return asyncio.ensure_future(wait())


def end_offset_for_epoch(
    manager: ReplicaManager,
    topic: str,
    partition: int,
    current_leader_epoch: int,
    leader_epoch: int,
) -> EpochEndResult:
    hosted = manager.hosted(topic, partition)
    if hosted is None:
        return EpochEndResult(manager.why_not_hosted(topic, partition))
    error = hosted.core.check_leader(current_leader_epoch)
    if error:
        return EpochEndResult(error)
    if hosted.log.offline is not None:
        return EpochEndResult(ErrorCode.KAFKA_STORAGE_ERROR)
    epoch, end = hosted.log.end_offset_for_epoch(leader_epoch)
    return EpochEndResult(ErrorCode.NONE, epoch, end)
