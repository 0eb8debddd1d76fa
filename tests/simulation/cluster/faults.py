"""What can go wrong, by name: each fault is drawn from a seed, and can be dropped from a plan.

To add one: a subclass of ``FaultKind`` under ``@fault``. ``draw`` makes arguments (plain values
that can be printed), ``apply`` does it and arranges its end. When faults stop, ``heal`` undoes
whatever still lasts; ends that come later must then change nothing (``cluster.healed``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.machine import NodeMachine
from tests.simulation.cluster.network import ANY_PORT

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    at: float  # simulated seconds
    kind: str
    arguments: Arguments

    def __str__(self) -> str:
        details = " ".join(f"{k}={v}" for k, v in self.arguments.items())
        return f"{self.at:.3f} {self.kind} {details}"


class FaultKind:
    """One way to break a cluster. Faults of kinds with a larger ``weight`` are more frequent."""

    name = ""
    weight = 1.0
    is_late = False  # drawn from a stream of its own: it came when seeds had faults already

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        raise NotImplementedError

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        raise NotImplementedError


FAULTS: dict[str, FaultKind] = {}


def fault(kind: type[FaultKind]) -> type[FaultKind]:
    assert kind.name
    assert kind.name not in FAULTS
    FAULTS[kind.name] = kind()
    return kind


def seconds(r: Random, low: float, high: float) -> float:
    """More short times than long ones."""
    return round(low * (high / low) ** r.random(), 3)


def node_choice(r: Random, cluster: Cluster) -> int | str:
    """A node by number, or by what it is when the fault happens."""
    return r.choice((*cluster.nodes, "leader", "leader", "controller"))


def find_node(cluster: Cluster, choice: int | str) -> NodeMachine:
    if choice == "controller":
        return cluster.nodes[cluster.active_controller() or 1]
    if choice == "leader":
        for topic in cluster.image().topics_by_name.values():
            for partition in topic.partitions:
                if partition.leader in cluster.nodes:
                    return cluster.nodes[partition.leader]
        return cluster.nodes[1]
    assert isinstance(choice, int)
    return cluster.nodes[choice]


def later(
    cluster: Cluster, delay: float, call: Callable[[Any], None], argument: Any = None
) -> None:
    """Unless all is healed by then."""

    def unless_healed(_: None) -> None:
        if not cluster.healed:
            call(argument)

    cluster.scheduler.after(delay, unless_healed)


def put_down(cluster: Cluster, machine: NodeMachine, down: float) -> None:
    machine.down += 1
    later(cluster, down, machine.release)


# -- processes


@fault
class Kill(FaultKind):
    """SIGKILL: the page cache survives."""

    name, weight = "kill", 2.0

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {"node": node_choice(r, cluster), "down": seconds(r, 0.05, 8.0)}

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        machine = find_node(cluster, arguments["node"])
        put_down(cluster, machine, arguments["down"])
        machine.kill()


@fault
class KillAll(FaultKind):
    """Every process at once, or nearly."""

    name, weight = "kill-all", 0.3

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "spread": r.choice((0.0, 0.05, 0.5)),
            "down": [seconds(r, 0.05, 4.0) for _ in cluster.nodes],
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        def kill(machine: NodeMachine) -> None:
            put_down(cluster, machine, arguments["down"][machine.config.node_id - 1])
            machine.kill()

        for position, machine in enumerate(cluster.nodes.values()):
            later(cluster, position * arguments["spread"], kill, machine)


@fault
class KillInDiskCall(FaultKind):
    """The process, or the machine, dies in the middle of what it writes."""

    name, weight = "kill-in-disk-call", 1.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "calls": int(seconds(r, 1, 60)),
            "power": r.random() < 0.4,
            "down": seconds(r, 0.05, 4.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        machine = find_node(cluster, arguments["node"])

        def die() -> None:
            put_down(cluster, machine, arguments["down"])
            if arguments["power"] and cluster.may_lose_power(machine):
                machine.power_off()
            else:
                machine.kill()

        machine.disk.crash_in, machine.disk.on_crash = arguments["calls"], die


@fault
class PowerLoss(FaultKind):
    """Unsynced writes are gone, some are torn; the other ends of connections are told nothing."""

    name, weight = "power", 1.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        every = cluster.shape.flush_each and r.random() < 0.3
        return {
            "node": "all" if every else node_choice(r, cluster),
            "torn": r.random() < 0.5,
            "down": seconds(r, 0.2, 6.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        choice = arguments["node"]
        machines = list(cluster.nodes.values())
        if choice != "all":
            machines = [find_node(cluster, choice)]
            if not cluster.may_lose_power(machines[0]):
                machines = [cluster.nodes[cluster.shape.power_victim]]
        for machine in machines:
            machine.disk.torn = arguments["torn"]
            put_down(cluster, machine, arguments["down"])
            machine.power_off()


@fault
class Pause(FaultKind):
    """SIGSTOP and SIGCONT."""

    name, weight = "pause", 2.0

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {"node": node_choice(r, cluster), "seconds": seconds(r, 0.02, 8.0)}

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        machine = find_node(cluster, arguments["node"])
        machine.pause()
        later(cluster, arguments["seconds"], machine.resume)


@fault
class Stutter(FaultKind):
    """A host that gives its process the processor only now and then."""

    name, weight = "stutter", 0.7

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "pauses": [(seconds(r, 0.005, 0.3), seconds(r, 0.01, 1.0)) for _ in range(8)],
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        machine = find_node(cluster, arguments["node"])
        at = 0.0
        for runs, rests in arguments["pauses"]:
            at += runs
            later(cluster, at, lambda _: machine.pause())
            at += rests
            later(cluster, at, machine.resume)


@fault
class Stop(FaultKind):
    """SIGTERM: a controlled shutdown."""

    name = "stop"

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {"node": node_choice(r, cluster), "down": seconds(r, 0.1, 5.0)}

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        machine = find_node(cluster, arguments["node"])
        put_down(cluster, machine, arguments["down"])
        machine.stop()


@fault
class RollingRestart(FaultKind):
    name, weight = "rolling-restart", 0.3

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {"every": seconds(r, 0.3, 4.0), "down": seconds(r, 0.05, 1.0)}

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        def stop(machine: NodeMachine) -> None:
            put_down(cluster, machine, arguments["down"])
            machine.stop()

        for position, machine in enumerate(cluster.nodes.values()):
            later(cluster, position * arguments["every"], stop, machine)


# -- network


def cut_for(
    cluster: Cluster, pairs: list[tuple[str, str]], duration: float, port: int = ANY_PORT
) -> None:
    """Cut those paths, from the first host to the second, for so many simulated seconds."""
    for source, target in pairs:
        cluster.network.cut(source, target, port)

    def mend(_: None) -> None:
        for source, target in pairs:
            cluster.network.mend(source, target, port)

    later(cluster, duration, mend)


def _hosts(cluster: Cluster) -> list[str]:
    return [*(m.name for m in cluster.nodes.values()), *cluster.clients]


@fault
class Isolate(FaultKind):
    """One node hears nobody, or is heard by nobody, or both."""

    name, weight = "isolate", 1.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "way": r.choice(("both", "both", "in", "out")),
            "clients": r.random() < 0.5,
            "seconds": seconds(r, 0.1, 8.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        name = find_node(cluster, arguments["node"]).name
        others = [m.name for m in cluster.nodes.values() if m.name != name]
        others += list(cluster.clients) if arguments["clients"] else []
        pairs = []
        if arguments["way"] in ("both", "in"):
            pairs += [(other, name) for other in others]
        if arguments["way"] in ("both", "out"):
            pairs += [(name, other) for other in others]
        cut_for(cluster, pairs, arguments["seconds"])


@fault
class CutLinks(FaultKind):
    """Some paths between two hosts, each way by itself: partial cuts, rings, bridges."""

    name, weight = "cut-links", 1.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "share": r.choice((0.15, 0.3, 0.5)),
            "two_way": r.random() < 0.5,
            "choice": r.getrandbits(32),
            "seconds": seconds(r, 0.1, 8.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        r, hosts = Random(arguments["choice"]), _hosts(cluster)
        pairs = []
        for position, source in enumerate(hosts):
            for target in hosts[position + 1 :]:
                ways = [(source, target), (target, source)]
                if arguments["two_way"]:
                    pairs += ways if r.random() < arguments["share"] else []
                else:
                    pairs += [way for way in ways if r.random() < arguments["share"]]
        cut_for(cluster, pairs, arguments["seconds"])


@fault
class Split(FaultKind):
    """Two sides that do not hear each other, each with clients of its own."""

    name, weight = "split", 1.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "with_client": r.choice(("work-1", "work-2")),
            "seconds": seconds(r, 0.5, 8.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        side = [find_node(cluster, arguments["node"]).name, arguments["with_client"]]
        others = [host for host in _hosts(cluster) if host not in side]
        pairs = [p for a in side for b in others for p in ((a, b), (b, a))]
        cut_for(cluster, pairs, arguments["seconds"])


@fault
class Flap(FaultKind):
    """A path that goes and comes back quickly."""

    name, weight = "flap", 0.5

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "times": r.randint(2, 10),
            "off": seconds(r, 0.02, 0.7),
            "on": seconds(r, 0.02, 0.7),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        name = find_node(cluster, arguments["node"]).name
        others = [m.name for m in cluster.nodes.values() if m.name != name]
        pairs = [p for other in others for p in ((other, name), (name, other))]
        period = arguments["off"] + arguments["on"]
        for number in range(arguments["times"]):
            later(cluster, number * period, lambda _: cut_for(cluster, pairs, arguments["off"]))


@fault
class ResetConnections(FaultKind):
    """Connections break while both ends live; or one end does not learn of it."""

    name, weight = "reset", 2.0

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        hosts = _hosts(cluster)
        return {
            "between": r.sample(hosts, 2),
            "times": r.randint(1, 6),
            "both": r.random() < 0.7,
            "every": seconds(r, 0.001, 0.5),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        a, b = arguments["between"]

        def reset(_: None) -> None:
            cluster.network.reset_one(a, b, both=arguments["both"])

        for number in range(arguments["times"]):
            later(cluster, number * arguments["every"], reset)


@fault
class SlowLink(FaultKind):
    name = "slow-link"

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "between": r.sample(_hosts(cluster), 2),
            "extra": seconds(r, 0.005, 1.5),
            "seconds": seconds(r, 0.5, 8.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        pair, slow = tuple(arguments["between"]), cluster.network.slow
        slow[pair] = arguments["extra"]
        later(cluster, arguments["seconds"], lambda _: slow.pop(pair, None))
