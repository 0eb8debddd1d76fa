"""DeleteRecords: raising the log start offset of a leader and of its followers (KIP-107)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.errors import LogError
from pegel_broker.replication.hosted import DelayedTrim, HostedPartition
from pegel_broker.replication.partition import Leader
from pegel_broker.replication.results import TrimResult
from pegel_controller.metadata.image import INTERNAL_TOPICS

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

HIGH_WATERMARK = -1


def delete_records(
    manager: ReplicaManager, topic: str, partition: int, offset: int, timeout_ms: int
) -> TrimResult | asyncio.Future[TrimResult]:
    """Delete below ``offset`` (-1: below the high watermark); a future until all replicas have.

    A replica whose broker is dead is not waited for: it takes the leader's log start when it is
    back. Whole segments go at once, the beginning of a segment is only hidden, as in Kafka.
    """
    hosted = manager.hosted(topic, partition)
    if hosted is None:
        return TrimResult(manager.why_not_hosted(topic, partition))
    state, log = hosted.core.state, hosted.log
    now = manager.clock.monotonic()
    if not isinstance(state, Leader) or state.resigned or not manager.holds_lease(now):
        return TrimResult(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    if topic in INTERNAL_TOPICS:
        return TrimResult(ErrorCode.INVALID_TOPIC_EXCEPTION)
    if not log.config.delete_policy:
        return TrimResult(ErrorCode.POLICY_VIOLATION)
    if log.offline is not None:
        return TrimResult(ErrorCode.KAFKA_STORAGE_ERROR)
    if offset == HIGH_WATERMARK:
        offset = hosted.core.high_watermark
    if offset < 0:
        return TrimResult(ErrorCode.OFFSET_OUT_OF_RANGE)
    before = log.log_start_offset
    try:
        log.delete_records_before(offset)
    except LogError as error:
        return TrimResult(error.code)
    if log.log_start_offset > before:
        hosted.on_log_start()
    reached = low_watermark(manager, hosted)
    if reached >= offset:
        return TrimResult(ErrorCode.NONE, reached)
    operation = DelayedTrim(now + max(timeout_ms, 0) / 1000, offset, reached)
    hosted.wait_for_trim(operation)
    manager.trimming[hosted] = None
    return operation.future


def low_watermark(manager: ReplicaManager, hosted: HostedPartition) -> int:
    """The smallest log start offset of the leader and of its followers on live brokers."""
    state = hosted.core.state
    assert isinstance(state, Leader)
    starts = [hosted.log.log_start_offset]
    for replica, progress in state.followers.items():
        broker = manager.image.brokers.get(replica)
        if broker is not None and not broker.fenced:
            starts.append(progress.log_start_offset)
    return min(starts)


def on_brokers_changed(manager: ReplicaManager) -> None:
    """A replica that died is waited for no longer."""
    for hosted in list(manager.trimming):
        if hosted.trims and isinstance(hosted.core.state, Leader):
            hosted.on_low_watermark(low_watermark(manager, hosted))
        if not hosted.trims:
            del manager.trimming[hosted]
