"""What a producer is given that it cannot use: refused where it is given, and never stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import pegel.producer.batch
from pegel.client import AsyncClient
from pegel.config import ProducerOptions
from pegel.errors import PegelError
from tests.support.fake_broker import FakeCluster

Body = Callable[[FakeCluster, AsyncClient], Coroutine[None, None, None]]


def _run(body: Body) -> None:
    async def main() -> None:
        async with FakeCluster() as cluster:
            cluster.add_topic("t")
            async with AsyncClient(cluster.bootstrap) as client, asyncio.timeout(30):
                await body(cluster, client)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("compression", "level"),
    [("gzip", 99), ("gzip", -2), ("lz4", -1), ("lz4", 18), ("zstd", 23), ("zstd", -200_000),
     ("gzip", 1.5), ("gzip", "6"), ("snappy", 1), ("none", 1)],
)  # fmt: skip
def test_a_level_that_the_codec_does_not_have(compression: Any, level: Any) -> None:
    with pytest.raises(ValueError, match="compression_level"):
        ProducerOptions(compression=compression, compression_level=level)


@pytest.mark.parametrize(
    ("compression", "level"),
    [("gzip", 0), ("gzip", 9), ("lz4", 0), ("lz4", 17), ("zstd", -131_072), ("zstd", 22)],
)
def test_the_first_and_the_last_level_of_each_codec(compression: Any, level: int) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.producer(compression=compression, compression_level=level) as producer:
            await producer.send_many("t", [b"value"] * 100)
        assert cluster.topics["t"].partitions[0].values() == [b"value"] * 100

    _run(body)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"delivery_timeout": 0}, "delivery_timeout is more than 0"),
        ({"linger_ms": -1}, "linger_ms is 0 or more, not -1"),
        ({"max_in_flight": 0, "idempotent": False}, "max_in_flight at least 1"),
    ],
)
def test_a_setting_that_makes_no_sense_says_what_does(setting: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProducerOptions(**setting)


def test_a_batch_that_nobody_foresaw_fails_alone_and_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The partition goes on behind it, whose sequence the broker never sees."""
    encode = pegel.producer.batch.encode_batch

    def fragile(values: Any, **settings: Any) -> bytearray:
        if b"bad" + bytes(70) in values:
            raise RuntimeError("nobody foresaw this")
        return encode(values, **settings)

    monkeypatch.setattr(pegel.producer.batch, "encode_batch", fragile)

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.add_topic("u")
        assert (await client.send("t", b"1")).offset == 0
        async with client.producer(batch_bytes=100, linger_ms=5.0) as producer:
            fates = await asyncio.gather(
                producer.send("u", b"beside"),
                *(producer.send("t", v) for v in (b"a" * 80, b"bad" + bytes(70), b"b" * 80)),
                producer.send("t", b"c" * 80),
                return_exceptions=True,
            )
            failed = fates.pop(2)
            assert isinstance(failed, PegelError)
            assert "t-0: 1 records cannot be encoded: RuntimeError: nobody" in str(failed)
            assert not [fate for fate in fates if isinstance(fate, BaseException)]
        values = [v[:1] for v in cluster.topics["t"].partitions[0].values() if v]
        assert values == [b"1", b"a", b"b", b"c"]

    _run(body)


def test_columns_may_be_anything_to_go_through() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        many = range(3)
        result = await client.send_many(
            "t",
            (b"%d" % i for i in many),
            keys=(b"k" for _ in many),
            headers=([("h", b"1")] for _ in many),
            timestamps=(i for i in many),
        )
        assert result.count == 3
        assert (await client.send_many("t", iter(()))).count == 0
        assert cluster.topics["t"].partitions[0].values() == [b"0", b"1", b"2"]

    _run(body)


@pytest.mark.parametrize("values", [b"bytes", "text", {b"a": 1}, 5, None])
def test_values_that_are_no_list_are_refused(values: Any) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        with pytest.raises(TypeError, match="give a list, or what can be gone through, not"):
            await client.send_many("t", values)

    _run(body)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"name": b"value"}, "headers are a list of pairs .* not dict; of a dict give"),
        (iter([("name", b"value")]), "headers are a list of pairs"),
        ([("name",)], "a header is a pair"),
        (["ab"], "a header is a pair"),
        ([5], "a header is a pair"),
    ],
)
def test_headers_that_are_no_pairs_are_refused(headers: Any, message: str) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        with pytest.raises(TypeError, match=message):
            await client.send("t", b"v", headers=headers)
        with pytest.raises(TypeError, match=message):
            await client.send_many("t", [b"v"], headers=[headers])

    _run(body)
