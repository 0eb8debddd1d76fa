"""What one request costs as something grows: partitions (used, or idle beside the one that is
used), connections, record size, replicas.

The rate is fixed, and each request carries one batch for one partition, whatever grows: each value
is asked to do the same work, and what changes is the brokers' CPU time for each request, and the
latency. Values take turns, so that a machine that is busy for a while is busy for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from pegel_bench.bench import Bench
from pegel_bench.load.spec import LoadSpec
from pegel_bench.quiet import NOTE, Quiet
from pegel_bench.targets import Target


def sweep(bench: Bench, spec: LoadSpec, over: str, values: Sequence[int]) -> None:
    """A row for each value. Raises PegelError."""
    quiet = {target.name: Quiet(target, bench.interrupt) for target in bench.targets}
    for target in bench.targets:
        bench.warm(target, replace(spec, bootstrap=target.bootstrap))
    replication, min_insync = bench.replication, bench.min_insync
    try:
        for number, target in bench.turns():
            for value in values:
                one = replace(spec, bootstrap=target.bootstrap)
                if over == "partitions":
                    one.partitions = value
                elif over == "idle-partitions":
                    one.partitions = 1
                elif over == "connections":
                    one.partitions, one.connections = 1, value
                elif over == "record-bytes":
                    one.record_bytes = value
                else:
                    bench.replication, bench.min_insync = value, min(min_insync, value)
                with ExitStack() as stack:
                    if over == "idle-partitions":
                        stack.enter_context(bench.topic(target, value))
                    one.topic = stack.enter_context(bench.topic(target, one.partitions))
                    was_quiet = _use_once(bench, target, one, {over: value}, quiet[target.name])
                    row = bench.measure(target, one, {over: value}, "sweep", number)
                    if not was_quiet:
                        row.notes.append(NOTE)
                    bench.add(row)
    finally:
        bench.replication, bench.min_insync = replication, min_insync


def _use_once(
    bench: Bench, target: Target, spec: LoadSpec, case: dict[str, object], quiet: Quiet
) -> bool:
    """Send to every partition, over every connection, and wait until all that follows is done.

    The first batch of a partition makes its files on all replicas, the first one of a connection
    its buffer: that is not what a request costs. Whether it is done.
    """
    seconds = 1.2 * max(spec.partitions, spec.connections) / spec.rate
    first = replace(spec, warm_up=0.0, seconds=max(0.1, seconds), verify=False)
    bench.measure(target, first, case, "sweep", 0)
    bench.watcher.update(f"{target.name}, {case}", "waiting for quiet", [])
    return quiet.wait()
