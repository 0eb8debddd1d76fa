"""``pegel chaos`` for real: a few rounds, and a look at whether it would notice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pegel
from pegel.record.batch import iter_batches
from pegel.testing import ProxiedCluster
from pegel_bench.chaos.load import Load
from tests.process.harness import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def test_two_rounds_lose_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pegel", "chaos", "--rounds", "2", "--seed", "11", "--faults",
         "kill-leader,cut-off-from-all,terminate-leader", "--json", "--html",
         str(tmp_path / "page.html")],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["ok"]
    assert len(found["rounds"]) == 2
    for one in found["rounds"]:
        assert one["findings"] == []
        assert one["sent"] == one["acknowledged"] + sum(one["gave_up"].values()) > 100
        assert one["read"] > 0
        assert one["elections"], "the leader failed, and nobody was elected"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_cluster_that_forgets_is_noticed() -> None:
    """Half of each log is taken away while nobody runs: brokers cannot know, the judge has to."""
    with ProxiedCluster(brokers=3) as cluster:
        asyncio.run(_create(cluster.bootstrap))
        load = Load(cluster.bootstrap, "forgotten", 1, "seed")
        load.start()
        until(lambda: load.acknowledged_since(0) > 50, "50 records of the prober")
        assert load.stop()
        assert not load.verdict().findings
        cluster.kill_all()
        kept = [_halve(node.data_dir) for node in cluster.nodes.values()]
        assert len(set(kept)) == 1
        cluster.restart(*cluster.nodes)
        findings = load.verdict().findings
    assert set(findings) == {"lost", "read and gone"}
    assert len(findings["lost"]) > 50


async def _create(bootstrap: str) -> None:
    async with pegel.AsyncClient(bootstrap) as client:
        await client.create_topic("forgotten", partitions=1, replication=3)


def _halve(data_dir: Path) -> int:
    """Cut the log between two batches; the size that is left."""
    (path,) = data_dir.rglob("forgotten-0/00000000000000000000.log")
    data = path.read_bytes()
    ends = [position + header.size for position, header in iter_batches(memoryview(data))]
    kept = ends[len(ends) // 2]
    path.write_bytes(data[:kept])
    return kept
