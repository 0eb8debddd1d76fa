"""What the active controller logs of the records that it commits: who was fenced, who leads."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pegel_controller.metadata import MetadataImage
from pegel_controller.metadata import records as r

_log = logging.getLogger("pegel.controller")

# A leader election touches every partition of a broker; the log names them up to this many.
MAX_LOGGED_ELECTIONS = 50


def log_events(before: MetadataImage, records: Sequence[r.Record], at_ms: int) -> None:
    """The events that explain a failover; ``before`` is the image without ``records``."""
    elected = 0
    for record in records:
        if isinstance(record, r.BrokerFencedRecord):
            _log.info("fenced broker=%d reason=%s at_ms=%d", record.node_id, record.reason, at_ms)
        elif isinstance(record, r.BrokerUnfencedRecord):
            _log.info("unfenced broker=%d at_ms=%d", record.node_id, at_ms)
        elif isinstance(record, r.PartitionChangeRecord):
            topic = before.topics_by_id.get(record.topic_id)
            if topic is None or topic.partitions[record.partition].leader == record.leader:
                continue
            elected += 1
            if elected <= MAX_LOGGED_ELECTIONS:
                _log.info(
                    "elected topic=%s partition=%d leader=%d epoch=%d reason=%s at_ms=%d",
                    topic.name, record.partition, record.leader, record.leader_epoch,
                    record.reason, at_ms,
                )  # fmt: skip
    if elected > MAX_LOGGED_ELECTIONS:
        _log.info("elected leaders of %d partitions at_ms=%d", elected, at_ms)
