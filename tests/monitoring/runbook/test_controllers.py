"""The quorum: lost, split, restless, slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pegel
from pegel.admin.types import ConfigResourceType
from pegel.testing import LocalCluster
from tests.monitoring.load import TOPIC
from tests.monitoring.runbook.conftest import network
from tests.monitoring.runbook.trial import SERVE, Trial, tries
from tests.monitoring.theatre import MARKS, SETTINGS, Scene, slower, watched

pytestmark = MARKS
QUORUM = "curl http://HOST:9098/v1/quorum"


@tries("PegelNoActiveController", look={QUORUM: '"role": "precandidate"'}, do={SERVE: "ready"})
def test_two_of_three_controllers_are_down(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    first, second, third = stage.cluster.nodes
    stage.cluster.kill(first)
    stage.cluster.kill(second)
    trial.names(third)
    trial.fires()
    trial.look()
    trial.sees("pegel produce orders < /dev/null", "")
    trial.names(first)
    trial.do("pegel server")  # two of three: a majority
    trial.clears()


@tries("PegelSeveralActiveControllers", look={QUORUM: '"active": true.*"cluster_id": "{CLUSTER}"'})
def test_two_clusters_are_taken_for_one(trial: Trial, tmp_path: Path) -> None:
    """The other cause, two active controllers of one cluster, cannot be brought about: a leader
    that is cut off steps down within the time-out of an election, before the second scrape."""
    with (
        LocalCluster(brokers=1, settings=SETTINGS) as one,
        LocalCluster(brokers=1, settings=SETTINGS) as other,
        watched(tmp_path, one, other) as stack,
    ):
        trial.on(Scene(one, stack))
        trial.fires()
        ids = set()
        for cluster in (one, other):
            ids.add(cluster.view(1)["broker"]["cluster_id"])
            trial.on(Scene(cluster, stack), already=True)
            trial.names(1, CLUSTER=cluster.view(1)["broker"]["cluster_id"])
            trial.look()
        assert len(ids) == 2
        stack.relabel({other.nodes[1].http: "other"})
        trial.clears()


@tries(
    "PegelRaftWithoutLeader",
    look={
        QUORUM: '"role": "precandidate", .*"leader_id": null',
        "grep controllers= DATA_DIR/node-N/server.properties": r"^controllers=1@\S+,2@\S+,3@\S+$",
    },
)
def test_no_controller_reaches_another(trial: Trial, cuttable: Scene) -> None:
    trial.on(cuttable)
    nodes = list(cuttable.cluster.nodes)
    for node in nodes:
        network(cuttable).separate([node], [n for n in nodes if n != node], ["controller"])
    trial.fires()
    for node in nodes:
        trial.names(node)
        trial.look()
    network(cuttable).heal()
    trial.clears()


@tries("PegelFencedBrokers", look={
    "grep 'fenced ' node.log": r" fenced broker={BROKER} reason=hung ",
    "grep 'no heartbeat' node.log": r"no heartbeat: no active controller answered",
})  # fmt: skip
def test_a_broker_does_not_reach_the_controllers(trial: Trial, cuttable: Scene) -> None:
    trial.on(cuttable)
    cut_off = cuttable.another()
    others = [n for n in cuttable.cluster.nodes if n != cut_off]
    network(cuttable).separate([cut_off], others, ["controller"])
    trial.fires()
    trial.names(cuttable.cluster.active_controller(), BROKER=cut_off)
    trial.look("grep 'fenced ")
    trial.names(cut_off)
    trial.look("grep 'no heartbeat'")
    network(cuttable).heal()
    trial.clears()


@tries(
    "PegelRaftLeaderFlapping",
    look={
        "grep -h active_controller DATA_DIR/node-*/node.log | sort":
            r"inactive_controller term=.*leader=.*\n(.*\n)*.* active_controller controller=",
        "instance:pegel_event_loop_lag_seconds:p99_5m": r"} \d",
    },
)  # fmt: skip
def test_leaders_hang_again_and_again(trial: Trial, stage: Scene, tmp_path: Path) -> None:
    with slower(stage, tmp_path, speed=10) as watched:
        trial.on(watched)
        deadline = time.monotonic() + 120
        while "PegelRaftLeaderFlapping" not in watched.stack.firing():
            assert time.monotonic() < deadline
            leader = stage.cluster.active_controller()
            stage.cluster.pause(leader)
            stage.cluster.active_controller()  # the next one
            stage.cluster.resume(leader)
            time.sleep(0.5)
        trial.fires()
        trial.names(leader)
        trial.look(seconds=5)
        trial.clears()  # they hang no more


@tries(
    "PegelSlowRaftCommit",
    look={
        "pegel_raft_follower_lag_entries": r'follower="\d".*} \d',
        "cat /proc/pressure/io": r"^some avg10=\d",
        "iostat -x 1 2": r"Device +r/s",
    },
)
def test_the_disks_of_the_controllers_are_slow(
    trial: Trial, stage: Scene, slow_sync: Callable[[float], None]
) -> None:
    trial.on(stage)

    async def change(client: pegel.AsyncClient) -> None:
        for number in range(400):
            if "PegelSlowRaftCommit" in stage.stack.firing():
                return
            await client.admin.alter_config(
                ConfigResourceType.TOPIC, TOPIC, {"retention.ms": str(1_000_000_000 + number)}
            )

    slow_sync(0.3)
    stage.ask(change)
    trial.fires()
    trial.names(1)
    trial.look()
    slow_sync(0)
    trial.clears()
