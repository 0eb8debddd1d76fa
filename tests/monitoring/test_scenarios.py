"""What goes wrong raises exactly the alerts that it should, in a real Prometheus, and clears them.

Each scenario does to a running cluster what its name says. Each alert by itself, with its section
of the runbook, is tried in ``tests/monitoring/runbook``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pegel
from pegel.admin.types import ConfigResourceType
from pegel_broker.log.checkpoints import HIGH_WATERMARK_FILE, decode_offsets
from tests.monitoring.load import TOPIC
from tests.monitoring.stack import Stack
from tests.monitoring.theatre import HOST, IMBALANCE, MARKS, Scene, scene, small_disk

pytestmark = MARKS


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("scenarios")) as made:
        yield made


@pytest.fixture
def stage(theatre: Scene) -> Iterator[Scene]:
    yield theatre
    theatre.heal()


def test_a_broker_is_killed(stage: Scene) -> None:
    victim = stage.another()
    stage.cluster.kill(victim)
    stage.raises("PegelBrokerDown", "PegelUnderReplicated", "PegelFencedBrokers", may=IMBALANCE)
    # Alertmanager has it, and shows the cause but not what follows from it.
    Stack.until(lambda: "PegelBrokerDown" in stage.stack.received(), "Alertmanager knows")
    Stack.until(
        lambda: not {"PegelUnderReplicated", "PegelFencedBrokers"} & set(stage.stack.received()),
        "what follows is inhibited",
    )
    assert "runbook" in stage.stack.received()["PegelBrokerDown"]["annotations"]
    stage.cluster.restart(victim)
    stage.clears()


def test_a_follower_is_held_back(stage: Scene) -> None:
    """It lives, but may copy a byte a second: its partitions stay under-replicated."""
    victim = stage.another()

    async def throttle(client: pegel.AsyncClient) -> None:
        await client.admin.alter_config(
            ConfigResourceType.BROKER, str(victim), {"follower.replication.throttled.rate": 1}
        )
        await client.admin.alter_config(
            ConfigResourceType.TOPIC, TOPIC, {"follower.replication.throttled.replicas": "*"}
        )

    async def release(client: pegel.AsyncClient) -> None:
        await client.admin.alter_config(
            ConfigResourceType.TOPIC, TOPIC, {"follower.replication.throttled.replicas": None}
        )
        await client.admin.alter_config(
            ConfigResourceType.BROKER, str(victim), {"follower.replication.throttled.rate": None}
        )

    async def write_much(client: pegel.AsyncClient) -> None:
        for _ in range(12):
            await client.send_many(TOPIC, [os.urandom(1_000)] * 1_000)

    stage.ask(throttle)
    stage.cluster.pause(victim)
    try:
        # Who is in sync is not throttled, and a limit lets through what one response brings: it has
        # to be out of the ISR, and far behind.
        Stack.until(lambda: "PegelUnderReplicated" in stage.stack.firing(), "it is out of the ISR")
        stage.ask(write_much)
        stage.cluster.resume(victim)
        Stack.until(lambda: stage.stack.up() == 3, "it is scraped again")
        _held_back(stage)
    finally:
        stage.ask(release)
    stage.clears()


def _held_back(stage: Scene) -> None:
    stage.raises(
        "PegelUnderReplicated", may=IMBALANCE | {"PegelBrokerDown", "PegelFencedBrokers"},
    )  # fmt: skip
    Stack.until(
        lambda: stage.stack.firing() - HOST - IMBALANCE == {"PegelUnderReplicated"},
        "only the held back follower is left",
    )
    time.sleep(5)
    assert "PegelUnderReplicated" in stage.stack.firing()


def test_a_consumer_stops_reading(stage: Scene) -> None:
    stage.load.stop_reading()
    stage.raises("PegelStalledConsumer", may=frozenset({"PegelLagGrowing"}), seconds=120)
    stage.load.read_on()
    stage.clears()


def test_an_event_loop_is_blocked(stage: Scene) -> None:
    """The process is stopped for a third of a second, again and again."""
    victim = stage.another()
    deadline = time.monotonic() + 60
    while "PegelEventLoopSaturated" not in stage.stack.firing():
        assert time.monotonic() < deadline, "the alert did not come"
        for _ in range(4):
            stage.cluster.pause(victim)
            time.sleep(0.35)
            stage.cluster.resume(victim)
            time.sleep(0.15)
    assert not stage.stack.firing() - HOST - {"PegelRequestErrors"}
    Stack.until(
        lambda: "PegelEventLoopSaturated" not in stage.stack.firing(), "the loop is free", 120
    )
    stage.clears()


def test_an_unclean_election(stage: Scene) -> None:
    """The last replica in sync is lost, another one is let lead, and acknowledged records go."""
    cluster = stage.cluster

    async def create(client: pegel.AsyncClient) -> None:
        await client.create_topic("fragile", partitions=1, replication=2)

    async def write(client: pegel.AsyncClient) -> None:
        async with client.producer(acks="all") as producer:
            await producer.send_many("fragile", [b"acknowledged"] * 100)

    async def let_anybody_lead(client: pegel.AsyncClient, allowed: str | None = "true") -> None:
        await client.admin.alter_config(
            ConfigResourceType.TOPIC, "fragile", {"unclean.leader.election.enable": allowed}
        )

    stage.ask(create)
    leader = cluster.leader_of("fragile", 0)
    replicas = next(
        entry["replicas"]
        for entry in cluster.view(leader)["broker"]["partitions"]
        if entry["topic"] == "fragile"
    )
    (follower,) = [r for r in replicas if r != leader]
    cluster.kill(follower)
    stage.ask(write)  # acknowledged by the leader alone
    checkpoint = cluster.nodes[leader].data_dir / "log" / HIGH_WATERMARK_FILE
    # From it the leader will know, when it comes back, that these were committed.
    Stack.until(
        lambda: decode_offsets(checkpoint.read_bytes()).get(("fragile", 0)) == 100, "a checkpoint"
    )
    cluster.kill(leader)
    cluster.restart(follower)
    # Two of three were down at once: for a moment no majority of controllers was there.
    stage.raises(
        "PegelOfflinePartitions", "PegelBrokerDown", "PegelFencedBrokers", "PegelUnderReplicated",
        may=IMBALANCE | {
            "PegelUnderMinIsr", "PegelRequestErrors", "PegelNoActiveController",
            "PegelRaftWithoutLeader", "PegelRaftLeaderFlapping", "PegelStalledConsumer",
        },
    )  # fmt: skip
    stage.ask(let_anybody_lead)
    stage.ask(write)
    Stack.until(lambda: "PegelUncleanElection" in stage.stack.firing(), "it is noticed")
    assert "PegelHighWatermarkWentBack" not in stage.stack.firing()
    cluster.restart(leader)
    Stack.until(
        lambda: "PegelHighWatermarkWentBack" in stage.stack.firing(), "what it cut is noticed"
    )
    stage.ask(lambda client: let_anybody_lead(client, None))
    stage.clears()


def test_the_controllers_lose_their_majority(stage: Scene) -> None:
    first, second = list(stage.cluster.nodes)[:2]
    stage.cluster.kill(first)
    stage.cluster.kill(second)
    stage.raises(
        "PegelBrokerDown", "PegelNoActiveController", "PegelRaftWithoutLeader",
        may=IMBALANCE | frozenset({"PegelUnderReplicated", "PegelUnderMinIsr", "PegelRequestErrors",
                       "PegelFencedBrokers", "PegelOfflinePartitions", "PegelStalledConsumer"}),
    )  # fmt: skip
    # Each waits for the other: no majority, no ready line.
    starting = subprocess.Popen(
        [
            sys.executable, "-m", "pegel", "server", "--config",
            str(stage.cluster.nodes[first].data_dir / "server.properties"),
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        stage.cluster.restart(second)
        stage.clears()
    finally:
        starting.terminate()  # the fixture starts it again, as its own
        starting.wait(20)


def test_a_disk_is_nearly_full(tmp_path: Path) -> None:
    """On a small file system of its own."""
    with (
        small_disk(tmp_path / "disk", 512) as disk,
        scene(tmp_path / "prometheus", disk.directory / "data") as staged,
    ):
        disk.fill(20 << 20)
        staged.raises("PegelDiskNearlyFull")
        disk.free()
        staged.clears()
