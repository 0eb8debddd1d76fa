"""What people type, pipe and interrupt: one line that says what is wrong, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import pytest

from tests.client.cli.harness import pegel, run, start
from tests.support.fake_broker import FakeCluster


def test_an_empty_name_of_a_group() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        code, _, err = await pegel(cluster, "consume", "t", "--group", "")
        assert (code, err) == (1, "pegel: a group has a name\n")

    run(body)


def test_a_state_that_no_group_has() -> None:
    async def body(cluster: FakeCluster) -> None:
        code, _, err = await pegel(cluster, "groups", "list", "--state", "foo")
        assert code == 2
        assert "'foo' is none of Stable, Empty, PreparingRebalance" in err
        assert (await pegel(cluster, "groups", "list", "--state", "empty"))[0] == 0

    run(body)


def test_what_consume_prints_is_written_as_it_was() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 3)
        cluster.add_topic("copy", 3)
        lines = [
            {"partition": 2, "timestamp": 1234, "key": "k", "value": "a"},
            {"partition": 0, "timestamp": 99, "value": "b", "headers": {"h": "1"}},
            {"partition": 2, "timestamp": -1, "value": None, "key": "k"},
            {"partition": None, "value": "anywhere"},
        ]
        text = "\n".join(map(json.dumps, lines)).encode()
        assert (await pegel(cluster, "produce", "t", "--json-lines", stdin=text))[0] == 0
        consume = ("--from-beginning", "--exit-at-end", "--json")
        _, out, _ = await pegel(cluster, "consume", "t", *consume)
        code, _, err = await pegel(cluster, "produce", "copy", "--json-lines", stdin=out.encode())
        assert (code, err) == (0, "")
        _, copied, _ = await pegel(cluster, "consume", "copy", *consume)

        def records(text: str) -> list[dict[str, object]]:
            found = [json.loads(line) | {"topic": ""} for line in text.splitlines()]
            return sorted(found, key=lambda r: (r["partition"], r["offset"]))

        assert records(copied) == records(out)
        assert [
            (r["partition"], r["timestamp"]) for r in records(out) if r["value"] in {"a", "b"}
        ] == [
            (0, 99),
            (2, 1234),
        ]
        code, out, _ = await pegel(
            cluster, "produce", "t", "--json-lines", "-p", "1", "--json", stdin=text
        )
        assert json.loads(out)["records"] == 4

    run(body)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"value": "a", "partion": 1}, "no record has 'partion'"),
        ({"value": "a", "partition": "1"}, "partition is a number from 0 on, not '1'"),
        ({"value": "a", "partition": True}, "partition is a number from 0 on, not True"),
        ({"value": "a", "timestamp": 1.5}, "timestamp is a number from 0 on, not 1.5"),
        ({"value": "a", "timestamp": -5}, "timestamp is a number from 0 on, not -5"),
    ],
)
def test_a_json_line_with_what_no_record_has(record: dict[str, object], why: str) -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        lines = '{"value": "fine"}\n' + json.dumps(record) + "\n"
        code, _, err = await pegel(cluster, "produce", "t", "--json-lines", stdin=lines.encode())
        assert (code, err) == (1, f"pegel: line 2 is no record in JSON: {why}\n")

    run(body)


def test_a_line_that_is_too_long_is_refused_before_its_end() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        process = await start(cluster, "produce", "t")
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"short\n")
        piece = bytes(1 << 20).replace(b"\0", b"x")
        try:
            while True:  # for ever, unless it is refused
                process.stdin.write(piece)
                await process.stdin.drain()
        except ConnectionError:
            pass
        err = (await process.stderr.read()).decode()
        assert await process.wait() == 1
        assert (
            err == "pegel: line 2 is longer than 99614720 bytes, and more do not fit in a request\n"
        )
        assert cluster.topics["t"].partitions[0].values() == [b"short"]

    run(body)


def test_an_interrupt_says_what_was_written() -> None:
    async def body(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        process = await start(cluster, "produce", "t")
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"1\n2\n3\n")
        while len(topic.partitions[0].values()) < 3:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        err = (await process.stderr.read()).decode()
        assert await process.wait() == 1
        assert "interrupted; 3 records were acknowledged" in err

    run(body)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_an_output_that_is_full() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        with open("/dev/full", "wb") as full:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pegel", "produce", "t", "--json",
                env={"PEGEL_BOOTSTRAP": cluster.bootstrap, "PATH": "/usr/bin:/bin"},
                stdin=asyncio.subprocess.DEVNULL, stdout=full, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, err = await process.communicate()
        assert process.returncode == 1
        assert err == b"pegel: the output cannot be written: No space left on device\n"

    run(body)
