"""What processes use: memory and CPU time, from ``/proc``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path


def resident_mb(pid: int) -> float:
    """Resident memory; nan where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return float("nan")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far, from the scheduler's own count; nan if unknown.

    The ticks of ``stat`` are 10 ms; ``schedstat`` counts nanoseconds, thread by thread.
    """
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    except OSError:
        return float("nan")
    return total / 1e9


def total_cpu_seconds(pids: Iterable[int]) -> float:
    """Of several processes."""
    return sum(map(cpu_seconds, pids))
