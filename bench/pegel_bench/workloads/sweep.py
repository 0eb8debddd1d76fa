"""What one request costs as something grows: partitions, connections, record size, replicas.

The rate is fixed, so that each value is asked to do the same work; what changes is the brokers'
CPU time for each request, and the latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pegel_bench.bench import Bench
from pegel_bench.load.spec import LoadSpec

OVERS = ("partitions", "connections", "record-bytes", "replicas")


def sweep(bench: Bench, spec: LoadSpec, over: str, values: Sequence[int]) -> None:
    """A row for each value. Raises PegelError."""
    for target in bench.targets:
        bench.warm(target, replace(spec, bootstrap=target.bootstrap))
    replication, min_insync = bench.replication, bench.min_insync
    try:
        for value in values:
            one = replace(spec)
            if over == "partitions":
                one.partitions = value
            elif over == "connections":
                one.partitions, one.connections = 1, value
            elif over == "record-bytes":
                one.record_bytes = value
            else:
                bench.replication, bench.min_insync = value, min(min_insync, value)
            for number, target in bench.turns():
                with bench.topic(target, one.partitions) as topic:
                    loaded = replace(one, bootstrap=target.bootstrap, topic=topic)
                    bench.add(bench.measure(target, loaded, {over: value}, "sweep", number))
    finally:
        bench.replication, bench.min_insync = replication, min_insync
