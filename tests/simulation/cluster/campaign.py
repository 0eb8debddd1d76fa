"""Many seeds on several processes, and one line of figures for them: also where it is stopped."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.simulation.cluster.simulate import Report, shrink, simulate

COMMAND = "python -m tests.simulation.cluster"
STOPPED = 130  # exit code, as of a shell
# Where nobody watches, a log is to say how far it came.
SEEDS_PER_LINE = 500


def be_quiet() -> None:
    logging.disable(logging.CRITICAL)


def _begin_worker() -> None:
    be_quiet()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for who collects the reports


def one(seed: int) -> Report:
    return simulate(seed)


def reports(first: int, count: int, processes: int) -> Iterator[Report]:
    """In order of the seeds."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _begin_worker, maxtasksperchild=200) as pool:
        yield from pool.imap(one, range(first, first + count), chunksize=2)


@dataclass(slots=True)
class Tally:
    """Sums over the seeds that are done."""

    first: int
    processes: int = 1
    began: float = field(default_factory=time.perf_counter)
    done: int = 0
    failed: list[Report] = field(default_factory=list)
    simulated: float = 0.0  # seconds
    took: float = 0.0  # seconds of the processors
    faults: int = 0
    events: int = 0
    acknowledged: int = 0
    read: int = 0

    def add(self, report: Report) -> None:
        self.done += 1
        self.simulated += report.simulated
        self.took += report.took
        self.acknowledged += report.acknowledged
        self.read += report.read
        self.faults += len(report.faults)
        self.events += report.events
        if report.violations:
            self.failed.append(report)

    def __str__(self) -> str:
        wall = max(time.perf_counter() - self.began, 1e-9)
        return (
            f"{self.done} seeds from {self.first} on, {len(self.failed)} failed: "
            f"{self.simulated / 3600:.2f} h simulated "
            f"{self.simulated / max(self.took, 1e-9):.0f} times faster than they last by the "
            f"processor time of one process, {self.simulated / wall:.0f} times by the clock on "
            f"{self.processes} {'process' if self.processes == 1 else 'processes'} ({wall:.0f} s), "
            f"{self.faults} faults, {self.events} messages, "
            f"{self.acknowledged} records acknowledged, {self.read} read"
        )


def many(first: int, count: int, processes: int) -> int:
    """Run the seeds; the exit code. An interrupt or SIGTERM ends it with what is known by then."""
    tally, stopped = Tally(first, processes), False
    watched = sys.stderr.isatty()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for report in reports(first, count, processes):
            tally.add(report)
            if report.violations:
                print(f"seed {report.seed} fails: {report.violations[0]}", flush=True)
            if watched:
                line = f"\r{tally.done}/{count} seeds, {len(tally.failed)} failed "
                print(line, end="", file=sys.stderr)
            elif tally.done % SEEDS_PER_LINE == 0 and tally.done < count:
                print(f"so far: {tally}", flush=True)
    except KeyboardInterrupt:
        stopped = True
    if watched:
        print("\r", end="", file=sys.stderr)
    be_quiet()
    figures = str(tally)  # without the time that shrinking takes
    for report in [] if stopped else tally.failed[:5]:
        _tell_what_is_needed(report)
    print(f"{'stopped: ' if stopped else ''}{figures}")
    return 1 if tally.failed else STOPPED if stopped else 0


def _tell_what_is_needed(report: Report) -> None:
    needed = shrink(report.seed, len(report.faults))
    only = ",".join(map(str, needed)) or "none"
    print(f"seed {report.seed} fails with {len(needed)} of {len(report.faults)} faults: ")
    for number in needed:
        print(f"  {report.faults[number]}")
    print(f"  repeat with: {COMMAND} --seed {report.seed} --only {only}")
