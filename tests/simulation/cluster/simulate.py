"""One seed from start to end: a cluster comes up, is used and broken, heals, and is judged."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from pegel.testing.delivery import judge
from tests.simulation.cluster.checks import (
    INTERVAL,
    Checker,
    Observer,
    compare_files,
    out_of_reach,
    unhealthy,
)
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.controller_faults import ChangeVoters, keep_voters
from tests.simulation.cluster.faults import Fault
from tests.simulation.cluster.kernel import SpinningError, Trace, running_loops_are_known
from tests.simulation.cluster.plan import (
    BREAKAGES,
    FAULTS_FOR,
    FAULTS_FROM,
    break_for_ever,
    draw_faults,
    draw_shape,
    heal,
    schedule,
)
from tests.simulation.cluster.workload import (
    GROUP,
    WORKLOADS,
    coordinator_of,
    make_topics,
    read_all,
    read_group,
    write_everywhere,
)

READY_WITHIN = 20.0
HEALTHY_WITHIN = 30.0
WORK_ENDS_WITHIN = 20.0
# The topic of the groups' offsets has min.insync.replicas=1, so its only replica in sync may lose
# them with its page cache or its disk.
LOSE_COMMITS = {
    "bit-flip",
    "failing-sync",
    "full-disk",
    "kill-in-disk-call",
    "misdirected-write",
    "power",
}
LIVENESS_SHARE = 0.2  # of the seeds: a minority stays broken for ever


@dataclass(slots=True)
class Report:
    """What one seed showed; ``violations`` is empty if all is well."""

    seed: int
    faults: list[Fault]
    violations: list[str] = field(default_factory=list)
    digest: str = ""
    simulated: float = 0.0
    took: float = 0.0  # seconds of the processor
    events: int = 0
    appends: int = 0
    acknowledged: int = 0
    read: int = 0
    healed_in: float = 0.0
    trace: list[str] = field(default_factory=list)


class _Run:
    def __init__(self, seed: int, trace: Trace, only: Sequence[int] | None) -> None:
        self.cluster = cluster = Cluster(seed, draw_shape(seed), trace)
        self.checker = Checker(cluster)
        self.observer = Observer(cluster)
        self.random = Random(f"{seed}-run")
        for name in ("work-1", "work-2"):  # clients' hosts, known to those who cut links
            cluster.clients.setdefault(name, cluster.new_machine(name))
        self.faults = draw_faults(seed, cluster)
        chosen = range(len(self.faults)) if only is None else only
        self.chosen = [self.faults[number] for number in chosen]
        alive = self.random.random() < LIVENESS_SHARE
        self.broken: int | None = self.random.choice((1, 2, 3)) if alive else None

    def advance(self, until: float) -> None:
        """Let time go by, looking at the invariants."""
        cluster = self.cluster
        while cluster.now < until:
            cluster.scheduler.run_until(min(until, cluster.now + INTERVAL))
            self.checker.look()

    def run(self) -> None:
        cluster = self.cluster
        for machine in cluster.nodes.values():
            machine.start()
        while unhealthy(cluster) is not None:
            if cluster.now > READY_WITHIN:
                raise TimeoutError(f"the cluster does not come up: {unhealthy(cluster)}")
            self.advance(cluster.now + 0.1)
        loop, client, _ = cluster.client("setup")
        cluster.complete(loop, make_topics(cluster, client), READY_WITHIN)
        tasks = []
        for number, (name, (chance, work)) in enumerate(WORKLOADS.items()):
            if self.random.random() < chance:
                loop, client, r = cluster.client(f"work-{1 + number % 2}")
                tasks.append(loop.start(work(cluster, client, name, r)))
        schedule(cluster, self.chosen)
        self.advance(FAULTS_FROM + FAULTS_FOR)
        heal(cluster)
        if any(fault.kind == ChangeVoters.name for fault in self.chosen):
            loop, client, _ = cluster.client("operator")
            loop.start(keep_voters(cluster, client))
            if self.broken is not None:
                # Two that vote could not do without one.
                while not all(task.done() for task in cluster.voter_changes):
                    self.advance(cluster.now + 0.1)
                self._become_healthy()
        if self.broken is not None:
            break_for_ever(cluster, self.broken, self.random.choice(BREAKAGES))
        self._become_healthy()
        cluster.work_ends = True
        end = cluster.now + WORK_ENDS_WITHIN
        while not all(task.done() for task in tasks) and cluster.now < end:
            self.advance(cluster.now + 0.1)
        for task in tasks:
            if not task.done():
                cluster.fail("a client hangs: its work does not end")
            elif task.exception() is not None:
                cluster.fail(f"a client failed: {task.exception()!r}")
        self._final()

    def _become_healthy(self) -> None:
        cluster, began = self.cluster, self.cluster.now
        while reason := unhealthy(cluster, self.broken, quiet=cluster.work_ends):
            if cluster.now > began + HEALTHY_WITHIN:
                cluster.fail(f"not healthy {HEALTHY_WITHIN:g} s after the faults: {reason}")
                return
            self.advance(cluster.now + 0.1)
        self.healed_in = max(self.healed_in, cluster.now - began)

    def _final(self) -> None:
        cluster = self.cluster
        loop, client, _ = cluster.client("final")
        lost = out_of_reach(cluster, self.broken)
        cluster.history.leave_out(lost)
        try:
            work = write_everywhere(cluster, client, "final", lost)
            cluster.complete(loop, work, HEALTHY_WITHIN)
            self._become_healthy()
            cluster.complete(loop, read_all(cluster, client, lost), HEALTHY_WITHIN)
            if coordinator_of(GROUP) not in lost:
                cluster.complete(loop, read_group(cluster, client), HEALTHY_WITHIN)
        except TimeoutError as error:
            cluster.fail(f"no progress: {error}")
            return
        except Exception as error:
            cluster.fail(f"a client failed at the end: {error!r}")
            return
        self.checker.look()
        if self.broken is None:
            self._become_healthy()
            compare_files(cluster)
        if any(fault.kind in LOSE_COMMITS for fault in self.chosen):
            cluster.history.group_commits.clear()
        for line in judge(cluster.history).lines:
            cluster.fail(line)

    healed_in = 0.0


def simulate(
    seed: int,
    *,
    only: Sequence[int] | None = None,
    digest: bool = False,
    keep_trace: bool = False,
) -> Report:
    """Run ``seed``; ``only`` keeps the faults of those numbers. ``digest`` asks for the hash of
    the trace, ``keep_trace`` for the trace too."""
    began = time.process_time()
    with _collected_at_the_end():
        report = _simulate(seed, only, Trace(keep=keep_trace, hashed=digest))
    report.took = time.process_time() - began
    return report


@contextmanager
def _collected_at_the_end() -> Iterator[None]:
    """When garbage is collected must not decide what happens; and only what is made in here is
    looked at, not the modules and whatever else was there before (five times as much work)."""
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if collecting:
            gc.enable()


def _simulate(seed: int, only: Sequence[int] | None, trace: Trace) -> Report:
    run = _Run(seed, trace, only)
    cluster = run.cluster
    with running_loops_are_known(), run.observer.installed():
        try:
            run.run()
        except (SpinningError, TimeoutError) as error:
            cluster.fail(f"{type(error).__name__}: {error}")
        cluster.violations += [f"unhandled: {problem}" for problem in cluster.problems()]
        cluster.close()
    return Report(
        seed, run.chosen, cluster.violations, cluster.trace.digest, cluster.now,
        0.0, cluster.trace.events, run.observer.appends,
        sum(sent.acknowledged for sent in cluster.history.sent.values()),
        sum(len(part) for parts in cluster.history.reads.values() for part in parts),
        run.healed_in, cluster.trace.lines,
    )  # fmt: skip


def shrink(seed: int, faults: int, fails: Sequence[int] | None = None) -> list[int]:
    """The numbers of the faults without which ``seed`` does not fail: drops one after another."""
    kept = list(range(faults)) if fails is None else list(fails)
    for number in list(kept):
        without = [n for n in kept if n != number]
        if simulate(seed, only=without).violations:
            kept = without
    return kept
