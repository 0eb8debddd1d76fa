"""Brokers that are gone, hang, or are not wanted back."""

from __future__ import annotations

from pathlib import Path

from pegel.testing import LocalCluster
from tests.monitoring.load import TOPIC
from tests.monitoring.runbook.trial import SERVE, Trial, tries
from tests.monitoring.theatre import MARKS, SETTINGS, Scene, disk_of, scene

pytestmark = MARKS


@tries(
    "",
    look={
        "pegel cluster health": r"^degraded\n +broker \d .*is fenced",
        "pegel cluster events --last 20": r"broker \d was fenced \(its process was gone",
        "pegel explain TOPIC PARTITION": r"^Broker \d leads .*because broker \d, the leader before",
        "pegel topics describe TOPIC": r"^PARTITION +LEADER +EPOCH +REPLICAS +IN SYNC",
        "grep -h 'partition=TOPIC-PARTITION ' DATA_DIR/node-*/node.log | sort":
            r"elected partition=orders-0 .*reason=killed.*\n.* leads partition=orders-0",
    },
)  # fmt: skip
def test_the_first_five_commands(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    victim = stage.cluster.leader_of(TOPIC, 0)
    stage.cluster.kill(victim)
    stage.cluster.leader_of(TOPIC, 0)
    trial.names(victim, TOPIC=TOPIC, PARTITION=0)
    trial.look(seconds=20)


@tries(
    "PegelBrokerDown",
    look={
        "curl -m 5 http://HOST:9098/healthz": "timed out",
        "tail -n 3 node.log": r"node=\d",
        "pegel cluster describe": r"^ +{N} .* fenced ",
    },
    do={"kill -9 $(cat node.lock)": "", SERVE: "ready"},
)
def test_a_broker_hangs(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    victim = stage.another()
    trial.names(victim)
    stage.cluster.pause(victim)
    trial.fires()
    trial.look()
    trial.do("kill")
    trial.do("pegel server")
    trial.clears()
    # Its preferred leaders come back.
    trial.sees("pegel cluster describe", r"^ +{N} .* live +[1-9]", seconds=60)


@tries(
    "PegelBrokerDown",
    look={
        "curl -m 5 http://HOST:9098/healthz": "Failed to connect|Connection refused",
        "grep CRITICAL node.log": r"no log directory is left: .*/log: .*No space left on device",
    },
    do={SERVE: "ready"},
)
def test_a_broker_stops_by_itself(trial: Trial, stage: Scene) -> None:
    """Its only disk is full."""
    trial.on(stage)
    victim = stage.another()
    trial.names(victim)
    with disk_of(stage.cluster, victim) as disk:
        disk.fill()
        trial.fires()
        trial.look()
        disk.free()
        trial.do("pegel server")
        trial.clears()


@tries("PegelFencedBrokers", do={SERVE: "ready"})
def test_a_fenced_broker_is_started(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    victim = stage.another()
    stage.cluster.kill(victim)
    trial.fires()
    trial.names(stage.cluster.active_controller())
    trial.sees("grep 'fenced ' node.log", f" fenced broker={victim} reason=killed ")
    trial.names(victim)
    trial.do("pegel server")
    trial.clears()


@tries(
    "PegelFencedBrokers",
    do={"pegel cluster drain ID": "", "pegel cluster remove ID": ""},
)
def test_a_fenced_broker_will_not_come_back(trial: Trial, tmp_path: Path) -> None:
    cluster = LocalCluster(brokers=3, observers=1, settings=SETTINGS)
    with scene(tmp_path, cluster=cluster, alertmanager=False) as staged:
        trial.on(staged)
        lost = max(cluster.nodes)
        trial.names(lost)
        trial.run("pegel topics create more --partitions 8 --replication 2")
        cluster.kill(lost)
        trial.fires()
        trial.do("pegel cluster drain")
        trial.do("pegel cluster remove")
        trial.clears()
        trial.sees("pegel cluster describe", "3 brokers, ")


@tries(
    "PegelPreferredLeaderImbalance",
    look={"pegel topics describe TOPIC": r"^ +\d+ +(?!{N} )\d +\d+ +{N},\d,\d +(?!.*{N}.* )\d,\d "},
)
def test_preferred_leaders_are_out_of_sync(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    victim = stage.another()
    trial.names(victim, TOPIC=TOPIC)
    stage.cluster.kill(victim)
    trial.fires()
    trial.look()
    stage.cluster.restart(victim)
    trial.clears()


@tries(
    "PegelPreferredLeaderImbalance",
    look={
        "grep auto.leader.rebalance.enable DATA_DIR/node-N/server.properties": "=false$",
    },
    do={"pegel cluster elect": r"[1-9]"},
)
def test_balancing_is_switched_off(trial: Trial, tmp_path: Path) -> None:
    cluster = LocalCluster(brokers=3, settings=SETTINGS | {"auto.leader.rebalance.enable": "false"})
    with scene(tmp_path, cluster=cluster, alertmanager=False) as staged:
        trial.on(staged)
        victim = cluster.leader_of(TOPIC, 0)
        cluster.kill(victim)
        cluster.restart(victim)
        trial.fires()
        trial.names(victim)
        trial.look()
        trial.do("pegel cluster elect")
        trial.clears()
