"""``python -m tests.simulation.cluster.sensitivity``: is the net sensitive?

Takes one safeguard away at a time and runs seeds of the cluster until one notices; if none does,
the tests of the package that it is in. Prints the table of who notices what; the exit code is 1 if
something is noticed by nobody.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.simulation.cluster.mutant import VARIABLE
from tests.simulation.cluster.safeguards import SAFEGUARDS, Safeguard, without
from tests.simulation.cluster.simulate import simulate

ROOT = Path(__file__).resolve().parents[3]
SUITES = {
    "pegel_broker.log": ["tests/broker/log", "tests/broker/replication"],
    "pegel_broker": [
        "tests/broker/replication",
        "tests/broker/test_session.py",
        "tests/broker/log",
    ],
    "pegel_controller": ["tests/controller/control", "tests/controller/node"],
    "pegel": ["tests/client/producer", "tests/client/record", "tests/client/consumer"],
}


@dataclass(frozen=True, slots=True)
class Notice:
    """``seed`` is the first that noticed, None if none did; ``how`` the first violation.

    ``suite`` is a test that notices, looked for only where no seed did.
    """

    name: str
    seed: int | None
    tried: int
    how: str
    took: float  # seconds of the processor
    suite: str | None = None


def notice(name: str, first: int, seeds: int) -> Notice:
    """Run up to ``seeds`` seeds without the safeguard of that name."""
    began = time.process_time()
    with without(SAFEGUARDS[name]):
        for seed in range(first, first + seeds):
            try:
                how = next(iter(simulate(seed).violations), "")
            except Exception as error:  # the code under test broke in a way of its own
                how = f"the simulation failed: {error!r}"
            if how:
                took = time.process_time() - began
                return Notice(name, seed, seed - first + 1, how, took)
    return Notice(name, None, seeds, "", time.process_time() - began)


def notice_by_suites(name: str, *paths: str) -> str | None:
    """The first test that fails without the safeguard; None if all pass."""
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
        "-p", "tests.simulation.cluster.mutant", *(paths or _suites(SAFEGUARDS[name])),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, VARIABLE: name}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].split()[1] if failed else None


def _suites(safeguard: Safeguard) -> list[str]:
    for part, paths in SUITES.items():
        if safeguard.module.startswith(part):
            return paths
    raise AssertionError(f"no suites for {safeguard.module}")


def _task(arguments: tuple[str, int, int]) -> Notice:
    logging.disable(logging.CRITICAL)
    found = notice(*arguments)
    if found.seed is None:
        found = replace(found, suite=notice_by_suites(found.name))
    return found


def _short(how: str) -> str:
    return how.replace("|", "/")[:90]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of safeguards' names; all if none is given")
    parser.add_argument("--seeds", type=int, default=300, help="at most, for each safeguard")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    names = [
        name
        for name in SAFEGUARDS
        if not options.names or any(part in name for part in options.names)
    ]
    context = multiprocessing.get_context("spawn")
    tasks = [(name, options.first, options.seeds) for name in names]
    missed = by_seeds = 0
    print("| safeguard | noticed by | seeds tried | as |\n|---|---|---|---|", flush=True)
    with context.Pool(options.processes, maxtasksperchild=1) as pool:
        for found in pool.imap(_task, tasks, chunksize=1):
            by_seeds += found.seed is not None
            missed += found.seed is None and found.suite is None
            who = f"seed {found.seed}" if found.seed is not None else found.suite or "nobody"
            print(f"| {found.name} | {who} | {found.tried} | {_short(found.how)} |", flush=True)
    print(
        f"{len(names)} safeguards taken away: {by_seeds} noticed by seeds, "
        f"{len(names) - by_seeds - missed} by tests alone, {missed} by nobody"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
