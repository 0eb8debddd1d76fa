"""Every crash point of every file that a node keeps: one line of figures for each format.

``python -m tests.crash_points``; a violation is told with the command that repeats that one point,
and the exit code is 1. ``--only CAMPAIGN`` runs one of them, ``--point POINT`` one point of it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable

from tests.crash_points import node_files, partition_log, wal
from tests.crash_points.tally import POINTS, CrashPointError, Tally

CAMPAIGNS: dict[str, Callable[[], list[Tally]]] = {
    "raft log, crashes": lambda: [wal.crash_at_every_call()],
    "raft log, torn": lambda: [wal.torn_at_every_byte()],
    "raft log, bits": lambda: [wal.flipped_at_every_bit()],
    "raft snapshot": lambda: [wal.snapshot_damaged()],
    "files of a node": lambda: [
        node_files.boot_id_damaged(),
        node_files.controllers_damaged(),
        node_files.layout_damaged(),
    ],
    "log directory, crashes": lambda: [partition_log.crash_at_every_call()],
    "log directory, killed": lambda: partition_log.damage_every_file(clean=False),
    "log directory, stopped": lambda: partition_log.damage_every_file(clean=True),
}


def repeat(name: str) -> str:
    """The command for the point that was just tried."""
    only = shlex.join(["--only", name, "--point", POINTS.now])
    return f"python -m tests.crash_points {only}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_points", description=__doc__)
    parser.add_argument("--only", choices=CAMPAIGNS, metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--point", help="as a violation's command names it")
    options = parser.parse_args()
    POINTS.only, POINTS.tried = options.point, 0
    started, failed = time.perf_counter(), 0
    for name in [options.only] if options.only else CAMPAIGNS:
        try:
            tallies = CAMPAIGNS[name]()
        except Exception as error:  # a broken promise, or a recovery that broke down itself
            what = error if isinstance(error, CrashPointError) else repr(error)
            print(f"{name}: VIOLATION: {what}\n  repeat: {repeat(name)}")
            failed += 1
            continue
        for tally in tallies:
            if tally.points:
                print(tally)
    if options.point and not POINTS.tried:
        parser.error(f"no point {options.point!r}")
    seconds = time.perf_counter() - started
    print(f"{POINTS.tried:,} crash points, {failed} violations, {seconds:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
