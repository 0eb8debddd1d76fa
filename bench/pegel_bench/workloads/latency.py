"""Time to acknowledgement: open loop at a fixed rate, one at a time, pipelined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pegel_bench.bench import Bench
from pegel_bench.load.spec import LoadSpec
from pegel_bench.workloads.throughput import ACKS

MODES = ("open", "one", "pipelined")


def latency(
    bench: Bench, spec: LoadSpec, modes: Sequence[str], acks: Sequence[str],
    drivers: Sequence[str],
) -> None:  # fmt: skip
    """A row for each driver, mode and acknowledgement mode. Raises PegelError."""
    for target in bench.targets:
        bench.warm(target, replace(spec, driver="raw", acks=-1, bootstrap=target.bootstrap))
    for driver in drivers:
        for mode in modes:
            for ack in acks:
                case: dict[str, object] = {"mode": _text(mode, spec), "acks": ack}
                if len(drivers) > 1:
                    case["client"] = driver
                # One at a time means one in all: of one partition, so over one connection.
                partitions = 1 if mode == "one" else spec.partitions
                for number, target in bench.turns():
                    with bench.topic(target, partitions) as topic:
                        one = replace(
                            spec, bootstrap=target.bootstrap, topic=topic, partitions=partitions,
                            acks=ACKS[ack],
                            driver=driver, rate=spec.rate if mode == "open" else 0.0,
                            in_flight=spec.in_flight if mode == "pipelined" else 1,
                        )  # fmt: skip
                        bench.add(bench.measure(target, one, dict(case), "latency", number))


def _text(mode: str, spec: LoadSpec) -> str:
    if mode == "open":
        return f"open loop {spec.rate:,.0f}/s"
    return "one at a time" if mode == "one" else f"{spec.in_flight} deep"
