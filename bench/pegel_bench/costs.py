"""Where the brokers' processor time goes, and what a request asks of the kernel: ``--costs``.

A case is loaded once more under ``perf record`` and once more under ``strace -c``, both attached to
all brokers. A traced broker is slower, so nothing of these two loads is counted as a measurement.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pegel.errors import PegelError
from pegel_bench.load.spec import LoadResult

# Not a round number, so that samples do not beat with timers.
_SAMPLES_PER_SECOND = 997
# What perf and strace may take to write their files, before they are asked more firmly.
_END_SECONDS = 10.0
# System calls that are rarer than this for each request are left out.
RARE = 0.05

# In a guest without a counter in hardware, samples fall on the end of what was done with interrupts
# off, which is mostly a wake-up or a switch.
_SCHEDULING = re.compile(
    r"sched|switch|futex|wake|_raw_spin|idle|rcu|ttwu|epoll|ep_poll|hrtimer|select_task|rq_|clock"
    r"|update_curr|enqueue|dequeue|plist|timer|cpuacct|load_avg|prepare_task"
)
_KERNEL = (
    ("copies", re.compile(r"copy_(user|from|to|folio|page)|_copy_|memcpy|rep_movs|csum_partial")),
    ("zeroing", re.compile(r"clear_page|clear_user|memset|zero_user")),
    ("scheduling", _SCHEDULING),
    ("sockets", re.compile(
        r"tcp|skb|sock|inet|^ip_|_ip_|net|__dev|loopback|nf_|xmit|napi|qdisc|release_sock|fib")),
    ("files", re.compile(
        r"ext4|xfs|btrfs|shmem|filemap|folio|writepages|vfs_|generic_perform|jbd2|iomap|balance_d"
        r"|page_cache|xas_|find_get|inode|block|fdget|iov_iter")),
)  # fmt: skip
KINDS = (
    "runtime", "libraries", "checksums", "copies", "zeroing", "scheduling", "sockets", "files",
    "other kernel",
)  # fmt: skip


@dataclass(slots=True)
class Costs:
    """Of one case of one target. Shares are of the brokers' processor time and sum up to 1.

    ``calls``: system calls of all brokers for each request. Either is empty without its program.
    """

    shares: dict[str, float] = field(default_factory=dict)
    calls: dict[str, float] = field(default_factory=dict)


def check() -> None:
    """Raises PegelError where neither program is there."""
    if shutil.which("perf") is None and shutil.which("strace") is None:
        raise PegelError("--costs needs perf or strace, and neither is installed")


def observe(load: Callable[[], LoadResult], pids: Sequence[int]) -> Costs:
    """Make ``load`` under each program that is there. Raises PegelError: it may not attach."""
    found = Costs()
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("perf") is not None:
            data = Path(folder) / "perf.data"
            command = ["perf", "record", "-q", "-F", str(_SAMPLES_PER_SECOND), "-o", str(data)]
            with _attached([*command, "-p", ",".join(map(str, pids))]):
                load()
            found.shares = shares(_output([
                "perf", "report", "-i", str(data), "--no-children", "-g", "none", "--stdio",
                "--sort", "dso,sym", "-t", ";",
            ]))  # fmt: skip
        if shutil.which("strace") is not None:
            table = Path(folder) / "strace.txt"
            attach = [part for pid in pids for part in ("-p", str(pid))]
            with _attached(["strace", "-f", "-c", "-o", str(table), *attach]):
                result = load()
            if result.requests:
                found.calls = {
                    name: calls / result.requests
                    for name, calls in system_calls(table.read_text()).items()
                    if calls / result.requests >= RARE
                }
    return found


@contextlib.contextmanager
def _attached(command: Sequence[str]) -> Iterator[None]:
    """The program runs, is interrupted at the end, and has written its file."""
    with tempfile.TemporaryFile() as said:
        tracer = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            # It says nothing reliable when it is attached; the load takes longer to begin.
            with contextlib.suppress(subprocess.TimeoutExpired):
                tracer.wait(0.5)
            if tracer.poll() is None:
                yield
        finally:
            early = tracer.poll() is not None
            _end(tracer)
        if early:
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            raise PegelError(f"{command[0]} ended at once: {words[-1] if words else 'no reason'}")


def _end(tracer: subprocess.Popen[bytes]) -> None:
    """Ask it to write its file. Who began with SIGINT ignored (a shell's background) needs more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if tracer.poll() is None:
            tracer.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                tracer.wait(_END_SECONDS)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PegelError(f"{command[0]} {command[1]} failed: {done.stderr.strip()[-200:]}")
    return done.stdout


def kind_of(dso: str, symbol: str) -> str:
    """One of ``KINDS``: what a sample in this function of this object was spent on."""
    if "kernel" in dso or dso.startswith("[guest"):
        return next((kind for kind, known in _KERNEL if known.search(symbol)), "other kernel")
    if dso.startswith("["):  # [vdso], code of a JVM
        return "libraries" if "unknown" in dso else "runtime"
    if "crc32c" in dso or "crc32" in symbol.lower():
        return "checksums"
    if "memset" in symbol:
        return "zeroing"
    if "memmove" in symbol or "memcpy" in symbol:
        return "copies"
    if re.search(r"libpython|python3|libjvm|perf-\d+\.map|java|\.jsa", dso):
        return "runtime"
    return "libraries"


def shares(report: str) -> dict[str, float]:
    """From ``perf report --sort dso,sym -t ;``: kind → share; those that there are."""
    found: Counter[str] = Counter()
    for line in report.splitlines():
        fields = [part.strip() for part in line.split(";")]
        fields = [part for part in fields if part]
        if len(fields) < 3 or not fields[0].endswith("%"):
            continue
        symbol = fields[2].split("]", 1)[-1].strip()
        found[kind_of(fields[1], symbol)] += float(fields[0][:-1])  # type: ignore[assignment]
    total = sum(found.values())
    return {kind: found[kind] / total for kind in KINDS if found[kind]} if total else {}


def system_calls(table: str) -> dict[str, int]:
    """From ``strace -c``: name → calls, the most frequent first."""
    found: Counter[str] = Counter()
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            found[fields[-1]] += int(fields[3])
    return dict(found.most_common())
