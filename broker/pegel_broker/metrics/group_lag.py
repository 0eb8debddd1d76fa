"""Consumer lag as the coordinator of each group sees it: in records, in seconds, until caught up.

Every few seconds the committed offsets of the groups that this broker coordinates are held against
the log ends: of the replicas here, and of others by asking their leaders. How old the oldest
unread record is tells its batch, where a replica is here, else the time at which the log end passed
it (``pegel.exporter.lag``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pegel.cluster import Cluster
from pegel.config import ClientOptions
from pegel.errors import PegelError
from pegel.exporter.lag import LagClock
from pegel.offsets import LATEST, list_offsets
from pegel.record.batch import HEADER_SIZE, read_header
from pegel.seams import World
from pegel.types import TopicPartition
from pegel_broker.coordinator.service import Coordinators
from pegel_broker.group.classic import ClassicGroup
from pegel_broker.log.errors import LogError
from pegel_broker.log.results import ReadResult
from pegel_broker.network.sasl import BrokerCredentials
from pegel_broker.replication.manager import ReplicaManager

_log = logging.getLogger("pegel.broker")

INTERVAL = 5.0
# Groups and topics that are shown; the others are counted in ``dropped``.
MAX_SERIES = 1_000
# The event loop serves others after so many offsets.
_SLICE = 100
_TIMEOUT = 3.0

Key = tuple[str, str]


class Lag(NamedTuple):
    """Of one group on one topic; what is not known is None.

    ``unread_since`` is when the oldest unread record was written, in Unix time; 0 without any. A
    page shows its age at the moment of the page: it grows as the clock does.
    """

    records: int
    unread_since: float | None
    catch_up: float | None

    def seconds(self, now: float) -> float | None:
        """Lag in seconds at ``now``."""
        if self.unread_since is None:
            return None
        return max(0.0, now - self.unread_since) if self.unread_since else 0.0


class GroupLag:
    """``own_address`` is this broker's client listener: through it leaders elsewhere are found."""

    def __init__(
        self,
        world: World,
        replicas: ReplicaManager,
        coordinators: Coordinators,
        own_address: Callable[[], tuple[str, int]],
    ) -> None:
        self.lags: dict[Key, Lag] = {}  # replaced as a whole: a reader may keep it
        self.dropped = 0
        self._world = world
        self._replicas = replicas
        self._coordinators = coordinators
        self._own_address = own_address
        self._clock = LagClock()
        self._cluster: Cluster | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except Exception:  # what is only shown must not take the node down
                    _log.exception("consumer lag cannot be told")
                await asyncio.sleep(INTERVAL)
        finally:
            if self._cluster is not None:
                await self._cluster.close()

    def groups(self) -> Iterator[ClassicGroup]:
        """The groups that this broker coordinates now; may be read on another thread."""
        runtime = self._coordinators.groups
        for partition in runtime.partitions():
            hosted = runtime.hosted(partition)
            if hosted is not None and hosted.ready and not hosted.failed:
                yield from list(hosted.machine.groups.values())

    async def look(self) -> None:
        """One look at every group."""
        committed: dict[Key, dict[int, int]] = {}
        for group in self.groups():
            for topic, partition, offset in list(group.offsets):
                committed.setdefault((group.group_id, topic), {})[partition] = offset.offset
            await asyncio.sleep(0)
        ends = await self._ends(
            {TopicPartition(topic, n) for (_, topic), found in committed.items() for n in found}
        )
        now = self._world.clock.wall_ms() / 1000
        for tp, end in ends.items():
            self._clock.note_end(*tp, end, now)
        lags: dict[Key, Lag] = {}
        shown = sorted(committed)[:MAX_SERIES]
        for number, key in enumerate(shown):
            lags[key] = await self._lag_of(*key, committed[key], ends, now)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        self.dropped = len(committed) - len(shown)
        self.lags = lags
        self._clock.keep(set(ends), {group for group, _ in committed})

    async def _ends(self, wanted: set[TopicPartition]) -> dict[TopicPartition, int]:
        """High watermarks. A follower's is behind its leader's by a fetch, which is no lag."""
        ends: dict[TopicPartition, int] = {}
        elsewhere = []
        for tp in sorted(wanted):
            hosted = self._replicas.hosted(*tp)
            if hosted is not None and hosted.log.offline is None:
                ends[tp] = hosted.core.high_watermark
            elif self._replicas.image.partition(*tp) is not None:
                elsewhere.append(tp)
        if elsewhere:
            try:
                found = await list_offsets(
                    self._client(), dict.fromkeys(elsewhere, LATEST), timeout=_TIMEOUT
                )
                ends |= {tp: at.offset for tp, at in found.items()}
            except PegelError as error:
                _log.info("log ends of other brokers are not known: %s", error)
        return ends

    def _client(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster(
                (self._own_address(),), network=self._world.network, clock=self._world.clock,
                rng=random.Random(self._world.random.getrandbits(64)),
                options=ClientOptions(
                    client_id=f"broker-{self._replicas.node_id}-lag",
                    credentials=BrokerCredentials.of(self._replicas.image),
                ),
            )  # fmt: skip
        return self._cluster

    async def _lag_of(
        self,
        group: str,
        topic: str,
        committed: dict[int, int],
        ends: dict[TopicPartition, int],
        now: float,
    ) -> Lag:
        records = 0
        known = True
        oldest = 0.0
        for partition, offset in sorted(committed.items()):
            lag = max(0, ends.get(TopicPartition(topic, partition), offset) - offset)
            if not lag:
                continue
            records += lag
            written_at = await self._written_at(group, topic, partition, offset)
            if written_at is None:
                known = False
            else:
                oldest = min(oldest, written_at) if oldest else written_at
        self._clock.note_lag(group, topic, records, now)
        since = oldest if known else None
        return Lag(records, since, self._clock.catch_up_seconds(group, topic))

    async def _written_at(
        self, group: str, topic: str, partition: int, offset: int
    ) -> float | None:
        """When the first record that is not read was written, in Unix time."""
        known = self._clock.written_at(group, topic, partition, offset)
        if known is not None:
            return known
        hosted = self._replicas.hosted(topic, partition)
        if hosted is None:
            return None
        log = hosted.log
        first = max(offset, log.log_start_offset)
        try:
            found = log.read(first, 1, limit_offset=hosted.core.high_watermark)
            if not isinstance(found, ReadResult):
                found = await found
        except LogError:
            return None
        if not found.records or len(found.records[0]) < HEADER_SIZE:
            return None
        written_at = max(read_header(found.records[0]).base_timestamp, 0) / 1000
        self._clock.note_timestamp(group, topic, partition, offset, written_at)
        return written_at
