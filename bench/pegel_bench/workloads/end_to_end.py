"""From the intended send time to the consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pegel_bench.bench import Bench
from pegel_bench.load.spec import LoadSpec
from pegel_bench.workloads.throughput import ACKS


def end_to_end(bench: Bench, spec: LoadSpec, acks: Sequence[str], drivers: Sequence[str]) -> None:
    """A row for each driver and acknowledgement mode. Raises PegelError."""
    for target in bench.targets:
        bench.warm(target, replace(spec, kind="produce", driver="raw", bootstrap=target.bootstrap))
    for driver in drivers:
        for mode in acks:
            case: dict[str, object] = {"acks": mode, "rate": f"{spec.rate:,.0f}/s"}
            if len(drivers) > 1:
                case["client"] = driver
            for number, target in bench.turns():
                with bench.topic(target, spec.partitions) as topic:
                    one = replace(
                        spec, kind="end-to-end", bootstrap=target.bootstrap, topic=topic,
                        acks=ACKS[mode], driver=driver,
                    )  # fmt: skip
                    bench.add(bench.measure(target, one, dict(case), "end-to-end", number))
