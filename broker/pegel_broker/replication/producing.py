"""The produce path: checks, append, and the wait that the acknowledgement mode asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.errors import LogError, RejectedRecordsError
from pegel_broker.log.results import AppendResult
from pegel_broker.replication.hosted import DelayedProduce, HostedPartition
from pegel_broker.replication.partition import Leader
from pegel_broker.replication.results import PartitionProduceResult

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

ACKS_NONE = 0
ACKS_LEADER = 1
ACKS_ALL = -1


def produce(
    manager: ReplicaManager,
    hosted: HostedPartition,
    records: memoryview,
    acks: int,
    timeout_ms: int,
) -> PartitionProduceResult | DelayedProduce:
    """Append a client's batch, and wait for what ``acks`` asks for."""
    hosted.stats.produced[acks] += 1
    now = manager.clock.monotonic()
    appended = _append(manager, hosted, records, acks, now)
    if isinstance(appended, PartitionProduceResult):
        return appended
    result = PartitionProduceResult(
        ErrorCode.NONE,
        appended.first_offset,
        appended.log_append_time,
        appended.log_start_offset,
    )
    if acks == ACKS_NONE:
        return result
    required = appended.last_offset + 1
    everybody = acks == ACKS_ALL
    reached = hosted.core.high_watermark if everybody else hosted.log.stable_offset
    if reached >= required:
        return result
    operation = DelayedProduce(now + max(timeout_ms, 0) / 1000, required, result)
    hosted.wait_for_ack(operation, all_replicas=everybody)
    return operation


def append_for_all(
    manager: ReplicaManager, hosted: HostedPartition, records: memoryview
) -> tuple[ErrorCode, int]:
    """Append as for acks=all, for a coordinator, which follows the high watermark itself.

    Returns the offset behind the batch, or an error.
    """
    appended = _append(manager, hosted, records, ACKS_ALL, manager.clock.monotonic())
    if isinstance(appended, PartitionProduceResult):
        return appended.error, -1
    return ErrorCode.NONE, appended.last_offset + 1


def _append(
    manager: ReplicaManager, hosted: HostedPartition, records: memoryview, acks: int, now: float
) -> AppendResult | PartitionProduceResult:
    """No ``await`` stands between the checks and the append."""
    state = hosted.core.state
    if not isinstance(state, Leader) or state.resigned or not manager.holds_lease(now):
        leader_id, leader_epoch = hosted.leader_hint
        if leader_id == manager.node_id:  # resigned, or without a lease: another may lead
            leader_id = leader_epoch = -1
        return PartitionProduceResult(
            ErrorCode.NOT_LEADER_OR_FOLLOWER, leader_id=leader_id, leader_epoch=leader_epoch
        )
    if acks == ACKS_ALL:
        error = hosted.core.check_in_sync(hosted.min_insync_replicas)
        if error:
            return PartitionProduceResult(
                error,
                message=f"The size of the current ISR {list(state.isr)} is insufficient to satisfy "
                f"the min.isr requirement of {hosted.min_insync_replicas} for partition "
                f"{hosted.core.topic}-{hosted.core.partition}",
            )
    try:
        appended = hosted.log.append_as_leader(records, state.epoch, manager.clock.wall_ms())
    except RejectedRecordsError as error:
        return PartitionProduceResult(
            error.code, message=error.message, record_errors=error.records
        )
    except LogError as error:
        return PartitionProduceResult(error.code, message=error.message)
    if not appended.duplicate:
        stats = hosted.stats
        stats.received_bytes += appended.bytes
        stats.received_records += appended.count
        hosted.core.on_append(now, appended.first_offset)
        hosted.on_appended()
        manager.watch_lag(hosted)
    else:
        manager.stats.duplicates += 1
    return appended
