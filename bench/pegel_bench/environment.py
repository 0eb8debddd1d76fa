"""What a figure depends on: the machine, the versions, the way in which it was measured."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_COPIED_BYTES = 64 << 20


def environment() -> dict[str, object]:
    """Machine and versions, for every result."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "copy_gb_per_s": copy_gb_per_s(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("pegel", "uvloop", "confluent-kafka")},
    }


def copy_gb_per_s() -> float:
    """How fast one core copies memory that no cache holds: the best of a few tries.

    What is fetched is copied at least twice (out of the page cache, out of the socket), so reading
    has this for its limit.
    """
    source, target = bytearray(_COPIED_BYTES), bytearray(_COPIED_BYTES)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        memoryview(target)[:] = source
        times.append(time.perf_counter() - began)
    return round(_COPIED_BYTES / min(times) / 1e9, 1)


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
