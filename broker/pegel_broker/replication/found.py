"""What a broker finds on its disk for a replica: whether it is the one the metadata speak of."""

from __future__ import annotations

import logging
from uuid import UUID

from pegel_broker.log.config import LogConfig
from pegel_broker.log.manager import LogManager
from pegel_broker.log.partition_log import PartitionLog
from pegel_controller.metadata.image import PartitionState

_log = logging.getLogger("pegel.broker")

_TORN = UUID(int=0)  # ``partition.metadata`` was torn when it was made


def open_log(
    logs: LogManager,
    node_id: int,
    key: tuple[str, int],
    topic_id: UUID,
    state: PartitionState,
    config: LogConfig,
) -> PartitionLog:
    """The log of this replica: the one that is there, or a new one.

    No checksum covers a topic id, nor a batch's leader epoch. A log that contradicts the metadata
    in either is damaged, and goes offline as it is: neither is what others may lack deleted, nor
    do others cut their logs by epochs that never were.
    """
    topic, number = key
    found = logs.get(topic, number)
    if found is None or (found.offline is not None and found.topic_id in {topic_id, _TORN}):
        return logs.create(topic, number, topic_id, config)
    if found.topic_id not in {topic_id, _TORN}:
        if node_id in state.isr + state.elr + state.last_known_elr:
            found.fail(
                f"{found.folder} is damaged: it holds topic id {found.topic_id}, the cluster has "
                f"{topic_id}, of which this replica may hold what was acknowledged"
            )
            return found
        _log.info("deleting %s-%d of a topic that is gone", topic, number)
        logs.delete(topic, number)
    elif found.latest_epoch > state.leader_epoch:
        found.fail(
            f"{found.folder} is damaged: it holds batches of leader epoch {found.latest_epoch}, "
            f"the cluster has come to {state.leader_epoch}"
        )
        return found
    return logs.create(topic, number, topic_id, config)
