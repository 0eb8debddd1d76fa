"""How the process itself does: the lag of its event loop, its CPU time, its disks' free space."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from pegel.metrics import Histogram
from pegel.metrics.histogram import SHORT_SECONDS
from pegel.seams import World
from pegel.seams.beat import BEAT, next_beat

if TYPE_CHECKING:
    from pegel_broker.log.directory import LogDirectory
    from pegel_broker.log.manager import LogManager

# Sees whatever blocks for longer than that, and some of the rest. A multiple of Raft's heartbeat
# interval and a divisor of the session's: an idle node wakes up once for all three.
SAMPLE_INTERVAL = BEAT
DISK_INTERVAL = 5.0


class Vitals:
    """Sampled by one timer of the event loop, from ``start`` to ``close``."""

    def __init__(self, world: World) -> None:
        self.lag = Histogram(SHORT_SECONDS)
        self.started_at = world.clock.wall_ms() / 1000
        self.last_scrape_seconds = 0.0
        self.raft_offline = False
        self.pages = 0  # of metrics, since the start
        # Total and free bytes by directory, as of the last answer of its disk.
        self.disk_usage: dict[str, tuple[int, int]] = {}
        self._now = world.clock.monotonic
        self._logs: LogManager | None = None
        self._asked: set[str] = set()
        self._next_disks = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.get_ident()

    def start(self) -> None:
        self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def watch(self, logs: LogManager) -> None:
        """From now on the free space of these directories is known."""
        self._logs = logs
        self._next_disks = 0.0

    def _arm(self) -> None:
        now = self._now()
        self._due = next_beat(now, SAMPLE_INTERVAL)
        self._timer = asyncio.get_running_loop().call_later(self._due - now, self._sample)

    def _sample(self) -> None:
        now = self._now()
        self.lag.observe(max(0.0, now - self._due))
        if self._logs is not None and now >= self._next_disks:
            self._next_disks = now + DISK_INTERVAL
            for directory in self._logs.directories:
                self._ask(directory)
        self._arm()

    def _ask(self, directory: LogDirectory) -> None:
        """One question at a time: a disk that hangs must hold up nothing but its own answer."""
        path, disk = directory.path, directory.disk
        if path in self._asked or directory.offline is not None:
            return
        self._asked.add(path)

        def answered(future: asyncio.Future[tuple[int, int]]) -> None:
            self._asked.discard(path)
            if not future.cancelled() and future.exception() is None:
                self.disk_usage[path] = future.result()

        directory.background.submit(lambda: disk.usage(path)).add_done_callback(answered)

    def busy_seconds(self) -> float:
        """CPU time of the thread that made this object, which is the event loop's."""
        clock_of = getattr(time, "pthread_getcpuclockid", None)
        if clock_of is None:  # not on macOS: all threads together are the best there is
            return time.process_time()
        return time.clock_gettime(clock_of(self._thread))
