"""Replicas that are missing, late, damaged, or lead although they should not."""

from __future__ import annotations

import time
from pathlib import Path

import pegel
from pegel_broker.log.checkpoints import HIGH_WATERMARK_FILE, decode_offsets
from tests.monitoring.load import TOPIC
from tests.monitoring.runbook.conftest import network
from tests.monitoring.runbook.trial import SERVE, Trial, tries
from tests.monitoring.stack import Stack
from tests.monitoring.theatre import MARKS, Scene, slower

pytestmark = MARKS
DESCRIBE = "pegel topics describe TOPIC"
ALLOW = "pegel topics alter TOPIC --set unclean.leader.election.enable=true"
ORDER = "pegel cluster elect --unclean TOPIC PARTITION"
UNCLEAN = {
    "grep 'elected ' node.log | grep kind=unclean": r"partition={TOPIC}-0 epoch=\d+ leader={LEADER}"
}
CUT = {"grep truncated_committed node.log": r"partition={TOPIC}-0 .*offset=0 high_watermark=100"}
FORBID = {"pegel topics alter TOPIC --unset unclean.leader.election.enable": "^altered topic"}


def _two_replicas(scene: Scene, topic: str, **config: str) -> tuple[int, int]:
    """Leader and follower of the one partition of a new topic."""

    async def create(client: pegel.AsyncClient) -> None:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        await client.create_topic(topic, partitions=1, replication=2, config=settings)

    scene.ask(create)
    leader = scene.cluster.leader_of(topic, 0)
    (replicas,) = [
        entry["replicas"]
        for entry in scene.cluster.view(leader)["broker"]["partitions"]
        if entry["topic"] == topic
    ]
    (follower,) = [r for r in replicas if r != leader]
    return leader, follower


def _write(scene: Scene, topic: str, count: int = 100) -> None:
    async def write(client: pegel.AsyncClient) -> None:
        async with client.producer(acks="all") as producer:
            await producer.send_many(topic, [b"acknowledged"] * count, partition=0)

    scene.ask(write)


def _strand(scene: Scene, topic: str) -> tuple[int, int]:
    """Who holds 100 acknowledged records alone is gone; who has none of them is there."""
    leader, follower = _two_replicas(scene, topic)
    scene.cluster.kill(follower)
    _write(scene, topic)
    checkpoint = scene.cluster.nodes[leader].data_dir / "log" / HIGH_WATERMARK_FILE
    Stack.until(
        lambda: decode_offsets(checkpoint.read_bytes()).get((topic, 0)) == 100, "a checkpoint"
    )
    scene.cluster.kill(leader)
    scene.cluster.restart(follower)
    return leader, follower


@tries(
    "PegelOfflinePartitions",
    look={
        DESCRIBE: r"^ +0 +none .*{N}",
        "pegel explain TOPIC PARTITION": r"[Nn]obody leads {TOPIC}-0.*{N}",
    },
    do={SERVE: "ready"},
)
def test_the_last_replica_in_sync_is_down(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    needed, _useless = _strand(stage, "stranded")
    trial.names(needed, TOPIC="stranded", PARTITION=0)
    trial.fires()
    trial.look()
    trial.do("pegel server")
    trial.clears()


@tries("PegelOfflinePartitions", do={ORDER: "^elected 1 leader", ALLOW: "^altered topic"})
def test_the_last_replicas_in_sync_are_lost(trial: Trial, stage: Scene) -> None:
    """One election is ordered, the other one allowed."""
    trial.on(stage)
    for topic, how in (("ordered", "pegel cluster elect"), ("allowed", "pegel topics alter")):
        lost, left = _strand(stage, topic)
        trial.names(left, TOPIC=topic, PARTITION=0)
        trial.fires()
        trial.do(how)
        trial.sees(DESCRIBE, r"^ +0 +{N} ", seconds=10)
        trial.clears()
        stage.cluster.restart(lost)


@tries("PegelUncleanElection", look=UNCLEAN | CUT, do=FORBID)
def test_an_unclean_election(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    lost, left = _strand(stage, "unclean")
    trial.names(stage.cluster.active_controller(), TOPIC="unclean", LEADER=left)
    trial.run("pegel topics alter unclean --set unclean.leader.election.enable=true")
    trial.fires()
    trial.look("grep 'elected ")
    _write(stage, "unclean", 10)
    stage.cluster.restart(lost)
    trial.names(lost, TOPIC="unclean")
    trial.look("grep truncated", seconds=20)
    trial.do("pegel topics alter")
    trial.clears()


@tries("PegelHighWatermarkWentBack", look=CUT)
def test_committed_records_are_cut(trial: Trial, stage: Scene) -> None:
    """Without an unclean election it cannot be brought about: that would be a bug of Pegel."""
    trial.on(stage)
    lost, _left = _strand(stage, "cut")
    trial.names(lost, TOPIC="cut")
    trial.run("pegel topics alter cut --set unclean.leader.election.enable=true")
    _write(stage, "cut", 10)
    stage.cluster.restart(lost)
    trial.fires()
    trial.look()
    trial.clears(240)


@tries("PegelUnderMinIsr", look={DESCRIBE: r"^ +0 +(\d) +\d+ +\1,{N} +\1 "}, do={SERVE: "ready"})
def test_a_replica_that_writes_need_is_down(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    _leader, follower = _two_replicas(stage, "needed", min_insync_replicas="2")
    trial.names(follower, TOPIC="needed")
    stage.cluster.kill(follower)
    trial.fires()
    trial.look()
    trial.do("pegel server")
    trial.clears()


@tries(
    "PegelUnderMinIsr",
    look={"pegel_replica_fetch_lag_records > 0": r'topic="slow"} [1-9]'},
    do={"pegel topics alter TOPIC --set min.insync.replicas=1": "^altered topic slow$"},
)
def test_a_replica_that_writes_need_hangs(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    leader, follower = _two_replicas(stage, "slow", min_insync_replicas="2")
    trial.names(leader, TOPIC="slow")
    stage.cluster.pause(follower)
    trial.run("seq 1000 | pegel produce slow --acks 1")
    trial.fires()
    trial.look(seconds=10)
    trial.do("pegel topics alter")
    trial.clears()
    _write(stage, "slow")


@tries(
    "PegelUnderReplicated",
    look={DESCRIBE: r"^ +0 +\d +\d+ +(?=\S*{N})\S+ +(?!\S*{N})\S+ "},
    do={SERVE: "ready", "pegel_replica_fetch_lag_max_records": r"} \d{1,2}$"},
)  # fmt: skip
def test_a_replica_is_out_of_sync(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    victim = stage.another()
    trial.names(victim, TOPIC=TOPIC)
    stage.cluster.kill(victim)
    trial.fires()
    trial.look()
    trial.sees("max(pegel_replica_fetch_lag_max_records)", r"} [1-9]\d", seconds=30)
    trial.do("pegel server")
    trial.clears()
    trial.do("pegel_replica", seconds=30)


@tries(
    "PegelIsrFlapping",
    look={"grep isr_asked node.log": r"partition=\S+ .*isr=\[.*\] before=\[.*{VICTIM}.*\] detail="},
)
def test_a_follower_is_cut_off_again_and_again(
    trial: Trial, cuttable: Scene, tmp_path: Path
) -> None:
    """From its leaders, not from the controller: that would fence it, which is one time each."""
    with slower(cuttable, tmp_path, speed=10) as watched:
        trial.on(watched)
        victim = cuttable.another()
        others = [n for n in cuttable.cluster.nodes if n != victim]
        deadline = time.monotonic() + 150
        while "PegelIsrFlapping" not in watched.stack.firing():
            assert time.monotonic() < deadline
            shrunk = _changes(cuttable, "shrinks", victim)
            network(cuttable).separate([victim], others, ["client"])
            Stack.until(lambda: _changes(cuttable, "shrinks", victim) > shrunk, "it leaves", 20)  # noqa: B023
            grown = _changes(cuttable, "expands", victim)
            network(cuttable).heal()
            Stack.until(lambda: _changes(cuttable, "expands", victim) > grown, "it is back", 20)  # noqa: B023
        trial.fires()
        trial.names(cuttable.cluster.leader_of(TOPIC, 0), VICTIM=victim)
        trial.look()
        trial.clears()


def _changes(stage: Scene, which: str, but: int) -> float:
    """As the others count them: one that hangs is not scraped."""
    instance = stage.cluster.nodes[but].http
    found = stage.stack.query(f'sum(pegel_isr_{which}_total{{instance!="{instance}"}})')
    return float(found[0]["value"][1])
