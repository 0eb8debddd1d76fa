"""Batches by partition, in the order in which they must reach the log, and the memory they take.

``PartitionQueue`` holds the rule that keeps order: after any failure nothing more is sent for the
partition until everything in flight has been answered; what failed goes back into its place, with
its sequence, and is sent again in order. A batch may then be refused as out of order only because
an earlier one failed, or because the broker truly misses records: then a new epoch begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pegel.errors import BufferFullError
from pegel.producer.batch import BatchResult, ProducerBatch
from pegel.producer.idempotence import NO_SEQUENCE, SequenceState

# Room between the numbers of two batches, for the halves of one that is split again and again.
_NUMBER_SPAN = 1 << 24
# With linger 0: from so many batches in flight on, an open batch gathers records until an answer
# comes. It costs nothing when the broker is quick, and makes few large batches when it is not.
_GATHER_FROM = 2


class PartitionQueue:
    """Batches of one partition: waiting (the last one open for more records) and in flight.

    Attributes:
        retry_at: loop time before which nothing is sent.
        attempts: failures since the last success.
        recovering: after a failure, until nothing is in flight.
        needs_epoch: a new epoch begins once nothing is in flight.
        tried_epoch: leader epoch known when the last request left.
    """

    __slots__ = (
        "attempts", "in_flight", "needs_epoch", "next_number", "open", "partition", "pending",
        "recovering", "retry_at", "sequences", "topic", "tried_epoch",
    )  # fmt: skip

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.pending: deque[ProducerBatch] = deque()
        self.open: ProducerBatch | None = None
        self.in_flight: list[ProducerBatch] = []
        self.recovering = False
        self.needs_epoch = False
        self.retry_at = 0.0
        self.attempts = 0
        self.sequences: SequenceState | None = None
        self.tried_epoch = -1
        self.next_number = 0

    @property
    def idle(self) -> bool:
        return not self.pending and not self.in_flight

    def add(self, batch: ProducerBatch) -> None:
        """A new batch at the end, open for records."""
        batch.number, batch.span = self.next_number, _NUMBER_SPAN
        self.next_number += _NUMBER_SPAN
        self.pending.append(batch)
        self.open = batch

    def due(self, now: float, linger: float, max_in_flight: int) -> float:
        """Loop time at which the first batch may leave; ``inf`` while an answer must come first."""
        if self.recovering and not self.in_flight:
            self.recovering = False
        if self.sequences is not None and not self.sequences.proven:
            max_in_flight = 1
        if not self.pending or self.recovering or len(self.in_flight) >= max_in_flight:
            return float("inf")
        if self.retry_at > now:
            return self.retry_at
        head = self.pending[0]
        if not head.maybe_written and any(b.maybe_written for b in self.in_flight):
            # Brokers remember five batches: were newer ones written behind one that is in doubt,
            # its next repetition might no longer be known for one.
            return float("inf")
        if head is not self.open:
            return now
        if linger <= 0 and len(self.in_flight) >= _GATHER_FROM:
            return float("inf")
        return head.created + linger

    def take(self) -> ProducerBatch:
        """The first batch, on its way from here on, with its sequence."""
        assert not self.needs_epoch
        batch = self.pending.popleft()
        if batch is self.open:
            self.open = None
        if self.sequences is not None and batch.sequence == NO_SEQUENCE:
            batch.assign(self.sequences.identity, self.sequences.take(len(batch)))
        self.in_flight.append(batch)
        return batch

    def begin_epoch(self) -> bool:
        """Go on in a new epoch; False if the producer id has none left and must be replaced."""
        assert self.sequences is not None
        assert not self.in_flight
        if not self.sequences.bump():
            return False
        self.restamp()
        return True

    def restamp(self) -> None:
        """Number what was sent before anew, under the current identity."""
        assert self.sequences is not None
        self.needs_epoch = False
        for batch in self.pending:
            if batch.sequence == NO_SEQUENCE:
                break
            batch.assign(self.sequences.identity, self.sequences.take(len(batch)))

    def on_answered(self, batch: ProducerBatch, *, written: bool = False) -> None:
        """Acknowledged (``written``), or failed for good."""
        self.in_flight.remove(batch)
        if written and self.sequences is not None and batch.identity == self.sequences.identity:
            self.sequences.proven = True

    def on_failed(self, batch: ProducerBatch) -> None:
        """To be sent again: back into its place."""
        self.in_flight.remove(batch)
        self.recovering = bool(self.in_flight)
        batch.maybe_written = True
        if not batch.done:
            self.put_back(batch)

    def on_given_up(self, batch: ProducerBatch) -> None:
        """Failed for good on the way out: its sequence is missing, so that a new epoch begins."""
        self.in_flight.remove(batch)
        if batch.sequence != NO_SEQUENCE:
            self.needs_epoch = True
            self.recovering = bool(self.in_flight)

    def split(
        self, batch: ProducerBatch, new_future: Callable[[], asyncio.Future[BatchResult]]
    ) -> None:
        """The broker found it too large: two halves go into its place."""
        self.on_answered(batch)
        self.recovering = bool(self.in_flight)
        batch.split(new_future)
        assert batch.halves is not None
        self.put_back(batch.halves[0])
        self.put_back(batch.halves[1])

    def put_back(self, batch: ProducerBatch) -> None:
        """Insert by number: what is to be sent again stands before what was never sent."""
        for i, other in enumerate(self.pending):
            if other.number > batch.number:
                self.pending.insert(i, batch)
                return
        self.pending.append(batch)

    def is_first(self, batch: ProducerBatch) -> bool:
        """Whether no earlier batch is unanswered, and so to blame for a refused sequence."""
        number = batch.number
        return all(other.number >= number for other in self.in_flight) and (
            not self.pending or self.pending[0].number > number
        )

    def drop_expired(self, now: float) -> list[ProducerBatch]:
        """Batches past their deadline; those in flight stay there until they are answered."""
        expired = [b for b in self.in_flight if b.deadline <= now and not b.done]
        while self.pending and self.pending[0].deadline <= now:
            batch = self.pending.popleft()
            if batch is self.open:
                self.open = None
            expired.append(batch)
        return expired


class Memory:
    """The bound on records that are held; who asks for more than is free waits in line."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_acquire(self, size: int) -> bool:
        """Take ``size`` bytes if that needs no wait. A single larger one may go alone."""
        if self._waiters or (self.used and self.used + size > self.limit):
            return False
        self.used += size
        return True

    async def acquire(self, size: int, timeout: float) -> None:
        """Wait for ``size`` bytes.

        Raises:
            BufferFullError: not free within ``timeout`` seconds.
        """
        if self.try_acquire(size):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, future)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(size)  # granted in the same moment
            elif entry in self._waiters:
                self._waiters.remove(entry)
                self._grant()
            if isinstance(error, TimeoutError):
                raise BufferFullError(
                    f"the producer's buffer of {self.limit} bytes stayed full for "
                    f"{max(0.0, timeout):.3g} s: "
                    "the brokers acknowledge too slowly; await more, or raise buffer_bytes"
                ) from None
            raise

    def release(self, size: int) -> None:
        self.used -= size
        assert self.used >= 0
        self._grant()

    def _grant(self) -> None:
        while self._waiters:
            size, future = self._waiters[0]
            if self.used and self.used + size > self.limit:
                return
            self._waiters.popleft()
            if not future.done():
                self.used += size
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Nobody waits any longer: the producer is closed."""
        while self._waiters:
            _, future = self._waiters.popleft()
            if not future.done():
                future.set_exception(error)


def new_batch(topic: str, partition: int, now: float, delivery_timeout: float) -> ProducerBatch:
    future: asyncio.Future[BatchResult] = asyncio.get_running_loop().create_future()
    return ProducerBatch(topic, partition, future, now, now + delivery_timeout)
