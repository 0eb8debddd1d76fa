"""`pegel explain`, `events` and `health` on real brokers, as people and scripts call them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pegel import Client
from pegel.testing import LocalCluster
from tests.process.command import pegel_command

pytestmark = pytest.mark.process

PATIENCE = 20.0


def _until(cluster: LocalCluster, exit_code: int) -> str:
    """What `pegel cluster health` says once it ends with this code."""
    deadline = time.monotonic() + PATIENCE
    while True:
        code, out, err = pegel_command(cluster, "cluster", "health")
        if code == exit_code:
            return out
        assert time.monotonic() < deadline, (code, out, err)


def test_a_killed_leader_is_explained_and_the_health_has_exit_codes() -> None:
    with LocalCluster(brokers=3) as cluster:
        pegel_command(cluster, "topics", "create", "orders", "--replication", "3",
               "--config", "min.insync.replicas=2")  # fmt: skip
        assert _until(cluster, 0) == "healthy\n"
        first = cluster.leader_of("orders", 0)
        cluster.kill(first)
        second = cluster.leader_of("orders", 0)
        assert f"broker {first}" in _until(cluster, 1)
        code, out, _ = pegel_command(cluster, "explain", "orders", "0")
        assert code == 0
        assert out.startswith(
            f"Broker {second} leads orders-0 in epoch 1, because broker {first}, the leader "
            "before, was killed"
        )
        assert "One more failure stops writes with acks=all" in out
        code, out, _ = pegel_command(cluster, "explain", "orders", "0", "--json")
        (partition,) = json.loads(out)["partitions"]
        assert (partition["leader"], partition["missing"]) == (second, [first])
        assert partition["failures_to_no_writes"] == 1
        assert partition["leader_since_ms"] > 0
        code, out, _ = pegel_command(cluster, "cluster", "events", "--json", "--topic", "orders")
        events = [json.loads(line) for line in out.splitlines()]
        elected = [e for e in events if e["old_leader"] == first and e["leader"] == second]
        assert [e["reason"] for e in elected] == ["killed"]
        cluster.restart(first)
        _until(cluster, 0)
        code, out, _ = pegel_command(cluster, "explain", "orders")
        assert "every replica is in sync" in out


def test_the_history_outlives_every_controller(tmp_path: Path) -> None:
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        pegel_command(cluster, "topics", "create", "orders", "--replication", "3")
        cluster.kill(cluster.leader_of("orders", 0))
        _until(cluster, 1)
        before = pegel_command(cluster, "cluster", "events", "--last", "1000")[1].splitlines()
        cluster.stop()
        cluster.start()
        after = pegel_command(cluster, "cluster", "events", "--last", "1000")[1].splitlines()
        assert before
        assert after[: len(before)] == before


def test_events_are_followed_until_they_are_interrupted() -> None:
    with LocalCluster(brokers=1) as cluster:
        command = [sys.executable, "-m", "pegel", "cluster", "events", "--follow", "--last", "0",
                   "-b", cluster.bootstrap]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            # It may be late for the first topics: they are made until it tells of one.
            deadline = time.monotonic() + PATIENCE
            number = 0
            while not _readable(follower) and time.monotonic() < deadline:
                pegel_command(cluster, "topics", "create", f"t{number}")
                number += 1
            line = follower.stdout.readline()
            follower.send_signal(2)
            follower.stdout.read()
            assert follower.wait(PATIENCE) == 0
        assert ": topic created" in line


def _readable(process: subprocess.Popen[str]) -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0.1)[0])


def test_a_topic_or_partition_that_is_not_there() -> None:
    with LocalCluster(brokers=1) as cluster:
        code, out, err = pegel_command(cluster, "explain", "nobody")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "there is no topic 'nobody'" in err
        pegel_command(cluster, "topics", "create", "t", "--partitions", "2")
        code, out, err = pegel_command(cluster, "explain", "t", "7")
        assert (code, out) == (1, "")
        assert err == "pegel: t has the partitions 0 to 1, not 7\n"


def test_no_cluster_is_unavailable() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pegel", "cluster", "health", "--json", "--timeout", "1",
         "-b", "127.0.0.1:1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["health"] == "unavailable"
    assert "127.0.0.1:1" in document["problems"][0]["text"]


def test_damage_to_the_only_replica_is_told_wherever_somebody_looks(tmp_path: Path) -> None:
    with LocalCluster(brokers=1, data_dir=tmp_path) as cluster:
        pegel_command(cluster, "topics", "create", "orders", "--replication", "1")
        with Client(cluster.bootstrap) as client, client.producer() as producer:
            for _ in range(3):
                producer.send_many("orders", [b"x" * 100] * 10)
        cluster.kill(1)
        segment = tmp_path / "node-1" / "log" / "orders-0" / f"{0:020}.log"
        content = bytearray(segment.read_bytes())
        content[len(content) // 2] ^= 0xFF
        segment.write_bytes(content)
        cluster.restart(1)
        damaged = f"the replica of orders-0 on broker 1 is damaged: {segment}: damaged at byte "
        assert damaged in _until(cluster, 2)
        _, out, _ = pegel_command(cluster, "topics", "describe", "orders")
        assert damaged in out
        _, out, _ = pegel_command(cluster, "explain", "orders", "0")
        why, missing, effect, *timeline = out.splitlines()
        assert f"that on broker 1 is damaged: {segment}: damaged at byte " in why
        assert "every replica is in sync" not in out
        assert "restore that file" in effect
        assert any(f"the replica on broker 1 is damaged: {segment}" in line for line in timeline)
        assert str(segment) in missing
        with urllib.request.urlopen(f"http://{cluster.nodes[1].http}/readyz", timeout=5) as page:
            assert json.loads(page.read()) == {"ready": True, "offline_replicas": 1}
