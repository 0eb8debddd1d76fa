"""A leader fails under load: how long is nothing acknowledged, and is anything lost?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pegel.testing import ClusterError, LocalCluster
from pegel_bench.bench import Bench, to_row
from pegel_bench.demo.timeline import failover as logged_moments
from pegel_bench.fleet import run_together
from pegel_bench.load.asking import Asker
from pegel_bench.load.spec import LoadSpec
from pegel_bench.result import Row
from pegel_bench.targets import Target

HOWS = ("kill", "stop", "terminate")
WHOMS = ("any", "controller")
_BEFORE = 1.5
_MARGIN = 0.5  # seconds of the run that the workers' start may have taken
_REPLICAS_WAIT = 60.0
_NAMES = {"raw": "prober", "pegel": "pegel", "librdkafka": "librdkafka"}


def failover(
    bench: Bench,
    spec: LoadSpec,
    hows: Sequence[str],
    drivers: Sequence[str],
    whoms: Sequence[str] = ("any",),
) -> None:
    """A row for each way to fail, each victim and each observer; all observers see the same.

    Victims: ``any`` leader, or one that is the active ``controller`` as well.

    Raises:
        ClusterError: a target was not started here, so its brokers cannot be killed.
        PegelError.
    """
    for target in bench.targets:
        if target.cluster is None:
            raise ClusterError(
                f"failover kills brokers, so it only takes clusters that it starts, not "
                f"{target.bootstrap}"
            )
    for how, whom in itertools.product(hows, whoms):
        for number, target in bench.turns():
            with bench.topic(target, 1, led_by_controller=whom == "controller") as topic:
                of_topic = replace(spec, topic=topic)
                for row in _once(bench, target, of_topic, how, whom, drivers, number):
                    bench.add(row)


def _once(
    bench: Bench,
    target: Target,
    spec: LoadSpec,
    how: str,
    whom: str,
    drivers: Sequence[str],
    number: int,
) -> list[Row]:
    cluster = target.cluster
    assert cluster is not None
    # Kafka's session is 9 s, so a killed leader is missed for longer than that.
    seconds = spec.seconds if isinstance(cluster, LocalCluster) else max(spec.seconds, 20.0)
    specs = [
        replace(spec, bootstrap=target.bootstrap, kind="probe", driver=driver, worker=i,
                seconds=seconds)
        for i, driver in enumerate(drivers)
    ]  # fmt: skip
    leader = _leader(target, spec.topic)
    failure = _Failure(target, leader, how)
    began = 0.0

    def watch(phase: str, figures: list[dict[str, Any]]) -> None:
        nonlocal began
        now = time.monotonic()
        if not began and any(f.get("acknowledged") for f in figures):
            began = now
        if began and now - began >= _BEFORE and not failure.at:
            failure.happen()
        bench.watcher.update(f"{target.name}, {how} the leader", phase, figures)

    try:
        with bench.watched(specs):
            results = run_together(specs, bench.interrupt, watch)
    finally:
        failure.mend()
    rows = []
    end = failure.at + seconds - _BEFORE - _MARGIN
    for driver, result in zip(drivers, results, strict=True):
        case = {"how": how, "leader": whom, "client": _NAMES[driver]}
        row = to_row(result, target, case, "failover", number)
        row.client = driver
        if failure.at:
            gap = longest_gap(result.series, failure.at, end)
            row.figures["gap_ms"] = (gap[1] - gap[0]) * 1000
            if gap[1] == end:
                row.notes.append("nothing was acknowledged up to the end: the gap is a lower bound")
            row.series = [(round((t - failure.at) * 1000, 1), 1.0) for t, _ in result.series]
            row.events = failure.moments(spec.topic, gap[1])
        rows.append(row)
    if not bench.interrupt.asked:
        _await_replicas(target, spec.topic)
    return rows


def _leader(target: Target, topic: str) -> int:
    asker = Asker(target.bootstrap)
    address = "{}:{}".format(*asker.leaders(topic, 1)[0])
    asker.close()
    assert target.cluster is not None
    for node_id, node in target.cluster.nodes.items():
        if node.client == address:
            return node_id
    raise ClusterError(f"{address} leads {topic}-0, but is no node that was started here")


class _Failure:
    """What happens to the leader. Times: ``at`` monotonic, ``wall_ms`` of the wall clock."""

    def __init__(self, target: Target, node_id: int, how: str) -> None:
        self.target, self.node_id, self.how = target, node_id, how
        self.at = 0.0
        self.wall_ms = 0

    def happen(self) -> None:
        cluster = self.target.cluster
        assert cluster is not None
        self.at, self.wall_ms = time.monotonic(), time.time_ns() // 1_000_000
        if self.how == "kill":
            cluster.kill(self.node_id)
        elif self.how == "stop":
            cluster.pause(self.node_id)
        else:
            cluster.terminate(self.node_id)

    def mend(self) -> None:
        """Bring the broker back."""
        if not self.at or self.target.cluster is None:
            return
        if self.how == "stop":
            self.target.cluster.resume(self.node_id)
        else:
            self.target.cluster.restart(self.node_id)

    def moments(self, topic: str, gap_end: float) -> list[tuple[float, str]]:
        """Milliseconds since the failure, and what happened; from the logs where they tell."""
        found = [(0.0, {"kill": "SIGKILL", "stop": "SIGSTOP", "terminate": "SIGTERM"}[self.how])]
        cluster = self.target.cluster
        if isinstance(cluster, LocalCluster):
            logs = [cluster.log_of(node_id) for node_id in cluster.nodes]
            moments = logged_moments(
                logs, topic=topic, partition=0, broker=self.node_id, killed_ms=self.wall_ms,
                acknowledged_ms=None,
            )  # fmt: skip
            found += [
                (float(m.at_ms - self.wall_ms), m.name)
                for m in moments[1:4] if m.at_ms is not None
            ]  # fmt: skip
        found.append((round((gap_end - self.at) * 1000, 1), "longest gap ends"))
        return found


def longest_gap(
    series: Sequence[tuple[float, float]], at: float, end: float
) -> tuple[float, float]:
    """Start and end of the longest time without an acknowledgement around ``at`` or after it.

    An observer that heard nothing any more is counted up to ``end`` of the run.
    """
    times = sorted(t for t, _ in series) or [at]
    if times[-1] < end:
        times.append(end)
    gaps = [(a, b) for a, b in itertools.pairwise(times) if b >= at]
    return max(gaps, key=lambda gap: gap[1] - gap[0])


def _await_replicas(target: Target, topic: str) -> None:
    """Until the broker that came back is in sync again."""
    asker = Asker(target.bootstrap)
    deadline = time.monotonic() + _REPLICAS_WAIT
    while not asker.in_sync(topic) and time.monotonic() < deadline:
        time.sleep(0.1)
    asker.close()
