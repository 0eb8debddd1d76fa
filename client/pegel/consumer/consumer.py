"""The consumer: reads partitions by record or by batch, from positions that the caller may set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType

from pegel.cluster import Cluster
from pegel.config import ConsumerOptions
from pegel.consumer.fetched import Fetched
from pegel.consumer.fetcher import Fetcher
from pegel.consumer.subscription import UNKNOWN, PartitionState, Subscription
from pegel.errors import ClosedError, CorruptResponseError
from pegel.offsets import EARLIEST, LATEST, list_offsets
from pegel.record import CorruptBatchError
from pegel.types import ConsumerBatch, ConsumerRecord, TopicPartition


class Consumer:
    """Reads records; make one with ``AsyncClient.consumer(...)``, use it with ``async with``.

    Iterate over it for records, over ``batches()`` for columns (several times quicker). Within a
    partition records come in order; partitions are mixed as they arrive. New partitions of a
    topic that grows are read from their beginning.
    """

    def __init__(
        self,
        cluster: Cluster,
        topics: Sequence[str],
        partitions: Sequence[TopicPartition],
        options: ConsumerOptions,
    ) -> None:
        self._cluster, self._options = cluster, options
        self._topics, self._partitions = tuple(topics), tuple(partitions)
        self._subscription = Subscription(options.partition_fetch_bytes)
        self._fetcher: Fetcher | None = None
        self._current: Fetched | None = None
        self._records: Iterator[ConsumerRecord] = iter(())
        self._record_state: PartitionState | None = None
        self._record_generation = -1
        self._closed = False

    async def __aenter__(self) -> Consumer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Learn of the topics. Fetching begins with the first wait for records.

        Raises:
            TopicNotFoundError, ConnectionFailedError, ValueError: a partition that is not there.
        """
        if self._fetcher is not None:
            return
        metadata = self._cluster.metadata
        reset_time = LATEST if self._options.offset_reset == "latest" else EARLIEST
        assigned: list[TopicPartition] = []
        for name in self._topics:
            topic = await metadata.topic(name)
            assigned += [TopicPartition(name, p.index) for p in topic.partitions]
        for tp in self._partitions:
            topic = await metadata.topic(tp.topic)
            if not 0 <= tp.partition < len(topic.partitions):
                last = len(topic.partitions) - 1
                raise ValueError(
                    f"topic {tp.topic!r} has partitions 0 to {last}, not {tp.partition}"
                )
            assigned.append(tp)
        self._subscription.add(assigned, reset_time)
        self._fetcher = Fetcher(self._cluster, self._subscription, self._options)
        metadata.listen(self._on_metadata)

    async def close(self) -> None:
        """Stop fetching. Never waits for a broker."""
        if self._closed:
            return
        self._closed = True
        if self._fetcher is not None:
            self._cluster.metadata.unlisten(self._on_metadata)
            self._fetcher.close()

    @property
    def assignment(self) -> list[TopicPartition]:
        """The partitions that are read."""
        return list(self._subscription.states)

    # Reading

    def __aiter__(self) -> AsyncIterator[ConsumerRecord]:
        return self

    async def __anext__(self) -> ConsumerRecord:
        while True:
            record = next(self._records, None)
            state = self._record_state
            if record is None:
                batch = await self.next_batch()
                assert batch is not None
                state = self._subscription.states[TopicPartition(batch.topic, batch.partition)]
                self._records, self._record_state = iter(batch), state
                self._record_generation = state.generation
                continue
            assert state is not None
            if state.generation != self._record_generation:  # sought elsewhere in mid-batch
                self._records = iter(())
                continue
            return record

    async def batches(self) -> AsyncIterator[ConsumerBatch]:
        """Batches of records without end, the fast path."""
        while True:
            batch = await self.next_batch()
            assert batch is not None
            yield batch

    async def next_batch(self, timeout: float | None = None) -> ConsumerBatch | None:
        """The next batch, or ``None`` if there is none within ``timeout`` seconds.

        Raises:
            OffsetOutOfRangeError, LogTruncationError: with ``offset_reset="none"``.
            CorruptResponseError: what the broker sent breaks the format.
            BrokerError: the partition cannot be read. ClosedError: the consumer is closed.
        """
        fetcher = await self._started()
        if timeout is None:
            while True:
                batch = self._next_ready(fetcher)
                if batch is not None:
                    return batch
                await fetcher.wait()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    batch = self._next_ready(fetcher)
                    if batch is not None:
                        return batch
                    await fetcher.wait()
        except TimeoutError:
            return None

    def _next_ready(self, fetcher: Fetcher) -> ConsumerBatch | None:
        if self._closed:
            raise ClosedError("the consumer is closed")
        while True:
            current = self._current
            if current is None:
                if not fetcher.ready:
                    break
                current = self._current = fetcher.ready.popleft()
            if not current.stale:
                try:
                    columns = current.next_columns()
                except CorruptBatchError as error:
                    tp, position = current.state.topic_partition, current.state.position
                    self._current = None
                    current.state.paused = True
                    fetcher.release(current)
                    raise CorruptResponseError(
                        f"{tp} at offset {position}: {error.message}; seek past it to go on"
                    ) from None
                if columns is not None:
                    return ConsumerBatch(*current.state.topic_partition, columns)
            self._current = None
            fetcher.release(current)
        fetcher.wake()
        if fetcher.error is not None:
            failure, fetcher.error = fetcher.error, None
            raise failure
        return None

    # Positions

    def seek(self, partition: TopicPartition | tuple[str, int], offset: int) -> None:
        """Read on from ``offset``. Resumes a partition that an error stopped.

        Raises:
            KeyError: the partition is not assigned. ValueError: a negative offset.
        """
        if offset < 0:
            raise ValueError(f"offsets begin at 0, not at {offset}")
        state = self._state(partition)
        state.seek(offset)
        state.paused = False
        self._drop_stale()

    async def seek_to_beginning(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Read the named partitions (default: all) from the first record that they still have."""
        await self._seek_to_time(EARLIEST, partitions)

    async def seek_to_end(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Read only what is written to the named partitions (default: all) from now on."""
        await self._seek_to_time(LATEST, partitions)

    async def seek_to_time(
        self, timestamp: int, *partitions: TopicPartition | tuple[str, int]
    ) -> None:
        """Read from the first record that is not older than ``timestamp`` (milliseconds)."""
        await self._seek_to_time(timestamp, partitions)

    async def _seek_to_time(
        self, time: int, partitions: Sequence[TopicPartition | tuple[str, int]]
    ) -> None:
        await self._started()
        chosen = [TopicPartition(*p) for p in partitions] or self.assignment
        for tp in chosen:
            self._state(tp)
        found = await self._offsets(dict.fromkeys(chosen, time))
        for tp, offset in found.items():
            self.seek(tp, offset)

    async def position(self, partition: TopicPartition | tuple[str, int]) -> int:
        """Offset of the next record that will be handed out."""
        await self._started()
        state = self._state(partition)
        if state.position == UNKNOWN:
            assert state.reset_time is not None
            tp = state.topic_partition
            found = await self._offsets({tp: state.reset_time})
            if state.position == UNKNOWN:
                state.seek(found[tp])
        return state.position

    def lag(self, partition: TopicPartition | tuple[str, int]) -> int | None:
        """Records behind the end of the partition; ``None`` before the first response."""
        state = self._state(partition)
        if UNKNOWN in {state.high_watermark, state.position}:
            return None
        committed = self._options.isolation_level == 1
        end = state.last_stable_offset if committed else state.high_watermark
        return max(0, end - state.position)

    def reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether every partition in ``ends`` was read up to that offset."""
        states = self._subscription.states
        return all(tp in states and states[tp].position >= end for tp, end in ends.items())

    async def beginning_offsets(self) -> dict[TopicPartition, int]:
        """Offset of the first record of each partition."""
        await self._started()
        return await self._offsets(dict.fromkeys(self.assignment, EARLIEST))

    async def end_offsets(self) -> dict[TopicPartition, int]:
        """Offset behind the last readable record of each partition."""
        await self._started()
        return await self._offsets(dict.fromkeys(self.assignment, LATEST))

    async def _offsets(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Offsets by time; where no record is that late, the end."""
        timeout, level = self._cluster.options.request_timeout, self._options.isolation_level
        found = await list_offsets(self._cluster, times, timeout=timeout, isolation_level=level)
        late = [tp for tp, answer in found.items() if answer.offset < 0]
        if late:
            found |= await list_offsets(
                self._cluster, dict.fromkeys(late, LATEST), timeout=timeout, isolation_level=level
            )
        return {tp: answer.offset for tp, answer in found.items()}

    def pause(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Fetch no more of them; what is already here is still handed out."""
        for partition in partitions:
            self._state(partition).paused = True

    def resume(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Fetch them again."""
        for partition in partitions:
            self._state(partition).paused = False
        if self._fetcher is not None:
            self._fetcher.wake()

    def assign(self, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Read exactly these partitions from now on; positions of those kept are kept."""
        chosen = [TopicPartition(*p) for p in partitions]
        self._topics = ()
        for tp in set(self.assignment).difference(chosen):
            self._subscription.remove(tp)
        reset_time = LATEST if self._options.offset_reset == "latest" else EARLIEST
        self._subscription.add(chosen, reset_time)
        self._drop_stale()

    def _drop_stale(self) -> None:
        fetcher = self._fetcher
        if fetcher is not None:
            if self._current is not None and self._current.stale:
                fetcher.release(self._current)
                self._current = None
            fetcher.drop_stale()
            fetcher.wake()

    def _state(self, partition: TopicPartition | tuple[str, int]) -> PartitionState:
        tp = TopicPartition(*partition)
        state = self._subscription.states.get(tp)
        if state is None:
            raise KeyError(f"{tp} is not assigned to this consumer")
        return state

    async def _started(self) -> Fetcher:
        if self._closed:
            raise ClosedError("the consumer is closed")
        if self._fetcher is None:
            await self.start()
        assert self._fetcher is not None
        return self._fetcher

    def _on_metadata(self) -> None:
        """A topic that grew: its new partitions are read from their beginning."""
        for name in self._topics:
            topic = self._cluster.metadata.view.topics.get(name)
            if topic is not None:
                new = [TopicPartition(name, p.index) for p in topic.partitions]
                self._subscription.add(new, EARLIEST)
