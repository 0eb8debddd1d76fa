"""What the active controller counts: how leaders were elected, how long a take-over was."""

from __future__ import annotations

from collections.abc import Sequence

from pegel.metrics import Histogram
from pegel.metrics.histogram import SECONDS
from pegel_controller.metadata import MetadataImage
from pegel_controller.metadata import records as r
from pegel_controller.metadata.image import NO_LEADER, PartitionState


def election_type(old: PartitionState, new: r.PartitionChangeRecord) -> str | None:
    """How the leader was chosen; None where it did not change.

    A leader from outside of ISR and ELR is *unclean*: acknowledged data may be missing there.
    """
    if new.leader == old.leader:
        return None
    if new.leader == NO_LEADER:
        return "offline"
    if new.reason == "preferred":
        return "preferred"
    if new.leader in old.isr:
        return "clean"
    return "eligible" if new.leader in old.elr else "unclean"


class ControllerStats:
    """Times are monotonic seconds."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self.elections = dict.fromkeys(("clean", "preferred", "eligible", "unclean", "offline"), 0)
        self.failover = Histogram(SECONDS)
        self._leader: int | None = None
        self._alone_since: float | None = None

    def on_leader(self, now: float, leader_id: int | None, *, active: bool) -> None:
        """The Raft leader as this controller knows it; ``active`` once it leads itself."""
        if leader_id is None:
            if self._leader is not None:
                self._alone_since = now
        elif leader_id != self._node_id:
            self._alone_since = None  # another one took over
        elif active and self._alone_since is not None:
            self.failover.observe(now - self._alone_since)
            self._alone_since = None
        self._leader = leader_id

    def on_records(self, before: MetadataImage, records: Sequence[r.Record]) -> None:
        """Committed records, and the image without them."""
        for record in records:
            if isinstance(record, r.PartitionChangeRecord):
                topic = before.topics_by_id.get(record.topic_id)
                if topic is not None and record.partition < len(topic.partitions):
                    kind = election_type(topic.partitions[record.partition], record)
                    if kind is not None:
                        self.elections[kind] += 1
