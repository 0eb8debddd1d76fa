"""What a scrape costs: ``python -m tests.monitoring.measure_scrape`` (alone on the machine; 5 min).

1. How long a scrape holds the event loop: a node with 1,000 partitions in this process, whose loop
   looks at the clock all the time, in turns asked for its page and for its health.
2. CPU of a scrape: brokers of 1,000 partitions with three replicas each, by the scheduler's own
   count of their processes; idle, and under a load that is the same with and without scrapes.
3. A load as fast as it goes, with and without a scrape of every node each second, in many short
   turns: records a second; and beside them the CPU of the threads that write pages, and of the
   loops for asking them to: counted, not the difference of two large figures. As milliseconds of
   each second it hardly depends on what else runs; as a share of all CPU of the brokers it is what
   scraping can take from the records, and larger where others leave the brokers less
   (``others_cpus``: how many CPUs they had).

With and without take turns (A B, B A, A B, …): a machine's mood drifts. What is shown is the median
of the pairs and the interval that holds it with 95 % (bootstrap); single pairs say nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

import pegel
from pegel.metrics.http import HttpRequest, Page
from pegel.seams.clock import give_way
from pegel.testing import LocalCluster
from pegel_bench.processes import total_cpu_seconds
from pegel_broker.config import NodeConfig
from pegel_broker.http import server
from pegel_broker.node import Node
from pegel_broker.run import GC_THRESHOLDS, real_world
from tests.monitoring.stack import free_port

PARTITIONS = 1_000
TOPICS = 10
ACCEPT = {"accept-encoding": "gzip", "accept": "application/openmetrics-text;version=1.0.0"}
WRITERS = 6
BATCH = [b"x" * 1_000] * 100


def scrape(connection: http.client.HTTPConnection, path: str = "/metrics") -> int:
    """As Prometheus asks, on a connection that stays; the bytes of the answer."""
    connection.request("GET", path, headers=ACCEPT)
    return len(connection.getresponse().read())


def shown(values: Sequence[float], digits: int) -> dict[str, Any]:
    """The median of the pairs, and the interval that holds it with 95 %."""
    seeded = random.Random(7)
    medians = sorted(statistics.median(seeded.choices(values, k=len(values))) for _ in range(2_000))
    return {
        "median": round(statistics.median(values), digits),
        "interval": [round(medians[50], digits), round(medians[-50], digits)],
        "pairs": len(values),
    }


def in_turns(rounds: int) -> Iterator[tuple[bool, bool]]:
    return (((False, True), (True, False))[number % 2] for number in range(rounds))


async def create(bootstrap: str, replication: int) -> None:
    """In steps, and again where a busy machine changes the controller meanwhile."""
    async with pegel.AsyncClient(bootstrap) as client:
        for number in range(TOPICS):
            name = f"many-{number}" if number else "many"
            while name not in {t.name for t in await client.admin.list_topics()}:
                with contextlib.suppress(pegel.PegelError):
                    await client.create_topic(
                        name, partitions=PARTITIONS // TOPICS, replication=replication
                    )


# -- how long the loop is held


class Pieces:
    """The work that a page is cut into, as its thread's CPU time between two rests."""

    def __init__(self) -> None:
        self.longest = self._begun = 0.0

    def give_way(self, seconds: float = 0.0005) -> None:
        self.end()
        give_way(seconds)
        self.begin()

    def begin(self) -> None:
        self._begun = time.thread_time()

    def end(self) -> None:
        self.longest = max(self.longest, time.thread_time() - self._begun)

    def take(self) -> float:
        """The longest since the last call, in milliseconds."""
        longest, self.longest = self.longest * 1000, 0.0
        return longest


async def holds(rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds, of each turn the longest.

    By the clock other programs have their share in both kinds of turns. A piece of work is what a
    loop that wants to run has to wait for, and nobody else's doing.
    """
    pieces = Pieces()
    server.give_way = pieces.give_way
    write = server._MetricsPage.write

    def timed(page: server._MetricsPage, request: HttpRequest) -> Page:
        pieces.begin()
        try:
            return write(page, request)
        finally:
            pieces.end()

    server._MetricsPage.write = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as directory:
        config = NodeConfig(
            node_id=1, data_dir=directory, controllers={1: ("127.0.0.1", free_port())},
            listen=("127.0.0.1", 0), http=("127.0.0.1", 0),
        )  # fmt: skip
        node = Node(real_world(), config)
        await node.start()
        try:
            await node.ready.wait()
            client, page = node.addresses.client, node.addresses.http
            assert client is not None
            assert page is not None
            await create(f"{client[0]}:{client[1]}", 1)
            gc.collect()
            gc.freeze()  # as ``pegel server`` does
            gc.set_threshold(*GC_THRESHOLDS)
            address = f"{page[0]}:{page[1]}"
            first = await _longest_gap(address, 1.0, "/metrics"), pieces.take()
            gaps: dict[bool, list[float]] = {False: [], True: []}
            longest = []
            for turns in in_turns(rounds):
                for scraped in turns:
                    path = "/metrics" if scraped else "/healthz"
                    gaps[scraped].append(await _longest_gap(address, seconds, path))
                    if scraped:
                        longest.append(pieces.take())
        finally:
            await node.stop(controlled=False)
    return {
        "by_the_clock_without": shown(gaps[False], 1), "by_the_clock_with": shown(gaps[True], 1),
        "longest_piece": shown(longest, 2) | {"max": round(max(longest), 2)},
        # It loads what pages are written with.
        "first_page": {"by_the_clock": round(first[0], 1), "longest_piece": round(first[1], 2)},
    }  # fmt: skip


async def _longest_gap(address: str, seconds: float, path: str) -> float:
    """Milliseconds between two turns of the loop, while ``path`` is asked for."""
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, "--ask", address, "--path", path,
        "--seconds", str(seconds), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert asking.stdout is not None
    await asking.stdout.readline()
    longest, before = 0.0, time.perf_counter()
    end = before + seconds
    while before < end:
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    await asking.wait()
    return longest * 1000


def _ask(address: str, path: str, seconds: float) -> None:
    """Child process: ask five times a second."""
    connection = http.client.HTTPConnection(address, timeout=10)
    print("begins", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scrape(connection, path)
        time.sleep(0.2)


# -- load


class Load:
    """A child process that writes until it is closed, and says all the time how much it has."""

    def __init__(self, bootstrap: str, batches_per_second: float) -> None:
        command = [sys.executable, "-m", __spec__.name, "--load", bootstrap,
                   "--rate", str(batches_per_second)]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._latest = (0.0, 0)
        self._begun = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at, count = line.split()
            self._latest = float(at), int(count)
            if self._latest[1]:
                self._begun.set()

    def warm_up(self) -> None:
        if not self._begun.wait(60):
            raise RuntimeError("nothing is acknowledged")
        time.sleep(2.0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def latest(self) -> tuple[float, int]:
        """When it last told, and the records that were acknowledged by then."""
        return self._latest

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join()


async def _load(bootstrap: str, batches_per_second: float) -> None:
    """Child process; ``batches_per_second`` of all writers together, 0 for as many as go."""
    done = 0
    async with (
        pegel.AsyncClient(bootstrap) as client,
        client.producer(acks=1, linger_ms=0) as producer,
    ):
        stopped = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        began = time.monotonic()

        async def write(partition: int) -> None:
            nonlocal done
            sent = 0
            while not stopped.done():
                await producer.send_many("many", BATCH, partition=partition)
                done, sent = done + len(BATCH), sent + 1
                if batches_per_second:
                    due = began + sent * WRITERS / batches_per_second
                    await asyncio.sleep(max(0.0, due - time.monotonic()))

        async def tell() -> None:
            while not stopped.done():
                print(time.monotonic(), done, flush=True)
                await asyncio.sleep(0.02)

        await asyncio.gather(tell(), *(write(n) for n in range(WRITERS)))


class Scraper:
    """Every node, each second, until the block ends."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.connections = [
            http.client.HTTPConnection(node.http, timeout=20) for node in cluster.nodes.values()
        ]
        self.took: list[float] = []
        self.bytes = 0

    @contextlib.contextmanager
    def running(self, scraped: bool) -> Iterator[None]:
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                began = time.monotonic()
                for connection in self.connections:
                    asked = time.monotonic()
                    self.bytes = scrape(connection)
                    self.took.append(time.monotonic() - asked)
                stop.wait(max(0.0, 1.0 - (time.monotonic() - began)))

        thread = threading.Thread(target=run)
        if scraped:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if scraped:
                thread.join()


def cpu_ms(cluster: LocalCluster, scraper: Scraper, rounds: int, seconds: float) -> list[float]:
    """CPU of the brokers for one scrape of one of them, by pairs."""
    pids = [node.pid for node in cluster.nodes.values()]

    def spent(scraped: bool) -> tuple[float, int]:
        before, asked = total_cpu_seconds(pids), len(scraper.took)
        with scraper.running(scraped):
            time.sleep(seconds - 0.5)
        time.sleep(0.5)  # the last answer may come late
        return total_cpu_seconds(pids) - before, len(scraper.took) - asked

    found = []
    for turns in in_turns(rounds):
        cost = {scraped: spent(scraped) for scraped in turns}
        found.append((cost[True][0] - cost[False][0]) / cost[True][1] * 1000)
    return found


@dataclass(frozen=True)
class Turn:
    records: float
    seconds: float
    cpu_seconds: float  # of the brokers
    scraping: float  # of them: seconds for pages
    others: float  # CPUs that neither they nor this measurement used


class PageThreads:
    """The threads that write pages, found by what they do: of an idle node that is scraped many
    times, the one that works, beside the first, which is the loop's."""

    def __init__(self, cluster: LocalCluster, scraper: Scraper, scrapes: int = 20) -> None:
        self._tasks: list[Path] = []
        loops = 0.0
        for node, connection in zip(cluster.nodes.values(), scraper.connections, strict=True):
            before = self._of(node.pid)
            for _ in range(scrapes):
                scrape(connection)
            spent = {task: ns - before.get(task, 0) for task, ns in self._of(node.pid).items()}
            loop = Path(f"/proc/{node.pid}/task/{node.pid}")
            loops += spent.pop(loop) / 1e9
            self._tasks.append(max(spent, key=lambda task: spent[task]))
        # Receiving the request and sending the answer, with what an idle loop does meanwhile.
        self.loop_seconds = loops / scrapes / len(cluster.nodes)

    @staticmethod
    def _of(pid: int) -> dict[Path, int]:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return {task: int((task / "schedstat").read_text().split()[0]) for task in tasks}

    def seconds(self) -> float:
        """CPU of all of them so far."""
        return sum(int((t / "schedstat").read_text().split()[0]) for t in self._tasks) / 1e9


def turn(
    cluster: LocalCluster,
    load: Load,
    scraper: Scraper,
    pages: PageThreads,
    seconds: float,
    on: bool,
) -> Turn:
    """A whole number of seconds: as many scrapes of each node."""
    pids = [node.pid for node in cluster.nodes.values()]
    ours = [*pids, load.pid, os.getpid()]
    with scraper.running(on):
        began, done = load.latest()
        cpu, own, busy = total_cpu_seconds(pids), total_cpu_seconds(ours), machine_seconds()
        writing, asked = pages.seconds(), len(scraper.took)
        time.sleep(seconds)
        ended, after = load.latest()
        cpu, own = total_cpu_seconds(pids) - cpu, total_cpu_seconds(ours) - own
        busy = machine_seconds() - busy
        scraping = pages.seconds() - writing + (len(scraper.took) - asked) * pages.loop_seconds
    if after == done:
        raise RuntimeError(f"nothing was acknowledged in {seconds:g} s")
    return Turn(after - done, ended - began, cpu, scraping, max(0.0, busy - own) / seconds)


def machine_seconds() -> float:
    """CPU time that all processes of this machine have used."""
    user, nice, system, _idle, _wait, irq, soft = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def throughput(
    cluster: LocalCluster,
    load: Load,
    scraper: Scraper,
    pages: PageThreads,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """Records a second with scrapes by without, by pairs, and what share of CPU scrapes have."""
    rates, costs, shares, others = [], [], [], []
    for turns in in_turns(rounds):
        found = {
            scraped: turn(cluster, load, scraper, pages, seconds, scraped) for scraped in turns
        }
        on, off = found[True], found[False]
        rates.append(on.records / on.seconds / (off.records / off.seconds))
        costs.append(on.scraping / seconds * 1000)
        shares.append(on.scraping / on.cpu_seconds)
        others += [on.others, off.others]
    return {
        "records_per_second": shown(rates, 4), "ms_of_each_second": shown(costs, 1),
        "share_of_cpu": shown(shares, 4),
        "others_cpus": round(statistics.median(others), 2),
    }  # fmt: skip


def series(address: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read()
    connection.close()
    return sum(not line.startswith(b"#") for line in page.splitlines())


@contextlib.contextmanager
def loaded(cluster: LocalCluster, batches_per_second: float = 0) -> Iterator[Load]:
    load = Load(cluster.bootstrap, batches_per_second)
    try:
        load.warm_up()
        yield load
    finally:
        load.close()


def _on_uvloop(work: Coroutine[None, None, dict[str, Any]]) -> dict[str, Any]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def measure(rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"loop_held_ms": _on_uvloop(holds(rounds // 6, 2.0))}
    _tell("loop_held_ms", found)
    with LocalCluster(brokers=3) as cluster:
        asyncio.run(create(cluster.bootstrap, 3))
        scraper = Scraper(cluster)
        found["series_per_node"] = series(cluster.nodes[1].http)
        with scraper.running(True):
            time.sleep(5.0)  # leaders are being elected
        found["cpu_ms_of_a_scrape_idle"] = shown(cpu_ms(cluster, scraper, rounds // 4, 2.0), 1)
        _tell("cpu_ms_of_a_scrape_idle", found)
        pages = PageThreads(cluster, scraper)
        with loaded(cluster, batches_per_second=40):
            loaded_ms = cpu_ms(cluster, scraper, rounds // 4, 2.0)
            found["cpu_ms_of_a_scrape_loaded"] = shown(loaded_ms, 1)
        _tell("cpu_ms_of_a_scrape_loaded", found)
        with loaded(cluster) as load:
            scraper.took.clear()
            found["with_scrapes"] = throughput(cluster, load, scraper, pages, rounds, 2.0)
    # One scrape each second: milliseconds of CPU by 1,000.
    found["share_of_a_core"] = round(found["cpu_ms_of_a_scrape_loaded"]["median"] / 1000, 4)
    found["scrape_takes_ms"] = {
        "median": round(statistics.median(scraper.took) * 1000),
        "max": round(max(scraper.took) * 1000), "compressed_bytes": scraper.bytes,
    }  # fmt: skip
    return found


def _tell(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: {found[name]}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=32,
        help="pairs of turns under full load; a fourth or sixth of it for the rest (default: 32)",
    )  # fmt: skip
    for name in ("--load", "--ask", "--path"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--rate", "--seconds"):
        parser.add_argument(name, type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        asyncio.run(_load(arguments.load, arguments.rate))
    elif arguments.ask:
        _ask(arguments.ask, arguments.path, arguments.seconds)
    else:
        print(json.dumps(measure(arguments.rounds), indent=1))


if __name__ == "__main__":
    main()
