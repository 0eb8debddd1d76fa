"""Records on their way into one partition, and the awaitables that stand for their fate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pegel.producer.idempotence import NO_IDENTITY, NO_SEQUENCE, SEQUENCES, ProducerIdentity
from pegel.record import Codec, encode_batch
from pegel.record.encode import Headers
from pegel.types import OffsetRange, RecordMetadata, SendResult

# Lengths, deltas and attributes of a record: an upper bound of what surrounds small ones.
RECORD_OVERHEAD = 12


class BatchResult(NamedTuple):
    """Where the broker put a batch; -1 for what it did not say."""

    base_offset: int
    log_append_time: int


class ProducerBatch:
    """Columns of records for one partition.

    Attributes:
        size: bytes that it holds of the producer's memory.
        sequence: sequence of the first record, ``NO_SEQUENCE`` until it is first sent. A batch
            that has one keeps it in every retry, or the broker could not see a duplicate.
        deadline: loop time at which it has failed.
        unawaited: records whose delivery nobody has awaited yet.
        number, span: its place in the order of its partition; halves share the span.
        maybe_written: an attempt under the present identity and sequence ended in doubt.
        halves: what it was split into, because the broker found it too large.
    """

    __slots__ = (
        "_waiters",
        "created",
        "deadline",
        "encoded",
        "future",
        "halves",
        "headers",
        "identity",
        "keys",
        "maybe_written",
        "number",
        "partition",
        "sequence",
        "size",
        "span",
        "timestamps",
        "topic",
        "unawaited",
        "values",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        partition: int,
        future: asyncio.Future[BatchResult],
        created: float,
        deadline: float,
    ) -> None:
        self.topic, self.partition = topic, partition
        self.values: list[bytes | None] = []
        # Columns that most batches do not have are made when the first record needs them.
        self.keys: list[bytes | None] | None = None
        self.headers: list[Headers] | None = None
        self.timestamps: list[int] | int = -1
        self.size = 0
        self.created, self.deadline = created, deadline
        self.future = future
        self._waiters: dict[asyncio.Future[None], None] = {}
        self.identity: ProducerIdentity = NO_IDENTITY
        self.sequence = NO_SEQUENCE
        self.encoded: bytearray | None = None
        self.unawaited = 0
        self.maybe_written = False
        self.number = 0
        self.span = 1
        self.halves: tuple[ProducerBatch, ProducerBatch] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def done(self) -> bool:
        return self.future.done()

    def extend(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,
        headers: Sequence[Headers] | None,
        timestamps: Sequence[int] | int,
        size: int,
    ) -> int:
        """Add records; returns the index of the first."""
        first = len(self.values)
        self._extend_timestamps(first, len(values), timestamps)
        if keys is not None:
            if self.keys is None:
                self.keys = [None] * first
            self.keys += keys
        elif self.keys is not None:
            self.keys += [None] * len(values)
        if headers is not None:
            if self.headers is None:
                self.headers = [()] * first
            self.headers += headers
        elif self.headers is not None:
            self.headers += [()] * len(values)
        self.values += values
        self.size += size
        return first

    def _extend_timestamps(self, first: int, count: int, new: Sequence[int] | int) -> None:
        # One time for all is the quick case of encoding; it holds for what one call sends.
        if first == 0:
            self.timestamps = new if isinstance(new, int) else list(new)
            return
        if isinstance(self.timestamps, int):
            if new == self.timestamps:
                return
            self.timestamps = [self.timestamps] * first
        self.timestamps += [new] * count if isinstance(new, int) else new

    def timestamp(self, index: int) -> int:
        return self.timestamps if isinstance(self.timestamps, int) else self.timestamps[index]

    def encode(self, codec: Codec, level: int | None) -> bytearray:
        """The batch as it goes onto the wire, made once for each identity and sequence."""
        if self.encoded is None:
            self.encoded = encode_batch(
                self.values,
                keys=self.keys,
                headers=self.headers,
                timestamps=self.timestamps,
                codec=codec,
                level=level,
                producer_id=self.identity.producer_id,
                producer_epoch=self.identity.epoch,
                base_sequence=self.sequence,
            )
        return self.encoded

    def assign(self, identity: ProducerIdentity, sequence: int) -> None:
        """Stamp the batch. Bytes of an earlier stamp may still be on their way: not changed."""
        self.identity, self.sequence = identity, sequence
        self.maybe_written = False
        self.encoded = None

    def succeed(self, result: BatchResult) -> None:
        if not self.future.done():
            self.future.set_result(result)
            self._tell_waiters()

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # what nobody awaits is reported by flush()
            self._tell_waiters()

    async def outcome(self) -> BatchResult:
        """The result, or the error; one waiter that is cancelled leaves the others alone.

        As ``asyncio.shield(self.future)`` would, without its detour: a callback of a callback
        is two more turns of the event loop before an awaited send returns.
        """
        if not self.future.done():
            waiter: asyncio.Future[None] = self.future.get_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)
        return self.future.result()

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def split(self, new_future: Callable[[], asyncio.Future[BatchResult]]) -> None:
        """Make two halves, which go on in this batch's place and order."""
        middle = len(self.values) // 2
        assert middle > 0
        assert self.span > 1
        halves: list[ProducerBatch] = []
        for start, end in ((0, middle), (middle, len(self.values))):
            half = ProducerBatch(
                self.topic, self.partition, new_future(), self.created, self.deadline
            )
            times = self.timestamps
            half.extend(
                self.values[start:end],
                None if self.keys is None else self.keys[start:end],
                None if self.headers is None else self.headers[start:end],
                times if isinstance(times, int) else times[start:end],
                self.size * (end - start) // len(self.values),
            )
            half.span = self.span // 2
            half.number = self.number + (half.span if start else 0)
            half.unawaited = min(self.unawaited, len(half))
            if self.sequence != NO_SEQUENCE:
                half.assign(self.identity, (self.sequence + start) % SEQUENCES)
            halves.append(half)
        halves[1].size = self.size - halves[0].size
        self.halves = (halves[0], halves[1])
        self.succeed(BatchResult(-1, -1))  # waiters look at the halves from here on

    def metadata(self, index: int, result: BatchResult) -> RecordMetadata:
        offset = -1 if result.base_offset < 0 else result.base_offset + index
        time = result.log_append_time if result.log_append_time >= 0 else self.timestamp(index)
        return RecordMetadata(self.topic, self.partition, offset, time)


async def acknowledged(batch: ProducerBatch, index: int) -> RecordMetadata:
    """Where the record of that index in ``batch`` was written; raises why it was not."""
    while True:
        result = await batch.outcome()
        if batch.halves is None:
            return batch.metadata(index, result)
        left, right = batch.halves
        batch, index = (left, index) if index < len(left) else (right, index - len(left))


class Delivery:
    """The fate of one record: awaits to its ``RecordMetadata``, or raises why it failed.

    It may be awaited at any time, more than once, and by several tasks.
    """

    __slots__ = ("_awaited", "_batch", "_index")

    def __init__(self, batch: ProducerBatch, index: int) -> None:
        self._batch, self._index = batch, index
        self._awaited = False
        batch.unawaited += 1

    @property
    def done(self) -> bool:
        return self._batch.done

    def __await__(self) -> Generator[object, None, RecordMetadata]:
        return self._wait().__await__()

    async def _wait(self) -> RecordMetadata:
        batch = self._batch
        if not self._awaited:
            self._awaited = True
            batch.unawaited -= 1
        return await acknowledged(batch, self._index)


@dataclass(frozen=True, slots=True)
class _Part:
    batch: ProducerBatch
    first: int
    count: int


class ManyDelivery:
    """The fate of the records of one ``send_many_soon``: awaits to their ``SendResult``."""

    __slots__ = ("_awaited", "_parts")

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._awaited = False

    def add(self, batch: ProducerBatch, first: int, count: int) -> None:
        self._parts.append(_Part(batch, first, count))
        batch.unawaited += count

    @property
    def done(self) -> bool:
        return all(part.batch.done for part in self._parts)

    def __await__(self) -> Generator[object, None, SendResult]:
        return self._wait().__await__()

    async def _wait(self) -> SendResult:
        """Wait for all, then raise the first error (its ``acknowledged`` tells what is safe)."""
        if not self._awaited:
            self._awaited = True
            for part in self._parts:
                part.batch.unawaited -= part.count
        ranges: list[OffsetRange] = []
        error: BaseException | None = None
        parts = self._parts[::-1]
        while parts:
            part = parts.pop()
            batch, first, count = part.batch, part.first, part.count
            try:
                result = await batch.outcome()
            except asyncio.CancelledError:
                raise
            except Exception as caught:
                error = error or caught
                continue
            if batch.halves is not None:
                left, right = batch.halves
                in_left = max(0, min(count, len(left) - first))
                if in_left < count:
                    parts.append(_Part(right, max(0, first - len(left)), count - in_left))
                if in_left:
                    parts.append(_Part(left, first, in_left))
                continue
            one = batch.metadata(first, result)
            ranges.append(OffsetRange(one.topic, one.partition, one.offset, count, one.timestamp))
        if error is not None:
            if ranges:
                error.add_note(
                    f"{sum(r.count for r in ranges)} other records of the call were acknowledged"
                )
            raise error
        return SendResult(tuple(ranges))
