"""``python -m tests.simulation.cluster.sensitivity``: is the net sensitive?

Takes one safeguard away at a time, runs seeds of the cluster until one notices, and the test that
is to notice; where neither does, the tests of the package that it is in. Writes the rows of the
table of who notices what (``docs/correctness.md``); the exit code is 1 if something is noticed by
nobody. Parts of names run a part of the registry, and change its rows alone.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace

from tests.simulation.cluster.mutant import VARIABLE
from tests.simulation.cluster.safeguard_tests import BY_TESTS
from tests.simulation.cluster.safeguards import SAFEGUARDS, Safeguard, without
from tests.simulation.cluster.sensitivity_table import ROOT, TABLE, Row, write_rows
from tests.simulation.cluster.simulate import simulate

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

    ``test`` is a test that notices: the one that is to, or the first of its package's that does.
    """

    name: str
    seed: int | None
    tried: int
    how: str
    took: float  # seconds of the processor
    test: str | None = None


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
    name = found.name
    test = notice_by_suites(name, BY_TESTS[name].split("[")[0]) if name in BY_TESTS else None
    if found.seed is None and test is None:
        test = notice_by_suites(name)
    return replace(found, test=test)


def _row(found: Notice) -> Row:
    if found.seed is None:
        return Row(found.name, f"none of {found.tried}", found.test or "")
    return Row(found.name, f"seed {found.seed}: {_short(found.how)}", found.test or "")


def _short(how: str) -> str:
    """What was violated, without where and when."""
    how = re.sub(r" \((?:[^()]|\([^()]*\))*\)", "", how)
    how = re.sub(r"\b[a-z]+(-\d+)+\b", "a partition", how).removeprefix("a partition: ")
    how = re.sub(r"\b(node|broker) \d+", r"a \1", how)
    return how.split(": ", maxsplit=1)[0].replace("|", "/")[:60]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of safeguards' names; all if none is given")
    parser.add_argument("--seeds", type=int, default=40, help="at most, for each safeguard")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", default=str(TABLE), help="the file whose rows are replaced")
    options = parser.parse_args()
    names = [
        name
        for name in SAFEGUARDS
        if not options.names or any(part in name for part in options.names)
    ]
    context = multiprocessing.get_context("spawn")
    tasks = [(name, options.first, options.seeds) for name in names]
    missed = by_seeds = by_tests = 0
    with context.Pool(options.processes, maxtasksperchild=1) as pool:
        for found in pool.imap(_task, tasks, chunksize=1):
            by_seeds += found.seed is not None
            by_tests += found.test is not None
            missed += found.seed is None and found.test is None
            row = _row(found)
            print(row, f"{found.took:.0f} s", flush=True)
            write_rows(options.table, [row])
    print(
        f"{len(names)} safeguards taken away: {by_seeds} noticed by seeds, {by_tests} by tests, "
        f"{missed} by nobody"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
