"""Every crash point of every file that a node keeps: one line of figures for each format.

``python -m tests.crash_points``; a violation names the file and the byte, and the exit code is 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tests.crash_points import partition_log, wal
from tests.crash_points.tally import CrashPointError, Tally

CAMPAIGNS: dict[str, Callable[[], list[Tally]]] = {
    "raft log, crashes": lambda: [wal.crash_at_every_call()],
    "raft log, torn": lambda: [wal.torn_at_every_byte()],
    "raft log, bits": lambda: [wal.flipped_at_every_bit()],
    "raft snapshot": lambda: [wal.snapshot_damaged()],
    "log directory, crashes": lambda: [partition_log.crash_at_every_call()],
    "log directory, killed": lambda: partition_log.damage_every_file(clean=False),
    "log directory, stopped": lambda: partition_log.damage_every_file(clean=True),
}


def main() -> int:
    started, points, failed = time.perf_counter(), 0, 0
    for name, campaign in CAMPAIGNS.items():
        try:
            tallies = campaign()
        except CrashPointError as error:
            print(f"{name}: VIOLATION: {error}\n  repeat: python -m tests.crash_points")
            failed += 1
            continue
        for tally in tallies:
            print(tally)
            points += tally.points
    seconds = time.perf_counter() - started
    print(f"{points:,} crash points, {failed} violations, {seconds:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
