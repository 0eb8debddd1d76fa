"""The commands as people and scripts run them: real processes against a fake cluster."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime

import click
import pytest

from pegel.cli.times import parse_time
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from tests.client.cli.harness import pegel, run, start
from tests.support.fake_broker import FakeCluster


def test_topics_from_creation_to_deletion() -> None:
    async def body(cluster: FakeCluster) -> None:
        code, out, _ = await pegel(
            cluster, "topics", "create", "t", "--partitions", "2", "--config", "retention.ms=5"
        )
        assert (code, out) == (0, "created topic t\n")
        code, out, err = await pegel(cluster, "topics", "create", "t")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "already exists" in err
        code, out, _ = await pegel(cluster, "topics", "create", "t", "--if-not-exists", "--json")
        assert json.loads(out) == {"topic": "t", "created": False}
        code, out, _ = await pegel(cluster, "topics", "list")
        assert [line.split()[0] for line in out.splitlines()] == ["TOPIC", "t"]
        code, out, _ = await pegel(cluster, "topics", "describe", "t", "--json")
        assert [p["leader"] for p in json.loads(out)["partitions"]] == [1, 1]
        code, out, _ = await pegel(cluster, "topics", "configs", "t", "--set", "a=b", "--json")
        assert {c["key"] for c in json.loads(out)["configs"]} == {"a", "retention.ms"}
        assert (await pegel(cluster, "topics", "grow", "t", "--partitions", "3"))[0] == 0
        assert (await pegel(cluster, "topics", "delete", "t"))[0] == 0
        code, out, err = await pegel(cluster, "topics", "describe", "t")
        assert code == 1
        assert "pegel topics list" in err

    run(body)


def test_lines_go_in_and_come_out() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        lines = b"".join(b"key%d:value %d\n" % (i % 5, i) for i in range(1000))
        code, out, _ = await pegel(
            cluster, "produce", "t", "-k", ":", "--compression", "zstd", "--json",
            stdin=lines + b"last:without an end",
        )  # fmt: skip
        assert code == 0
        assert json.loads(out)["records"] == 1001
        code, out, _ = await pegel(
            cluster, "consume", "t", "--from-beginning", "--exit-at-end", "--with-keys"
        )
        assert code == 0
        assert sorted(out.splitlines())[-1] == "last\twithout an end"
        assert len(out.splitlines()) == 1001
        code, out, _ = await pegel(
            cluster, "consume", "t", "--partition", "0", "--offset", "3", "--max-records", "2",
            "--json",
        )  # fmt: skip
        assert [json.loads(line)["offset"] for line in out.splitlines()] == [3, 4]
        code, out, _ = await pegel(
            cluster, "consume", "t", "-p", "1", "--offset", "-2", "--exit-at-end"
        )
        assert len(out.splitlines()) == 2
        code, out, err = await pegel(cluster, "produce", "t", "-k", ":", stdin=b"a:b\nnone\n")
        assert code == 1
        assert err == "pegel: line 2 has no ':' between key and value\n"

    run(body)


def test_bytes_that_are_no_text_are_base64_in_json() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        await pegel(cluster, "produce", "t", stdin=b"\xff\xfe\n")
        _, out, _ = await pegel(cluster, "consume", "t", "--from-beginning", "-n", "1", "--json")
        document = json.loads(out)
        assert (document["key"], document["value_base64"]) == (None, "//4=")

    run(body)


def test_a_record_that_is_refused_is_one_line_and_exit_code_1() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.script(ApiKey.PRODUCE, ErrorCode.INVALID_RECORD)
        code, out, err = await pegel(cluster, "produce", "t", stdin=b"x\n")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "INVALID_RECORD" in err

    run(body)


def test_ctrl_c_ends_consume_cleanly() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        process = await start(cluster, "consume", "t", "--from-beginning")
        await pegel(cluster, "produce", "t", stdin=b"x\n")
        assert process.stdout is not None
        assert await process.stdout.readline() == b"x\n"
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")

    run(body)


def test_a_reader_that_waits_for_a_leader_says_so() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        process = await start(cluster, "consume", "t", "--from-beginning")
        await pegel(cluster, "produce", "t", stdin=b"x\n")
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.readline() == b"x\n"
        cluster.move("t", 1, -1)
        told = (await process.stderr.readline()).decode()
        assert told.startswith("pegel: no leader: t-1; ")
        process.send_signal(signal.SIGINT)
        _, rest = await process.communicate()
        assert (process.returncode, rest) == (0, b"")

    run(body)


def test_a_reader_that_has_enough_is_no_failure() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        await pegel(cluster, "produce", "t", stdin=b"some line\n" * 50_000)
        process = await start(cluster, "consume", "t", "--from-beginning")
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        assert await process.wait() == 0
        assert process.stderr is not None
        assert await process.stderr.read() == b""

    run(body)


def test_the_cluster_at_a_glance() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 4)
        _, out, _ = await pegel(cluster, "cluster", "describe", "--json")
        document = json.loads(out)
        assert [b["leaders"] for b in document["brokers"]] == [2, 2]
        assert document["offline"] == 0
        code, out, _ = await pegel(cluster, "cluster", "describe")
        assert code == 0
        assert out.startswith("cluster fake: 2 brokers, 1 topics, 4 partitions\n")

    run(body, brokers=2)


def test_a_replica_that_is_being_added_is_not_missing() -> None:
    """As Kafka counts: fewer in sync than there are by right is under-replicated (KIP-455)."""

    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 4)
        cluster.topics["t"].partitions[0].adding = (2,)
        _, out, _ = await pegel(cluster, "cluster", "describe", "--json")
        document = json.loads(out)
        assert (document["under_replicated"], document["moving"]) == (0, 1)
        _, out, _ = await pegel(cluster, "cluster", "describe")
        assert out.endswith("\n1 partitions move: pegel cluster moves\n")
        for command in ("list",), ("describe", "t"):
            _, out, _ = await pegel(cluster, "topics", *command)
            assert "ok" in out
            assert "under-replicated" not in out

    run(body, brokers=2)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("topics", "list", "-b", "127.0.0.1:1", "--timeout", "0.2"), 1, "pegel up"),
        (("topics", "list", "-b", "nonsense:x"), 2, "host:port"),
        (("topics", "create", "t", "--config", "nonsense"), 2, "KEY=VALUE"),
        (("topics", "create"), 2, "Usage"),
        (("consume", "t", "--from-beginning", "--offset", "3"), 2, "one of"),
        (("consume", "t", "--since", "yesterday"), 2, "2h"),
        (("consume", "nope"), 1, "topics create"),
        (("produce", "nope"), 1, "topics create"),
        (("topics", "delete", "nope"), 1, "topics list"),
        (("produce", "t", "--acks", "2"), 2, "acks"),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int, says: str) -> None:
    async def body(cluster: FakeCluster) -> None:
        got, out, err = await pegel(cluster, *arguments, stdin=b"x\n")
        assert got == code
        assert out == ""
        assert says in err
        if code == 1:
            assert len(err.splitlines()) == 1

    run(body)


def test_times() -> None:
    now = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
    ms = int(now.timestamp() * 1000)
    assert parse_time("10m", now, "--since") == ms - 600_000
    assert parse_time("1.5h", now, "--since") == ms - 5_400_000
    assert parse_time("1700000000000", now, "--since") == 1_700_000_000_000
    assert parse_time("2026-11-23T20:00+00:00", now, "--since") == ms
    with pytest.raises(click.BadParameter):
        parse_time("soon", now, "--since")


@pytest.mark.parametrize("command", [("produce",), ("consume", "--exit-at-end")])
def test_a_partition_that_is_not_there_is_one_line_that_names_those_there_are(
    command: tuple[str, ...],
) -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 3)
        code, out, err = await pegel(cluster, *command, "t", "--partition", "99", stdin=b"x\n")
        assert (code, out) == (1, "")
        assert err == "pegel: topic 't' has partitions 0 to 2, not 99\n"

    run(body)


def test_an_offset_beyond_the_end_is_an_error_that_names_the_end() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        await pegel(cluster, "produce", "t", "-p", "0", stdin=b"a\nb\nc\n")
        consume = ("consume", "t", "--exit-at-end", "--offset")
        code, out, err = await pegel(cluster, *consume, "99999", "-p", "0")
        assert (code, out) == (1, "")
        assert err == "pegel: offset 99999 is beyond the end: t-0 ends at 3\n"
        code, out, err = await pegel(cluster, *consume, "3", "-p", "0")
        assert (code, out, err) == (0, "", "")  # the next record that comes
        code, out, err = await pegel(cluster, *consume, "2")
        assert (code, out) == (0, "c\n")
        assert err == "pegel: offset 2 is beyond the end: t-1 ends at 0; read from there\n"

    run(body)


def test_an_offset_that_is_deleted_is_read_from_the_first_that_is_not() -> None:
    async def body(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        await pegel(cluster, "produce", "t", stdin=b"a\nb\nc\n")
        partition.log_start_offset = 3
        code, out, err = await pegel(cluster, "consume", "t", "--offset", "1", "--exit-at-end")
        assert (code, out) == (0, "")
        assert err == "pegel: t-0 begins at 3: what was before is deleted; read from there\n"

    run(body)


def test_produce_says_what_it_waits_for_and_gives_up_after_its_timeout() -> None:
    """Nothing printed and no end: a topic with too few replicas in sync looked like a hang."""

    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.script(ApiKey.PRODUCE, *[ErrorCode.NOT_ENOUGH_REPLICAS] * 10_000)
        code, out, err = await pegel(cluster, "produce", "t", "--timeout", "2.5", stdin=b"x\n")
        assert (code, out) == (1, "")
        first, last = err.splitlines()
        assert first.startswith("pegel: waiting for an acknowledgement: t-0: ")
        assert last.startswith("pegel: no acknowledgement in 2.5 s: t-0: ")
        for line in first, last:
            assert "(NOT_ENOUGH_REPLICAS); `pegel explain t`" in line

    run(body)


def test_produce_to_a_partition_without_a_leader_names_it() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        cluster.move("t", 1, -1)
        code, out, err = await pegel(
            cluster, "produce", "t", "-p", "1", "--timeout", "0.5", stdin=b"x\n"
        )
        assert (code, out) == (1, "")
        assert err.startswith("pegel: no acknowledgement in 0.5 s: t-1 has no leader; `pegel ")
        assert "Traceback" not in err

    run(body)
