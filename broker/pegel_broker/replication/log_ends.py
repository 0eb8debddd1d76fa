"""How far logs go where nobody leads: what the controller elects by (KIP-966)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pegel_broker.replication.partition import Idle
from pegel_controller.rpc.recovery_messages import LogEnd, Wanted

if TYPE_CHECKING:
    from pegel_broker.log.partition_log import PartitionLog
    from pegel_broker.replication.manager import ReplicaManager


def log_ends(manager: ReplicaManager, wanted: Iterable[Wanted]) -> tuple[LogEnd, ...]:
    """The ends of those logs that stand still: nobody leads in the epoch that is asked for, and
    all that was appended or cut in earlier ones is on the disk. The others are asked for again.

    A log that has failed has no end: what it still holds cannot be served.
    """
    found = []
    for topic_id, number, epoch in wanted:
        topic = manager.image.topics_by_id.get(topic_id)
        hosted = None if topic is None else manager.hosted(topic.name, number)
        if hosted is None or hosted.topic_id != topic_id:
            continue
        state, log = hosted.core.state, hosted.log
        if isinstance(state, Idle) and state.epoch == epoch and _stands_still(log):
            found.append(LogEnd(topic_id, number, epoch, _last_epoch(log), log.log_end_offset))
    return tuple(found)


def _stands_still(log: PartitionLog) -> bool:
    return (
        log.offline is None
        and log.ready
        and log.truncation is None
        and log.stable_offset == log.log_end_offset
    )


def _last_epoch(log: PartitionLog) -> int:
    """The leader epoch of the last record; of a log without any, the last that it knows."""
    if log.log_start_offset == log.log_end_offset:
        return log.latest_epoch
    return log.epoch_for_offset(log.log_end_offset - 1)
