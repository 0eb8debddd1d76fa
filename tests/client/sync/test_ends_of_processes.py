"""Processes that end, or fork, with a client that nobody closed: real ones."""

from __future__ import annotations

import asyncio
import sys

import pytest

from pegel.protocol.api_keys import ApiKey
from tests.support.fake_broker import FakeCluster, Fault

_SYNC = """
import pegel, sys
client = pegel.Client(sys.argv[1])
producer = client.producer(linger_ms=60_000)
producer.send_soon("t", b"never flushed")
"""
_ASYNC = """
import asyncio, pegel, sys
async def main():
    client = pegel.AsyncClient(sys.argv[1])
    producer = client.producer(linger_ms=60_000)
    await producer.send_soon("t", b"never flushed")
asyncio.run(main())
"""
_FORK = """
import os, pegel, sys
with pegel.Client(sys.argv[1]) as client:
    client.send("t", b"parent")
    child = os.fork()
    if child == 0:
        for call in (lambda: client.send("t", b"child"), client.producer, client.admin.list_topics):
            try:
                call()
            except pegel.ClosedError as error:
                print(error)
        client.close()
        sys.exit(0)
    print("child left with", os.waitpid(child, 0)[1])
    client.send("t", b"parent again")
    client.producer(linger_ms=0).close()
"""


def _run(script: str, *options: str, silent: bool = False) -> tuple[str, str, list[bytes | None]]:
    """Standard output and error of a process, and what the topic holds in the end."""

    async def main() -> tuple[str, str, list[bytes | None]]:
        async with FakeCluster() as cluster:
            topic = cluster.add_topic("t")
            if silent:
                cluster.script(ApiKey.PRODUCE, *[Fault.SILENCE] * 100)
            process = await asyncio.create_subprocess_exec(
                sys.executable, *options, "-c", script, cluster.bootstrap,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(60):
                out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            return out.decode(), err.decode(), topic.partitions[0].values()

    return asyncio.run(main())


def test_the_synchronous_client_sends_what_it_holds_at_the_end() -> None:
    _, err, values = _run(_SYNC)
    assert values == [b"never flushed"]
    assert "were not acknowledged" not in err


def test_the_synchronous_client_says_what_it_could_not_send() -> None:
    _, err, _ = _run(_SYNC, silent=True)
    assert "1 records were not acknowledged" in err


def test_a_loop_that_ends_with_unsent_records_says_so() -> None:
    _, err, values = _run(_ASYNC)
    assert values == []
    assert "1 records were not acknowledged when their event loop ended, and may be lost" in err
    assert "ResourceWarning" not in err


@pytest.mark.parametrize("script", [_SYNC, _ASYNC])
def test_what_was_not_closed_is_a_resource_warning(script: str) -> None:
    _, err, _ = _run(script, "-W", "always")
    assert "ResourceWarning: a producer was not closed" in err
    assert "ResourceWarning: a client of 127.0.0.1:" in err


def test_a_child_is_told_to_make_a_client_of_its_own() -> None:
    out, err, values = _run(_FORK)
    told, left = out.splitlines()[:3], out.splitlines()[3:]
    assert all("cannot be used in its child" in line for line in told), out
    assert all("make a client in each process" in line for line in told)
    assert left == ["child left with 0"]
    assert err == ""
    assert values == [b"parent", b"parent again"]
