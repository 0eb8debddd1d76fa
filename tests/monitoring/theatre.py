"""A running cluster under load with a real Prometheus over it, to which things are done.

Times of the rules are divided by ``SPEED``. Scenarios take minutes together, so they run where
``PEGEL_MONITORING_SCENARIOS`` is set: ``make check-monitoring``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pegel
from pegel.testing import LocalCluster
from tests.monitoring.load import Load
from tests.monitoring.stack import Stack

MARKS = [
    pytest.mark.process,
    pytest.mark.timeout(420),
    pytest.mark.skipif(
        not os.environ.get("PEGEL_MONITORING_SCENARIOS"),
        reason="takes minutes: make check-monitoring runs it",
    ),
]

SPEED = 40
SETTINGS = {
    "group.initial.rebalance.delay.ms": "100", "offsets.topic.num.partitions": "4",
    "replica.lag.time.max.ms": "2000",
}  # fmt: skip
# A test machine that is busy with something else may raise these by itself.
HOST = {
    "PegelEventLoopSaturated", "PegelSlowRequests", "PegelSlowRaftCommit", "PegelSlowFsync",
    "PegelDiskFillsIn4Hours",
}  # fmt: skip
# A broker that is out of the ISR for long leads nothing, although it is preferred.
IMBALANCE = frozenset({"PegelPreferredLeaderImbalance"})


class Scene:
    """``load`` is None where nobody writes."""

    def __init__(self, cluster: LocalCluster, stack: Stack, load: Load | None = None) -> None:
        self.cluster, self.stack, self._load = cluster, stack, load
        self.seen: set[str] = set()

    @property
    def load(self) -> Load:
        assert self._load is not None
        return self._load

    def raises(self, *names: str, may: frozenset[str] = frozenset(), seconds: float = 90) -> None:
        """Wait until these fire, and no other but those that may, or that the host causes."""
        self.seen = set()

        def there() -> bool:
            firing = self.stack.firing()
            self.seen |= firing
            return set(names) <= firing

        try:
            Stack.until(there, f"{sorted(names)} fire", seconds)
        except TimeoutError as error:
            error.add_note(f"what fired: {sorted(self.seen)}")
            raise
        time.sleep(5)  # what else would come
        self.seen |= self.stack.firing()
        others = self.seen - set(names) - may - HOST
        assert not others, f"these should not fire: {sorted(others)}"

    def heal(self) -> None:
        """Whatever a scenario has done, and wherever it has stopped."""
        for node in self.cluster.nodes.values():
            if node.alive and node.paused:
                self.cluster.resume(node.node_id)
        gone = [i for i in self.cluster.nodes if not self.cluster.is_running(i)]
        if gone:
            self.cluster.restart(*gone)
        self.load.read_on()
        self.clears()

    def clears(self, seconds: float = 120) -> None:
        """Wait until nothing fires any more."""
        try:
            Stack.until(lambda: not self.stack.firing() - HOST, "all alerts are clear", seconds)
        except TimeoutError as error:
            error.add_note(f"what fires: {sorted(self.stack.firing())}")
            raise

    def ask(self, work: Callable[[pegel.AsyncClient], Coroutine[None, None, None]]) -> None:
        async def connected() -> None:
            async with pegel.AsyncClient(self.cluster.bootstrap) as client:
                await work(client)

        asyncio.run(connected())

    def another(self, *taken: int) -> int:
        """A node that is not the active controller, nor one of those."""
        active = self.cluster.active_controller()
        return next(i for i in self.cluster.nodes if i != active and i not in taken)


@contextmanager
def scene(
    directory: Path,
    data_dir: Path | None = None,
    *,
    cluster: LocalCluster | None = None,
    alertmanager: bool = True,
) -> Iterator[Scene]:
    """Three brokers, or those of a cluster that is not started yet."""
    with (
        cluster or LocalCluster(brokers=3, settings=SETTINGS, data_dir=data_dir) as cluster,
        Load(cluster.bootstrap) as load,
        watched(directory, cluster, alertmanager=alertmanager) as stack,
    ):
        load.run(10.0)
        assert not stack.firing() - HOST
        yield Scene(cluster, stack, load)


@contextmanager
def watched(
    directory: Path, *clusters: LocalCluster, speed: float = SPEED, alertmanager: bool = False
) -> Iterator[Stack]:
    """A Prometheus over all nodes, under one label ``cluster``."""
    targets = {"pegel": [node.http for one in clusters for node in one.nodes.values()]}
    with Stack(directory, targets, speed=speed, alertmanager=alertmanager) as stack:
        stack.until(lambda: stack.up() == len(targets["pegel"]), "all nodes are scraped")
        yield stack


@contextmanager
def slower(scene: Scene, directory: Path, speed: float) -> Iterator[Scene]:
    """The same cluster, seen by another Prometheus whose rules have longer windows."""
    with watched(directory, scene.cluster, speed=speed) as stack:
        yield Scene(scene.cluster, stack, scene.load)


class SmallDisk:
    """A file system of its own, which can be filled up."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fill(self, but_bytes: int = 0) -> None:
        """Leave so much; nothing at all even while others free some."""
        with self._ballast.open("ab") as file, contextlib.suppress(OSError):
            while (free := self._free()) > but_bytes:
                file.write(b"\0" * min(free - but_bytes, 1 << 20))
                file.flush()

    def _free(self) -> int:
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounted over the directory; skips where that cannot be done."""
    directory.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "pegel-test", str(directory)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def disk_of(cluster: LocalCluster, node_id: int, megabytes: int = 64) -> Iterator[SmallDisk]:
    """A new, small disk for the logs of a running node, which gets its old one back."""
    cluster.terminate(node_id)
    try:
        with small_disk(cluster.nodes[node_id].data_dir / "log", megabytes) as disk:
            cluster.restart(node_id)
            try:
                yield disk
            finally:
                if cluster.is_running(node_id):
                    cluster.terminate(node_id)
    finally:
        cluster.restart(node_id)
