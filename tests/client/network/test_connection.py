"""One connection: versions, pipelining, time-outs, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

import pytest

from pegel.config import ClientOptions
from pegel.errors import ConnectionFailedError, RequestTimeoutError, UnsupportedVersionError
from pegel.network.backoff import Backoff, retry_pause
from pegel.network.connection import Connection
from pegel.network.pool import ConnectionPool, Endpoint
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.messages.api_versions import ApiVersionsResponse
from pegel.protocol.messages.describe_cluster import DescribeClusterRequest
from pegel.protocol.messages.describe_log_dirs import DescribeLogDirsRequest
from pegel.protocol.messages.metadata import MetadataRequest, MetadataResponse
from pegel.seams.clock import RealClock
from pegel.seams.network import RealNetwork
from tests.support.fake_broker import FakeBroker, FakeCluster, Fault

Body = Callable[[FakeCluster], Coroutine[None, None, None]]


def _run(body: Body) -> None:
    async def main() -> None:
        async with FakeCluster() as cluster:
            await body(cluster)

    asyncio.run(main())


async def _open(broker: FakeBroker, timeout: float = 5.0) -> Connection:
    return await Connection.open(
        RealNetwork(), RealClock(), "127.0.0.1", broker.port, timeout=timeout
    )


def test_versions_are_the_highest_that_both_speak() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.versions[ApiKey.METADATA] = 7
        connection = await _open(cluster.brokers[1])
        assert connection.version_for(ApiKey.METADATA) == 7
        assert connection.version_for(ApiKey.METADATA, 5) == 5
        with pytest.raises(UnsupportedVersionError, match="DescribeLogDirs"):
            connection.send(DescribeLogDirsRequest())
        connection.close()

    _run(body)


@pytest.mark.parametrize("highest", [0, 1, 2, 3])
def test_an_old_broker_answers_in_version_0_and_is_asked_again(highest: int) -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.versions[ApiKey.API_VERSIONS] = highest
        connection = await _open(cluster.brokers[1])
        assert connection.version_for(ApiKey.METADATA) == 13
        connection.close()

    _run(body)


def test_a_refused_handshake_is_an_error() -> None:
    async def body(cluster: FakeCluster) -> None:
        refused = ApiVersionsResponse(error_code=42)
        cluster.script(ApiKey.API_VERSIONS, refused)
        with pytest.raises(UnsupportedVersionError):
            await _open(cluster.brokers[1])
        cluster.script(ApiKey.API_VERSIONS, Fault.SILENCE)
        with pytest.raises(RequestTimeoutError):
            await _open(cluster.brokers[1], timeout=0.05)

    _run(body)


def test_requests_are_pipelined_and_answers_find_their_callers() -> None:
    async def body(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        connection = await _open(cluster.brokers[1])
        calls = [
            connection.request(MetadataRequest(topics=None) if i % 2 else DescribeClusterRequest())
            for i in range(50)
        ]
        answers = await asyncio.gather(*calls)
        kinds = [isinstance(answer, MetadataResponse) for answer in answers]
        assert kinds == [bool(i % 2) for i in range(50)]
        assert connection.in_flight == 0
        connection.close()

    _run(body)


def test_an_answer_that_comes_too_late_is_dropped() -> None:
    async def body(cluster: FakeCluster) -> None:
        connection = await _open(cluster.brokers[1])
        answered = asyncio.Event()

        def late(broker: FakeBroker, message: object, version: int) -> None:
            answered.set()

        cluster.script(ApiKey.METADATA, late)
        with pytest.raises(RequestTimeoutError, match="MetadataRequest"):
            await connection.request(MetadataRequest(topics=None), timeout=0.05)
        await answered.wait()
        assert await connection.request(DescribeClusterRequest()) is not None
        connection.close()

    _run(body)


def test_a_broken_connection_fails_everything_at_once() -> None:
    async def body(cluster: FakeCluster) -> None:
        connection = await _open(cluster.brokers[1])
        cluster.script(ApiKey.METADATA, Fault.SILENCE, Fault.SILENCE, Fault.DROP)
        calls = [asyncio.create_task(connection.request(MetadataRequest())) for _ in range(3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(r, ConnectionFailedError) for r in results)
        assert connection.closed
        with pytest.raises(ConnectionFailedError):
            connection.send(MetadataRequest())

    _run(body)


def test_nobody_listens() -> None:
    async def main() -> None:
        with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"):
            await Connection.open(RealNetwork(), RealClock(), "127.0.0.1", 1, timeout=1.0)

    asyncio.run(main())


def _pool(options: ClientOptions | None = None) -> ConnectionPool:
    options = options or ClientOptions(connect_timeout=1.0)
    return ConnectionPool(RealNetwork(), RealClock(), random.Random(1), options)


def test_callers_share_one_attempt_and_purposes_do_not_share_a_connection() -> None:
    async def body(cluster: FakeCluster) -> None:
        pool = _pool()
        endpoint = Endpoint(1, "127.0.0.1", cluster.brokers[1].port)
        same = await asyncio.gather(*(pool.get(endpoint) for _ in range(5)))
        assert len(set(map(id, same))) == 1
        other = await pool.get(endpoint, "fetch")
        assert other is not same[0]
        assert len(cluster.brokers[1].connections) == 2
        await pool.close()

    _run(body)


def test_a_failing_broker_is_left_alone_longer_each_time_and_welcomed_back() -> None:
    async def body(cluster: FakeCluster) -> None:
        pool = _pool()
        broker = cluster.brokers[1]
        endpoint = Endpoint(1, "127.0.0.1", broker.port)
        broker.stop()
        for _ in range(3):
            with pytest.raises(ConnectionFailedError):
                await pool.get(endpoint)
            assert pool.is_failing(endpoint)
        await broker.start()
        await pool.get(endpoint)
        assert not pool.is_failing(endpoint)
        await pool.close()

    _run(body)


def test_a_broker_at_a_new_address_gets_a_new_connection() -> None:
    async def main() -> None:
        async with FakeCluster(2) as cluster:
            pool = _pool()
            first = await pool.get(Endpoint(1, "127.0.0.1", cluster.brokers[1].port))
            moved = Endpoint(1, "127.0.0.1", cluster.brokers[2].port)
            second = await pool.get(moved)
            assert second is not first
            assert first.closed
            await pool.close()
            assert second.closed

    asyncio.run(main())


def test_pauses_grow_to_a_bound() -> None:
    backoff = Backoff(0.02, 1.0, random.Random(1))
    pauses = [backoff.next() for _ in range(30)]
    assert pauses[0] < 0.03
    assert all(0.8 <= p <= 1.2 for p in pauses[8:])
    rng = random.Random(1)
    early = sum(retry_pause(i, 0.02, 1.0, rng) for i in range(10))
    assert early < 0.3
    assert retry_pause(100, 0.02, 1.0, rng) >= 0.8


@pytest.mark.parametrize(
    ("host", "port"), [("x" * 300, 9092), ("a..b", 9092), ("a\0b", 9092), ("127.0.0.1", 2**31)]
)
def test_an_address_that_is_none_is_a_failed_connection(host: str, port: int) -> None:
    """Peers tell addresses: a broker in its metadata, a node as it registers."""

    async def main() -> None:
        with pytest.raises(ConnectionFailedError, match="cannot connect"):
            await Connection.open(RealNetwork(), RealClock(), host, port, timeout=5.0)

    asyncio.run(main())


@pytest.mark.parametrize("end", ["close", "drop", "drop_all"])
def test_a_connection_that_was_replaced_ends_with_its_purpose_or_its_pool(end: str) -> None:
    """Its session was about to end (KIP-368), and an answer is still to come."""

    async def body(cluster: FakeCluster) -> None:
        pool = _pool()
        endpoint = Endpoint(1, "127.0.0.1", cluster.brokers[1].port)
        first = await pool.get(endpoint)
        cluster.brokers[1].hung = True
        asked = first.send(MetadataRequest(topics=[]))
        pool._renew_at[first] = 0.0
        assert pool.ready(endpoint) is None
        assert not first.closed
        if end == "close":
            await pool.close()
        elif end == "drop":
            pool.drop(2, "control")
            assert not first.closed
            pool.drop(1, "control")
        else:
            pool.drop_all("fetch")
            assert not first.closed
            pool.drop_all("control")
        assert first.closed
        with pytest.raises(ConnectionFailedError):
            await asked
        await pool.close()

    _run(body)
