"""How far the reader got with what it was handed: what may be committed, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator

from pegel.consumer.subscription import UNKNOWN, PartitionState, Subscription
from pegel.types import CommittedOffset, ConsumerBatch, ConsumerRecord, TopicPartition


class Progress:
    """The batch that the reader works on, whole or record by record.

    Attributes:
        busy: the reader has something that is not known to be finished.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._state: PartitionState | None = None
        self._generation = -1
        self._end = CommittedOffset(0)
        self._records: Iterator[ConsumerRecord] | None = None
        # Offset behind the last record handed out; UNKNOWN where a batch was handed out whole.
        self._reached = UNKNOWN
        self.busy = False

    def hand(self, batch: ConsumerBatch) -> None:
        """The reader gets a batch."""
        state = self._subscription.states[TopicPartition(batch.topic, batch.partition)]
        self._state, self._generation = state, state.generation
        self._end = CommittedOffset(batch.columns.header.next_offset, state.position_epoch)
        self._records, self._reached = None, UNKNOWN
        self.busy = True

    def open(self, batch: ConsumerBatch) -> None:
        """The batch just handed out is read record by record."""
        self._records = iter(batch)
        self._reached = batch.offsets[0]

    def next_record(self) -> ConsumerRecord | None:
        """The next record of an open batch; ``None`` if there is none, or the reader sought."""
        if self._records is None:
            return None
        state = self._state
        record = next(self._records, None)
        if record is None or state is None or state.generation != self._generation:
            self._records, self._reached = None, UNKNOWN
            return None
        self._reached = record.offset + 1
        return record

    def finished(self) -> tuple[TopicPartition, CommittedOffset] | None:
        """What is finished when the reader comes back; ``None`` if it sought elsewhere."""
        state = self._state
        if not self.busy or state is None or state.generation != self._generation:
            return None
        if self._reached == UNKNOWN:
            return state.topic_partition, self._end
        return state.topic_partition, CommittedOffset(self._reached, self._end.leader_epoch)

    def done(self) -> None:
        """The reader came back for another batch."""
        self.busy = False
        self._records, self._reached = None, UNKNOWN

    def position(self, state: PartitionState) -> int:
        """Offset of the next record that the reader gets; ``UNKNOWN`` before it is looked up."""
        inside = (
            state is self._state
            and self._reached != UNKNOWN
            and state.generation == self._generation
        )
        return self._reached if inside else state.position

    def positions(self) -> dict[TopicPartition, CommittedOffset]:
        """All that are known."""
        found: dict[TopicPartition, CommittedOffset] = {}
        for tp, state in self._subscription.states.items():
            position = self.position(state)
            if position != UNKNOWN:
                found[tp] = CommittedOffset(position, state.position_epoch)
        return found
