"""Positions of the partitions that a consumer reads, and what each may do next.

A partition first needs an offset (a reset by time), then, whenever its leader changed, a check
that the new leader's log still contains what was read (KIP-320), and only then is fetched.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable

from pegel.errors import PegelError
from pegel.types import TopicPartition

UNKNOWN = -1
# Never repeated, also not when a partition is given back and comes again: what is still on its way
# for the one must not be taken for the other's.
_generations = itertools.count(1)


class PartitionState:
    """One partition.

    Attributes:
        fetch_offset: next offset to ask the broker for; ``UNKNOWN`` until a reset is done.
        position: next offset to hand to the reader; behind ``fetch_offset`` by what is buffered.
        reset_time: time for which an offset is to be looked up, ``None`` if none is needed.
        fetched_epoch: leader epoch of the last batch fetched.
        checked_epoch: leader epoch under which the position was last known to be good.
        position_epoch: leader epoch of the last batch handed to the reader.
        generation: another after each seek; what was fetched under an earlier one is dropped.
        max_bytes: of one response; grows when a batch is larger.
        stopped: why it is not fetched until somebody seeks or resumes it; ``None``: it is.
        read_replica: node to fetch from instead of the leader (KIP-392), until a time.
    """

    __slots__ = (
        "attempts", "buffered_bytes", "checked_epoch", "fetch_offset", "fetched_epoch",
        "generation", "high_watermark", "last_stable_offset", "log_start_offset", "looking_up",
        "max_bytes", "paused", "position", "position_epoch", "read_replica",
        "read_replica_until", "reset_time", "retry_at", "stopped", "topic_id", "topic_partition",
    )  # fmt: skip

    def __init__(
        self, topic_partition: TopicPartition, reset_time: int | None, max_bytes: int
    ) -> None:
        self.topic_partition = topic_partition
        self.fetch_offset = UNKNOWN
        self.position = UNKNOWN
        self.position_epoch = UNKNOWN
        self.reset_time = reset_time
        self.looking_up = False
        self.fetched_epoch = UNKNOWN
        self.checked_epoch = UNKNOWN
        self.generation = next(_generations)
        self.buffered_bytes = 0
        self.max_bytes = max_bytes
        self.paused = False
        self.stopped: PegelError | None = None
        self.high_watermark = UNKNOWN
        self.last_stable_offset = UNKNOWN
        self.log_start_offset = UNKNOWN
        self.attempts = 0
        self.retry_at = 0.0
        self.topic_id: uuid.UUID | None = None
        self.read_replica = UNKNOWN
        self.read_replica_until = 0.0

    def seek(self, offset: int, epoch: int = UNKNOWN) -> None:
        """Read on from ``offset``; ``epoch`` is that of the record before it, where known."""
        assert offset >= 0
        self.generation = next(_generations)
        self.fetch_offset = self.position = offset
        self.fetched_epoch = self.position_epoch = epoch
        self.reset_time = None
        self.stopped = None
        self.retry_at = 0.0
        self.attempts = 0

    def request_reset(self, time: int) -> None:
        """Look up where ``time`` (milliseconds, or a constant of ``pegel.offsets``) is."""
        self.generation = next(_generations)
        self.fetch_offset = self.position = UNKNOWN
        self.fetched_epoch = self.position_epoch = UNKNOWN
        self.reset_time = time
        self.stopped = None
        self.retry_at = 0.0

    def needs_check(self, leader_epoch: int) -> bool:
        """Whether the leader changed since the position was last known to be in its log.

        Without the epoch of a record read before it there is nothing to check.
        """
        if leader_epoch <= self.checked_epoch:
            return False
        if self.fetched_epoch in {UNKNOWN, leader_epoch}:
            self.checked_epoch = leader_epoch
            return False
        return True

    def on_fetched(self, next_offset: int, epoch: int, size: int) -> None:
        assert next_offset >= self.fetch_offset
        self.fetch_offset = next_offset
        self.fetched_epoch = epoch
        self.checked_epoch = max(self.checked_epoch, epoch)
        self.buffered_bytes += size
        self.attempts = 0

    def on_trouble(self, now: float, pause: float) -> None:
        self.attempts += 1
        self.retry_at = now + pause
        self.read_replica = UNKNOWN

    def truncation(self, end_epoch: int, end_offset: int) -> int | None:
        """What a leader's answer about ``fetched_epoch`` means.

        Returns ``None`` if the position is good, else the offset at which the logs part
        (``UNKNOWN`` if the leader cannot tell).
        """
        if UNKNOWN in {end_epoch, end_offset}:
            return UNKNOWN
        if end_offset < self.fetch_offset:
            return end_offset
        return None


class Subscription:
    """The partitions that are read, in a fixed order."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.states: dict[TopicPartition, PartitionState] = {}

    def add(self, partitions: Iterable[TopicPartition], reset_time: int | None) -> None:
        """Read these too, from ``reset_time``; ``None``: from where a seek will say."""
        for tp in partitions:
            if tp not in self.states:
                self.states[tp] = PartitionState(tp, reset_time, self._max_bytes)

    def remove(self, tp: TopicPartition) -> None:
        state = self.states.pop(tp, None)
        if state is not None:
            state.generation = next(_generations)
