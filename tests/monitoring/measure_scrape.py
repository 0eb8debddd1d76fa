"""What a scrape costs: ``python -m tests.monitoring.measure_scrape`` (alone on the machine, 3 min).

A cluster with 1,000 partitions of three replicas is written to as fast as it goes, in turns with
and without a scrape of every node each second; and in this process a page of 1,000 partitions is
written beside an event loop that looks at the clock all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from types import SimpleNamespace
from typing import Any, cast

import pegel
from pegel.metrics.exposition import render
from pegel.seams.clock import give_way
from pegel.testing import LocalCluster
from pegel_bench.processes import total_cpu_seconds
from pegel_broker.metrics import partitions
from pegel_broker.replication.manager import ReplicaManager
from tests.broker.metrics.test_partitions import _hosted, _leader, _manager

PARTITIONS = 1_000
TOPICS = 10


def longest_gaps(replicas: ReplicaManager, seconds: float, *, paced: bool) -> tuple[float, float]:
    """The longest time for which the loop did not run, without and with a page being written."""

    async def watch(until: float) -> float:
        longest, before = 0.0, time.perf_counter()
        while before < until:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
        return longest

    async def work() -> tuple[float, float]:
        quiet = await watch(time.perf_counter() + seconds)
        stop = threading.Event()

        def write() -> None:
            pause = give_way if paced else lambda: None
            while not stop.is_set():
                render(partitions.PartitionReadings(pause).readings(replicas), pause=pause)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            return quiet, await watch(time.perf_counter() + seconds)
        finally:
            stop.set()
            writer.join()

    return asyncio.run(work())


async def _load(bootstrap: str, seconds: float) -> None:
    """Child process: write, and print how many records were acknowledged."""
    done = 0
    async with (
        pegel.AsyncClient(bootstrap) as client,
        client.producer(acks=1, linger_ms=0) as producer,
    ):
        values = [b"x" * 1_000] * 100
        end = time.monotonic() + seconds

        async def write(partition: int) -> None:
            nonlocal done
            while time.monotonic() < end:
                await producer.send_many("many", values, partition=partition)
                done += len(values)

        await asyncio.gather(*(write(n) for n in range(6)))
    print(done)


class Scraper(threading.Thread):
    """Every node, each second."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__()
        self.addresses, self.stop = addresses, threading.Event()
        self.took: list[float] = []
        self.bytes = 0

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            for address in self.addresses:
                asked = time.monotonic()
                self.bytes = _scrape(address)
                self.took.append(time.monotonic() - asked)
            self.stop.wait(max(0.0, 1.0 - (time.monotonic() - began)))


def throughput(cluster: LocalCluster, seconds: float, *, scraped: bool) -> tuple[int, Scraper]:
    scraper = Scraper([node.http for node in cluster.nodes.values()])
    if scraped:
        scraper.start()
    command = [sys.executable, "-m", __spec__.name, "--load", cluster.bootstrap,
               "--seconds", str(seconds)]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    scraper.stop.set()
    if scraped:
        scraper.join()
    return int(done.stdout), scraper


def cpu_ms(cluster: LocalCluster, node_id: int, scrapes: int = 40) -> float:
    """CPU time of a node for one scrape while nothing else goes on, its idling taken off."""
    pid, address = cluster.nodes[node_id].pid, cluster.nodes[node_id].http

    def spent(scraped: bool) -> float:
        before, began = total_cpu_seconds([pid]), time.monotonic()
        for number in range(scrapes):
            if scraped:
                _scrape(address)
            time.sleep(max(0.0, began + (number + 1) * 0.25 - time.monotonic()))
        return total_cpu_seconds([pid]) - before

    _scrape(address)  # the first one loads what scrapes need
    return (spent(True) - spent(False)) / scrapes * 1000


def _scrape(address: str) -> int:
    """As Prometheus asks; the bytes of the answer."""
    request = urllib.request.Request(
        f"http://{address}/metrics",
        headers={
            "accept-encoding": "gzip", "accept": "application/openmetrics-text;version=1.0.0",
        },
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=10) as answer:
        return len(answer.read())


def series(address: str) -> int:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        return sum(not line.startswith(b"#") for line in answer.read().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    if arguments.load:
        asyncio.run(_load(arguments.load, arguments.seconds))
        return
    hosted = [_hosted("many", n, _leader((1, 2, 3), b2=10, b3=10)) for n in range(PARTITIONS)]
    replicas = _manager(hosted)
    cast(Any, replicas).stats = cast(Any, replicas).stats or SimpleNamespace()
    quiet, paced = longest_gaps(replicas, 4.0, paced=True)
    _, unpaced = longest_gaps(replicas, 4.0, paced=False)
    found: dict[str, Any] = {
        "longest_gap_ms": {
            "no page": round(quiet * 1000, 1), "pages in slices": round(paced * 1000, 1),
            "pages at one go": round(unpaced * 1000, 1),
        },
    }  # fmt: skip
    with LocalCluster(brokers=3) as cluster:

        async def create() -> None:
            """In steps, and again where a busy machine changes the controller meanwhile."""
            async with pegel.AsyncClient(cluster.bootstrap) as client:
                for number in range(TOPICS):
                    name, count = f"many-{number}" if number else "many", PARTITIONS // TOPICS
                    while name not in {t.name for t in await client.admin.list_topics()}:
                        with contextlib.suppress(pegel.PegelError):
                            await client.create_topic(name, partitions=count, replication=3)

        asyncio.run(create())
        found["cpu_ms_of_a_scrape"] = [round(cpu_ms(cluster, 1 + n % 3), 1) for n in range(3)]
        throughput(cluster, arguments.seconds, scraped=False)  # warm-up
        ratios, took, size = [], [], 0
        for number in range(arguments.rounds):
            # In turns, and each first in every other round: the machine's mood drifts.
            turns = {}
            for scraped in ((False, True), (True, False))[number % 2]:
                count, scraper = throughput(cluster, arguments.seconds, scraped=scraped)
                turns[scraped] = count
                took += scraper.took
                size = scraper.bytes or size
            ratios.append(turns[True] / turns[False])
        found["series_per_node"] = series(cluster.nodes[1].http)
    found["throughput_with_scrapes"] = {
        "median": round(statistics.median(ratios), 4), "each": [round(r, 3) for r in ratios],
    }  # fmt: skip
    found["scrape_ms"] = {
        "median": round(statistics.median(took) * 1000), "max": round(max(took) * 1000),
        "compressed_bytes": size,
    }  # fmt: skip
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
