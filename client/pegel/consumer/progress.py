"""How far the readers got with what they were handed: what may be committed, and where it stands.

A ``for`` loop that is left, by ``break`` or by an error of its body, tells nobody. So a loop has
finished only what it came back for more from; what it had in hand is handed out again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Generic, TypeVar

from pegel.consumer.fetched import columns_from
from pegel.consumer.subscription import UNKNOWN, PartitionState, Subscription
from pegel.types import CommittedOffset, ConsumerBatch, ConsumerRecord, TopicPartition

T = TypeVar("T")
# Who calls next_batch() or next() by hand says with it that what came before is finished.
BY_HAND = None


class Loop(Generic[T]):
    """One ``async for``, a reader of its own; not a generator, which would have to be closed."""

    def __init__(self, ask: Callable[[object], Awaitable[T]]) -> None:
        self._ask = ask

    def __aiter__(self) -> Loop[T]:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self._ask(self)


class Progress:
    """The batch that a reader works on, whole or record by record.

    Attributes:
        busy: a reader has something that is not known to be finished.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._state: PartitionState | None = None
        self._generation = -1
        self._batch: ConsumerBatch | None = None
        self._end = CommittedOffset(0)
        self._records: Iterator[ConsumerRecord] | None = None
        self._reader: object = BY_HAND
        # Offsets of this batch: everything before _finished is, up to _reached it is handed out.
        self._first = self._finished = self._reached = UNKNOWN
        self.busy = False

    def hand(self, batch: ConsumerBatch, reader: object) -> None:
        """``reader`` (one loop, or ``BY_HAND``) gets a batch, whole."""
        state = self._subscription.states[TopicPartition(batch.topic, batch.partition)]
        self._state, self._generation = state, state.generation
        self._batch, self._reader = batch, reader
        self._end = CommittedOffset(batch.columns.header.next_offset, state.position_epoch)
        self._first = self._finished = batch.offsets[0]
        self._records, self._reached = None, self._end.offset
        self.busy = True

    def open(self, batch: ConsumerBatch) -> None:
        """The batch just handed out is read record by record."""
        self._records = iter(batch)
        self._reached = self._first

    def next_record(self, reader: object) -> ConsumerRecord | None:
        """The next record of an open batch; ``None``: none, or another's, or the reader sought."""
        if self._records is None or reader is not self._reader:
            return None
        record = next(self._records, None)
        if record is None or not self._holds:
            self._records = None
            self._finished = self._reached = self._end.offset
            return None
        self._finished, self._reached = self._reached, record.offset + 1
        return record

    def come_back(self, reader: object) -> tuple[TopicPartition, CommittedOffset] | None:
        """``reader`` wants more: what it had is finished, and may be committed.

        What a loop had that is not this reader is not: it was left, and begins again.
        """
        if not self.busy or not self._holds:
            return None
        if self._reader is not BY_HAND and reader is not self._reader:
            self._reached, self._records = self._finished, None
        self._finished = self._reached
        return self.finished()

    def finished(self) -> tuple[TopicPartition, CommittedOffset] | None:
        """What of the batch is known to be finished; ``None`` if nothing, or if one sought."""
        state = self._state
        if not self.busy or state is None or not self._holds or self._finished == self._first:
            return None
        epoch = self._end.leader_epoch
        return state.topic_partition, CommittedOffset(self._finished, epoch)

    def take_again(self) -> ConsumerBatch | None:
        """After ``come_back``: what is left of the batch, to be handed out before any other."""
        batch = self._batch
        self.busy, self._records = False, None
        if batch is None or not self._holds:
            self._batch = None
            return None
        columns = columns_from(batch.columns, self._reached)
        if not columns.offsets:
            self._batch = None
            return None
        return ConsumerBatch(batch.topic, batch.partition, columns)

    def committed(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """The reader had these committed by itself: that much of what it has is finished."""
        state = self._state
        if state is not None and self.busy and self._holds:
            found = offsets.get(state.topic_partition)
            if found is not None:
                self._finished = max(self._finished, min(found.offset, self._reached))

    def position(self, state: PartitionState) -> int:
        """Offset of the next record that the reader gets; ``UNKNOWN`` before it is looked up."""
        inside = state is self._state and self._batch is not None and self._holds
        return self._reached if inside else state.position

    def positions(self) -> dict[TopicPartition, CommittedOffset]:
        """All that are known."""
        found: dict[TopicPartition, CommittedOffset] = {}
        for tp, state in self._subscription.states.items():
            position = self.position(state)
            if position != UNKNOWN:
                found[tp] = CommittedOffset(position, state.position_epoch)
        return found

    @property
    def _holds(self) -> bool:
        """Whether nobody sought elsewhere since, and the partition is still read."""
        return self._state is not None and self._state.generation == self._generation
