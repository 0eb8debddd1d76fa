"""The simulated cluster as a driver: simulated time, network and disks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from pegel.logs import Event
from tests.agreement.play import PARTITION, Cut, Script, play
from tests.simulation.cluster.checks import unhealthy
from tests.simulation.cluster.cluster import CLIENT_PORT, Cluster, Shape
from tests.simulation.cluster.kernel import SimLoop

SIMULATED_MAX = 600.0  # seconds
READY_WITHIN = 20.0


class _Log(logging.Handler):
    """What the nodes log of their truncations; the loop that runs tells which node it is."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts: list[Cut] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = record.msg
        if isinstance(event, Event) and event.name == "truncated":
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SimLoop)
            node = int(loop.name.partition(".")[0].removeprefix("n"))
            facts = event.fields
            assert facts["partition"] == PARTITION
            numbers = (facts["epoch"], facts["offset"], facts["before"])
            self.cuts.append(Cut(node, *(int(str(number)) for number in numbers)))


@contextmanager
def _collected() -> Iterator[_Log]:
    log, logger = _Log(), logging.getLogger("pegel")
    level = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    try:
        yield log
    finally:
        logger.setLevel(level)
        logger.removeHandler(log)


class Simulated:
    def __init__(self, cluster: Cluster, log: _Log) -> None:
        self._cluster = cluster
        self._log = log
        self.loop, self.client, _ = cluster.client("client")

    def active_controller(self) -> int:
        active = self._cluster.active_controller()
        assert active is not None
        return active

    async def kill(self, node: int) -> None:
        machine = self._cluster.nodes[node]
        machine.down += 1
        machine.kill()

    async def restart(self, node: int) -> None:
        machine = self._cluster.nodes[node]
        machine.release()
        while machine.node is None or not machine.node.ready.is_set():
            await asyncio.sleep(0.01)

    def pause(self, node: int) -> None:
        self._cluster.nodes[node].pause()

    def resume(self, node: int) -> None:
        self._cluster.nodes[node].resume()

    def separate(self, node: int, others: Collection[int]) -> None:
        for other in others:
            self._cluster.network.cut(f"n{node}", f"n{other}", CLIENT_PORT)
            self._cluster.network.cut(f"n{other}", f"n{node}", CLIENT_PORT)

    def mend(self) -> None:
        for path in list(self._cluster.network.cuts):
            self._cluster.network.mend(*path)

    def cuts(self) -> Iterable[Cut]:
        return self._log.cuts

    def segment(self, node: int) -> bytes:
        path = f"/data/log/{PARTITION}/{0:020d}.log"
        return bytes(self._cluster.nodes[node].disk.files[path].data)


def simulated(script: Script, seed: int = 1) -> list[str]:
    """The transcript of ``script`` in a simulation; the seed draws latencies and time-outs."""
    cluster = Cluster(seed, Shape(settings=dict(script.settings)))
    with _collected() as log:
        for machine in cluster.nodes.values():
            machine.start()
        while unhealthy(cluster) is not None:
            assert cluster.now < READY_WITHIN, unhealthy(cluster)
            cluster.scheduler.run_until(cluster.now + 0.02)
        driver = Simulated(cluster, log)
        found: list[str] = cluster.complete(driver.loop, play(driver, script), SIMULATED_MAX)
    problems = cluster.problems()
    cluster.close()
    return found + problems
