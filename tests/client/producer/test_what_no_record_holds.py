"""What a record cannot carry is refused at the call that brings it, and costs nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from pegel.client import AsyncClient
from tests.client.producer.test_producer import _run, _values
from tests.support.fake_broker import FakeCluster

IMPOSSIBLE = [
    ({"headers": [("h", "text")]}, TypeError, "header's value is bytes, not str"),
    ({"headers": [(b"h", b"1")]}, TypeError, "name of a header is text, not bytes"),
    ({"headers": [("\ud800", b"1")]}, UnicodeEncodeError, "surrogates not allowed"),
    ({"headers": [("h", b"1", b"2")]}, TypeError, "a header is a pair"),
    ({"timestamp": 1.5}, TypeError, "timestamp is an int, milliseconds since the epoch, not float"),
    ({"timestamp": 1 << 63}, ValueError, r"below 2\*\*63"),
    ({"timestamp": -1}, ValueError, "at least 0"),
]


@pytest.mark.parametrize(("bad", "error", "text"), IMPOSSIBLE)
def test_it_fails_alone(bad: dict[str, Any], error: type[Exception], text: str) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.add_topic("u", partitions=1)
        columns = {"headers" if "headers" in bad else "timestamps": [v] for v in bad.values()}
        async with client.producer(delivery_timeout=1.0) as producer:
            await producer.send("t", b"before", partition=0)
            beside = await producer.send_soon("u", b"beside", partition=0)
            for call in (
                producer.send("t", b"bad", partition=0, **bad),
                producer.send_soon("t", b"bad", partition=0, **bad),
                producer.send_many("t", [b"bad"], partition=0, **columns),
            ):
                with pytest.raises(error, match=text):
                    await call
            assert (await beside).offset == 0
            await producer.send("t", b"after", partition=0)
            await producer.flush(timeout=5)
            assert _values(cluster)[-1] == b"after"
            assert b"bad" not in _values(cluster)

    _run(body)
