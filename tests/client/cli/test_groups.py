"""``pegel groups``, ``pegel consume --group`` and ``pegel produce`` with keys, headers and JSON."""

from __future__ import annotations

import json
import signal

import pytest

from pegel.cli.lines import JsonLines, PlainLines
from pegel.cli.times import show_seconds
from pegel.errors import PegelError
from pegel.record import decode_batch, encode_batch
from pegel.types import TopicPartition
from tests.client.cli.harness import pegel, run, start
from tests.support.fake_broker import FakeCluster

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def _fill(cluster: FakeCluster, count: int) -> None:
    for log in cluster.add_topic("t", 2).partitions:
        for i in range(count):
            log.append(encode_batch([b"%d" % i], timestamps=1000 * i))


def test_a_group_consumes_is_described_moved_and_deleted() -> None:
    async def body(cluster: FakeCluster) -> None:
        _fill(cluster, 5)
        code, out, _ = await pegel(
            cluster, "consume", "t", "--group", "g", "--from-beginning", "--exit-at-end"
        )
        assert (code, sorted(out.split())) == (0, sorted("01234" * 2))
        offsets = cluster.group("g").offsets
        assert {tp: o for tp, (o, _, _) in offsets.items()} == {T0: 5, T1: 5}
        code, out, _ = await pegel(cluster, "groups", "list")
        assert out.splitlines()[0].split() == [
            "GROUP", "STATE", "TYPE", "MEMBERS", "ASSIGNOR", "COORDINATOR",
        ]  # fmt: skip
        assert out.splitlines()[1].split()[:4] == ["g", "Empty", "classic", "0"]

        reset = ("groups", "reset-offsets", "g")
        code, out, _ = await pegel(cluster, *reset, "--shift-by", "-2")
        assert code == 0
        assert out.splitlines()[1].split() == ["t", "0", "5", "3", "-2"]
        assert "--execute" in out
        assert offsets[T0][0] == 5  # it only said so
        code, out, _ = await pegel(
            cluster, *reset, "--topic", "t:1", "--to-time", "1970-01-01T00:00:02.500+00:00",
            "--execute", "--json",
        )  # fmt: skip
        assert json.loads(out) == {
            "group": "g", "executed": True, "members": 0,
            "offsets": [{"topic": "t", "partition": 1, "before": 5, "after": 3}],
        }  # fmt: skip
        assert (offsets[T0][0], offsets[T1][0]) == (5, 3)

        code, out, _ = await pegel(cluster, "groups", "describe", "g")
        assert "2 records behind" in out.splitlines()[0]
        rows = [line.split() for line in out.splitlines()[2:]]
        assert rows[0] == ["t", "0", "5", "5", "0"]
        assert rows[1][:5] == ["t", "1", "3", "5", "2"]
        assert "d" in rows[1]  # the records are from 1970: days behind
        code, out, _ = await pegel(cluster, "groups", "describe", "g", "--json")
        document = json.loads(out)
        assert document["lag"] == 2
        assert document["partitions"][1]["lag_seconds"] > 1e6

        code, out, _ = await pegel(
            cluster, "consume", "t", "--group", "g", "--max-records", "1", "--json"
        )
        assert json.loads(out)["offset"] == 3
        assert offsets[T1][0] == 4
        code, out, _ = await pegel(cluster, "groups", "delete", "g")
        assert (code, out) == (0, "deleted group g\n")
        code, _, err = await pegel(cluster, "groups", "describe", "g")
        assert (code, len(err.splitlines())) == (1, 1)
        assert "groups list" in err

    run(body)


def test_a_consumer_stopped_by_ctrl_c_commits_what_it_printed_and_leaves() -> None:
    async def body(cluster: FakeCluster) -> None:
        _fill(cluster, 3)
        process = await start(cluster, "consume", "t", "-g", "g", "--from-beginning")
        assert process.stdout is not None
        for _ in range(6):
            await process.stdout.readline()
        code, _, err = await pegel(
            cluster, "groups", "reset-offsets", "g", "--topic", "t", "--to-earliest", "--execute"
        )
        assert code == 1
        assert "stop them" in err
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        group = cluster.group("g")
        assert {tp: o for tp, (o, _, _) in group.offsets.items()} == {T0: 3, T1: 3}
        assert not group.members

    run(body)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["groups", "reset-offsets", "g"], "give one of"),
        (["groups", "reset-offsets", "g", "--to-earliest", "--to-latest"], "give one of"),
        (["consume", "t", "-g", "g", "--offset", "3"], "reset-offsets"),
        (["produce", "t", "--json-lines", "-k", ":"], "--key-separator"),
        (["produce", "t", "-H", "nonsense"], "NAME=VALUE"),
        (["topics", "alter", "t"], "--set"),
    ],
)
def test_wrong_usage_says_what_is_right(arguments: list[str], says: str) -> None:
    from click.testing import CliRunner

    from pegel.cli.main import pegel as command

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_json_lines_go_through_a_topic_and_come_back_as_they_were() -> None:
    async def body(cluster: FakeCluster) -> None:
        log = cluster.add_topic("t").partitions[0]
        lines = [
            {"key": "k", "value": "text"},
            {"key": "gone", "value": None},
            {"value": {"euros": 10}, "headers": {"from": "shop"}},
            {"value_base64": "/w==", "headers": [{"name": "a", "value": "1"}] * 2},
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        code, _, err = await pegel(
            cluster, "produce", "t", "--json-lines", "-H", "run=7", "--compression", "zstd",
            stdin=text,
        )  # fmt: skip
        assert code == 0, err
        columns = decode_batch(log.batches[0][1])
        assert columns.keys == [b"k", b"gone", None, None]
        assert columns.values == [b"text", None, b'{"euros":10}', b"\xff"]
        assert columns.headers[2] == (("from", b"shop"), ("run", b"7"))
        cluster.add_topic("copy")
        _, out, _ = await pegel(cluster, "consume", "t", "--from-beginning", "-n", "4", "--json")
        await pegel(cluster, "produce", "copy", "--json-lines", stdin=out.encode())
        copied = decode_batch(cluster.topics["copy"].partitions[0].batches[0][1])
        assert (copied.keys, copied.values, copied.headers) == (
            columns.keys, columns.values, columns.headers,
        )  # fmt: skip
        code, _, err = await pegel(cluster, "produce", "t", "--json-lines", stdin=b'{"value":1}\n[')
        assert code == 1
        assert "line 2 is no record in JSON" in err

    run(body)


def test_topics_are_altered() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        code, out, _ = await pegel(
            cluster, "topics", "alter", "t", "--set", "retention.ms=7", "--partitions", "3"
        )
        assert (code, out) == (0, "altered topic t\n")
        assert cluster.configs["t"] == {"retention.ms": "7"}
        assert len(cluster.topics["t"].partitions) == 3

    run(body)


def test_lines_become_columns() -> None:
    plain = PlainLines(None, ())([b"a", b""], 0)
    assert (plain.values, plain.keys, plain.headers) == ([b"a", b""], None, None)
    keyed = PlainLines(b":", (("h", b"1"),))([b"k:v:w"], 0)
    assert (keyed.keys, keyed.values, keyed.headers) == ([b"k"], [b"v:w"], [(("h", b"1"),)])
    for bad in (b"1", b"{}", b'{"value_base64": "x"}', b'{"value": 1, "headers": [1]}'):
        with pytest.raises(PegelError):
            JsonLines(())([bad], 0)
    with pytest.raises(PegelError):
        PlainLines(b":", ())([b"none"], 0)


def test_durations_as_people_read_them() -> None:
    shown = [show_seconds(s) for s in (0.42, 12.7, 200, 18060, 187200)]
    assert shown == ["0.4 s", "12 s", "3 m 20 s", "5 h 1 m", "2 d 4 h"]
