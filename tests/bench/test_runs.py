"""``pegel bench`` as people run it, against brokers in this process that stall, lie or are gone."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.messages.produce import ProduceRequest
from pegel.protocol.schema import Message
from tests.support.fake_broker import FakeBroker, FakeCluster

pytestmark = pytest.mark.timeout(60)


async def bench(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pegel", "bench", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def finished(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def with_brokers(
    body: Callable[[FakeCluster], Coroutine[None, None, None]], brokers: int = 1
) -> None:
    async def main() -> None:
        async with FakeCluster(brokers) as cluster:
            await body(cluster)

    asyncio.run(main())


async def until_produced(cluster: FakeCluster, requests: int) -> None:
    while len(cluster.requests(ProduceRequest)) < requests:
        await asyncio.sleep(0.005)


def row_of(document: str) -> dict[str, Any]:
    rows = json.loads(document)["rows"]
    assert len(rows) == 1
    found: dict[str, Any] = rows[0]
    return found


@pytest.mark.parametrize("client", ["raw", "pegel"])
def test_a_stall_of_a_second_is_charged_to_all_that_was_due_in_it(client: str) -> None:
    """No coordinated omission: 100 requests were due, half of them at least half a second late."""

    async def body(cluster: FakeCluster) -> None:
        process = await bench(
            "latency", "-b", cluster.bootstrap, "--mode", "open", "--acks", "1", "--rate", "100",
            "--seconds", "3", "--warm-up", "0", "--partitions", "1", "--client", client, "--json",
        )  # fmt: skip
        await until_produced(cluster, 50)
        (broker,) = cluster.brokers.values()
        for connection in broker.connections:
            connection.pause_reading()
        await asyncio.sleep(1.0)
        for connection in broker.connections:
            connection.resume_reading()
        code, out, err = await finished(process)
        assert code == 0, err
        figures = row_of(out)["figures"]
        assert figures["requests"] == figures["acknowledged"] == 300
        # Only bounds from below: a slow machine makes latencies longer, never shorter.
        assert figures["max_ms"] >= 950
        late = [p for p, milliseconds in row_of(out)["curve"] if milliseconds >= 500]
        assert min(late) <= 100 - 100 * 45 / 300

    with_brokers(body)


def test_an_acknowledged_record_that_is_not_there_fails_the_run() -> None:
    def lie(broker: FakeBroker, message: Message, version: int) -> Message | None:
        """Acknowledged, and then gone from the log."""
        answer = broker.answer(message, version)
        (topic,) = broker.cluster.topics.values()
        topic.partitions[0].batches.pop()
        return answer

    def honest(broker: FakeBroker, message: Message, version: int) -> Message | None:
        return broker.answer(message, version)

    async def body(cluster: FakeCluster) -> None:
        cluster.script(ApiKey.PRODUCE, *[honest] * 20, lie)
        process = await bench(
            "latency", "-b", cluster.bootstrap, "--mode", "one", "--acks", "1", "--warm-up", "0",
            "--seconds", "0.5", "--partitions", "1", "--batch-records", "3",
        )  # fmt: skip
        code, out, _ = await finished(process)
        assert code == 1
        assert "3 acknowledged records lost" in out
        assert "LOST" in out

    with_brokers(body)


def test_a_batch_with_another_content_than_was_sent_counts_as_lost() -> None:
    def swap(broker: FakeBroker, message: Message, version: int) -> Message | None:
        """A batch is there, but it is the one before."""
        answer = broker.answer(message, version)
        (topic,) = broker.cluster.topics.values()
        batches = topic.partitions[0].batches
        header, data = batches[-1]
        other = bytearray(batches[-2][1])
        other[:8] = data[:8]
        batches[-1] = (header, bytes(other))
        return answer

    def honest(broker: FakeBroker, message: Message, version: int) -> Message | None:
        return broker.answer(message, version)

    async def body(cluster: FakeCluster) -> None:
        cluster.script(ApiKey.PRODUCE, *[honest] * 5, swap)
        process = await bench(
            "latency", "-b", cluster.bootstrap, "--mode", "one", "--acks", "1", "--warm-up", "0",
            "--seconds", "0.3", "--partitions", "1",
        )  # fmt: skip
        code, out, _ = await finished(process)
        assert code == 1
        assert "1 acknowledged records lost" in out

    with_brokers(body)


def test_nobody_answers_at_the_bootstrap_address() -> None:
    async def body(cluster: FakeCluster) -> None:
        (broker,) = cluster.brokers.values()
        broker.stop()
        code, out, err = await finished(await bench("throughput", "-b", cluster.bootstrap))
        assert code == 1
        assert err.startswith("pegel: no broker answers at 127.0.0.1:")
        assert err.count("\n") == 1
        assert "Traceback" not in out + err

    with_brokers(body)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["throughput", "-b", "host:no"], "is not an address"),
        (["throughput", "--acks", "2"], "'2' is none of 0, 1, all"),
        (["throughput", "--partitions", "1,x"], "is not a list such as 1,3,100"),
        (["throughput", "--processes", "2", "--partitions", "1"], "need as many partitions"),
        (["latency", "--client", "java"], "'java' is none of"),
        (["failover", "--how", "unplug"], "'unplug' is none of"),
        (["sweep", "--over", "moons"], "moons"),
        (["latency", "--client", "librdkafka"], "none of raw, pegel"),
        (["sweep", "--values", "1", "--processes", "2"], "need as many partitions"),
        (["sweep", "--over", "connections", "--processes", "2"], "need as many partitions"),
        (["throughput", "-b", "h:1", "--set", "a=1"], "--set is for brokers that are started"),
        (["throughput", "-b", "h:1", "--brokers", "5"], "--brokers is for brokers that are"),
        (["throughput", "--kafka-heap", "2g"], "--kafka-heap is for --compare kafka"),
        (["throughput", "--kafka-set", "a=1"], "--kafka-set is for --compare kafka"),
        (["throughput", "-b", "h:1", "--costs"], "leave --bootstrap out"),
        (["failover", "--costs"], "failover has none"),
        (["throughput", "--client", "librdkafka", "--in-flight", "1"], "max.in.flight"),
        (["consume", "--client-set", "queued.min.messages=1"], "add --client librdkafka"),
        (["consume", "--client", "librdkafka", "--client-set", "q=1"], "configuration property"),
        (["throughput", "--client", "librdkafka", "--client-set", "linger.ms=x"], "Invalid value"),
    ],
)
def test_wrong_usage_is_said_before_anything_starts(arguments: list[str], complaint: str) -> None:
    async def main() -> None:
        code, out, err = await finished(await bench(*arguments))
        assert code == 2
        assert complaint in err
        assert not out

    asyncio.run(main())


def test_failover_refuses_a_cluster_that_it_may_not_kill() -> None:
    async def body(cluster: FakeCluster) -> None:
        code, _, err = await finished(await bench("failover", "-b", cluster.bootstrap))
        assert code == 1
        assert "only takes clusters that it starts" in err
        assert not cluster.topics

    with_brokers(body)


def test_a_rate_that_cannot_be_held_is_said() -> None:
    async def body(cluster: FakeCluster) -> None:
        process = await bench(
            "latency", "-b", cluster.bootstrap, "--mode", "open", "--acks", "1",
            "--rate", "400000", "--seconds", "0.1", "--warm-up", "0", "--partitions", "1",
        )  # fmt: skip
        code, out, err = await finished(process)
        assert code == 0, err
        assert "of 400,000 requests a second" in out
        assert "latencies include the wait for the load generator itself" in out

    with_brokers(body)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_prints_what_there_is_and_removes_the_topic(number: signal.Signals) -> None:
    async def body(cluster: FakeCluster) -> None:
        process = await bench(
            "throughput", "-b", cluster.bootstrap, "--acks", "1", "--partitions", "1",
            "--seconds", "600", "--warm-up", "0",
        )  # fmt: skip
        await until_produced(cluster, 20)
        assert len(cluster.topics) == 1
        process.send_signal(number)
        code, out, err = await finished(process)
        assert code == 130
        assert "interrupted" in out
        assert "MB/s" in out
        assert err == "pegel: interrupted: the results above are partial\n"
        assert not cluster.topics

    with_brokers(body)


def test_two_targets_take_turns_and_the_files_hold_every_round(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeCluster() as one, FakeCluster() as other:
            process = await bench(
                "throughput", "-b", one.bootstrap, "--compare", f"other={other.bootstrap}",
                "--rounds", "2", "--acks", "0,1", "--partitions", "1", "--seconds", "0.2",
                "--warm-up", "0", "--first-warm-up", "0", "--batch-bytes", "5000", "--processes",
                "1", "--json", "--seed", "7", "--csv", str(tmp_path / "a.csv"),
                "--html", str(tmp_path / "a.html"),
            )  # fmt: skip
            code, out, err = await finished(process)
        assert code == 0, err
        document = json.loads(out)
        order = [(r["target"], r["case"]["acks"], r["round"]) for r in document["rows"]]
        assert order == [
            ("target", "0", 1), ("other", "0", 1), ("other", "0", 2), ("target", "0", 2),
            ("target", "1", 1), ("other", "1", 1), ("other", "1", 2), ("target", "1", 2),
        ]  # fmt: skip
        assert all(row["verified"] and row["ok"] for row in document["rows"])
        assert all(row["figures"]["mb_per_s"] > 0 for row in document["rows"])
        assert document["setup"]["seed"] == 7
        assert document["environment"]["cores"] >= 1
        assert {r["case"] for r in document["ratios"]} == {
            "acks 0, partitions 1", "acks 1, partitions 1",
        }  # fmt: skip
        with (tmp_path / "a.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [line["round"] for line in lines] == ["1", "1", "2", "2"] * 2
        told = [(x["made_by"], x["replication"], x["min_insync_replicas"]) for x in lines]
        assert set(told) == {("raw", "1", "1")}
        assert all("no sync" in line["durability"] for line in lines)
        page = (tmp_path / "a.html").read_text()
        assert "<svg" in page
        assert "http" not in page.replace("http://www.w3.org", "")
        assert "<script" not in page

    asyncio.run(main())


def test_several_load_generators_share_the_partitions() -> None:
    async def body(cluster: FakeCluster) -> None:
        process = await bench(
            "latency", "-b", cluster.bootstrap, "--mode", "open", "--acks", "1", "--rate", "100",
            "--seconds", "0.5", "--warm-up", "0", "--partitions", "3", "--processes", "2", "--json",
        )  # fmt: skip
        code, out, err = await finished(process)
        assert code == 0, err
        row = row_of(out)
        assert row["verified"]
        assert row["figures"]["requests"] == row["figures"]["acknowledged"] == 50
        used = {
            partition.index
            for message in cluster.requests(ProduceRequest)
            if isinstance(message, ProduceRequest)
            for topic in message.topic_data
            for partition in topic.partition_data
        }
        assert used == {0, 1, 2}

    with_brokers(body)
