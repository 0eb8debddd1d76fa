"""A run: targets × cases × rounds, alternating between targets, and what came out."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pegel
from pegel.config import ClientOptions
from pegel.errors import PegelError
from pegel_bench import costs
from pegel_bench.environment import environment
from pegel_bench.fleet import Interrupt, run_workers
from pegel_bench.load.asking import Asker
from pegel_bench.load.latencies import curve_ms, merge, percentiles_ms
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.result import Report, Row
from pegel_bench.targets import Target

TOPIC_PREFIX = "pegel-bench-"
_ADMIN_TIMEOUT = 30.0


@dataclass(slots=True)
class Watcher:
    """What a run tells while it goes on."""

    say: Callable[[str], None]
    update: Callable[[str, str, list[dict[str, Any]]], None]
    done: Callable[[Row], None] = lambda row: None
    # The loads that are about to run together; with none, when they are over.
    begin: Callable[[list[LoadSpec]], None] = lambda specs: None


@dataclass
class Bench:
    """What all workloads share. ``report`` grows row by row, so an interrupted run has rows too."""

    targets: Sequence[Target]
    watcher: Watcher
    interrupt: Interrupt
    setup: dict[str, Any]
    rounds: int = 1
    processes: int = 1
    replication: int = 3
    min_insync: int = 2
    seed: int = 0
    topic_config: dict[str, str] = field(default_factory=dict)
    # Look into the brokers' processor time and system calls, once for each case.
    costs: bool = False
    # Goes before the case of every row: what tells the sections of one run apart.
    context: dict[str, Any] = field(default_factory=dict)
    report: Report = field(init=False)

    def __post_init__(self) -> None:
        self.report = Report(
            command=shlex.join(["pegel", *sys.argv[1:]]),
            environment=environment(),
            setup={
                **self.setup, "replication": self.replication, "min.insync.replicas":
                self.min_insync, "seed": self.seed, "rounds": self.rounds,
                "load_processes": self.processes,
            },
            targets={
                t.name: {
                    "bootstrap": t.bootstrap, "version": t.version, "settings": t.settings,
                    "durability": _durability(t, self.topic_config),
                    "ready_seconds": t.ready_seconds,
                }
                for t in self.targets
            },
        )  # fmt: skip
        self._rng = random.Random()

    def turns(self) -> Iterator[tuple[int, Target]]:
        """A B A B …: (round, target), until interrupted."""
        for number in range(1, self.rounds + 1):
            # Every other round the other way round, so that no target always goes first.
            order = self.targets if number % 2 else list(reversed(self.targets))
            for target in order:
                if self.interrupt.asked:
                    return
                yield number, target

    def add(self, row: Row) -> None:
        row.case = {**self.context, **row.case}
        self.report.rows.append(row)
        self.watcher.done(row)

    @contextlib.contextmanager
    def topic(
        self, target: Target, partitions: int, *, led_by_controller: bool = False
    ) -> Iterator[str]:
        """A topic of its own, removed afterwards whatever happens.

        ``led_by_controller``: the active controller is to lead every partition.

        Raises:
            PegelError: it cannot be made.
        """
        name = f"{TOPIC_PREFIX}{self._rng.getrandbits(48):012x}"
        config = {"min.insync.replicas": str(self.min_insync), **self.topic_config}

        async def create(client: pegel.AsyncClient) -> None:
            assignment = None
            if led_by_controller:
                replicas = await _controller_first(client, self.replication)
                assignment = dict.fromkeys(range(partitions), replicas)
            await client.admin.create_topic(
                name, partitions=partitions, replication=self.replication, config=config,
                assignment=assignment,
            )  # fmt: skip

        _admin(target, create)
        try:
            asker = Asker(target.bootstrap)
            asker.leaders(name, partitions)
            asker.close()
            yield name
        finally:
            try:
                _admin(target, lambda client: client.delete_topic(name))
            except PegelError as error:
                self.watcher.say(f"{target.name}: could not remove topic {name}: {error}")

    def load(self, target: Target, spec: LoadSpec, text: str) -> LoadResult:
        """One load, followed on the screen. Raises PegelError."""

        def watch(phase: str, figures: list[dict[str, Any]]) -> None:
            # Without a check it is thrown away, and counted nowhere.
            shown = phase if spec.verify or phase != "measure" else "warm-up"
            self.watcher.update(f"{target.name}, {text}", shown, figures)

        with self.watched([spec]):
            return run_workers(spec, self.processes, self.interrupt, watch)

    @contextlib.contextmanager
    def watched(self, specs: list[LoadSpec]) -> Iterator[None]:
        """These loads run inside of it."""
        self.watcher.begin(specs)
        try:
            yield
        finally:
            self.watcher.begin([])

    def warm(self, target: Target, spec: LoadSpec) -> None:
        """Before the first measurement of a target: load of the same kind, thrown away."""
        if target.warm or self.interrupt.asked:
            return
        target.warm = True
        if not self.setup["first_warm_up"]:
            return
        with self.topic(target, spec.partitions) as name:
            spec.topic, spec.verify = name, False
            spec.warm_up, spec.seconds, spec.rate = 0.0, self.setup["first_warm_up"], 0.0
            self.load(target, spec, "first warm-up")

    def measure(
        self, target: Target, spec: LoadSpec, case: dict[str, Any], workload: str, number: int
    ) -> Row:
        """One load on a topic that is there, as a row. Raises PegelError."""
        spec.pids = list(target.pids().values())
        text = ", ".join(f"{k} {v}" for k, v in case.items())
        row = to_row(self.load(target, spec, text), target, case, workload, number)
        row.client = spec.driver
        requests = row.figures["requests"]
        if spec.pids and requests:
            row.figures["cpu_us_per_request"] = row.figures["broker_cpu_s"] / requests * 1e6
            megabytes = row.figures.get("mb_per_s", 0.0) * row.figures["seconds"]
            if megabytes:
                row.figures["cpu_ms_per_mb"] = row.figures["broker_cpu_s"] / megabytes * 1e3
        if self.costs and number == 1 and spec.pids and not self.interrupt.asked:
            again = replace(spec, warm_up=0.0, verify=False)
            row.costs = costs.observe(
                lambda: self.load(target, again, f"costs of {text}"), spec.pids
            )
        return row


def to_row(
    result: LoadResult, target: Target, case: dict[str, Any], workload: str, number: int
) -> Row:
    """Figures that all loads have."""
    histogram = merge([result.histogram])
    figures: dict[str, float] = {
        "requests": result.requests, "sent": result.sent, "acknowledged": result.acknowledged,
        "failed": result.failed, "lost": result.lost, "doubled": result.doubled,
        "seconds": result.seconds, "client_cpu_s": result.cpu_seconds,
        "broker_cpu_s": result.broker_cpu_seconds,
    }  # fmt: skip
    records = result.acknowledged or result.sent
    if result.seconds > 0:
        figures["mb_per_s"] = result.bytes / result.seconds / 1e6
        figures["records_per_s"] = records / result.seconds
        figures["requests_per_s"] = result.requests / result.seconds
    figures |= {f"{name}_ms": value for name, value in percentiles_ms(histogram).items()}
    row = Row(
        target=target.name, workload=workload, case=case, round=number, figures=figures,
        curve=curve_ms(histogram), notes=result.notes, errors=result.errors,
        ok=not result.lost and not result.doubled, verified=result.verified,
        interrupted=result.interrupted,
    )  # fmt: skip
    if result.second_histogram:
        second = merge([result.second_histogram])
        row.second_curve = curve_ms(second)
        figures |= {f"consumed_{n}_ms": v for n, v in percentiles_ms(second).items()}
    if result.behind_ms > 1.0:
        row.notes.append(
            f"the load generator itself was up to {result.behind_ms:.1f} ms late (99th percentile)"
        )
    if result.errors:
        row.notes.append(f"failed requests: {result.errors}")
    return row


def _admin(target: Target, call: Callable[[pegel.AsyncClient], Any]) -> None:
    async def work() -> None:
        options = ClientOptions(client_id="pegel-bench", request_timeout=_ADMIN_TIMEOUT)
        async with pegel.AsyncClient(target.bootstrap, options=options) as client:
            await call(client)

    asyncio.run(work())


async def _controller_first(client: pegel.AsyncClient, replication: int) -> list[int]:
    """Brokers for a partition that the active controller leads. Raises PegelError."""
    controller = (await client.admin.describe_quorum()).leader_id
    brokers = [node.node_id for node in (await client.admin.describe_cluster()).brokers]
    if controller not in brokers:
        raise pegel.PegelError(
            f"the active controller, node {controller}, is no broker and can lead no partition"
        )
    return [controller, *(b for b in brokers if b != controller)][:replication]


def _durability(target: Target, topic_config: dict[str, str]) -> str:
    messages = topic_config.get("flush.messages") or target.settings.get(
        "log.flush.interval.messages"
    )
    if messages == "1":
        return "every acknowledged batch is synced"
    if target.cluster is None:
        return "as the cluster is set; the topic asks for no sync"
    return "page cache and replication (the default of both systems)"
