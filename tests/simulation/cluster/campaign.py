"""Many seeds on several processes, and one line of figures for them."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator

from tests.simulation.cluster.simulate import Report, shrink, simulate

COMMAND = "python -m tests.simulation.cluster"


def be_quiet() -> None:
    logging.disable(logging.CRITICAL)


def one(seed: int) -> Report:
    return simulate(seed)


def reports(first: int, count: int, processes: int) -> Iterator[Report]:
    """As they come."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, be_quiet, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(one, range(first, first + count), chunksize=2)


def many(first: int, count: int, processes: int) -> int:
    began = time.perf_counter()
    failed: list[Report] = []
    simulated = took = 0.0
    done = acknowledged = read = faults = events = 0
    show = sys.stderr.isatty()
    for report in reports(first, count, processes):
        done += 1
        simulated += report.simulated
        took += report.took
        acknowledged += report.acknowledged
        read += report.read
        faults += len(report.faults)
        events += report.events
        if report.violations:
            failed.append(report)
            print(f"seed {report.seed} fails: {report.violations[0]}", flush=True)
        if show:
            print(f"\r{done}/{count} seeds, {len(failed)} failed ", end="", file=sys.stderr)
    if show:
        print("\r", end="", file=sys.stderr)
    be_quiet()
    for report in failed[:5]:
        needed = shrink(report.seed, len(report.faults))
        only = ",".join(map(str, needed)) or "none"
        print(f"seed {report.seed} fails with {len(needed)} of {len(report.faults)} faults: ")
        for number in needed:
            print(f"  {report.faults[number]}")
        print(f"  repeat with: {COMMAND} --seed {report.seed} --only {only}")
    print(
        f"{done} seeds, {len(failed)} failed: {simulated / 3600:.2f} h simulated "
        f"{simulated / max(took, 1e-9):.0f} times faster than they last, {faults} faults, "
        f"{events} messages, {acknowledged} records acknowledged, {read} read, "
        f"{time.perf_counter() - began:.0f} s on {processes} processes"
    )
    return 1 if failed else 0
