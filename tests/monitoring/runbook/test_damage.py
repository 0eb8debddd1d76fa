"""Files that do not hold what was written."""

from __future__ import annotations

import pegel
from pegel.record.batch import iter_batches
from tests.monitoring.runbook.test_replicas import _two_replicas
from tests.monitoring.runbook.trial import SERVE, Trial, tries
from tests.monitoring.theatre import MARKS, Scene

pytestmark = MARKS
HEALTH = "pegel cluster health"
EXPLAIN = "pegel explain TOPIC PARTITION"
OFFLINE = "grep replica_offline node.log"
READY = "curl http://HOST:9098/readyz"
STOP = "kill $(cat node.lock)"
AWAY = "mv log/TOPIC-PARTITION DATA_DIR"


def _fill(scene: Scene, topic: str) -> None:
    async def write(client: pegel.AsyncClient) -> None:
        async with client.producer(acks="all", linger_ms=0) as producer:
            for number in range(20):
                await producer.send_many(topic, [b"%d" % number * 50] * 10, partition=0)

    scene.ask(write)


def _damage(scene: Scene, node: int, topic: str) -> int:
    """Flip a bit in the middle of the log of a node that was killed; the damaged batch."""
    path = scene.cluster.nodes[node].data_dir / "log" / f"{topic}-0" / f"{0:020d}.log"
    content = bytearray(path.read_bytes())
    starts = [position for position, _header in iter_batches(content)]
    batch = starts[len(starts) // 2]
    content[batch + 80] ^= 1
    path.write_bytes(content)
    return batch


@tries(
    "PegelLogCorruption",
    look={
        HEALTH: r"damaged",
        EXPLAIN: r"broker {N} .*{TOPIC}-0/0+\.log.*byte {BYTE}",
        OFFLINE: r"replica_offline partition={TOPIC}-0 reason=.*{TOPIC}-0/0+\.log.*byte {BYTE}",
        READY: r'"ready": true, "offline_replicas": 1',
    },
    do={STOP: "", AWAY: "", SERVE: "ready"},
)
def test_one_replica_is_damaged(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    _leader, follower = _two_replicas(stage, "damaged")
    _fill(stage, "damaged")
    stage.cluster.kill(follower)
    byte = _damage(stage, follower, "damaged")
    stage.cluster.restart(follower)
    trial.names(follower, TOPIC="damaged", PARTITION=0, BYTE=byte)
    trial.fires()
    trial.look()
    trial.do("kill")
    trial.gone()
    trial.do("mv")
    trial.do("pegel server")
    trial.clears()
    trial.sees("pegel topics describe TOPIC", r"^ +0 +\d +\d+ +\S+ +\S*{N}", seconds=20)


@tries("PegelMetadataErrors", look={
    "grep 'cannot host' node.log": r"cannot host unhosted-0: .*/unhosted-0/0+\.log.*byte \d+"
})  # fmt: skip
def test_a_replica_cannot_be_hosted(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    _leader, follower = _two_replicas(stage, "unhosted")
    _fill(stage, "unhosted")
    stage.cluster.kill(follower)
    _damage(stage, follower, "unhosted")
    stage.cluster.restart(follower)
    trial.names(follower)
    trial.fires()
    trial.look()
    stage.cluster.terminate(follower)
    trial.run("mv log/unhosted-0 .")
    stage.cluster.restart(follower)
    trial.clears()


CHECKPOINTS = (
    "rm -f log/recovery-point-offset-checkpoint log/replication-offset-checkpoint "
    "log/.kafka_cleanshutdown"
)


@tries(
    "PegelLogCorruption",
    do={
        "cp -r log/TOPIC-PARTITION DATA_DIR": "",
        EXPLAIN: "byte {BYTE}",
        "truncate -s BYTE FILE": "",
        CHECKPOINTS: "",
    },
)
def test_the_only_replica_is_damaged(trial: Trial, stage: Scene) -> None:
    trial.on(stage)

    async def create(client: pegel.AsyncClient) -> None:
        await client.create_topic("only", partitions=1, replication=1)

    stage.ask(create)
    leader = stage.cluster.leader_of("only", 0)
    _fill(stage, "only")
    stage.cluster.kill(leader)
    byte = _damage(stage, leader, "only")
    stage.cluster.restart(leader)
    trial.fires()
    trial.names(leader, TOPIC="only", PARTITION=0, BYTE=byte)
    trial.do("pegel explain")
    trial.names(leader, TOPIC="only", PARTITION=0, BYTE=byte, FILE=f"log/only-0/{0:020d}.log")
    stage.cluster.terminate(leader)
    for step in ("cp", "truncate", "rm"):
        trial.do(step)
    stage.cluster.restart(leader)
    trial.clears()
    trial.sees("pegel consume only --from-beginning --exit-at-end | wc -l", "^100$")
    _fill(stage, "only")


@tries("PegelLogCorruption", do={"rm log/TOPIC-PARTITION/leader-epoch-checkpoint": ""})
def test_only_the_list_of_epochs_is_damaged(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    _leader, follower = _two_replicas(stage, "epochs")
    _fill(stage, "epochs")
    stage.cluster.terminate(follower)
    checkpoint = stage.cluster.nodes[follower].data_dir / "log/epochs-0/leader-epoch-checkpoint"
    checkpoint.write_text("0\n1\nnonsense\n")
    stage.cluster.restart(follower)
    trial.fires()
    trial.names(follower, TOPIC="epochs", PARTITION=0)
    trial.sees("pegel explain TOPIC PARTITION", "leader-epoch-checkpoint")
    stage.cluster.terminate(follower)
    trial.do("rm")
    stage.cluster.restart(follower)
    trial.clears()
