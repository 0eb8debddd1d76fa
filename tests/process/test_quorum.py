"""Nodes added to a running cluster, as brokers and as votes: the commands, real processes."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

import pegel
from pegel.testing import LocalCluster
from tests.process.load import Load
from tests.process.test_balance import command

pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]


async def added(cluster: LocalCluster, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pegel", "cluster", "add", "--data-dir", str(cluster.data_dir),
        "--json", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(40):
        return (await stream.readline()).decode()


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.communicate()


def test_a_new_node_is_a_broker_at_once_and_votes_when_told() -> None:
    async def main(cluster: LocalCluster) -> None:
        process = await added(cluster, "--controller")
        try:
            hint = await line(process.stderr)
            assert "pegel cluster quorum add 4@" in hint
            assert json.loads(await line(process.stdout))["id"] == 4
            async with pegel.AsyncClient(cluster.bootstrap) as client:
                await client.admin.create_topic("t", partitions=3, replication=3)
                async with Load(client, "t", 3) as load:
                    await load.acknowledged(100)
                    code, out, err = await command(cluster, "quorum", "add", hint.split()[-1])
                    assert (code, out, err) == (0, "controller 4 votes\n", "")
                    found = await client.admin.describe_quorum()
                    assert sorted(v.node_id for v in found.voters) == [1, 2, 3, 4]
                    assert all(v.log_end_offset > 0 and v.address for v in found.voters)
                    code, _, err = await command(cluster, "quorum", "remove", "9")
                    assert code == 1
                    assert "voters are 1, 2, 3, 4" in err
                    leader = found.leader_id
                    code, out, err = await command(cluster, "quorum", "remove", str(leader))
                    assert (code, err) == (0, ""), err
                    await load.acknowledged(100)
                    found = await client.admin.describe_quorum()
                    assert leader not in [v.node_id for v in found.voters]
                    assert leader in [o.node_id for o in found.observers]
                assert await load.missing() == []
        finally:
            await end(process)

    with LocalCluster(brokers=3) as cluster:
        asyncio.run(main(cluster))


def test_an_added_arbiter_is_part_of_the_cluster_when_it_is_started_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    async def grow(cluster: LocalCluster) -> None:
        process = await added(cluster, "--arbiter")
        try:
            hint = await line(process.stderr)
            code, _, err = await command(cluster, "quorum", "add", hint.split()[-1])
            assert (code, err) == (0, ""), err
            assert json.loads(await line(process.stdout))["client"] is None
        finally:
            await end(process)

    with LocalCluster(brokers=2, data_dir=tmp_path) as cluster:
        asyncio.run(grow(cluster))
    with LocalCluster(brokers=2, arbiters=1, data_dir=tmp_path) as cluster:
        cluster.active_controller()
        assert cluster.view(3)["controller"]["voters"] == [1, 2, 3]
        cluster.kill(1)
        assert cluster.active_controller() in {2, 3}
