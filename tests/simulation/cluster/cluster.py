"""A cluster of simulated machines and its clients: what faults act on and checkers look at."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pegel
from pegel.config import ClientOptions
from pegel.testing.delivery import History
from pegel_broker.config import NodeConfig
from pegel_broker.node import Node
from pegel_broker.replication.hosted import HostedPartition
from pegel_controller.metadata import MetadataImage
from tests.simulation.cluster.kernel import Scheduler, SimLoop, Trace, bury
from tests.simulation.cluster.machine import Machine, NodeMachine
from tests.simulation.cluster.network import Network

CLIENT_PORT, CONTROLLER_PORT = 9092, 9093
_NOTHING = MetadataImage()


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of cluster a seed has."""

    nodes: int = 3
    flush_each: bool = False  # flush.messages=1: every node may lose its power
    lag_ms: int = 4_000
    settings: dict[str, str] = field(default_factory=dict)
    drift: float = 0.0  # rates of clocks differ by up to this share
    latency: tuple[float, float] = (0.0001, 0.0006)
    power_victim: int = 1  # unless flush_each, the only node that may lose its power


class Cluster:
    """Nodes are numbered from 1; ``nodes[n]`` is the machine of node n."""

    def __init__(self, seed: int, shape: Shape, trace: Trace | None = None) -> None:
        self.seed = seed
        self.shape = shape
        self.trace = trace or Trace()
        self.scheduler = Scheduler(self.trace)
        self.network = Network(self.scheduler, Random(f"{seed}-network"))
        self.network.latency = shape.latency
        self.history = History()
        self.violations: list[str] = []
        self.healed = False  # faults are over
        self.disks_replaced = False
        self.voter_changes: list[asyncio.Task[None]] = []  # what operators have begun
        self.work_ends = False  # workloads finish what they have begun, and end
        self.nodes: dict[int, NodeMachine] = {}
        self.clients: dict[str, Machine] = {}
        random = Random(f"{seed}-cluster")
        ids = range(1, shape.nodes + 1)
        controllers = {n: (f"n{n}", CONTROLLER_PORT) for n in ids[:3]}
        self.controllers = tuple(controllers)
        settings = {
            "replica.lag.time.max.ms": str(shape.lag_ms),
            "offsets.topic.num.partitions": "2",
            **shape.settings,
        }
        if shape.flush_each:  # the cluster's own topics too
            settings["log.flush.interval.messages"] = "1"
        for n in ids:
            roles = frozenset({"broker", "controller"} if n in controllers else {"broker"})
            config = NodeConfig(
                n, "/data", controllers, roles, listen=(f"n{n}", CLIENT_PORT), settings=settings
            )
            machine = NodeMachine(self.scheduler, self.network, config, seed, self.note)
            machine.clock.rate = 1.0 + shape.drift * (random.random() - 0.5)
            self.nodes[n] = machine

    @property
    def now(self) -> float:
        return self.scheduler.now

    @property
    def bootstrap(self) -> str:
        return ",".join(f"n{n}:{CLIENT_PORT}" for n in self.nodes)

    def note(self, text: str) -> None:
        self.trace.add(self.now, text)

    def may_lose_power(self, machine: NodeMachine) -> bool:
        """Without a sync for each batch fewer than min.insync.replicas nodes may (promise)."""
        return self.shape.flush_each or machine.config.node_id == self.shape.power_victim

    @property
    def may_lose_one_copy(self) -> bool:
        """Whether what was in sync on one node alone may be gone: with its disk, or page cache."""
        return self.disks_replaced or (
            not self.shape.flush_each and any(m.lost_power for m in self.nodes.values())
        )

    def fail(self, text: str) -> None:
        """A promise is broken."""
        self.note(f"VIOLATION {text}")
        self.violations.append(f"{text} (at {self.now:.3f} s)")

    # -- clients

    def new_machine(self, name: str) -> Machine:
        return Machine(self.scheduler, self.network, name, self.seed)

    def client(self, name: str) -> tuple[SimLoop, pegel.AsyncClient, Random]:
        """A client process on a machine of its own."""
        machine = self.clients.get(name)
        if machine is None:
            machine = self.clients[name] = self.new_machine(name)
        loop = machine.new_loop()
        client = pegel.AsyncClient(
            self.bootstrap,
            options=ClientOptions(client_id=name, request_timeout=5.0, connect_timeout=2.0),
            network=self.network.for_process(loop, name),
            clock=machine.clock,
            rng=Random(f"{self.seed}-{loop.name}"),
        )
        return loop, client, Random(f"{self.seed}-{loop.name}-work")

    def complete(self, loop: SimLoop, work: Coroutine[Any, Any, Any], within: float) -> Any:
        """Let time go by until ``work`` is done; its result.

        Raises:
            TimeoutError: it is not, after ``within`` simulated seconds.
        """
        task = loop.start(work)
        end = self.now + within
        while not task.done():
            if self.now >= end:
                raise TimeoutError(f"not done within {within:g} simulated seconds")
            self.scheduler.run_until(self.now + 0.02)
        return task.result()

    # -- what checkers and faults look at

    def running(self) -> Iterator[tuple[int, Node]]:
        """Nodes whose process exists, paused or not."""
        for n, machine in self.nodes.items():
            if machine.node is not None:
                yield n, machine.node

    def active_controller(self) -> int | None:
        """The one of the highest term that takes itself for active."""
        found = [
            (node.controller.raft.term, n)
            for n, node in self.running()
            if node.controller is not None and node.controller.active
        ]
        return max(found)[1] if found else None

    def voters(self) -> tuple[int, ...]:
        """The controllers that vote, as the active one knows; none where there is none."""
        active = self.active_controller()
        node = None if active is None else self.nodes[active].node
        return () if node is None or node.controller is None else node.controller.status().voters

    def image(self) -> MetadataImage:
        """The newest committed metadata that any running controller knows."""
        newest = _NOTHING
        for machine in self.nodes.values():
            node = machine.node
            if node is not None and node.controller is not None:
                image = node.controller.image
                if image.index > newest.index or newest is _NOTHING:
                    newest = image
        return newest

    def hosted(self) -> Iterator[tuple[int, HostedPartition]]:
        for n, node in self.running():
            if node.replicas is not None:
                for hosted in node.replicas.all_hosted():
                    yield n, hosted

    def problems(self) -> list[str]:
        """Exceptions that nobody handled, in any process."""
        machines = [*self.nodes.values(), *self.clients.values()]
        return [problem for machine in machines for problem in machine.problems()]

    def close(self) -> None:
        machines = [*self.nodes.values(), *self.clients.values()]
        bury(loop for machine in machines for loop in machine.graveyard)
        self.scheduler.close()
