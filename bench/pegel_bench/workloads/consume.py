"""Reading what is in the log, as fast as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pegel.errors import PegelError
from pegel_bench.bench import Bench
from pegel_bench.load.spec import LoadSpec
from pegel_bench.targets import Target


def consume(bench: Bench, spec: LoadSpec, drivers: Sequence[str], megabytes: float) -> None:
    """Fill a topic on every target once, then read it with each driver. Raises PegelError."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        topics: dict[str, str] = {}
        for target in bench.targets:
            if bench.interrupt.asked:
                return
            topics[target.name] = stack.enter_context(bench.topic(target, spec.partitions))
            fill(bench, target, spec, topics[target.name], megabytes)
        for driver in drivers:
            case: dict[str, object] = {"client": driver, "partitions": spec.partitions}
            for number, target in bench.turns():
                one = replace(
                    spec, kind="consume", bootstrap=target.bootstrap, driver=driver,
                    topic=topics[target.name],
                )  # fmt: skip
                bench.add(bench.measure(target, one, dict(case), "consume", number))


def fill(bench: Bench, target: Target, spec: LoadSpec, topic: str, megabytes: float) -> None:
    """Write so many megabytes of records, acks=all."""
    one = replace(
        spec, kind="produce", driver="raw", bootstrap=target.bootstrap, topic=topic, acks=-1,
        warm_up=0.0, seconds=120.0, max_bytes=int(megabytes * 1e6), verify=False, rate=0.0,
    )  # fmt: skip
    result = bench.load(target, one, f"filling the topic with {megabytes:g} MB")
    if result.failed:
        raise PegelError(f"{target.name}: filling the topic failed: {result.errors}")
