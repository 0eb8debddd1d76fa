"""Streams the standard library through three brokers while the leader of partition 0 is killed."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pegel
from pegel.producer.batch import ManyDelivery
from pegel.testing import LocalCluster
from pegel_bench.demo.corpus import SourceFile
from pegel_bench.demo.timeline import Moment, failover
from pegel_bench.demo.verdict import Verdict, compare

TOPIC = "stdlib"
PARTITIONS = 6
REPLICAS = 3
KILL_AT = 0.35
RESTART_AT = 0.65
# Bounds how far sending may run ahead of acknowledgements, so that the kill comes in full flow.
BUFFER_BYTES = 4 * 1024 * 1024
BATCH_BYTES = 128 * 1024
READ_TIMEOUT = 60.0

Event = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Memory:
    """Resident megabytes of one broker."""

    node_id: int
    idle_mb: float
    after_mb: float


@dataclass(slots=True)
class Outcome:
    """Everything that the table at the end shows."""

    verdict: Verdict = field(default_factory=Verdict)
    sent: int = 0
    acknowledged: int = 0
    sent_bytes: int = 0
    start_seconds: float = 0.0
    write_seconds: float = 0.0
    read_seconds: float = 0.0
    killed_broker: int = -1
    restarted: bool = False
    timeline: list[Moment] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)

    @property
    def success(self) -> bool:
        everything = self.sent == self.acknowledged == self.verdict.read == self.verdict.expected
        return everything and self.verdict.clean and self.restarted


class Demo:
    """One run against a fresh cluster. ``say`` gets events, ``progress`` (phase, done, total)."""

    def __init__(
        self, cluster: LocalCluster, files: Sequence[SourceFile], say: Event, progress: Progress
    ) -> None:
        self._cluster = cluster
        self._files = files
        self._say = say
        self._progress = progress
        self._total = sum(len(f.lines) for f in files)
        self._outcome = Outcome(sent_bytes=sum(len(line) for f in files for line in f.lines))
        self._advanced = asyncio.Event()
        self._killed_ms = 0
        # Wall milliseconds of each acknowledgement in partition 0 after the kill.
        self._acknowledged_ms: list[int] = []

    async def run(self) -> Outcome:
        outcome, cluster = self._outcome, self._cluster
        outcome.start_seconds = cluster.ready_seconds
        idle = {n.node_id: _resident_mb(n.pid) for n in cluster.nodes.values()}
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.create_topic(
                TOPIC,
                partitions=PARTITIONS,
                replication=REPLICAS,
                config={"min.insync.replicas": 2},
            )
            started = time.monotonic()
            await self._write(client)
            outcome.write_seconds = time.monotonic() - started
            started = time.monotonic()
            read = await self._read(client)
            outcome.read_seconds = time.monotonic() - started
        outcome.verdict = compare({f.key: f.lines for f in self._files}, read)
        outcome.memory = [
            Memory(n.node_id, idle[n.node_id], _resident_mb(n.pid)) for n in cluster.nodes.values()
        ]
        outcome.timeline = self._timeline()
        return outcome

    # -- writing

    async def _write(self, client: pegel.AsyncClient) -> None:
        faults = asyncio.create_task(self._break_and_mend())
        tracked: list[asyncio.Task[None]] = []
        async with client.producer(batch_bytes=BATCH_BYTES, buffer_bytes=BUFFER_BYTES) as producer:
            for file in self._files:
                keys = [file.key] * len(file.lines)
                delivery = await producer.send_many_soon(TOPIC, file.lines, keys=keys)
                self._outcome.sent += len(file.lines)
                tracked.append(asyncio.create_task(self._track(delivery)))
            await asyncio.gather(*tracked)
        await faults

    async def _track(self, delivery: ManyDelivery) -> None:
        result = await delivery
        self._outcome.acknowledged += result.count
        self._advanced.set()
        if self._killed_ms and any(r.partition == 0 for r in result.ranges):
            self._acknowledged_ms.append(_wall_ms())
        self._progress("write", self._outcome.acknowledged, self._total)

    async def _break_and_mend(self) -> None:
        """Kill the leader of partition 0 midway; start it again later."""
        cluster, outcome = self._cluster, self._outcome
        await self._acknowledged(KILL_AT)
        leader = await asyncio.to_thread(cluster.leader_of, TOPIC, 0)
        outcome.killed_broker = leader
        self._killed_ms = _wall_ms()
        await asyncio.to_thread(cluster.kill, leader)
        self._say(f"killed broker {leader}, the leader of partition 0, with SIGKILL")
        await self._acknowledged(RESTART_AT)
        await asyncio.to_thread(cluster.restart, leader)
        outcome.restarted = True
        self._say(f"broker {leader} is back")

    async def _acknowledged(self, share: float) -> None:
        """Wait until so much of everything is acknowledged."""
        while self._outcome.acknowledged < share * self._total:
            self._advanced.clear()
            await self._advanced.wait()

    # -- reading

    async def _read(self, client: pegel.AsyncClient) -> dict[bytes, list[bytes]]:
        """Every line in the order of its partition, by file."""
        read: defaultdict[bytes, list[bytes]] = defaultdict(list)
        count = 0
        async with client.consumer(TOPIC, offset_reset="earliest") as consumer:
            ends = await consumer.end_offsets()
            while not consumer.reached(ends):
                batch = await consumer.next_batch(timeout=READ_TIMEOUT)
                if batch is None:
                    break  # what is missing is counted as lost
                for key, value in zip(batch.keys, batch.values, strict=True):
                    read[key or b""].append(value or b"")
                count += len(batch)
                self._progress("read", count, self._total)
        return dict(read)

    # -- the end

    def _timeline(self) -> list[Moment]:
        logs = [self._cluster.log_of(node_id) for node_id in self._cluster.nodes]
        arguments = {
            "topic": TOPIC,
            "partition": 0,
            "broker": self._outcome.killed_broker,
            "killed_ms": self._killed_ms,
        }
        moments = failover(logs, **arguments, acknowledged_ms=None)  # type: ignore[arg-type]
        elected = moments[3].at_ms
        if elected is not None:
            after = min((t for t in self._acknowledged_ms if t >= elected), default=None)
            moments[4] = Moment(moments[4].name, moments[4].meaning, after)
        return moments


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _resident_mb(pid: int) -> float:
    """Megabytes in memory now; nan where the system does not tell."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float("nan")
