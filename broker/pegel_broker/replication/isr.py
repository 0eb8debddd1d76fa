"""Who is in sync: what a leader knows of each follower, and the rules to leave and join."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from pegel_controller.metadata import MetadataImage

UNKNOWN_END = -1
UNKNOWN_EPOCH = -1


@dataclass(slots=True)
class ReplicaProgress:
    """One follower as its leader sees it. Times are seconds of the leader's monotonic clock.

    ``log_end_offset`` is its last fetch offset: a follower asks only for what follows the data
    that it has made stable. ``caught_up_at`` is when it last had all that the leader had.
    """

    caught_up_at: float
    log_end_offset: int = UNKNOWN_END
    log_start_offset: int = UNKNOWN_END
    broker_epoch: int = UNKNOWN_EPOCH
    fetched_at: float = float("-inf")
    leader_end_at_fetch: int = 0

    def on_fetch(
        self, now: float, offset: int, log_start_offset: int, broker_epoch: int, leader_end: int
    ) -> None:
        """Take a fetch at ``offset``.

        A follower that reaches what was the leader's end at its previous fetch was caught up at
        that time, even if the leader has moved on since (Kafka's rule for busy partitions).
        """
        if offset >= leader_end:
            self.caught_up_at = max(self.caught_up_at, now)
        elif offset >= self.leader_end_at_fetch:
            self.caught_up_at = max(self.caught_up_at, self.fetched_at)
        self.log_end_offset = offset
        self.log_start_offset = log_start_offset
        self.broker_epoch = broker_epoch
        self.fetched_at = now
        self.leader_end_at_fetch = leader_end

    def lags(self, now: float, leader_end: int, lag_max: float) -> bool:
        """Whether it is to leave the ISR."""
        return self.log_end_offset < leader_end and now - self.caught_up_at > lag_max

    def may_join(self, high_watermark: int, epoch_start_offset: int) -> bool:
        """Whether it holds all that is committed, and something of this leader's epoch's view."""
        return self.log_end_offset >= max(high_watermark, epoch_start_offset)


def may_be_in_sync(
    image: MetadataImage, partition: tuple[UUID, int], broker_id: int, broker_epoch: int
) -> bool:
    """Whether the controller would take a replica that last fetched in ``broker_epoch``."""
    broker = image.brokers.get(broker_id)
    return (
        broker is not None
        and broker.eligible_for(partition)
        and broker_epoch in {UNKNOWN_EPOCH, broker.broker_epoch}
    )
