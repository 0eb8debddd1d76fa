"""The commands that share a cluster's load, against real brokers, while a client writes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator

import pytest

import pegel
from pegel.testing import LocalCluster
from tests.process.load import ConfluentLoad, Load

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

PARTITIONS = 9


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=4) as cluster:
        yield cluster


async def command(cluster: LocalCluster, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pegel", "cluster", *arguments, "--bootstrap", cluster.bootstrap,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def shares(client: pegel.AsyncClient, what: str) -> dict[int, int]:
    """By broker: replicas, or partitions led now."""
    found = dict.fromkeys(range(1, 5), 0)
    for p in (p for topic in await client.admin.list_topics() for p in topic.partitions):
        for broker in p.replicas if what == "replicas" else [p.leader]:
            found[broker] += 1
    return found


def test_watch_keeps_the_balance_over_a_change_of_controller_and_says_what_is_new(
    cluster: LocalCluster,
) -> None:
    async def main() -> None:
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pegel", "cluster", "balance", "--watch", "--interval", "0.2",
            "--bootstrap", cluster.bootstrap,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert watching.stdout is not None
        try:
            async with asyncio.timeout(60), pegel.AsyncClient(cluster.bootstrap) as client:
                assert b"balanced" in await watching.stdout.readline()
                live = sorted(cluster.nodes)
                for topic in ("first", "second"):
                    crowded = dict.fromkeys(range(6), live[:2])
                    await client.admin.create_topic(topic, assignment=crowded)
                    seen = []
                    while not seen or b"balanced" not in seen[-1]:
                        seen.append(await watching.stdout.readline())
                    assert any(line.startswith(b"moved ") for line in seen)
                    held = await shares(client, "replicas")
                    assert max(held[b] for b in live) - min(held[b] for b in live) <= 1
                    if topic == "first":
                        active = cluster.active_controller()
                        cluster.kill(active)
                        await asyncio.to_thread(cluster.active_controller)
                        await asyncio.to_thread(cluster.restart, active)
                for topic in ("first", "second"):
                    await client.admin.delete_topic(topic)
            watching.send_signal(signal.SIGINT)
            assert await watching.wait() == 0
            assert b"balanced" not in await watching.stdout.read(), "said once"
        finally:
            if watching.returncode is None:
                watching.kill()

    asyncio.run(main())


def test_a_new_broker_gets_its_share_and_a_drained_one_is_empty_under_load(
    cluster: LocalCluster,
) -> None:
    """All on three of four brokers; then even; then one is emptied, stopped and removed.

    Our client and librdkafka write all the time, and no request of theirs fails.
    """

    async def main() -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            for topic in ("t", "librdkafka"):
                assignment = {n: [1, 2, 3] for n in range(PARTITIONS)}
                await client.admin.create_topic(topic, assignment=assignment)
            async with (
                Load(client, "t", PARTITIONS) as load,
                ConfluentLoad(cluster.bootstrap, "librdkafka", PARTITIONS) as librdkafka,
            ):
                await load.acknowledged(500)
                code, out, _ = await command(cluster, "balance", "--json")
                planned = json.loads(out)
                assert code == 0
                assert all(move["reasons"] for move in planned["moves"])
                assert (await shares(client, "replicas"))[4] == 0, "a plan changes nothing"
                code, out, err = await command(cluster, "balance", "--apply")
                assert (code, err) == (0, ""), err
                for what in ("replicas", "leaders"):
                    found = (await shares(client, what)).values()
                    assert max(found) - min(found) <= 1, what
                code, out, err = await command(cluster, "balance")
                assert (code, out, err) == (0, "balanced: nothing is to be moved\n", "")
                code, _, err = await command(cluster, "remove", "2")
                assert code == 1
                assert "pegel cluster drain 2" in err
                code, out, err = await command(cluster, "drain", "2")
                assert (code, err) == (0, ""), err
                assert (await shares(client, "replicas"))[2] == 0
                assert (await shares(client, "leaders"))[2] == 0
                code, _, err = await command(cluster, "remove", "2")
                assert code == 1
                assert "is running" in err
                await asyncio.to_thread(cluster.terminate, 2)
                code, out, err = await command(cluster, "remove", "2")
                assert (code, err) == (0, ""), err
                code, _, err = await command(cluster, "drain", "3")
                assert code == 1
                assert "has 3 replicas (2 such topics) and only 2 live brokers would be left" in err
                await load.acknowledged(500)
            assert await load.missing() == []
            assert min(librdkafka.sent) > 0
            assert await librdkafka.missing(client) == []
            brokers = (await client.admin.describe_cluster()).brokers
            assert [b.node_id for b in brokers] == [1, 3, 4]

    asyncio.run(main())


def test_moves_are_shown_and_cancelled(cluster: LocalCluster) -> None:
    async def main() -> None:
        code, out, err = await command(cluster, "moves")
        assert (code, out, err) == (0, "nothing moves\n", "")
        code, out, err = await command(cluster, "moves", "--cancel")
        assert (code, out, err) == (0, "cancelled 0 moves\n", "")
        code, _, err = await command(cluster, "elect", "nowhere")
        assert code == 1
        assert "nowhere" in err
        code, out, err = await command(cluster, "elect", "--json")
        assert (code, err) == (0, ""), err
        assert json.loads(out)["failed"] == []

    asyncio.run(main())
