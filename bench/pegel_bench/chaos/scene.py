"""What a fault acts on, and how it becomes one that a campaign draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from pegel.testing.proxied import ProxiedCluster


@dataclass(slots=True)
class Happening:
    """One fault as it was injected; times of ``time.time``."""

    name: str
    text: str
    began: float
    ended: float = 0.0


@dataclass(slots=True)
class Scene:
    """What a fault acts on. ``random`` decides whom and for how long."""

    cluster: ProxiedCluster
    topic: str
    random: Random
    happened: list[Happening] = field(default_factory=list)

    def leader(self) -> int:
        """Who leads partition 0, whose prober is certain to see it."""
        return self.cluster.leader_of(self.topic, 0)

    def controller(self) -> int:
        return self.cluster.active_controller()

    def follower(self) -> int:
        leader = self.leader()
        return self.random.choice([n for n in sorted(self.cluster.nodes) if n != leader])

    def others(self, node_id: int) -> list[int]:
        return [n for n in sorted(self.cluster.nodes) if n != node_id]

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def now(self, text: str) -> None:
        """The fault begins."""
        name = self.happened[-1].name
        self.happened[-1] = Happening(name, text, time.time())

    def wait(self, low: float, high: float) -> None:
        time.sleep(self.between(low, high))


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    what: str
    act: Callable[[Scene], None]
    # Why it cannot be had here; "" where it can.
    missing: str = ""


FAULTS: dict[str, Fault] = {}


def fault(missing: str = "") -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Register a function by its name; its docstring is what the user is told."""

    def register(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
        name = act.__name__.replace("_", "-")
        what = (act.__doc__ or "").strip().splitlines()[0].rstrip(".")
        FAULTS[name] = Fault(name, what, act, missing)
        return act

    return register
