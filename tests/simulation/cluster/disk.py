"""The disk of one machine: a page cache that a killed process leaves behind and a power loss does
not, queues on simulated time, and the faults of a device."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from pegel.seams.disk import Outcome
from pegel_broker.node import BOOT_ID_PATH
from tests.simulation.cluster.kernel import Scheduler, SimLoop
from tests.support.memory_disk import MemoryDisk, MemoryNode

SECTOR = 512


class KilledError(BaseException):
    """The process ended in the middle of a disk call; no ``except Exception`` may catch it."""


class SimDisk(MemoryDisk):
    """A machine's file system.

    Attributes:
        slow: longest extra seconds of one job on a queue.
        failing: whether each sync fails (EIO).
        crash_in: calls until ``on_crash`` is called in the middle of one, None for never.
        torn: whether a loss of power may leave the last sector of a file half written.
    """

    WRITES = frozenset({"append", "write_at", "truncate", "sync", "write_file", "rename", "remove"})

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.slow = 0.0
        self.failing = False
        self.torn = False
        self.crash_in: int | None = None
        self.on_crash: Callable[[], None] | None = None
        self.may_be_damaged = False  # committed bytes may have been changed behind the node's back
        self.work = 0.0  # simulated seconds that the calls of the current job take
        self._lost: list[tuple[MemoryNode, int, int]] = []

    def enter(self, call: str, path: str) -> None:
        super().enter(call, path)
        self.work += 0.000_01
        if call == "sync" or call == "write_file" or call == "sync_directory":
            self.work += 0.000_3 + 0.001 * self.random.random()
            if self.failing:
                if call == "sync":
                    self._forget_unsynced(path)
                raise OSError(errno.EIO, "Input/output error", path)
        if self.crash_in is not None and call in self.WRITES:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash_in = None
                assert self.on_crash is not None
                self.on_crash()
                raise KilledError

    def _forget_unsynced(self, path: str) -> None:
        """After a failed sync the kernel takes the lost pages for clean: they are still read from
        its cache and a later sync succeeds, but they are not on the device."""
        node = self.files.get(path)
        if node is not None and len(node.data) > len(node.durable) and self.random.random() < 0.5:
            self._lost.append((node, len(node.durable), len(node.data)))

    # -- what a crash leaves

    def end_process(self) -> None:
        """Killed, not powered off: the page cache stays, locks and handles go."""
        self.locks.clear()

    def lose_power(self, boot_id: str) -> None:
        torn = self._torn_sectors() if self.torn else {}
        for node, start, end in self._lost:
            durable = bytearray(node.durable)
            held = max(0, min(end, len(durable)) - start)
            self.may_be_damaged = self.may_be_damaged or held > 0
            durable[start : start + held] = bytes(held)
            node.durable = bytes(durable)
        self._lost.clear()
        self.crash(self.random)
        for path, (start, data) in torn.items():
            node = self.files.get(path)
            if node is not None and len(node.data) <= start:
                node.data += bytes(start - len(node.data)) + data
                node.durable = bytes(node.data)
        self.boot(boot_id)

    def _torn_sectors(self) -> dict[str, tuple[int, bytes]]:
        """For some files: a later sector that reached the disk although those before did not."""
        found = {}
        for path in sorted(self.files):
            node = self.files[path]
            start = len(node.durable)
            growth = len(node.data) - start
            if growth > SECTOR and self.random.random() < 0.5:
                at = start + SECTOR * self.random.randrange(growth // SECTOR)
                found[path] = (at, bytes(node.data[at : at + SECTOR]))
        return found

    def flip_bit(self, below: str) -> str | None:
        """Change one bit of some file below a directory; which one, None if there is none."""
        path = self._some_file(below)
        if path is not None:
            node = self.files[path]
            at = self.random.randrange(len(node.data))
            node.data[at] ^= 1 << self.random.randrange(8)
            self._damaged(node)
        return path

    def misdirect(self, below: str) -> str | None:
        """The last bytes of one file went into the middle of another."""
        source, target = self._some_file(below), self._some_file(below)
        if source is None or target is None:
            return None
        data = self.files[source].data
        size = min(len(data), 1 + self.random.randrange(SECTOR))
        moved = bytes(data[-size:])
        data[-size:] = bytes(size)
        other = self.files[target].data
        at = self.random.randrange(len(other))
        other[at : at + size] = moved
        self._damaged(self.files[source])
        self._damaged(self.files[target])
        return f"{source} > {target}"

    def _some_file(self, below: str) -> str | None:
        found = [p for p in sorted(self.files) if p.startswith(below) and self.files[p].data]
        return found[self.random.randrange(len(found))] if found else None

    def _damaged(self, node: MemoryNode) -> None:
        node.durable = bytes(node.data)
        self.may_be_damaged = True

    def boot(self, boot_id: str) -> None:
        node = self.files[BOOT_ID_PATH] = MemoryNode()
        node.data = bytearray(boot_id.encode())

    def fill(self, room: int) -> None:
        self.capacity = room

    def free(self) -> None:
        self.capacity = None


class SimDiskQueue:
    """A ``DiskQueue``: a job's calls happen when it starts; it is done when its time is over."""

    def __init__(self, scheduler: Scheduler, loop: SimLoop, disk: SimDisk) -> None:
        self._scheduler, self._loop, self._disk = scheduler, loop, disk
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Outcome[Any]], None]]] = deque()
        self._busy = False
        self._closed = False

    def submit(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.run(call, lambda outcome: outcome.settle(future))
        return future

    def run(self, call: Callable[[], Any], done: Callable[[Outcome[Any]], None]) -> None:
        if self._closed:
            raise RuntimeError("this disk queue is closed")
        self._jobs.append((call, done))
        if not self._busy:
            self._busy = True
            self._scheduler.after(0.000_01, self._start)

    def close(self) -> None:
        self._closed = True
        while self._jobs:
            call, done = self._jobs.popleft()
            self._loop.call_soon(done, Outcome(call, Exception))

    def _start(self, _: None = None) -> None:
        if self._loop.dead or not self._jobs:
            self._busy = False
            return
        call, done = self._jobs.popleft()
        disk = self._disk
        disk.work = 0.000_02
        try:
            outcome = Outcome(call, Exception)
        except KilledError:
            return
        took = disk.work
        if disk.slow:
            took += disk.slow * disk.random.random()
        self._scheduler.after(took, self._done, (done, outcome))

    def _done(self, what: tuple[Callable[[Outcome[Any]], None], Outcome[Any]]) -> None:
        if self._loop.dead:
            return
        done, outcome = what
        self._loop.call_soon(done, outcome)
        if self._jobs:
            self._start()
        else:
            self._busy = False
