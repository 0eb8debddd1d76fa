"""What a move costs the clients: ``python -m pegel_bench.healing`` (or ``make healing``).

Five brokers with data, an open loop of acknowledged writes (a fixed number a second, each timed
from when it was to be sent). One broker is killed for good; the cluster rebuilds what it held. The
latencies before, while replicas are copied, and after are put side by side, and every acknowledged
record is read back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import pegel
from pegel.testing import LocalCluster

TOPIC = "healing"
REPLACEMENT_MS = 3_000
CALM_SECONDS = 10.0
RECORD = 1_000


class Writes:
    """An open loop; ``phase`` names what a latency is counted for."""

    def __init__(self, client: pegel.AsyncClient, partitions: int, rate: int) -> None:
        self.phase = "warm-up"
        self.latencies: dict[str, list[float]] = {}
        self.acknowledged = [0] * partitions
        self.failed = 0
        self._client, self._rate = client, rate
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        began, number = time.perf_counter(), 0
        while not stop.is_set():
            due = began + number / self._rate
            delay = due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(self._one(number % len(self.acknowledged), due, self.phase))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
        await asyncio.gather(*self._tasks)

    async def _one(self, partition: int, due: float, phase: str) -> None:
        try:
            await self._client.send(TOPIC, b"y" * RECORD, partition=partition)
        except pegel.PegelError:
            self.failed += 1
            return
        self.latencies.setdefault(phase, []).append(time.perf_counter() - due)
        self.acknowledged[partition] += 1


async def measure(cluster: LocalCluster, partitions: int, megabytes: int, rate: int) -> bool:
    """Print the table; whether nothing was lost."""
    async with pegel.AsyncClient(cluster.bootstrap) as client:
        admin = client.admin
        await admin.create_topic(
            TOPIC, partitions=partitions, replication=3, config={"min.insync.replicas": 2}
        )
        filled = megabytes * 1_000_000 // RECORD // partitions
        for number in range(partitions):
            for _ in range(0, filled, 500):
                await client.send_many(TOPIC, [b"x" * RECORD] * 500, partition=number)
        filled = -(-filled // 500) * 500
        writes, stop = Writes(client, partitions, rate), asyncio.Event()
        running = asyncio.create_task(writes.run(stop))
        await asyncio.sleep(3.0)
        writes.phase = "before"
        await asyncio.sleep(CALM_SECONDS)
        lost = cluster.leader_of(TOPIC, 0)
        writes.phase = "failover"
        cluster.kill(lost)
        while not await admin.list_reassignments():  # noqa: ASYNC110 (it is another process)
            await asyncio.sleep(0.1)
        writes.phase, began = "copying", time.perf_counter()
        while not await _whole(client, lost):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        took = time.perf_counter() - began
        writes.phase = "after"
        await asyncio.sleep(CALM_SECONDS)
        stop.set()
        await running
        placed = [p.replicas for p in (await admin.describe_topic(TOPIC)).partitions]
        held = [sum(b in r for r in placed) for b in sorted(cluster.nodes) if b != lost]
        copied = 3 * megabytes / len(cluster.nodes)
        print(f"broker {lost} killed for good; about {copied:.0f} MB rebuilt in {took:.1f} s; "
              f"replicas by broker afterwards: {held}")  # fmt: skip
        print(f"{rate} writes of {RECORD} B a second, acks=all, ms from when each was due")
        print(f"{'':10} {'writes':>8} {'p50':>8} {'p99':>8} {'p99.9':>8}")
        for phase in ("before", "failover", "copying", "after"):
            sample = sorted(writes.latencies.get(phase, []))
            if sample:
                points = [sample[min(len(sample) - 1, int(len(sample) * q))] * 1000
                          for q in (0.5, 0.99, 0.999)]  # fmt: skip
                cells = " ".join(f"{p:8.2f}" for p in points)
                print(f"{phase:10} {len(sample):8} {cells}")
        ends = await _ends(client)
        missing = [n for n, e in enumerate(ends) if e < filled + writes.acknowledged[n]]
        print(f"failed writes: {writes.failed}; partitions that miss acknowledged records: "
              f"{len(missing)}")  # fmt: skip
        return not missing and not writes.failed


async def _whole(client: pegel.AsyncClient, lost: int) -> bool:
    partitions = (await client.admin.describe_topic(TOPIC)).partitions
    return all(len(p.isr) == 3 == len(p.replicas) and lost not in p.replicas for p in partitions)


async def _ends(client: pegel.AsyncClient) -> list[int]:
    topic = await client.admin.describe_topic(TOPIC, offsets=True)
    return [p.end_offset or 0 for p in topic.partitions]


def main() -> None:
    """Exit code 1 if a write failed or an acknowledged record is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=400, help="held before, of one replica")
    parser.add_argument("--rate", type=int, default=200, help="writes a second")
    options = parser.parse_args()
    settings = {"replica.replacement.timeout.ms": str(REPLACEMENT_MS)}
    with LocalCluster(brokers=5, settings=settings) as cluster:
        kept = asyncio.run(measure(cluster, options.partitions, options.megabytes, options.rate))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
