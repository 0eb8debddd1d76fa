"""What goes wrong: one function for each fault, which injects it, waits, and takes it back.

To add one: a function of a ``Scene`` under ``@fault``. It may leave anything broken when it raises;
the campaign mends the cluster after each round. Those of disks are in ``disks``.
"""

from __future__ import annotations

import time

from pegel.testing.network import OUTSIDE, Kind
from pegel_bench.chaos import disks
from pegel_bench.chaos.scene import FAULTS, Happening, Scene, fault

__all__ = ["FAULTS", "Happening", "Scene", "disks"]

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
