"""What goes wrong: one function for each fault, which injects it, waits, and takes it back.

To add one: a function of a ``Scene`` under ``@fault``. It may leave anything broken when it raises;
the campaign mends the cluster after each round.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pegel.testing.network import OUTSIDE, Kind
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


# -- processes


def _kill(scene: Scene, node_id: int, who: str) -> None:
    scene.now(f"SIGKILL to {who} {node_id}")
    scene.cluster.kill(node_id)
    scene.wait(0.2, 3)
    scene.cluster.restart(node_id)


@fault()
def kill_leader(scene: Scene) -> None:
    """SIGKILL to the leader, started again later."""
    _kill(scene, scene.leader(), "leader")


@fault()
def kill_follower(scene: Scene) -> None:
    """SIGKILL to a follower."""
    _kill(scene, scene.follower(), "follower")


@fault()
def kill_controller(scene: Scene) -> None:
    """SIGKILL to the active controller."""
    _kill(scene, scene.controller(), "controller")


@fault()
def kill_majority(scene: Scene) -> None:
    """SIGKILL to a majority of the nodes at once."""
    cluster = scene.cluster
    count = len(cluster.nodes) // 2 + 1
    victims = sorted(scene.random.sample(sorted(cluster.nodes), count))
    scene.now(f"SIGKILL to {' and '.join(map(str, victims))}")
    for node_id in victims:
        cluster.kill(node_id)
    scene.wait(0.2, 2)
    cluster.restart(*victims)


@fault()
def kill_all(scene: Scene) -> None:
    """SIGKILL to every node at once."""
    scene.now("SIGKILL to every node")
    scene.cluster.kill_all()
    scene.wait(0.1, 1)
    scene.cluster.restart(*scene.cluster.nodes)


def _stop(scene: Scene, node_id: int, who: str) -> None:
    scene.now(f"SIGSTOP to {who} {node_id}")
    scene.cluster.pause(node_id)
    scene.wait(0.5, 5)
    scene.cluster.resume(node_id)


@fault()
def stop_leader(scene: Scene) -> None:
    """SIGSTOP to the leader, SIGCONT later."""
    _stop(scene, scene.leader(), "leader")


@fault()
def stop_controller(scene: Scene) -> None:
    """SIGSTOP to the active controller."""
    _stop(scene, scene.controller(), "controller")


@fault()
def terminate_leader(scene: Scene) -> None:
    """SIGTERM to the leader, started again."""
    leader = scene.leader()
    scene.now(f"SIGTERM to leader {leader}")
    scene.cluster.terminate(leader)
    scene.wait(0, 1)
    scene.cluster.restart(leader)


@fault()
def rolling_restart(scene: Scene) -> None:
    """SIGTERM to one node after the other, each started again."""
    scene.now("rolling restart")
    nodes = sorted(scene.cluster.nodes)
    scene.random.shuffle(nodes)
    for node_id in nodes:
        scene.cluster.terminate(node_id)
        scene.cluster.restart(node_id)
        scene.wait(0, 1)


# -- the network


@fault()
def cut_off_leader(scene: Scene) -> None:
    """The leader is cut off from the other nodes; clients still reach it."""
    leader = scene.leader()
    scene.now(f"leader {leader} cut off from the nodes")
    scene.cluster.network.separate([leader], scene.others(leader))
    scene.wait(0.3, 5)
    scene.cluster.network.heal()


@fault()
def cut_off_from_all(scene: Scene) -> None:
    """The leader is cut off from nodes and clients."""
    leader = scene.leader()
    scene.now(f"leader {leader} cut off from everybody")
    scene.cluster.network.separate([leader], [*scene.others(leader), OUTSIDE])
    scene.wait(0.3, 5)
    scene.cluster.network.heal()


@fault()
def cut_off_controller(scene: Scene) -> None:
    """The active controller is cut off from the other nodes."""
    active = scene.controller()
    scene.now(f"controller {active} cut off from the nodes")
    scene.cluster.network.separate([active], scene.others(active))
    scene.wait(0.3, 5)
    scene.cluster.network.heal()


@fault()
def shatter(scene: Scene) -> None:
    """No node reaches another: there is no majority anywhere."""
    scene.now("no node reaches another")
    scene.cluster.network.separate(scene.cluster.nodes, scene.cluster.nodes)
    scene.wait(0.3, 4)
    scene.cluster.network.heal()


@fault()
def deaf_leader(scene: Scene) -> None:
    """One way: the leader hears no other node."""
    leader = scene.leader()
    scene.now(f"leader {leader} hears no node")
    for other in scene.others(leader):
        scene.cluster.network.cut(other, leader)
    scene.wait(0.3, 5)
    scene.cluster.network.heal()


@fault()
def mute_leader(scene: Scene) -> None:
    """One way: no other node hears the leader."""
    leader = scene.leader()
    scene.now(f"leader {leader} is heard by no node")
    for other in scene.others(leader):
        scene.cluster.network.cut(leader, other)
    scene.wait(0.3, 5)
    scene.cluster.network.heal()


def _only(scene: Scene, kind: Kind, text: str) -> None:
    leader = scene.leader()
    scene.now(f"leader {leader} {text}")
    scene.cluster.network.separate([leader], scene.others(leader), [kind])
    scene.wait(0.3, 5)
    scene.cluster.network.heal()


@fault()
def cut_controllers_only(scene: Scene) -> None:
    """The leader loses the controllers of the other nodes; replication goes on."""
    _only(scene, "controller", "cut off from the controllers")


@fault()
def cut_replication_only(scene: Scene) -> None:
    """The leader loses its followers; the controllers go on hearing each other."""
    _only(scene, "client", "cut off from its followers")


@fault()
def cut_one_follower(scene: Scene) -> None:
    """One follower loses the leader, and nobody else does."""
    leader, follower = scene.leader(), scene.follower()
    scene.now(f"follower {follower} cut off from leader {leader}")
    scene.cluster.network.separate([leader], [follower])
    scene.wait(0.3, 5)
    scene.cluster.network.heal()


@fault()
def flapping(scene: Scene) -> None:
    """The leader is cut off and reached again, many times."""
    leader = scene.leader()
    scene.now(f"the links of leader {leader} flap")
    until = time.monotonic() + scene.between(2, 5)
    while time.monotonic() < until:
        scene.cluster.network.separate([leader], scene.others(leader))
        scene.wait(0.05, 0.6)
        scene.cluster.network.heal()
        scene.wait(0.05, 0.6)


@fault()
def slow_network(scene: Scene) -> None:
    """Everything between the nodes takes longer."""
    seconds = scene.between(0.02, 0.2)
    scene.now(f"{seconds * 1000:.0f} ms between the nodes")
    for one in scene.cluster.nodes:
        for other in scene.others(one):
            scene.cluster.network.delay(one, other, seconds)
    scene.wait(1, 4)
    scene.cluster.network.heal()


# -- the disk

_PRLIMIT = "" if sys.platform == "linux" else "needs Linux (prlimit)"


def _limit(pid: int, size: int) -> None:
    """No file of the process grows beyond ``size`` bytes: writes fail with EFBIG."""
    if sys.platform == "linux":
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def _disk_fails(scene: Scene, node_id: int, text: str) -> None:
    """The node gives up by itself; it is started again with a disk that works."""
    scene.now(text)
    _limit(scene.cluster.nodes[node_id].pid, 0)
    scene.wait(1, 4)
    if scene.cluster.is_running(node_id):
        scene.cluster.kill(node_id)
    scene.cluster.restart(node_id)


@fault(_PRLIMIT)
def disk_fails_at_leader(scene: Scene) -> None:
    """Every write to the leader's disk fails from now on."""
    leader = scene.leader()
    _disk_fails(scene, leader, f"the disk of leader {leader} fails")


@fault(_PRLIMIT)
def disk_fails_at_follower(scene: Scene) -> None:
    """Every write to a follower's disk fails from now on."""
    follower = scene.follower()
    _disk_fails(scene, follower, f"the disk of follower {follower} fails")


_MOUNT = (
    ""
    if sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount")
    else "needs to be root on Linux (a small tmpfs)"
)
ROOM = 4 * 1024 * 1024


@fault(_MOUNT)
def disk_full(scene: Scene) -> None:
    """A node whose log is on a small disk that fills up; then there is room again."""
    cluster = scene.cluster
    node_id = scene.random.choice(sorted(cluster.nodes))
    log = cluster.nodes[node_id].data_dir / "log"
    aside = log.with_name("log.aside")
    cluster.terminate(node_id)
    log.rename(aside)
    log.mkdir()
    size = sum(p.stat().st_size for p in aside.rglob("*") if p.is_file()) * 2 + ROOM
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(log)],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        shutil.copytree(aside, log, dirs_exist_ok=True)
        cluster.restart(node_id)
        scene.now(f"the disk of node {node_id} is full")
        filler = log / "filler"
        _fill(filler)
        scene.wait(1, 4)
        filler.unlink()
        if not cluster.is_running(node_id):
            cluster.restart(node_id)
        scene.wait(0.5, 1)
    finally:
        if cluster.is_running(node_id):
            cluster.terminate(node_id)
        shutil.rmtree(aside)
        shutil.copytree(log, aside)
        subprocess.run(["umount", str(log)], check=True, capture_output=True)
        log.rmdir()
        aside.rename(log)
    cluster.restart(node_id)


def _fill(path: Path) -> None:
    """Until not a byte fits."""
    with path.open("wb", buffering=0) as file:
        for chunk in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(chunk))
