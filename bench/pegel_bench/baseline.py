"""The figures that Pegel is held to, measured in one run: what is loaded, and each goal.

A section is one load with its goals. Its name is the ``row`` of every case that it measures, so
that sections which share a workload stay apart in tables and pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pegel_bench.bench import Bench
from pegel_bench.goals import Against, Goal
from pegel_bench.load.spec import LoadSpec, records_in
from pegel_bench.workloads.consume import consume
from pegel_bench.workloads.failover import failover
from pegel_bench.workloads.footprint import footprint
from pegel_bench.workloads.latency import latency
from pegel_bench.workloads.throughput import throughput

ROUNDS = 5
# Everything is written, read back and removed some hundred times: what is removed must be gone.
TOPIC_CONFIG = {"file.delete.delay.ms": "1000"}
_MANY_PARTITIONS = 1_000
_LIBRDKAFKA = "librdkafka"
# librdkafka asks for nothing while 100,000 messages wait to be taken, and looks again only after
# fetch.queue.backoff.ms, a second by default: at 100 B that pause is what is measured.
_PAUSE_MS = "10"


@dataclass(frozen=True, slots=True)
class Section:
    """``measure`` adds rows to the bench.

    ``clients`` beyond our own must be installed; ``own_only``: it looks at or kills the processes
    of brokers, so every target must be started here.
    """

    name: str
    about: str
    measure: Callable[[Bench, LoadSpec], None]
    goals: tuple[Goal, ...]
    clients: tuple[str, ...] = ()
    own_only: bool = False


def measure(bench: Bench, spec: LoadSpec, sections: Sequence[Section]) -> None:
    """Every section in turn; ``spec`` gives seconds, warm-up and seed. Raises PegelError."""
    bench.report.goals.extend(goal for section in sections for goal in section.goals)
    for section in sections:
        if bench.interrupt.asked:
            return
        if section.own_only and any(target.cluster is None for target in bench.targets):
            bench.watcher.say(f"{section.name}: left out, it takes clusters that are started here")
            continue
        bench.watcher.say(f"{section.name}: {section.about}")
        bench.context = {"row": section.name}
        section.measure(bench, spec)


def _goals(
    workload: str, where: Mapping[str, object], less: bool, bounds: Mapping[str, float]
) -> Iterator[Goal]:
    """A goal for each figure, with its bound as a ratio to the other target."""
    for figure, bound in bounds.items():
        yield Goal(workload=workload, where=where, figure=figure, bound=bound, less=less)


def _footprint() -> Section:
    def at_most(where: str, figure: str, bound: float) -> Goal:
        return Goal(
            workload="footprint", where={"with": where}, figure=figure, bound=bound, less=True,
            against=Against.NOTHING,
        )  # fmt: skip

    many = f"{_MANY_PARTITIONS:,} partitions"
    return Section(
        "footprint",
        "time to ready, memory and idle CPU of each broker",
        lambda bench, spec: footprint(
            bench, replace(spec, seconds=max(5.0, spec.seconds)), [_MANY_PARTITIONS], []
        ),
        (
            *_goals("footprint", {"with": "just started"}, True, {"ready_s": 1 / 8}),
            at_most("just started", "resident_mb", 45.0),
            at_most("load, acks=all", "after_mb", 120.0),
            at_most("just started", "idle_cpu_percent", 0.5),
            at_most(many, "idle_cpu_percent", 0.5),
            at_most(many, "create_s", 1.0),
        ),
        own_only=True,
    )


def _produce(
    name: str, about: str, record_bytes: int, batch_bytes: int, acks: Sequence[str], bound: float
) -> Section:
    count = records_in(batch_bytes, record_bytes)
    return Section(
        name,
        about,
        lambda bench, spec: throughput(
            bench,
            replace(spec, record_bytes=record_bytes, batch_records=count),
            acks,
            [1, 3],
            ["raw"],
        ),
        tuple(
            goal
            for partitions in (1, 3)
            for mode in acks
            for goal in _goals(
                "throughput", {"row": name, "acks": mode, "partitions": partitions}, False,
                {"mb_per_s": bound},
            )
        ),
    )  # fmt: skip


def _latency(
    name: str, about: str, mode: str, acks: Sequence[str], goals: Sequence[Goal], **load: Any
) -> Section:
    return Section(
        name,
        about,
        lambda bench, spec: latency(
            bench, replace(spec, **load), [mode], acks, ["raw"]
        ),
        tuple(goals),
    )  # fmt: skip


def _latencies() -> Iterator[Section]:
    one, deep, steady, busy = "one-at-a-time", "pipelined", "open-600", "open-3000"
    yield _latency(
        one, "one record of 100 B, the next when it is acknowledged", "one", ["1", "all"],
        [
            goal for mode in ("1", "all")
            for goal in _goals("latency", {"row": one, "acks": mode}, True,
                               {"p50_ms": 1.0, "p99_ms": 0.5, "p99.9_ms": 0.5})
        ],
        batch_records=1, partitions=3,
    )  # fmt: skip
    yield _latency(
        deep, "single records of 100 B, 16 deep on each of three connections", "pipelined",
        ["all"], list(_goals("latency", {"row": deep}, False, {"requests_per_s": 10.0})),
        batch_records=1, partitions=3, in_flight=16,
    )  # fmt: skip
    yield _latency(
        steady, "open loop, 600 requests a second of 10 x 1 KB", "open", ["all"],
        list(_goals("latency", {"row": steady}, True, {"p50_ms": 1.0, "p99_ms": 0.5})),
        record_bytes=1000, batch_records=10, partitions=3, rate=600.0,
    )  # fmt: skip
    yield _latency(
        busy, "open loop, 3,000 requests a second of 10 x 1 KB", "open", ["all"],
        [
            Goal(workload="latency", where={"row": busy}, figure="p99_ms", bound=50.0, less=True,
                 against=Against.NOTHING),
            Goal(workload="latency", where={"row": busy}, figure="requests_per_s", bound=2_950.0,
                 less=False, against=Against.NOTHING),
        ],
        record_bytes=1000, batch_records=10, partitions=3, rate=3000.0,
    )  # fmt: skip


def _clients() -> Iterator[Section]:
    writes, reads = "librdkafka-produce", "clients-consume"
    yield Section(
        writes,
        "librdkafka from Python, records of 100 B, three partitions",
        lambda bench, spec: throughput(
            bench, replace(spec, record_bytes=100), ["0", "1", "all"], [3],
            [_LIBRDKAFKA],
        ),
        tuple(
            goal for mode in ("0", "1", "all")
            for goal in _goals("throughput", {"row": writes, "acks": mode}, False,
                               {"records_per_s": 1.2})
        ),
        (_LIBRDKAFKA,),
    )  # fmt: skip
    of_librdkafka: dict[str, object] = {"row": reads, "client": _LIBRDKAFKA}
    yield Section(
        reads,
        "records of 100 B by librdkafka from Python, and in batches by Pegel's client",
        lambda bench, spec: _read_small(bench, spec, [_LIBRDKAFKA, "pegel"]),
        (
            *_goals("consume", of_librdkafka, False, {"records_per_s": 1.0}),
            Goal(
                workload="consume", where={"row": reads, "client": "pegel"},
                figure="records_per_s", bound=5.0, less=False, against=Against.CASE,
                over=of_librdkafka,
            ),
        ),
        (_LIBRDKAFKA,),
    )  # fmt: skip
    unpaused = f"{reads}-unpaused"
    yield Section(
        unpaused,
        f"the same by librdkafka where a full queue pauses it for {_PAUSE_MS} ms, not for a second",
        lambda bench, spec: _read_small(
            bench, replace(spec, client_settings={"fetch.queue.backoff.ms": _PAUSE_MS}),
            [_LIBRDKAFKA],
        ),
        tuple(_goals("consume", {"row": unpaused}, False, {"records_per_s": 1.0})),
        (_LIBRDKAFKA,),
    )  # fmt: skip


def _read_small(bench: Bench, spec: LoadSpec, drivers: Sequence[str]) -> None:
    """100 MB of records of 100 B in batches of 500 KB, from three partitions."""
    spec = replace(spec, record_bytes=100, batch_records=records_in(500_000, 100), partitions=3)
    consume(bench, spec, drivers, 100.0)


def _failover() -> Section:
    def gap(how: str, client: str, bound: float) -> Goal:
        return Goal(
            workload="failover", where={"how": how, "client": client}, figure="gap_ms",
            bound=bound, less=True, against=Against.NOTHING,
        )  # fmt: skip

    return Section(
        "failover",
        "the leader is killed, stopped, terminated; a prober and librdkafka watch",
        lambda bench, spec: failover(
            bench, replace(spec, rate=100.0, seconds=7.0), ["kill", "stop", "terminate"],
            ["raw", _LIBRDKAFKA],
        ),
        (
            gap("kill", "prober", 500.0),
            gap("kill", _LIBRDKAFKA, 1500.0),
            gap("stop", "prober", 2500.0),
            gap("terminate", "prober", 100.0),
            gap("terminate", _LIBRDKAFKA, 300.0),
        ),
        (_LIBRDKAFKA,),
        own_only=True,
    )  # fmt: skip


SECTIONS: tuple[Section, ...] = (
    _footprint(),
    _produce("produce-1mb", "produce batches of 1 MB, records of 100 B", 100, 1_000_000,
             ("0", "1", "all"), 1.5),
    _produce("produce-500kb", "produce batches of 500 KB, records of 1 KB", 1_000, 500_000,
             ("1", "all"), 1.3),
    Section(
        "fetch", "fetch records of 1 KB, three partitions, batches not decoded",
        lambda bench, spec: consume(
            bench,
            replace(spec, record_bytes=1_000, batch_records=records_in(500_000, 1_000),
                    partitions=3),
            ["raw"], 300.0,
        ),
        tuple(_goals("consume", {"row": "fetch"}, False, {"mb_per_s": 0.8})),
    ),
    *_latencies(),
    *_clients(),
    _failover(),
)  # fmt: skip
