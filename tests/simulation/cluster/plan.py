"""Which faults a seed has: swarm testing, for a mix of everything hides what only some show."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import tests.simulation.cluster.controller_faults
import tests.simulation.cluster.device_faults  # noqa: F401 (registers them)
from tests.simulation.cluster.cluster import Cluster, Shape
from tests.simulation.cluster.faults import FAULTS, Fault, later

FAULTS_FROM = 2.0  # the cluster is up and its topics are made
FAULTS_FOR = 16.0
LATE_SHARE = 0.4  # of the seeds have faults of the later kinds


def draw_shape(seed: int) -> Shape:
    r = Random(f"{seed}-shape")
    flush = r.random() < 0.3
    return Shape(
        nodes=r.choice((3, 3, 3, 3, 4, 5)),
        flush_each=flush,
        lag_ms=r.choice((1_000, 4_000, 10_000)),
        drift=r.choice((0.0, 0.0, 0.02, 0.04)),
        latency=r.choice(((0.00005, 0.0003), (0.0001, 0.002), (0.002, 0.02))),
        power_victim=r.randint(1, 3),
    )


def draw_faults(seed: int, cluster: Cluster) -> list[Fault]:
    """In order of time."""
    r = Random(f"{seed}-faults")
    names = sorted(name for name, kind in FAULTS.items() if not kind.is_late)
    chosen = r.sample(names, min(r.choice((1, 2, 3, 3, 5, 8)), len(names)))
    weights = [FAULTS[name].weight for name in chosen]
    count = r.choice((1, 3, 6, 10, 16))
    times = sorted(FAULTS_FROM + FAULTS_FOR * r.random() for _ in range(count))
    if r.random() < 0.3:  # close together: the second while the first is being dealt with
        middle = FAULTS_FROM + FAULTS_FOR * r.random()
        times = sorted(middle + (at - FAULTS_FROM) * 0.15 for at in times)
    faults = []
    for at in times:
        kind = r.choices(chosen, weights)[0]
        faults.append(Fault(round(at, 3), kind, FAULTS[kind].draw(r, cluster)))
    return sorted([*faults, *_draw_late(seed, cluster)], key=lambda fault: fault.at)


def _draw_late(seed: int, cluster: Cluster) -> list[Fault]:
    """Some seeds have a few faults of the later kinds as well."""
    r = Random(f"{seed}-late-faults")
    if r.random() >= LATE_SHARE:
        return []
    late = sorted(name for name, kind in FAULTS.items() if kind.is_late)
    chosen = r.sample(late, r.randint(1, len(late)))
    faults = []
    for _ in range(r.choice((1, 2, 4))):
        kind = r.choice(chosen)
        at = round(FAULTS_FROM + FAULTS_FOR * r.random(), 3)
        faults.append(Fault(at, kind, FAULTS[kind].draw(r, cluster)))
    return faults


def schedule(cluster: Cluster, faults: Sequence[Fault]) -> None:
    def apply(fault: Fault) -> None:
        cluster.note(f"FAULT {fault}")
        FAULTS[fault.kind].apply(cluster, fault.arguments)

    for fault in faults:
        later(cluster, fault.at - cluster.now, apply, fault)


def heal(cluster: Cluster) -> None:
    """Faults are over: paths are whole, disks work, everything that is down starts."""
    cluster.healed = True
    cluster.note("HEALED")
    network = cluster.network
    for path in list(network.cuts):
        network.cuts[path] = 1
        network.mend(*path)
    network.slow.clear()
    for machine in cluster.nodes.values():
        machine.disk.crash_in, machine.disk.slow, machine.disk.failing = None, 0.0, False
        machine.disk.free()
        if machine.disk.may_be_damaged:
            machine.replace_log_disk()
            cluster.disks_replaced = True
        machine.down = 0
        machine.held = 1
        machine.resume()
        machine.start_if_wanted()


BREAKAGES = ("dead", "hung", "cut off", "deaf", "dumb", "disk hangs", "crashes again and again")


def break_for_ever(cluster: Cluster, n: int, way: str) -> None:
    """Node ``n`` is of no use any more; the others are to go on without it."""
    cluster.note(f"BROKEN node {n}: {way}")
    machine = cluster.nodes[n]
    others = [m.name for m in cluster.nodes.values() if m is not machine]
    others += [f"work-{i}" for i in (1, 2)] + ["final"]

    def crash(_: None) -> None:
        machine.kill()
        cluster.scheduler.after(0.7, machine.start_if_wanted)
        cluster.scheduler.after(1.5, crash)

    if way == "dead":
        machine.down = 1
        machine.kill()
    elif way == "hung":
        machine.pause()
    elif way == "disk hangs":
        machine.disk.slow = 1e9
    elif way == "crashes again and again":
        crash(None)
    for other in others:
        if way in {"cut off", "deaf"}:
            cluster.network.cut(other, machine.name)
        if way in {"cut off", "dumb"}:
            cluster.network.cut(machine.name, other)
