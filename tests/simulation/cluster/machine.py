"""Machines and the processes on them: a node that may be killed, paused, stopped and started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from pegel.seams import World
from pegel_broker.config import NodeConfig
from pegel_broker.node import Node, NodeError
from tests.simulation.cluster.disk import SimDisk, SimDiskQueue
from tests.simulation.cluster.kernel import Scheduler, SimLoop
from tests.simulation.cluster.network import Network

WALL_START_MS = 1_800_000_000_000
RESTART_PAUSE = 0.5


@dataclass
class SimClock:
    """A machine's clocks: the monotonic one runs at its own rate, the other one also jumps."""

    scheduler: Scheduler
    rate: float
    offset: float
    wall_offset_ms: int = 0

    def monotonic(self) -> float:
        return self.scheduler.now * self.rate + self.offset

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self.scheduler.now * self.rate * 1000) + self.wall_offset_ms


class Machine:
    """One host: clocks, disk, and at most one process."""

    def __init__(self, scheduler: Scheduler, network: Network, name: str, seed: int) -> None:
        self.scheduler, self.network, self.name = scheduler, network, name
        self.random = Random(f"{seed}-{name}")
        self.clock = SimClock(scheduler, 1.0, 0.0)
        self.disk = SimDisk(Random(f"{seed}-{name}-disk"))
        self.loop: SimLoop | None = None
        self.powered = True
        self.lost_power = False  # at any time
        self.graveyard: list[SimLoop] = []
        self._lives = 0
        self._boots = 0
        self.boot()

    def boot(self) -> None:
        self._boots += 1
        self.powered = True
        self.network.power_on(self.name)
        self.clock.offset = 10.0 + 100.0 * self.random.random()
        self.disk.boot(f"{self.name}-boot-{self._boots}")

    def new_loop(self) -> SimLoop:
        self._lives += 1
        name = f"{self.name}.{self._lives}"
        self.loop = SimLoop(self.scheduler, name, self.clock.rate, self.clock.offset)
        self.graveyard.append(self.loop)
        return self.loop

    def new_world(self, loop: SimLoop) -> World:
        return World(
            self.clock,
            self.network.for_process(loop, self.name),
            self.disk,
            lambda name: SimDiskQueue(self.scheduler, loop, self.disk),
            Random(self.random.getrandbits(64)),
        )

    def end_process(self) -> None:
        """The process is gone, by a signal or by its own end; the page cache stays."""
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.kill()
            self.disk.end_process()
            self.network.close_process(loop, self.name)

    def lose_power(self) -> None:
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.kill()
        self.powered, self.lost_power = False, True
        self.network.power_off(self.name)
        self.disk.lose_power("off")

    def problems(self) -> list[str]:
        return [problem for loop in self.graveyard for problem in loop.problems]


class NodeMachine(Machine):
    """A machine with a node of the cluster. ``on_event(text)`` is told of starts and ends."""

    def __init__(
        self,
        scheduler: Scheduler,
        network: Network,
        config: NodeConfig,
        seed: int,
        on_event: Callable[[str], None],
    ) -> None:
        super().__init__(scheduler, network, f"n{config.node_id}", seed)
        self.config = config
        self.node: Node | None = None
        self.stopping = False
        # Faults that keep it down, and that keep it paused; they may overlap.
        self.down = 0
        self.held = 0
        self._stop: asyncio.Future[None] | None = None
        self._on_event = on_event

    @property
    def running(self) -> bool:
        return self.loop is not None

    @property
    def paused(self) -> bool:
        return self.loop is not None and self.loop.paused

    def start_if_wanted(self, _: None = None) -> None:
        if self.loop is None and not self.down:
            self.start()

    def release(self, _: None = None) -> None:
        """One cause to be down is over."""
        self.down -= 1
        self.start_if_wanted()

    def start(self) -> None:
        assert self.loop is None
        if not self.powered:
            self.boot()
        loop = self.new_loop()
        self.stopping = False
        self._on_event(f"{loop.name} starts")
        loop.start(self._main(loop))

    async def _main(self, loop: SimLoop) -> None:
        """What ``pegel server`` does around a node."""
        self._stop = loop.create_future()
        self.node = node = Node(self.new_world(loop), self.config)
        error: str | None = None
        try:
            starting = asyncio.ensure_future(node.start())
            await asyncio.wait(
                {starting, self._stop, node.failed}, return_when=asyncio.FIRST_COMPLETED
            )
            if starting.done():
                await starting
                await asyncio.wait({self._stop, node.failed}, return_when=asyncio.FIRST_COMPLETED)
            else:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            await node.stop(controlled=not node.failed.done())
            if node.failed.done():
                error = str(node.failed.result())
        except NodeError as refused:
            error = str(refused)
        except Exception as unexpected:  # a traceback where a line was due
            error = repr(unexpected)
            loop.call_exception_handler({"message": "the node ends", "exception": unexpected})
        self._on_event(f"{loop.name} ends: {error or 'stopped'}")
        self.node = None
        self.end_process()
        # A supervisor starts it again, as long as nobody wants it down.
        self.scheduler.after(RESTART_PAUSE, self.start_if_wanted)

    def kill(self) -> None:
        if self.loop is not None:
            self._on_event(f"{self.loop.name} is killed")
            self.node = None
            self.end_process()

    def power_off(self) -> None:
        if self.powered:
            self._on_event(f"{self.name} loses power")
            self.node = None
            self.lose_power()

    def replace_log_disk(self) -> None:
        """What an operator does with a damaged one: stop, put in an empty one, start."""
        self.kill()
        self._on_event(f"{self.name} gets an empty log disk")
        if self.disk.exists("/data/log"):
            self.disk.remove_tree("/data/log")
        self.disk.sync_directory("/data")
        self.disk.may_be_damaged = False

    def stop(self) -> None:
        """SIGTERM: leaders are moved away first."""
        if self.loop is not None and self._stop is not None and not self.stopping:
            self.stopping = True
            self._on_event(f"{self.loop.name} is asked to stop")
            self.loop.call_soon(_set, self._stop)

    def pause(self) -> None:
        self.held += 1
        if self.loop is not None and not self.loop.paused:
            self._on_event(f"{self.loop.name} is paused")
            self.loop.pause()

    def resume(self, _: None = None) -> None:
        self.held -= 1
        if self.loop is not None and self.loop.paused and self.held <= 0:
            self._on_event(f"{self.loop.name} goes on")
            self.loop.resume()


def _set(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
