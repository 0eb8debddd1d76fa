"""As much as goes through, by acknowledgement mode."""

from __future__ import annotations

from collections.abc import Sequence

from pegel_bench.bench import Bench
from pegel_bench.load.spec import LoadSpec

ACKS = {"0": 0, "1": 1, "all": -1}


def throughput(
    bench: Bench, spec: LoadSpec, acks: Sequence[str], partitions: Sequence[int],
    drivers: Sequence[str],
) -> None:  # fmt: skip
    """A row for each driver, number of partitions and acknowledgement mode. Raises PegelError."""
    from dataclasses import replace

    for target in bench.targets:
        first = replace(
            spec, driver="raw", acks=-1, partitions=max(partitions), bootstrap=target.bootstrap
        )
        bench.warm(target, first)
    for driver in drivers:
        for count in partitions:
            for mode in acks:
                case: dict[str, object] = {"acks": mode, "partitions": count}
                if len(drivers) > 1:
                    case["client"] = driver
                for number, target in bench.turns():
                    with bench.topic(target, count) as topic:
                        one = replace(
                            spec, bootstrap=target.bootstrap, topic=topic, partitions=count,
                            acks=ACKS[mode], driver=driver,
                        )  # fmt: skip
                        bench.add(bench.measure(target, one, dict(case), "throughput", number))
