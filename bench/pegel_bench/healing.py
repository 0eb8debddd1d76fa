"""What a move costs the clients: ``python -m pegel_bench.healing`` (or ``make healing``).

Five brokers with data, an open loop of acknowledged writes (a fixed number a second, each timed
from when it was to be sent). One broker is killed for good; the cluster rebuilds what it held. The
latencies while replicas are copied are compared with those before and after in the same run, and
the log ends with what was acknowledged. The answer is the median of several runs: a machine that
does other work as well moves a single one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from statistics import median

import pegel
from pegel.testing import LocalCluster

TOPIC = "healing"
REPLACEMENT_MS = 3_000
WARM_UP_SECONDS = 3.0
CALM_SECONDS = 6.0
RECORD = 1_000
# A write may take this many times as long while replicas are copied.
BOUND = 2.0


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


@dataclass(frozen=True, slots=True)
class Run:
    """One cluster's life; latencies in seconds, sorted."""

    calm: list[float]  # before the loss and after the rebuild
    copying: list[float]
    failover: list[float]
    megabytes: float  # copied
    seconds: float  # that took
    held: list[int]  # replicas by broker afterwards
    failed: int
    missing: int  # partitions that lack acknowledged records

    def ratio(self, quantile: float) -> float:
        """How much longer a write takes while replicas are copied."""
        return point(self.copying, quantile) / point(self.calm, quantile)

    @property
    def kept(self) -> bool:
        """Whether no write failed, none was lost, and the load is even."""
        return not self.failed and not self.missing and max(self.held) - min(self.held) <= 1


def point(latencies: list[float], quantile: float) -> float:
    """Of a sorted sample."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * quantile))]


async def measure(cluster: LocalCluster, partitions: int, megabytes: int, rate: int) -> Run:
    """Fill, write, kill, and write on until all is whole and a while longer."""
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
        await asyncio.sleep(WARM_UP_SECONDS)
        writes.phase = "calm"
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
        writes.phase = "calm"
        await asyncio.sleep(CALM_SECONDS)
        stop.set()
        await running
        placed = [p.replicas for p in (await admin.describe_topic(TOPIC)).partitions]
        ends = await _ends(client)
        return Run(
            **{p: sorted(writes.latencies[p]) for p in ("calm", "copying", "failover")},
            megabytes=3 * megabytes / len(cluster.nodes), seconds=took,
            held=[sum(b in r for r in placed) for b in sorted(cluster.nodes) if b != lost],
            failed=writes.failed,
            missing=sum(e < filled + writes.acknowledged[n] for n, e in enumerate(ends)),
        )  # fmt: skip


async def _whole(client: pegel.AsyncClient, lost: int) -> bool:
    partitions = (await client.admin.describe_topic(TOPIC)).partitions
    return all(len(p.isr) == 3 == len(p.replicas) and lost not in p.replicas for p in partitions)


async def _ends(client: pegel.AsyncClient) -> list[int]:
    topic = await client.admin.describe_topic(TOPIC, offsets=True)
    return [p.end_offset or 0 for p in topic.partitions]


def show(number: int, run: Run) -> None:
    """One line for a run."""
    cells = "  ".join(
        f"{point(sample, 0.5) * 1000:6.2f} {point(sample, 0.99) * 1000:7.2f}"
        for sample in (run.calm, run.failover, run.copying)
    )
    print(f"{number:3}  {cells}  {run.ratio(0.5):5.2f} {run.ratio(0.99):6.2f}"
          f"  {run.megabytes / run.seconds:5.1f}  {run.held}", flush=True)  # fmt: skip


def main() -> None:
    """Exit code 1: a write failed or was lost, the load is uneven, or clients wait too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=400, help="held before, of one replica")
    parser.add_argument("--rate", type=int, default=100, help="writes a second")
    parser.add_argument("--runs", type=int, default=5, help="a new cluster each")
    options = parser.parse_args()
    print(f"{options.rate} writes of {RECORD} B a second, acks=all; ms from when each was due")
    print(f"{'':3}  {'calm':>14}  {'failover':>14}  {'copying':>14}  {'copying / calm':>14}")
    print("run  " + "  ".join(["   p50     p99"] * 3) + "    p50    p99   MB/s  replicas by broker")
    runs = []
    for number in range(1, options.runs + 1):
        settings = {"replica.replacement.timeout.ms": str(REPLACEMENT_MS)}
        with LocalCluster(brokers=5, settings=settings) as cluster:
            run = asyncio.run(measure(cluster, options.partitions, options.megabytes, options.rate))
        show(number, run)
        runs.append(run)
    p50, p99 = (median(r.ratio(q) for r in runs) for q in (0.5, 0.99))
    print(f"median of the ratios: p50 {p50:.2f}, p99 {p99:.2f} (bound: {BOUND:g}); "
          f"failed writes: {sum(r.failed for r in runs)}; "
          f"partitions that miss acknowledged records: {sum(r.missing for r in runs)}")  # fmt: skip
    sys.exit(0 if all(r.kept for r in runs) and max(p50, p99) <= BOUND else 1)


if __name__ == "__main__":
    main()
