"""When a cluster has nothing left to do: what was made before is not to be measured with it.

A topic of a thousand partitions is served at once; its small files are written for half a minute
more, two syncs each, with rests between.
"""

from __future__ import annotations

import time

from pegel_bench.fleet import Interrupt, settle
from pegel_bench.processes import total_cpu_seconds
from pegel_bench.targets import Target

LONGEST = 90.0
NOTE = f"the brokers were still busy {LONGEST:.0f} s after the topic was made, which counts here"
_WINDOW = 1.0
# Busier than it was with nothing by less than this counts as quiet: a share, and seconds of CPU
# time in a second of each broker.
_SHARE = 1.5
_EACH = 0.005


class Quiet:
    """Knows what a target takes while nothing happens; made before anything is asked of it.

    A target whose processes are not known is not waited for.
    """

    def __init__(self, target: Target, interrupt: Interrupt) -> None:
        self._pids = list(target.pids().values())
        self._interrupt = interrupt
        self._idle = self._busy()

    def wait(self) -> bool:
        """Until it takes about as much as then, ``LONGEST`` seconds at most; whether it does."""
        deadline = time.monotonic() + LONGEST
        most = _SHARE * self._idle + _EACH * len(self._pids)
        while self._pids and not self._interrupt.asked:
            if self._busy() <= most:
                return True
            if time.monotonic() > deadline:
                return False
        return True

    def _busy(self) -> float:
        """Seconds of CPU time in a second, of all its processes."""
        if not self._pids:
            return 0.0
        before, began = total_cpu_seconds(self._pids), time.monotonic()
        settle(_WINDOW, self._interrupt)
        return (total_cpu_seconds(self._pids) - before) / max(time.monotonic() - began, 1e-3)
