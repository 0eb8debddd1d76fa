"""Faults of disks and clocks; see ``faults``."""

from __future__ import annotations

from random import Random

from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.faults import (
    Arguments,
    FaultKind,
    fault,
    find_node,
    later,
    node_choice,
    put_down,
    seconds,
)
from tests.simulation.cluster.machine import NodeMachine


@fault
class SlowDisk(FaultKind):
    name, weight = "slow-disk", 1.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "extra": seconds(r, 0.01, 3.0),
            "seconds": seconds(r, 0.5, 8.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        disk = find_node(cluster, arguments["node"]).disk
        disk.slow = arguments["extra"]

        def end(_: None) -> None:
            disk.slow = 0.0

        later(cluster, arguments["seconds"], end)


@fault
class FullDisk(FaultKind):
    name, weight = "full-disk", 0.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "room": int(seconds(r, 1, 5_000)),
            "seconds": seconds(r, 0.5, 5.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        disk = find_node(cluster, arguments["node"]).disk
        disk.fill(arguments["room"])
        later(cluster, arguments["seconds"], lambda _: disk.free())


@fault
class FailingSync(FaultKind):
    """EIO from fsync; the pages count as clean afterwards, as on Linux."""

    name, weight = "failing-sync", 0.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {"node": node_choice(r, cluster), "seconds": seconds(r, 0.01, 2.0)}

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        disk = find_node(cluster, arguments["node"]).disk
        disk.failing = True

        def end(_: None) -> None:
            disk.failing = False

        later(cluster, arguments["seconds"], end)


class _Damage(FaultKind):
    """Only of the node that may lose what it has: fewer than min.insync.replicas nodes do."""

    weight = 0.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {"times": r.choice((1, 1, 3)), "restart": r.choice(("", "kill", "stop"))}

    def damage(self, cluster: Cluster, machine: NodeMachine) -> str | None:
        raise NotImplementedError

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        machine = cluster.nodes[cluster.shape.power_victim]
        for _ in range(arguments["times"]):
            cluster.note(f"{machine.name} damage: {self.damage(cluster, machine)}")
        if arguments["restart"] == "kill":
            put_down(cluster, machine, 0.1)
            machine.kill()
        elif arguments["restart"] == "stop":
            put_down(cluster, machine, 0.1)
            machine.stop()


@fault
class BitFlip(_Damage):
    """Bits of files below the log directory change by themselves."""

    name = "bit-flip"

    def damage(self, cluster: Cluster, machine: NodeMachine) -> str | None:
        return machine.disk.flip_bit("/data/log/")


@fault
class MisdirectedWrite(_Damage):
    """What was written to one file lies in another, and zeros in its place."""

    name = "misdirected-write"

    def damage(self, cluster: Cluster, machine: NodeMachine) -> str | None:
        return machine.disk.misdirect("/data/log/")


@fault
class WallClockJump(FaultKind):
    name, weight = "clock-jump", 0.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "ms": r.choice((-1, 1)) * int(seconds(r, 10, 7_200_000)),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        machine = find_node(cluster, arguments["node"])
        machine.clock.wall_offset_ms += arguments["ms"]
