"""A change of leader, followed through the logs of three nodes by one grep."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

import pegel
from pegel.testing import LocalCluster

pytestmark = pytest.mark.process


def _events(cluster: LocalCluster, partition: str) -> list[dict[str, Any]]:
    """``grep partition`` over all logs, by time."""
    lines = [
        json.loads(line)
        for node_id in cluster.nodes
        for line in cluster.log_of(node_id).splitlines()
        if f'"{partition}"' in line
    ]
    return sorted(lines, key=lambda line: (line["time"], line.get("at_ms", 0)))


def test_a_killed_leader_can_be_followed_across_nodes() -> None:
    async def create(bootstrap: str) -> None:
        async with pegel.AsyncClient(bootstrap) as client:
            await client.create_topic("orders", partitions=1, replication=3)
            await client.send_many("orders", [b"x"] * 10)

    with LocalCluster(brokers=3, log_format="json") as cluster:
        asyncio.run(create(cluster.bootstrap))
        old = cluster.leader_of("orders", 0)
        cluster.kill(old)
        deadline = time.monotonic() + 20
        while (new := cluster.leader_of("orders", 0)) == old and time.monotonic() < deadline:
            pass
        events = _events(cluster, "orders-0")
        elected = [e for e in events if e["event"] == "elected"]
        leads = [e for e in events if e["event"] == "leads"]
        assert elected[-1]["leader"] == new
        assert elected[-1]["reason"] == "killed"
        assert leads[0]["node"] == leads[0]["isr"][0] == old
        assert leads[-1]["node"] == new
        assert leads[-1]["epoch"] == elected[-1]["epoch"] == leads[0]["epoch"] + 1
        fenced = [
            json.loads(line)
            for node_id in cluster.nodes
            for line in cluster.log_of(node_id).splitlines()
            if '"fenced"' in line
        ]
        assert {line["broker"] for line in fenced} == {old}
