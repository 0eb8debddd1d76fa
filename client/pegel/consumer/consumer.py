"""The consumer: reads partitions by record or by batch, from positions that the caller may set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType

from pegel.cluster import Cluster
from pegel.config import ConsumerOptions
from pegel.consumer.arrived import Arrived
from pegel.consumer.fetcher import Fetcher
from pegel.consumer.group import GroupSession, Hooks, set_positions
from pegel.consumer.heart import Hearts
from pegel.consumer.offsets import next_offsets
from pegel.consumer.positions import find_partitions
from pegel.consumer.progress import BY_HAND, Loop, Progress
from pegel.consumer.standalone import StandaloneGroup
from pegel.consumer.subscription import UNKNOWN, PartitionState, Subscription
from pegel.errors import ClosedError, ConnectionFailedError, PegelError, RequestTimeoutError
from pegel.metrics import clients
from pegel.offsets import EARLIEST, LATEST, find_offsets
from pegel.types import CommittedOffset, ConsumerBatch, ConsumerRecord, TopicPartition

_CLOSE_TIMEOUT = 5.0
Offsets = Mapping[TopicPartition, int | CommittedOffset]


class Consumer:
    """Reads records; make one with ``AsyncClient.consumer(...)``, use it with ``async with``.

    Iterate over it for records, over ``batches()`` for columns (several times quicker). Within a
    partition records come in order; partitions are mixed as they arrive. New partitions of a
    topic that grows are read from their beginning.

    With a group the partitions are shared with its other members, and change at times: always
    between two batches or records, never while one is worked on.

    A loop tells nobody how it ends. So what it was handed counts as finished when the same loop
    asks for more, and not before: what is in hand when it is left, by ``break``, by an error or
    with the consumer, is not committed, and a new loop (or the next owner) begins with it. Call
    ``commit()`` before a ``break`` that means "done".
    """

    def __init__(
        self,
        cluster: Cluster,
        topics: Sequence[str],
        partitions: Sequence[TopicPartition],
        options: ConsumerOptions,
        hooks: Hooks | None = None,
        hearts: Hearts | None = None,
    ) -> None:
        self._cluster, self._options = cluster, options
        self._topics, self._partitions = tuple(topics), tuple(partitions)
        self._hooks, self._hearts = hooks or Hooks(), hearts
        self._subscription = Subscription(options.partition_fetch_bytes)
        self._fetcher: Fetcher | None = None
        self._group: GroupSession | StandaloneGroup | None = None
        self._arrived: Arrived | None = None
        self._progress = Progress(self._subscription)
        self._stats = clients.watch_consumer(self)
        self._closed = False
        self._departing = False
        self._reset_time = LATEST if options.offset_reset == "latest" else EARLIEST

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
        """Learn of the topics, and join the group. Fetching begins with the first wait for records.

        Raises:
            TopicNotFoundError, ConnectionFailedError, ValueError: a partition that is not there.
        """
        await self._started()

    async def _start(self, timeout: float) -> tuple[Fetcher, Arrived]:
        metadata, options = self._cluster.metadata, self._options
        ends = asyncio.get_running_loop().time() + timeout
        assigned = await find_partitions(metadata, self._topics, self._partitions, timeout)
        fetcher = Fetcher(self._cluster, self._subscription, options)
        if options.group is not None and not self._topics:
            group = self._group = StandaloneGroup(self._cluster, options, fetcher.fail)
            left = ends - asyncio.get_running_loop().time()
            # First: a start that fails here can be repeated.
            found = {} if options.commit == "none" else await group.committed(assigned, left)
            self._subscription.add(assigned, None)
            set_positions(self._subscription, options, assigned, found, fetcher.stop)
        self._fetcher = fetcher
        self._arrived = Arrived(fetcher, self._stats, self._cluster.clock)
        metadata.listen(self._on_metadata)
        if options.group is None:
            self._subscription.add(assigned, self._reset_time)
        elif self._topics:
            assert self._hearts is not None
            self._group = GroupSession(
                self._cluster, self._subscription, options, self._topics, self._hooks,
                self._hearts, self._arrived.drop_stale, fetcher.fail, fetcher.stop, self._stats,
            )  # fmt: skip
            self._group.start()
        return fetcher, self._arrived

    async def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Stop reading; a group member commits what is finished and leaves its group.

        By record that is all before the record in hand, by batch all before the batch in hand.

        Waits for the coordinator, and no longer than ``timeout`` seconds.
        """
        if self._closed:
            return
        self._closed = True
        clients.retire(self._stats)
        fetcher = self._fetcher
        if fetcher is None:
            return
        self._cluster.metadata.unlisten(self._on_metadata)
        fetcher.close()
        if self._group is not None:
            finished = self._progress.finished()
            if finished is not None:
                self._group.finished(*finished)
            self._departing = True
            try:
                await self._group.close(timeout)
            finally:
                self._departing = False

    @property
    def assignment(self) -> list[TopicPartition]:
        """The partitions that are read."""
        return list(self._subscription.states)

    @property
    def has_group(self) -> bool:
        """Whether offsets can be committed."""
        return self._options.group is not None and self._options.commit != "none"

    @property
    def rebalances(self) -> int:
        """How often the group was shared out anew while this consumer was its member."""
        return self._group.core.counts.generations if isinstance(self._group, GroupSession) else 0

    async def wait_for_assignment(self, timeout: float | None = None) -> list[TopicPartition]:
        """The partitions, once the group has settled on who reads which.

        Raises:
            RequestTimeoutError: it did not within ``timeout`` seconds.
            GroupError, PegelError: why it will not.
        """
        ends = None if timeout is None else asyncio.get_running_loop().time() + timeout
        fetcher, arrived = await self._started(timeout)
        group = self._group
        if isinstance(group, GroupSession):
            group.came_back()
            try:
                async with asyncio.timeout_at(ends):
                    while not group.stable.is_set() and fetcher.error is None:
                        await group.stepped()
            except TimeoutError:
                raise RequestTimeoutError(
                    f"group {self._options.group!r} did not settle in {timeout:.3g} s"
                ) from None
            finally:
                group.went_away(busy=self._progress.busy)
            arrived.raise_trouble()
        return self.assignment

    # Reading

    def __aiter__(self) -> AsyncIterator[ConsumerRecord]:
        """Records without end. Each loop begins with the record that one before it had in hand."""
        return Loop(self.next_record)

    async def __anext__(self) -> ConsumerRecord:
        """The next record, asked for by hand: the one before is finished."""
        return await self.next_record(BY_HAND)

    async def next_record(self, reader: object) -> ConsumerRecord:
        """The next record for ``reader``: one loop, or ``BY_HAND``."""
        record = self.next_of_batch(reader)
        if record is not None:
            return record
        group, progress = self._group, self._progress
        if group is not None and group.wants_rest and progress.busy:
            self._finish(reader)  # what is left of the batch goes on if its partition is kept
            await group.rest()
        while True:
            if group is None or group.failure is None:
                record = progress.next_record(reader)
                if record is not None:
                    return record
            progress.open(await self._read_on(reader))

    def next_of_batch(self, reader: object = BY_HAND) -> ConsumerRecord | None:
        """The next record if that needs no wait: it is in the batch that is being read."""
        group = self._group
        if group is not None:
            if group.wants_rest or group.failure is not None:
                return None
            group.touch()
        return self._progress.next_record(reader)

    def batches(self) -> AsyncIterator[ConsumerBatch]:
        """Batches of records without end, the fast path.

        A batch is finished when the loop asks for the next one. Each loop begins with the batch
        that one before it had in hand when it was left.
        """
        return Loop(self._read_on)

    async def _read_on(self, reader: object) -> ConsumerBatch:
        batch = await self.read(None, reader)
        assert batch is not None
        return batch

    async def next_batch(self, timeout: float | None = None) -> ConsumerBatch | None:
        """The next batch, or ``None`` if there is none within ``timeout`` seconds.

        To call it says that the batch or record that the call before returned is finished. What
        a loop had in hand is not: it comes first, again.

        Raises:
            OffsetOutOfRangeError, LogTruncationError, NoOffsetError: with ``offset_reset="none"``,
                at each call until that partition is sought (or paused, to read on without it).
            GroupError: the group does not take this consumer (any more).
            CorruptResponseError: what the broker sent breaks the format; seek past it.
            BrokerError: the partition cannot be read. ClosedError: the consumer is closed.
        """
        return await self.read(timeout, BY_HAND)

    async def read(self, timeout: float | None, reader: object) -> ConsumerBatch | None:
        """``next_batch`` for ``reader``: one loop, or ``BY_HAND``."""
        ends = None if timeout is None else asyncio.get_running_loop().time() + timeout
        try:
            fetcher, arrived = await self._started(timeout)
        except ConnectionFailedError:
            if timeout is not None and self._cluster.metadata.trouble is None:
                return None  # nothing went wrong so far: it takes longer
            raise
        group, progress = self._group, self._progress
        if group is not None:
            self._finish(reader)
            group.came_back()
        else:
            progress.come_back(reader)
        batch: ConsumerBatch | None = None
        try:
            batch = await self._await_batch(fetcher, arrived, ends)
        except PegelError:
            await asyncio.sleep(0)  # whoever asks again at once lets others run
            raise
        finally:
            if group is not None:
                group.went_away(busy=batch is not None)
        if batch is not None:
            progress.hand(batch, reader)
        return batch

    async def _await_batch(
        self, fetcher: Fetcher, arrived: Arrived, ends: float | None
    ) -> ConsumerBatch | None:
        group = self._group
        again = self._progress.take_again()
        try:
            async with asyncio.timeout_at(ends) if ends is not None else nullcontext():
                while True:
                    if group is not None:
                        await group.ready()
                        if group.failure is not None:  # others may read what is here already
                            raise group.failure.with_traceback(None)
                    if self._closed:
                        raise ClosedError("the consumer is closed")
                    batch = (again and self._progress.take_again()) or arrived.next_batch()
                    if batch is not None:
                        return batch
                    await fetcher.wait()
        except TimeoutError:
            return None

    def _finish(self, reader: object) -> None:
        finished = self._progress.come_back(reader)
        if finished is not None and self._group is not None:
            self._group.finished(*finished)

    # Offsets in the group

    async def commit(self, offsets: Offsets | None = None, *, timeout: float | None = None) -> None:
        """Have the group keep where this consumer is, or the given offsets of next records.

        Without ``offsets`` everything that was handed out counts as finished, with the batch or
        record in hand; a loop that is left then is not handed it again.

        Raises:
            TypeError, ValueError: what is no offset of a next record (they begin at 0).
            CommitFailedError: the group went on without this consumer; what was read since the
                last commit is read again by others.
            ValueError: no group, or ``commit="none"``. PegelError: not committed.
        """
        group = await self._keeper(timeout)
        if group is None or not self.has_group:
            raise ValueError('commits need a group, and commit="batch" or "manual"')
        chosen = self._progress.positions() if offsets is None else next_offsets(offsets)
        if chosen:
            wait = self._cluster.options.request_timeout if timeout is None else timeout
            await group.commit(chosen, wait)
            self._progress.committed(chosen)

    async def committed(
        self, *partitions: TopicPartition | tuple[str, int], timeout: float | None = None
    ) -> dict[TopicPartition, CommittedOffset]:
        """What the group has committed for these partitions (default: all that are read).

        Partitions without an offset are left out.

        Raises:
            ValueError: no group. PegelError: the coordinator does not say.
        """
        group = await self._keeper(timeout)
        if group is None:
            raise ValueError("offsets are kept by a group, and this consumer has none")
        wait = self._cluster.options.request_timeout if timeout is None else timeout
        chosen = [TopicPartition(*p) for p in partitions] or self.assignment
        return await group.committed(chosen, wait)

    async def _keeper(self, timeout: float | None) -> GroupSession | StandaloneGroup | None:
        """The group, also for a hook that runs while the consumer is closed."""
        if not self._departing:
            await self._started(timeout)
        return self._group

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
        if self._fetcher is not None and self._arrived is not None:
            self._arrived.drop_stale()
            self._fetcher.hasten(state.topic_partition)

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
        if state.position == UNKNOWN and state.reset_time is not None:
            tp = state.topic_partition
            found = await self._offsets({tp: state.reset_time})
            if state.position == UNKNOWN:
                state.seek(found[tp])
        return self._progress.position(state)

    def lag(self, partition: TopicPartition | tuple[str, int]) -> int | None:
        """Records behind the end of the partition; ``None`` before the first response."""
        state = self._state(partition)
        if UNKNOWN in {state.high_watermark, state.position}:
            return None
        committed = self._options.isolation_level == 1
        end = state.last_stable_offset if committed else state.high_watermark
        return max(0, end - self._progress.position(state))

    def reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether every partition in ``ends`` was read up to that offset."""
        states = self._subscription.states
        position = self._progress.position
        return all(tp in states and position(states[tp]) >= end for tp, end in ends.items())

    async def beginning_offsets(self) -> dict[TopicPartition, int]:
        """Offset of the first record of each partition."""
        await self._started()
        return await self._offsets(dict.fromkeys(self.assignment, EARLIEST))

    async def end_offsets(self) -> dict[TopicPartition, int]:
        """Offset behind the last readable record of each partition."""
        await self._started()
        return await self._offsets(dict.fromkeys(self.assignment, LATEST))

    async def offsets_at(self, timestamp: int) -> dict[TopicPartition, int]:
        """Offset of the first record of each partition that is not older (milliseconds).

        The end where there is none.
        """
        await self._started()
        return await self._offsets(dict.fromkeys(self.assignment, timestamp))

    async def _offsets(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        timeout, level = self._cluster.options.request_timeout, self._options.isolation_level
        return await find_offsets(self._cluster, times, timeout=timeout, isolation_level=level)

    def pause(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Fetch no more of them; what is already here is still handed out."""
        for partition in partitions:
            self._state(partition).paused = True

    def resume(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Fetch them again, also those that an error stopped."""
        for partition in partitions:
            state = self._state(partition)
            state.paused, state.stopped = False, None
        if self._fetcher is not None:
            self._fetcher.wake()

    def assign(self, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Read exactly these partitions from now on; positions of those kept are kept.

        Raises:
            ValueError: a group decides which partitions this consumer reads.
        """
        if self._options.group is not None and (self._topics or self._fetcher is None):
            raise ValueError("a group decides which partitions its members read")
        chosen = [TopicPartition(*p) for p in partitions]
        self._topics = ()
        kept = set(chosen)
        for tp in self.assignment:
            if tp not in kept:
                self._subscription.remove(tp)
        self._subscription.add(chosen, self._reset_time)
        if self._arrived is not None:
            self._arrived.drop_stale()

    def _state(self, partition: TopicPartition | tuple[str, int]) -> PartitionState:
        tp = TopicPartition(*partition)
        state = self._subscription.states.get(tp)
        if state is None:
            raise KeyError(f"{tp} is not assigned to this consumer")
        return state

    async def _started(self, timeout: float | None = None) -> tuple[Fetcher, Arrived]:
        if self._closed:
            raise ClosedError("the consumer is closed")
        if self._fetcher is None or self._arrived is None:
            wait = self._cluster.options.request_timeout if timeout is None else timeout
            return await self._start(wait)
        return self._fetcher, self._arrived

    def _on_metadata(self) -> None:
        """A topic that grew: its new partitions are read from their beginning."""
        if self._group is not None:
            return
        for name in self._topics:
            topic = self._cluster.metadata.view.topics.get(name)
            if topic is not None:
                new = [TopicPartition(name, p.index) for p in topic.partitions]
                self._subscription.add(new, EARLIEST)
