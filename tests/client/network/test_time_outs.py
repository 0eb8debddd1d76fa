"""Every wait ends with the caller's time-out, also while no broker answers, and says why."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from pegel.client import AsyncClient
from pegel.config import ClientOptions
from pegel.errors import ConnectionFailedError, TopicNotFoundError
from pegel.protocol.api_keys import ApiKey
from tests.support.fake_broker import FakeCluster, Fault

# Far longer than any time-out below: whoever waits for one of these fails by ``_PATIENCE``.
_OPTIONS = ClientOptions(request_timeout=120.0, topic_grace=120.0)
_PATIENCE = 30.0

Call = Callable[[AsyncClient, float], Coroutine[Any, Any, object]]


async def _commit(client: AsyncClient, timeout: float) -> None:
    consumer = client.consumer(partitions=[("t", 0)], group="g")
    await consumer.commit({("t", 0): 1}, timeout=timeout)


CALLS: dict[str, Call] = {
    "send": lambda c, t: c.send("t", b"v", timeout=t),
    "send_many": lambda c, t: c.send_many("t", [b"v"], timeout=t),
    "next_batch": lambda c, t: c.consumer("t").next_batch(timeout=t),
    "wait_for_assignment": lambda c, t: c.consumer("t", group="g").wait_for_assignment(timeout=t),
    "committed": lambda c, t: c.consumer(partitions=[("t", 0)], group="g").committed(timeout=t),
    "commit": _commit,
    "create_topic": lambda c, t: c.create_topic("t", timeout=t),
    "delete_topic": lambda c, t: c.delete_topic("t", timeout=t),
}
# What asks for metadata first, with the time-out that the caller gives.
CALLS_FOR_A_TOPIC = [name for name in CALLS if name != "create_topic"]


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize("call", CALLS)
def test_a_call_ends_when_nobody_is_there(call: str, closed_port: str) -> None:
    async def body() -> None:
        async with AsyncClient(closed_port, options=_OPTIONS) as client:
            async with asyncio.timeout(_PATIENCE):
                with pytest.raises(ConnectionFailedError, match="cannot connect to"):
                    await CALLS[call](client, 1.0)  # time to connect, on a busy machine

    asyncio.run(body())


def test_a_call_ends_when_brokers_say_nothing() -> None:
    async def body(call: Call) -> None:
        async with FakeCluster() as fake:
            fake.script(ApiKey.METADATA, *[Fault.SILENCE] * 20)
            async with AsyncClient(fake.bootstrap, options=_OPTIONS) as client:
                async with asyncio.timeout(_PATIENCE):
                    with pytest.raises(ConnectionFailedError, match=r"answered within 0\.2 s"):
                        await call(client, 0.2)

    for name in ("send", "send_many", "wait_for_assignment", "committed"):
        asyncio.run(body(CALLS[name]))


def test_a_batch_that_takes_longer_than_the_time_out_is_no_error() -> None:
    """Also where it is the first answer of all that takes longer."""

    async def body() -> None:
        async with FakeCluster() as fake:
            fake.add_topic("t")
            fake.script(ApiKey.METADATA, Fault.SILENCE)
            async with AsyncClient(fake.bootstrap, options=_OPTIONS) as client:
                consumer = client.consumer("t", offset_reset="earliest")
                assert await consumer.next_batch(timeout=0) is None
                assert await consumer.next_batch(timeout=0.05) is None
                await consumer.close()

    asyncio.run(body())


@pytest.mark.parametrize("call", CALLS_FOR_A_TOPIC)
def test_a_short_time_out_wins_against_the_grace_for_new_topics(call: str) -> None:
    async def body() -> None:
        async with (
            FakeCluster() as fake,
            AsyncClient(fake.bootstrap, options=_OPTIONS) as client,
            asyncio.timeout(_PATIENCE),
        ):
            with pytest.raises(TopicNotFoundError, match=r"topic 't'|t: "):
                await CALLS[call](client, 1.0)  # time to connect, on a busy machine

    asyncio.run(body())


def test_each_caller_of_an_unknown_topic_has_its_own_time_out() -> None:
    async def body() -> None:
        async with (
            FakeCluster() as fake,
            AsyncClient(fake.bootstrap, options=_OPTIONS) as client,
        ):
            patient = asyncio.create_task(client.send("t", b"1"))
            await asyncio.sleep(0)
            with pytest.raises(TopicNotFoundError):
                await client.send("t", b"2", timeout=0.05)
            fake.add_topic("t")
            assert (await patient).offset == 0

    asyncio.run(body())


@pytest.mark.parametrize("call", CALLS)
def test_a_client_that_nobody_lets_in_is_told_of_credentials_at_once(call: str) -> None:
    """A broker that wants a log-in answers ApiVersions, and closes at the first request."""

    async def body() -> None:
        async with FakeCluster() as fake:
            for api in (ApiKey.METADATA, ApiKey.CREATE_TOPICS, ApiKey.DELETE_TOPICS):
                fake.script(api, *[Fault.DROP] * 100)
            async with AsyncClient(fake.bootstrap, options=_OPTIONS) as client:
                async with asyncio.timeout(_PATIENCE):
                    with pytest.raises(ConnectionFailedError, match="if it wants credentials"):
                        await CALLS[call](client, 100.0)

    asyncio.run(body())


def test_a_client_that_was_let_in_before_waits_for_brokers_that_close() -> None:
    async def body() -> None:
        async with FakeCluster() as fake:
            fake.add_topic("t")
            async with AsyncClient(fake.bootstrap, options=_OPTIONS) as client:
                await client.send("t", b"v")
                fake.add_topic("u")
                fake.script(ApiKey.METADATA, *[Fault.DROP] * 10)
                assert (await client.send("u", b"v", timeout=20.0)).offset == 0

    asyncio.run(body())


@pytest.mark.parametrize("topic", [b"t", None, 5])
def test_a_topic_that_is_no_text_is_refused_and_not_remembered(topic: Any) -> None:
    async def body() -> None:
        async with FakeCluster() as fake:
            fake.add_topic("t")
            async with AsyncClient(fake.bootstrap, options=_OPTIONS) as client:
                calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
                    lambda: client.send(topic, b"v"),
                    lambda: client.send_many(topic, [b"v"]),
                    lambda: client.consumer(topic).start(),
                    lambda: client.consumer(partitions=[(topic, 0)]).start(),
                    lambda: client.consumer(topic, group="g").start(),
                ]
                for call in calls:
                    with pytest.raises(TypeError, match="a topic's name is text, not"):
                        await call()
                assert (await client.send("t", b"v")).offset == 0

    asyncio.run(body())


@pytest.mark.parametrize("partition", ["0", 1.0, b"0", True])
def test_a_partition_that_is_no_number_is_refused_and_not_remembered(partition: Any) -> None:
    async def body() -> None:
        async with FakeCluster() as fake:
            fake.add_topic("t", 2)
            async with AsyncClient(fake.bootstrap, options=_OPTIONS) as client:
                for call in (
                    lambda: client.send("t", b"v", partition=partition),
                    lambda: client.send_many("t", [b"v"], partition=partition),
                ):
                    with pytest.raises(TypeError, match="a partition is an int, not"):
                        await call()
                with pytest.raises(TypeError, match="a partition is an int, not"):
                    client.consumer(partitions=[("t", partition)])
                assert (await client.send("t", b"v", partition=1)).offset == 0

    asyncio.run(body())


def test_names_that_are_no_text_are_refused_where_they_are_given() -> None:
    async def body() -> None:
        async with FakeCluster() as fake, AsyncClient(fake.bootstrap) as client:
            for name in ("group", "instance_id", "rack"):
                settings: dict[str, Any] = {"group": "g", name: b"bytes"}
                with pytest.raises(TypeError, match=f"{name} is text, not bytes"):
                    client.consumer("t", **settings)
        with pytest.raises(TypeError, match="client_id is text, not bytes"):
            ClientOptions(client_id=b"bytes")  # type: ignore[arg-type]

    asyncio.run(body())
