"""What a cluster takes for itself: time to be ready, memory, CPU while nothing happens."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from pegel.config import parse_bootstrap
from pegel.testing import ClusterError
from pegel_bench.bench import Bench
from pegel_bench.fleet import settle
from pegel_bench.load.spec import LoadSpec
from pegel_bench.load.wire import connect
from pegel_bench.processes import resident_mb, total_cpu_seconds
from pegel_bench.quiet import NOTE, Quiet
from pegel_bench.result import Row
from pegel_bench.targets import Target

_SETTLE = 3.0


def footprint(
    bench: Bench, spec: LoadSpec, partitions: Sequence[int], connections: Sequence[int]
) -> None:
    """Rows: just started, with so many partitions, with so many connections, after load.

    Raises:
        ClusterError: a target was not started here, so its processes are not known.
        PegelError.
    """
    for target in bench.targets:
        if target.cluster is None:
            raise ClusterError(
                f"footprint looks at the brokers' processes, so it only takes clusters that it "
                f"starts, not {target.bootstrap}"
            )
    cases: list[tuple[str, int]] = [("just started", 0)]
    cases += [("partitions", n) for n in partitions] + [("connections", n) for n in connections]
    settle(_SETTLE, bench.interrupt)
    quiet = {target.name: Quiet(target, bench.interrupt) for target in bench.targets}
    for kind, count in cases:
        case: dict[str, object] = {"with": f"{count:,} {kind}" if count else kind}
        for number, target in bench.turns():
            one = quiet[target.name]
            bench.add(_idle(bench, target, spec, kind, count, dict(case), number, one))
    for number, target in bench.turns():
        bench.add(_after_load(bench, target, spec, number))


def _idle(
    bench: Bench, target: Target, spec: LoadSpec, kind: str, count: int,
    case: dict[str, object], number: int, quiet: Quiet,
) -> Row:  # fmt: skip
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        if kind == "partitions":
            started = time.monotonic()
            stack.enter_context(bench.topic(target, count))
            figures["create_s"] = time.monotonic() - started
        elif kind == "connections":
            for address in parse_bootstrap(target.bootstrap):
                for _ in range(count):
                    stack.enter_context(_open(address))
        else:
            figures["ready_s"] = target.ready_seconds or 0.0
        bench.watcher.update(f"{target.name}, {case['with']}", "waiting for quiet", [])
        settle(_SETTLE, bench.interrupt)
        notes = [] if quiet.wait() else [NOTE]
        figures |= _measure(bench, target, spec.seconds)
    return Row(target=target.name, workload="footprint", case=case, round=number,
               figures=figures, verified=True, notes=notes,
               interrupted=bench.interrupt.asked)  # fmt: skip


def _open(address: tuple[str, int]) -> socket.socket:
    return connect(address)


def _measure(bench: Bench, target: Target, seconds: float) -> dict[str, float]:
    pids = list(target.pids().values())
    cpu, started = total_cpu_seconds(pids), time.monotonic()
    settle(seconds, bench.interrupt)
    used = (total_cpu_seconds(pids) - cpu) / max(time.monotonic() - started, 1e-9)
    return {
        "resident_mb": sum(map(resident_mb, pids)) / len(pids),
        "idle_cpu_percent": 100 * used / len(pids),
    }


def _after_load(bench: Bench, target: Target, spec: LoadSpec, number: int) -> Row:
    """As much as goes through for the length of a measurement, in batches of half a megabyte."""
    with bench.topic(target, 3) as topic:
        one = replace(
            spec, bootstrap=target.bootstrap, topic=topic, partitions=3, acks=-1, driver="raw",
            record_bytes=1000, batch_records=490, warm_up=0.0, seconds=max(5.0, spec.seconds),
        )  # fmt: skip
        row = bench.measure(target, one, {"with": "load, acks=all"}, "footprint", number)
        settle(1.0, bench.interrupt)
        pids = target.pids().values()
        row.figures = {
            "after_mb": sum(map(resident_mb, pids)) / len(pids),
            "mb_per_s": row.figures.get("mb_per_s", 0.0),
        }
    return row
