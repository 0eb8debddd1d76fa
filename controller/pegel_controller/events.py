"""What the active controller logs of the records that it commits: who was fenced, who leads."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pegel.logs import Event
from pegel_controller.metadata import MetadataImage
from pegel_controller.metadata import records as r
from pegel_controller.stats import election_type

_log = logging.getLogger("pegel.controller")

# A leader election touches every partition of a broker; the log names them up to this many.
MAX_LOGGED_ELECTIONS = 50


def log_events(before: MetadataImage, records: Sequence[r.Record], at_ms: int) -> None:
    """The events that explain a failover; ``before`` is the image without ``records``."""
    elected = 0
    for record in records:
        if isinstance(record, r.BrokerFencedRecord):
            _log.info(Event("fenced", broker=record.node_id, reason=record.reason, at_ms=at_ms))
        elif isinstance(record, r.BrokerUnfencedRecord):
            _log.info(Event("unfenced", broker=record.node_id, at_ms=at_ms))
        elif isinstance(record, r.PartitionChangeRecord):
            topic = before.topics_by_id.get(record.topic_id)
            if topic is None or topic.partitions[record.partition].leader == record.leader:
                continue
            elected += 1
            if elected <= MAX_LOGGED_ELECTIONS:
                _log.info(Event(
                    "elected", partition=f"{topic.name}-{record.partition}",
                    epoch=record.leader_epoch, leader=record.leader, isr=list(record.isr),
                    kind=election_type(topic.partitions[record.partition], record),
                    reason=record.reason, at_ms=at_ms,
                ))  # fmt: skip
    if elected > MAX_LOGGED_ELECTIONS:
        _log.info(Event("elected_many", partitions=elected, at_ms=at_ms))
