"""Looks at a cluster: topics, offsets, groups, and what the groups have not read."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from pegel.cluster import Cluster
from pegel.consumer.coordinator import Coordinator
from pegel.consumer.offsets import fetch_offsets
from pegel.errors import PegelError
from pegel.exporter.lag import LagClock
from pegel.network.pool import Endpoint
from pegel.offsets import EARLIEST, LATEST, list_offsets
from pegel.protocol.messages.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from pegel.protocol.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from pegel.protocol.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from pegel.protocol.messages.metadata import MetadataResponse
from pegel.record.batch import HEADER_SIZE, read_header
from pegel.types import TopicPartition

_log = logging.getLogger("pegel.exporter")
T = TypeVar("T")

# Records whose timestamp is asked for in one look, and how many at a time: each answer carries the
# batch that holds the record.
MAX_TIMESTAMPS = 200
_AT_A_TIME = 8


class PartitionFacts(NamedTuple):
    """Offsets are None where the leader did not answer."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    oldest: int | None
    newest: int | None


class GroupLag(NamedTuple):
    """``committed`` and ``lag`` -1 where nothing was committed; ``seconds`` None: not known."""

    committed: int
    lag: int
    seconds: float | None


@dataclass(slots=True)
class Snapshot:
    """What one look has found."""

    brokers: dict[int, str] = field(default_factory=dict)
    topics: dict[str, dict[int, PartitionFacts]] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    lags: dict[tuple[str, str], dict[int, GroupLag]] = field(default_factory=dict)
    catch_up: dict[tuple[str, str], float] = field(default_factory=dict)


class ClusterWatch:
    """Looks again and again, and remembers what lag in seconds needs."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        topics: re.Pattern[str],
        groups: re.Pattern[str],
        timeout: float,
    ) -> None:
        """Only topics and groups whose whole name matches; ``timeout`` in seconds a question."""
        self.errors = 0
        self._cluster = cluster
        self._topics = topics
        self._groups = groups
        self._timeout = timeout
        self._clock = LagClock()

    async def look(self) -> Snapshot:
        """One look. What cannot be had is left out and counted in ``errors``.

        Raises:
            PegelError: no broker answers at all.
        """
        found = Snapshot()
        metadata = await self._cluster.metadata.fetch(None, timeout=self._timeout)
        self._cluster.metadata.view.apply(metadata)
        found.brokers = {b.node_id: f"{b.host}:{b.port}" for b in metadata.brokers}
        await self._look_at_topics(found, metadata)
        endpoints = [Endpoint(b.node_id, b.host, b.port) for b in metadata.brokers]
        await asyncio.gather(*(self._look_at_groups(found, e) for e in endpoints))
        await self._look_at_lag(found, metadata)
        self._clock.keep(
            {(topic, n) for topic, facts in found.topics.items() for n in facts}, set(found.members)
        )
        return found

    async def _try(self, question: Awaitable[T]) -> T | None:
        try:
            return await question
        except PegelError as error:
            _log.warning("%s", error)
            self.errors += 1
            return None

    # -- topics

    async def _look_at_topics(self, found: Snapshot, metadata: MetadataResponse) -> None:
        topics = {
            t.name: sorted(t.partitions, key=lambda p: p.partition_index)
            for t in metadata.topics
            if t.name and not t.error_code and self._topics.fullmatch(t.name)
        }
        led = [
            TopicPartition(name, p.partition_index)
            for name, partitions in topics.items()
            for p in partitions
            if p.leader_id >= 0
        ]
        oldest, newest = await asyncio.gather(
            self._offsets(led, EARLIEST), self._offsets(led, LATEST)
        )
        now = self._now()
        for name, partitions in sorted(topics.items()):
            facts = found.topics[name] = {}
            for p in partitions:
                tp = TopicPartition(name, p.partition_index)
                facts[p.partition_index] = PartitionFacts(
                    p.leader_id, tuple(p.replica_nodes), tuple(p.isr_nodes),
                    oldest.get(tp), newest.get(tp),
                )  # fmt: skip
                if tp in newest:
                    self._clock.note_end(name, p.partition_index, newest[tp], now)

    async def _offsets(
        self, partitions: Iterable[TopicPartition], time: int
    ) -> Mapping[TopicPartition, int]:
        """One topic that cannot be asked must not cost the others theirs."""
        by_topic: dict[str, list[TopicPartition]] = {}
        for tp in partitions:
            by_topic.setdefault(tp.topic, []).append(tp)
        answers = await asyncio.gather(*(
            self._try(list_offsets(self._cluster, dict.fromkeys(some, time), timeout=self._timeout))
            for some in by_topic.values()
        ))  # fmt: skip
        return {tp: at.offset for answer in answers if answer for tp, at in answer.items()}

    # -- groups

    async def _look_at_groups(self, found: Snapshot, broker: Endpoint) -> None:
        pool, wait = self._cluster.pool, self._timeout
        listed = await self._try(
            pool.ask(broker, ListGroupsRequest(), ListGroupsResponse, timeout=wait)
        )
        if listed is None or listed.error_code:
            return
        names = [g.group_id for g in listed.groups if self._groups.fullmatch(g.group_id)]
        if not names:
            return
        described = await self._try(
            pool.ask(
                broker, DescribeGroupsRequest(groups=names), DescribeGroupsResponse, timeout=wait
            )
        )
        for group in described.groups if described is not None else ():
            if not group.error_code:
                found.members[group.group_id] = len(group.members)

    async def _look_at_lag(self, found: Snapshot, metadata: MetadataResponse) -> None:
        groups = sorted(found.members)
        answers = await asyncio.gather(*(
            self._try(fetch_offsets(
                Coordinator(self._cluster, group), None, timeout=self._timeout,
                require_stable=False,
            ))
            for group in groups
        ))  # fmt: skip
        unknown: list[tuple[str, TopicPartition, int]] = []
        for group, offsets in zip(groups, answers, strict=True):
            committed = {tp: o.offset for tp, o in (offsets or {}).items()}
            for topic in sorted({tp.topic for tp in committed}):
                facts = found.topics.get(topic)
                if facts is not None:
                    unknown += self._lag_of(found, group, topic, facts, committed)
        await self._ask_timestamps(found, unknown, metadata)

    def _lag_of(
        self,
        found: Snapshot,
        group: str,
        topic: str,
        facts: Mapping[int, PartitionFacts],
        committed: Mapping[TopicPartition, int],
    ) -> list[tuple[str, TopicPartition, int]]:
        """Fill in one group on one topic; partitions whose time has to be asked for."""
        now, total = self._now(), 0
        unknown = []
        lags = found.lags[group, topic] = {}
        for number, fact in facts.items():
            offset = committed.get(TopicPartition(topic, number), -1)
            if offset < 0 or fact.newest is None:
                lags[number] = GroupLag(offset, -1, None)
                continue
            lag = max(0, fact.newest - offset)
            total += lag
            seconds: float | None = 0.0
            if lag:
                # What retention has deleted can no longer be read: the oldest left is behind most.
                first = max(offset, fact.oldest or 0)
                written_at = self._clock.written_at(group, topic, number, first)
                seconds = None if written_at is None else max(0.0, now - written_at)
                if written_at is None:
                    unknown.append((group, TopicPartition(topic, number), first))
            lags[number] = GroupLag(offset, lag, seconds)
        self._clock.note_lag(group, topic, total, now)
        catch_up = self._clock.catch_up_seconds(group, topic)
        if catch_up is not None:
            found.catch_up[group, topic] = catch_up
        return unknown

    # -- timestamps

    async def _ask_timestamps(
        self,
        found: Snapshot,
        unknown: list[tuple[str, TopicPartition, int]],
        metadata: MetadataResponse,
    ) -> None:
        ids = {t.name: t.topic_id for t in metadata.topics}
        gate = asyncio.Semaphore(_AT_A_TIME)

        async def ask(group: str, tp: TopicPartition, offset: int) -> None:
            async with gate:
                written_at = await self._try(self._timestamp(tp, offset, ids[tp.topic]))
            if written_at is not None:
                self._clock.note_timestamp(group, tp.topic, tp.partition, offset, written_at)
                lags = found.lags[group, tp.topic]
                seconds = max(0.0, self._now() - written_at)
                lags[tp.partition] = lags[tp.partition]._replace(seconds=seconds)

        await asyncio.gather(*(ask(*one) for one in unknown[:MAX_TIMESTAMPS]))

    async def _timestamp(
        self, tp: TopicPartition, offset: int, topic_id: uuid.UUID
    ) -> float | None:
        """When the batch that holds ``offset`` was written, in seconds of Unix time."""
        leader = self._cluster.metadata.view.leader(*tp)
        if leader is None:
            return None
        wanted = FetchPartition(partition=tp.partition, fetch_offset=offset, partition_max_bytes=1)
        request = FetchRequest(
            max_wait_ms=0, min_bytes=0, max_bytes=1,
            topics=[FetchTopic(topic=tp.topic, topic_id=topic_id, partitions=[wanted])],
        )  # fmt: skip
        response = await self._cluster.pool.ask(
            leader, request, FetchResponse, timeout=self._timeout
        )
        for answered in response.responses:
            for data in answered.partitions:
                records = data.records
                if isinstance(records, bytes | bytearray | memoryview) and (
                    len(records) >= HEADER_SIZE
                ):
                    header = read_header(records)
                    return max(header.base_timestamp, 0) / 1000
        return None

    def _now(self) -> float:
        return self._cluster.clock.wall_ms() / 1000
