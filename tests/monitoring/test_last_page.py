"""A node whose disk fails ends, and is scraped once more before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import time
import urllib.error
import urllib.request

import pytest

import pegel
from pegel.testing import LocalCluster

pytestmark = pytest.mark.process
OFFLINE = 'pegel_log_dir_offline{dir="'


def _page(cluster: LocalCluster, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{cluster.nodes[1].http}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _until(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _fail_the_disk(cluster: LocalCluster) -> None:
    """Every write to a file fails from now on."""
    resource.prlimit(cluster.nodes[1].pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    async def write() -> None:
        async with (
            pegel.AsyncClient(cluster.bootstrap) as client,
            client.producer(delivery_timeout=2) as producer,
        ):
            await producer.send("t", b"x" * 1000)

    with contextlib.suppress(pegel.PegelError):
        asyncio.run(write())


async def _create(cluster: LocalCluster) -> None:
    async with pegel.AsyncClient(cluster.bootstrap) as client:
        await client.create_topic("t", partitions=1, replication=1)


def test_who_scrapes_a_node_learns_that_its_disk_has_failed() -> None:
    with LocalCluster(brokers=1) as cluster:
        asyncio.run(_create(cluster))
        before = _page(cluster, "/metrics")[1]
        assert f'{OFFLINE}{cluster.nodes[1].data_dir}/log"}} 0.0' in before
        assert f'{OFFLINE}{cluster.nodes[1].data_dir}/raft"}} 0.0' in before
        _fail_the_disk(cluster)
        _until(lambda: _page(cluster, "/healthz")[0] == 503)
        # Which of its files has noticed first is chance.
        reason = json.loads(_page(cluster, "/healthz")[1])["reason"]
        which = "raft" if "the metadata log failed" in reason else "log"
        last = _page(cluster, "/metrics")[1]
        assert f'{OFFLINE}{cluster.nodes[1].data_dir}/{which}"}} 1.0' in last
        assert "pegel_controller_active" not in last
        _until(lambda: not cluster.is_running(1))


@pytest.mark.parametrize("scraped", [False, True])
def test_a_node_does_not_wait_for_nobody_nor_when_told_to_stop(scraped: bool) -> None:
    with LocalCluster(brokers=1) as cluster:
        asyncio.run(_create(cluster))
        if scraped:
            _page(cluster, "/metrics")
        _fail_the_disk(cluster)
        if scraped:
            _until(lambda: _page(cluster, "/healthz")[0] == 503)
            cluster._signal(1, signal.SIGTERM)
        _until(lambda: not cluster.is_running(1))
