"""Faults of the controllers' own traffic and of who votes; see ``faults``.

They came after the others: a stream of their own draws them (``plan``), so that seeds keep what
they had before.
"""

from __future__ import annotations

import asyncio
from random import Random

import pegel
from pegel.errors import PegelError
from tests.simulation.cluster.cluster import CONTROLLER_PORT, Cluster
from tests.simulation.cluster.faults import (
    Arguments,
    FaultKind,
    cut_for,
    fault,
    find_node,
    node_choice,
    seconds,
)

GIVE_BACK_PAUSE = 0.3
CHANGE_TIMEOUT = 5.0


@fault
class CutControllers(FaultKind):
    """A node does not reach controllers, or is not reached, and all that clients use is whole: a
    broker without a lease that everybody still asks, a controller without votes that all see."""

    name, weight, is_late = "cut-controllers", 1.5, True

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": node_choice(r, cluster),
            "way": r.choice(("both", "both", "in", "out")),
            "controllers": sorted(r.sample(cluster.controllers, r.choice((1, 2, 3, 3)))),
            "seconds": seconds(r, 0.1, 8.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        name = find_node(cluster, arguments["node"]).name
        others = [cluster.nodes[n].name for n in arguments["controllers"]]
        pairs = []
        for other in others:
            if other != name and arguments["way"] in ("both", "in"):
                pairs.append((other, name))
            if other != name and arguments["way"] in ("both", "out"):
                pairs.append((name, other))
        cut_for(cluster, pairs, arguments["seconds"], CONTROLLER_PORT)


@fault
class ChangeVoters(FaultKind):
    """An operator takes a controller's vote and gives it back (KIP-853), whatever else happens."""

    name, weight, is_late = "change-voters", 1.0, True

    def draw(self, r: Random, cluster: Cluster) -> Arguments:
        return {
            "node": r.choice((*cluster.controllers, "controller")),
            "away": seconds(r, 0.05, 6.0),
        }

    def apply(self, cluster: Cluster, arguments: Arguments) -> None:
        n = find_node(cluster, arguments["node"]).config.node_id
        loop, client, _ = cluster.client("operator")
        work = _take_and_give_back(cluster, client, n, arguments["away"])
        cluster.voter_changes.append(loop.start(work))


async def _take_and_give_back(
    cluster: Cluster, client: pegel.AsyncClient, n: int, away: float
) -> None:
    async with client:
        try:
            await client.admin.remove_controller(n, timeout=CHANGE_TIMEOUT)
            cluster.note(f"controller {n} votes no more")
        except (PegelError, TimeoutError) as error:
            cluster.note(f"controller {n} is not removed: {error}")
        await asyncio.sleep(away)
        if not cluster.healed:
            await _give_back(cluster, client, n)


async def _give_back(cluster: Cluster, client: pegel.AsyncClient, n: int) -> None:
    machine = cluster.nodes[n]
    try:
        await client.admin.add_controller(n, machine.name, CONTROLLER_PORT, timeout=CHANGE_TIMEOUT)
        cluster.note(f"controller {n} votes again")
    except (PegelError, TimeoutError) as error:
        cluster.note(f"controller {n} is not added: {error}")


async def keep_voters(cluster: Cluster, client: pegel.AsyncClient) -> None:
    """From the end of the faults to the end of the seed: who lacks a vote gets it. A removal that
    was asked for before may be done later."""
    while True:
        voters = cluster.voters()
        for n in cluster.controllers:
            if voters and n not in voters:
                await _give_back(cluster, client, n)
        await asyncio.sleep(GIVE_BACK_PAUSE)
