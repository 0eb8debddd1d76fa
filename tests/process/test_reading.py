"""Reads from followers, and trims, on real brokers in racks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import urllib.request

import pytest

import pegel
from pegel.testing import LocalCluster
from pegel.types import TopicPartition
from tests.process.command import pegel_command

pytestmark = pytest.mark.process

RACKS = ("a", "b", "c")
# A write and a read each; PEGEL_FOLLOWER_READS=10000 for the long run.
PAIRS = int(os.environ.get("PEGEL_FOLLOWER_READS", "400"))


def _fetches(cluster: LocalCluster, node_id: int) -> int:
    """Fetch requests of clients that this broker has answered."""
    url = f"http://{cluster.nodes[node_id].http}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        text = response.read().decode()
    found = re.search(r'^pegel_requests_total\{api="Fetch"\} ([0-9.e+]+)$', text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


@pytest.mark.timeout(120 + PAIRS // 5)
def test_what_was_written_is_read_from_the_follower_in_the_readers_rack() -> None:
    with LocalCluster(brokers=3, racks=RACKS) as cluster:
        asyncio.run(_write_and_read(cluster, PAIRS))


async def _write_and_read(cluster: LocalCluster, pairs: int) -> None:
    r = random.Random(7)
    tp = TopicPartition("orders", 0)
    async with pegel.AsyncClient(cluster.bootstrap) as client:
        await client.create_topic(
            "orders", partitions=1, replication=3, config={"min.insync.replicas": 2}
        )
        await client.send("orders", b"first")
        leader = cluster.leader_of("orders", 0)
        follower = leader % 3 + 1
        rack = RACKS[follower - 1]
        async with client.consumer(partitions=[tp], rack=rack, offset_reset="earliest") as reader:
            assert await reader.next_batch(timeout=10) is not None
            at_leader, at_follower = _fetches(cluster, leader), _fetches(cluster, follower)
            for n in range(pairs):
                value = b"%d" % n
                written = await client.send("orders", value)
                # Mostly what was just written, now and then something older.
                back = 0 if r.random() < 0.8 else r.randrange(written.offset)
                offset = written.offset - back
                reader.seek(tp, offset)
                batch = await reader.next_batch(timeout=10)
                assert batch is not None, f"{offset} did not reach the follower"
                assert batch.offsets[0] == offset
                if not back:
                    assert batch.values[0] == value
            assert _fetches(cluster, follower) - at_follower >= pairs
            assert _fetches(cluster, leader) == at_leader  # not one went to the leader


def test_a_topic_is_trimmed_on_every_replica_and_stays_so() -> None:
    async def fill(bootstrap: str) -> int:
        async with pegel.AsyncClient(bootstrap) as client:
            await client.create_topic("t", partitions=2, replication=3)
            for partition in (0, 1):
                await client.send_many("t", [b"x"] * 10, partition=partition, timestamps=1_000_000)
            middle = 1_700_000_000_000
            for partition in (0, 1):
                await client.send_many("t", [b"y"] * 10, partition=partition, timestamps=middle)
            return middle

    with LocalCluster(brokers=3) as cluster:
        middle = asyncio.run(fill(cluster.bootstrap))
        code, out, err = pegel_command(cluster, "topics", "trim", "t")
        assert code == 2
        assert "give one of" in err
        code, out, err = pegel_command(
            cluster, "topics", "trim", "t", "--partition", "0", "--before-offset", "21"
        )
        assert (code, out) == (1, "")
        assert "t-0 ends at 20: it can be trimmed up to there" in err
        code, out, _ = pegel_command(cluster, "topics", "trim", "t", "--before-time", str(middle))
        assert (code, out.splitlines()[-1]) == (
            0, "20 records would be deleted: --execute does it"
        )  # fmt: skip
        code, out, _ = pegel_command(
            cluster, "topics", "trim", "t", "--before-time", str(middle), "--execute", "--json"
        )
        trimmed = json.loads(out)["partitions"]
        assert [(p["partition"], p["new_start_offset"], p["records"]) for p in trimmed] == [
            (0, 10, 10),
            (1, 10, 10),
        ]
        # Whoever leads next begins there too.
        cluster.kill(cluster.leader_of("t", 0))
        cluster.leader_of("t", 0)
        code, out, _ = pegel_command(
            cluster, "topics", "trim", "t", "--partition", "0", "--all", "--json"
        )
        assert json.loads(out)["partitions"] == [
            {"partition": 0, "start_offset": 10, "new_start_offset": 20, "records": 10}
        ]
