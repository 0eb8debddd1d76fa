"""The producer: takes records, picks partitions, waits for acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import accumulate
from types import TracebackType

from pegel.cluster import Cluster
from pegel.config import ProducerOptions
from pegel.errors import ClosedError, PegelError, RequestTimeoutError
from pegel.producer import unclosed
from pegel.producer.accumulator import PartitionQueue
from pegel.producer.batch import (
    Delivery,
    ManyDelivery,
    ProducerBatch,
    acknowledged,
)
from pegel.producer.checks import (
    as_column,
    check_columns,
    check_partition,
    check_timestamps,
    record_size,
    record_sizes,
)
from pegel.producer.lookups import TopicLookups
from pegel.producer.partitioner import KeyPartitioner, StickyPartitioner
from pegel.producer.sender import Sender
from pegel.types import Headers, RecordMetadata, SendResult

_CLOSE_TIMEOUT = 10.0
# Where a record was put: the queue of its partition, its batch, its index there.
_Place = tuple[PartitionQueue, ProducerBatch, int]


class Producer:
    """Writes records; make one with ``AsyncClient.producer(...)``, use it with ``async with``.

    Records of one partition reach the log in the order of the calls. With acks="all" the producer
    is idempotent: a retry never doubles or reorders a record. Memory is bounded: a call waits
    while ``buffer_bytes`` of records are unacknowledged.
    """

    def __init__(self, cluster: Cluster, options: ProducerOptions) -> None:
        self._cluster, self._options = cluster, options
        self._view = cluster.metadata.view
        self._lookups = TopicLookups(cluster)
        self._sender = Sender(cluster, options)
        self._keys = KeyPartitioner()
        self._loop = asyncio.get_running_loop()
        self._sticky = StickyPartitioner(cluster.random)
        self._closed = False
        unclosed.watch(self._sender)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            unclosed.on_lost(self._sender)

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:  # the body failed: what it sent is still sent, but its own error is the one to see
            try:
                await self.close()
            except PegelError as closing:
                if closing is error:
                    return
                error.add_note(f"and on closing the producer: {closing}")

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
        timeout: float | None = None,
    ) -> RecordMetadata:
        """Write one record and wait until it is acknowledged.

        Args:
            value: ``None`` is a tombstone: it deletes the key in a compacted topic.
            partition: chosen by the key's hash, or evenly without a key, unless given.
            timestamp: milliseconds since the epoch; now, unless given.
            timeout: seconds to wait; by default the producer's ``delivery_timeout``. When it runs
                out the record may still be written.

        Raises:
            TopicNotFoundError, RecordTooLargeError, DeliveryTimeoutError, BufferFullError,
            BrokerError: why it was not acknowledged.
            TypeError, ValueError: no record can hold that.
        """
        size = record_size(value, key, headers, timestamp)
        ends = None if timeout is None else self._loop.time() + timeout
        queue, batch, index = self._put_now(
            topic, value, key, partition, headers, timestamp, size
        ) or await self._put_later(topic, value, key, partition, headers, timestamp, size, timeout)
        self._sender.send_now(queue)
        if ends is None:
            return await acknowledged(batch, index)
        try:
            async with asyncio.timeout_at(ends):
                return await acknowledged(batch, index)
        except TimeoutError:
            raise RequestTimeoutError(
                f"{topic}: no acknowledgement in {timeout:.3g} s; the record may still be written"
            ) from None

    async def send_soon(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> Delivery:
        """Put one record on its way; await the result to know its fate.

        Waits only for metadata of a topic not seen before and for room in the buffer. A failure
        that nobody awaits is raised by ``flush`` and ``close``.

        Raises:
            TopicNotFoundError, RecordTooLargeError, BufferFullError, ClosedError.
        """
        size = record_size(value, key, headers, timestamp)
        queue, batch, index = self._put_now(
            topic, value, key, partition, headers, timestamp, size
        ) or await self._put_later(topic, value, key, partition, headers, timestamp, size, None)
        delivery = Delivery(batch, index)
        self._sender.wake()
        if index == 0 and queue.pending[0] is not batch:
            await asyncio.sleep(0)  # a full batch is there: let it leave before taking more
        return delivery

    def _put_now(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: Headers,
        timestamp: int | None,
        size: int,
    ) -> _Place | None:
        """Put a record into its batch, or ``None`` where something must be waited for."""
        known = self._view.topics.get(topic)
        if known is None or self._closed or self._lookups.hold(topic):
            return None
        count = len(known.partitions)
        if partition is not None:
            check_partition(topic, partition, count)
        if not self._sender.memory.try_acquire(size):
            return None
        return self._put_one(topic, value, key, partition, headers, timestamp, size, count)

    async def _put_later(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: Headers,
        timestamp: int | None,
        size: int,
        timeout: float | None,
    ) -> _Place:
        """Put a record into its batch, once the topic is known and there is memory for it."""
        wait = self._options.delivery_timeout if timeout is None else timeout
        ends = self._loop.time() + wait
        count = await self._partitions(topic, wait)
        if partition is not None:
            check_partition(topic, partition, count)
        sender = self._sender
        if not sender.memory.try_acquire(size):
            sender.wake()
            await sender.memory.acquire(size, ends - self._loop.time())
        return self._put_one(topic, value, key, partition, headers, timestamp, size, count)

    def _put_one(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: Headers,
        timestamp: int | None,
        size: int,
        count: int,
    ) -> _Place:
        if partition is None:
            if key is None:
                partition = self._sticky_partition(topic, count, size)
            else:
                partition = self._keys.partition(key, count)
        sender = self._sender
        queue = sender.queue(topic, partition)
        batch = sender.open_batch(queue, size)
        index = batch.extend(
            (value,),
            None if key is None else (key,),
            (headers,) if headers else None,
            self._cluster.clock.wall_ms() if timestamp is None else timestamp,
            size,
        )
        return queue, batch, index

    async def send_many(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        keys: Iterable[bytes | None] | None = None,
        partition: int | None = None,
        headers: Iterable[Headers] | None = None,
        timestamps: Iterable[int] | int | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Write many records in one call, the fast path, and wait for all of them.

        Args:
            keys, headers, timestamps: columns of the same length as ``values``.

        Raises:
            as ``send``; where some records were acknowledged nevertheless, a note on the error
            says how many. ValueError: columns of different lengths.
        """
        ends = None if timeout is None else self._loop.time() + timeout
        delivery = await self._put_many(
            topic, values, keys, partition, headers, timestamps, timeout
        )
        if ends is None:
            return await delivery
        try:
            async with asyncio.timeout_at(ends):
                return await delivery
        except TimeoutError:
            raise RequestTimeoutError(
                f"{topic}: not all acknowledged in {timeout:.3g} s; records may still be written"
            ) from None

    async def send_many_soon(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        keys: Iterable[bytes | None] | None = None,
        partition: int | None = None,
        headers: Iterable[Headers] | None = None,
        timestamps: Iterable[int] | int | None = None,
    ) -> ManyDelivery:
        """Put many records on their way; await the result to know their fate."""
        return await self._put_many(topic, values, keys, partition, headers, timestamps, None)

    async def _put_many(
        self,
        topic: str,
        values: Iterable[bytes | None],
        keys: Iterable[bytes | None] | None,
        partition: int | None,
        headers: Iterable[Headers] | None,
        timestamps: Iterable[int] | int | None,
        timeout: float | None,
    ) -> ManyDelivery:
        delivery = ManyDelivery()
        wait = self._options.delivery_timeout if timeout is None else timeout
        ends = self._loop.time() + wait
        values = as_column(values)
        if not values:
            return delivery
        keys = None if keys is None else as_column(keys)
        headers = None if headers is None else as_column(headers)
        if timestamps is not None and not isinstance(timestamps, int):
            timestamps = as_column(timestamps)
        check_columns(values, keys, headers, timestamps)
        if timestamps is None:
            timestamps = self._cluster.clock.wall_ms()
        else:
            check_timestamps((timestamps,) if isinstance(timestamps, int) else timestamps)
        sizes = record_sizes(values, keys, headers)
        count = await self._partitions(topic, wait)
        if partition is not None:
            check_partition(topic, partition, count)
        if partition is None and keys is not None:
            for target, chosen in self._by_key(topic, keys, count).items():
                if len(chosen) == len(values):
                    await self._put(
                        delivery, topic, target, values, keys, headers, timestamps, sizes, ends
                    )
                    continue
                await self._put(
                    delivery,
                    topic,
                    target,
                    [values[i] for i in chosen],
                    [keys[i] for i in chosen],
                    None if headers is None else [headers[i] for i in chosen],
                    timestamps if isinstance(timestamps, int) else [timestamps[i] for i in chosen],
                    [sizes[i] for i in chosen],
                    ends,
                )
            return delivery
        await self._put(delivery, topic, partition, values, keys, headers, timestamps, sizes, ends)
        return delivery

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was sent so far is acknowledged or has failed.

        Raises:
            PegelError: the first failure of a record whose delivery nobody awaited.
            RequestTimeoutError: not done within ``timeout`` seconds (default: no limit but the
                ``delivery_timeout`` of each record).
        """
        try:
            async with asyncio.timeout(timeout):
                await self._sender.flush()
        except TimeoutError:
            raise RequestTimeoutError(f"not everything was acknowledged in {timeout} s") from None
        self._raise_lost()

    async def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Flush, at most ``timeout`` seconds; what is not acknowledged then has failed.

        Raises:
            PegelError: as ``flush``.
        """
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(timeout):
                await self._sender.flush()
        except TimeoutError:
            pass  # said by the errors of the records themselves
        finally:
            self._sender.close()
            unclosed.forget(self._sender)
        self._raise_lost()

    def obstacle(self) -> str:
        """What unacknowledged records wait for, in one line; "" where nothing has gone wrong."""
        for key, queue in self._sender.queues.items():
            known = None if queue.idle else self._view.partition(*key)
            if known is not None and known.leader < 0:
                return f"{queue.topic}-{queue.partition} has no leader"
        return str(self._sender.last_error or "")

    def _raise_lost(self) -> None:
        sender = self._sender
        lost, error = sender.lost_records, sender.lost_error
        sender.lost_records, sender.lost_error = 0, None
        if error is not None:
            error.add_note(f"{lost} records that nobody awaited were not acknowledged")
            raise error

    async def _partitions(self, topic: str, timeout: float) -> int:
        if self._closed:
            raise ClosedError("the producer is closed")
        known = self._view.topics.get(topic)
        if known is None or self._lookups.hold(topic):
            known = await self._lookups.wait(topic, timeout)
        return len(known.partitions)

    def _sticky_partition(self, topic: str, count: int, size: int) -> int:
        partition = self._sticky.partition(topic, count)
        open_batch = self._sender.queue(topic, partition).open
        if open_batch is None or open_batch.size + size > self._options.batch_bytes:
            return self._sticky.switch(topic, count)
        return partition

    def _by_key(self, topic: str, keys: Sequence[bytes | None], count: int) -> dict[int, list[int]]:
        """Indexes of the records for each partition."""
        groups: dict[int, list[int]] = {}
        partition_of = self._keys.partition
        keyless: int | None = None
        for i, key in enumerate(keys):
            if key is None:
                if keyless is None:
                    keyless = self._sticky.switch(topic, count)
                target = keyless
            else:
                target = partition_of(key, count)
            group = groups.get(target)
            if group is None:
                groups[target] = [i]
            else:
                group.append(i)
        return groups

    async def _put(
        self,
        delivery: ManyDelivery,
        topic: str,
        partition: int | None,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,
        headers: Sequence[Headers] | None,
        timestamps: Sequence[int] | int,
        sizes: Sequence[int],
        deadline: float,
    ) -> None:
        """Cut into batches; without a partition each batch goes to the next one in turn."""
        sender, limit = self._sender, self._options.batch_bytes
        ends = list(accumulate(sizes))
        start, total = 0, len(values)
        while start < total:
            base = ends[start - 1] if start else 0
            first = sizes[start]
            target = partition
            if target is None:
                count = await self._partitions(topic, deadline - self._loop.time())
                target = self._sticky_partition(topic, count, min(first, limit))
            queue = sender.queue(topic, target)
            room = limit if queue.open is None else limit - queue.open.size
            if room < first:
                room = limit
            stop = max(start + 1, _last_within(ends, base + room, start))
            size = ends[stop - 1] - base
            if not sender.memory.try_acquire(size):
                sender.wake()
                await sender.memory.acquire(size, deadline - self._loop.time())
                if self._closed:
                    sender.memory.release(size)
                    raise ClosedError("the producer is closed")
            # The open batch may have left while this call waited; the queue decides again.
            batch = sender.open_batch(queue, size)
            whole = start == 0 and stop == total
            index = batch.extend(
                values if whole else values[start:stop],
                keys if whole or keys is None else keys[start:stop],
                headers if whole or headers is None else headers[start:stop],
                timestamps if whole or isinstance(timestamps, int) else timestamps[start:stop],
                size,
            )
            delivery.add(batch, index, stop - start)
            sender.wake()
            start = stop
            if start < total:
                await asyncio.sleep(0)  # a full batch is there: let it leave before making more


def _last_within(ends: Sequence[int], limit: int, start: int) -> int:
    """Index behind the last record that ends within ``limit``."""
    low, high = start, len(ends)
    while low < high:
        middle = (low + high) // 2
        if ends[middle] <= limit:
            low = middle + 1
        else:
            high = middle
    return low
