"""Finds and checks positions: offset look-ups, and truncation detection after a leader change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from pegel.cluster import Cluster
from pegel.config import ConsumerOptions
from pegel.consumer.subscription import UNKNOWN, PartitionState, Subscription
from pegel.errors import LogTruncationError, PegelError, broker_error
from pegel.metadata import Metadata
from pegel.network.pool import Endpoint
from pegel.offsets import EARLIEST, LATEST, list_offsets
from pegel.portions import in_portions
from pegel.protocol.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from pegel.types import TopicPartition


class Positions:
    """Works in the background; ``is_good`` says which partitions may be fetched."""

    def __init__(
        self,
        cluster: Cluster,
        subscription: Subscription,
        options: ConsumerOptions,
        wake: Callable[[], None],
        stop: Callable[[PartitionState, PegelError], None],
    ) -> None:
        self._cluster, self._subscription, self._options = cluster, subscription, options
        self._wake, self._stop = wake, stop
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], None] = {}

    def is_good(self, state: PartitionState) -> bool:
        """Whether the offset is known and, as far as is known, in the leader's log."""
        return state.fetch_offset != UNKNOWN and not state.looking_up

    def run(self, now: float) -> float:
        """Start what is needed; returns when to look again (``inf``: when woken)."""
        next_time = float("inf")
        resets: list[PartitionState] = []
        checks: dict[Endpoint, list[PartitionState]] = {}
        view = self._cluster.metadata.view
        for state in self._subscription.states.values():
            if state.looking_up or state.stopped is not None:
                continue
            if state.retry_at > now:
                next_time = min(next_time, state.retry_at)
                continue
            topic = view.topics.get(state.topic_partition.topic)
            if topic is not None and topic.topic_id is not state.topic_id:
                if state.topic_id is not None and state.topic_id != topic.topic_id:
                    # Deleted and created again under its name: what it holds now is all new.
                    state.request_reset(EARLIEST)
                    state.checked_epoch = UNKNOWN
                state.topic_id = topic.topic_id
            if state.reset_time is not None:
                resets.append(state)
                continue
            known = view.partition(*state.topic_partition)
            if known is not None and state.needs_check(known.leader_epoch):
                leader = view.brokers.get(known.leader)
                if leader is not None:
                    checks.setdefault(leader, []).append(state)
        if resets:
            self._spawn(self._reset(resets), resets)
        for leader, states in checks.items():
            for portion in in_portions(states):
                self._spawn(self._check(leader, portion), portion)
        return next_time

    def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def on_truncated(self, state: PartitionState, end_offset: int) -> None:
        """The leader's log parts from what was read at ``end_offset``; -1: it cannot tell."""
        tp, read_to = state.topic_partition, state.fetch_offset
        if self._options.offset_reset == "none":
            state.checked_epoch = state.fetched_epoch
            where = "an offset that it cannot tell" if end_offset < 0 else f"offset {end_offset}"
            self._stop(
                state,
                LogTruncationError(
                    f"{tp}: records were read up to offset {read_to}, but the leader's log differs "
                    f"from {where} on: an unclean election lost them. Seek to go on"
                ),
            )
        elif end_offset >= 0:
            state.seek(min(end_offset, read_to))
        else:
            earliest = self._options.offset_reset == "earliest"
            state.request_reset(EARLIEST if earliest else LATEST)

    def _spawn(self, work: Coroutine[None, None, None], states: list[PartitionState]) -> None:
        for state in states:
            state.looking_up = True
        task = self._loop.create_task(work)
        self._tasks[task] = None

        def finish(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            for state in states:
                state.looking_up = False
            if not task.cancelled():
                task.result()
                self._wake()

        task.add_done_callback(finish)

    async def _reset(self, states: list[PartitionState]) -> None:
        times: dict[TopicPartition, int] = {}
        generations: dict[TopicPartition, int] = {}
        for state in states:
            assert state.reset_time is not None
            times[state.topic_partition] = state.reset_time
            generations[state.topic_partition] = state.generation
        try:
            found = await list_offsets(
                self._cluster,
                times,
                timeout=self._cluster.options.request_timeout,
                isolation_level=self._options.isolation_level,
            )
        except PegelError as error:
            self._on_trouble(states, error)
            return
        late = [tp for tp, answer in found.items() if answer.offset < 0]
        if late:  # no record is that late: go on at the end
            try:
                ends = await list_offsets(
                    self._cluster,
                    dict.fromkeys(late, LATEST),
                    timeout=self._cluster.options.request_timeout,
                    isolation_level=self._options.isolation_level,
                )
            except PegelError as error:
                self._on_trouble(states, error)
                return
            found.update(ends)
        for state in states:
            tp = state.topic_partition
            if state.generation == generations[tp]:  # nobody sought elsewhere meanwhile
                state.seek(found[tp].offset)

    async def _check(self, leader: Endpoint, states: list[PartitionState]) -> None:
        """Ask where the epoch of the last record read ends in the leader's log (KIP-320)."""
        topics: dict[str, OffsetForLeaderTopic] = {}
        asked: dict[TopicPartition, tuple[PartitionState, int, int]] = {}
        view = self._cluster.metadata.view
        for state in states:
            name, partition = tp = state.topic_partition
            known = view.partition(name, partition)
            epoch = -1 if known is None else known.leader_epoch
            topic = topics.setdefault(name, OffsetForLeaderTopic(topic=name))
            topic.partitions.append(
                OffsetForLeaderPartition(
                    partition=partition,
                    current_leader_epoch=epoch,
                    leader_epoch=state.fetched_epoch,
                )
            )
            asked[tp] = (state, epoch, state.generation)
        request = OffsetForLeaderEpochRequest(replica_id=-1, topics=list(topics.values()))
        try:
            response = await self._cluster.pool.ask(leader, request, OffsetForLeaderEpochResponse)
        except PegelError as error:
            self._on_trouble(states, error)
            return
        for answer in response.topics:
            for p in answer.partitions:
                found = asked.get(TopicPartition(answer.topic, p.partition))
                if found is None:
                    continue
                state, epoch, generation = found
                if state.generation != generation:
                    continue
                if p.error_code:
                    self._on_trouble([state], broker_error(p.error_code, answer.topic))
                    continue
                parted = state.truncation(p.leader_epoch, p.end_offset)
                if parted is None:
                    state.checked_epoch = max(state.checked_epoch, epoch)
                else:
                    self.on_truncated(state, parted)

    def _on_trouble(self, states: list[PartitionState], error: PegelError) -> None:
        now = self._loop.time()
        for state in states:
            state.on_trouble(now, self._cluster.retry_pause(state.attempts))
            if not error.retriable:
                self._stop(state, error)
        self._cluster.metadata.request_refresh()


async def find_partitions(
    metadata: Metadata,
    topics: Sequence[str],
    partitions: Sequence[TopicPartition],
    timeout: float,
) -> list[TopicPartition]:
    """All partitions of ``topics``, then ``partitions``, once all of them are known.

    Raises, after ``timeout`` seconds at the latest:
        TopicNotFoundError, ConnectionFailedError, ValueError: a partition that is not there.
    """
    found: list[TopicPartition] = []
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout
    for name in topics:
        topic = await metadata.topic(name, timeout=ends - loop.time())
        found += [TopicPartition(name, p.index) for p in topic.partitions]
    for tp in partitions:
        topic = await metadata.topic(tp.topic, timeout=ends - loop.time())
        if not 0 <= tp.partition < len(topic.partitions):
            last = len(topic.partitions) - 1
            raise ValueError(f"topic {tp.topic!r} has partitions 0 to {last}, not {tp.partition}")
        found.append(tp)
    return found
