"""Cancelled at every single await: nothing hangs, nothing stays behind, nothing is doubled.

Each scenario is run again and again, cancelled where it is suspended for the first time, for the
second, and so on, until it comes to its end without. That includes the awaits of ``close``.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from pegel.client import AsyncClient
from pegel.config import ClientOptions
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.types import TopicPartition
from tests.support.fake_broker import FakeCluster, Fault

Scenario = Callable[[FakeCluster, AsyncClient], Coroutine[Any, Any, None]]
OPTIONS = ClientOptions(
    request_timeout=2.0, connect_timeout=2.0, topic_grace=0.02, stall=0.05, heartbeat_thread=False
)
T0 = TopicPartition("t", 0)


class CancelledAt:
    """Awaits ``work``; the task that does so is cancelled at its ``number``-th suspension."""

    def __init__(self, work: Coroutine[Any, Any, None], number: int) -> None:
        self._work, self._number = work, number
        self.suspended = 0

    def __await__(self) -> Generator[Any, Any, None]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        inner = self._work.__await__()
        send: Callable[[], Any] = lambda: next(inner)  # noqa: E731
        while True:
            try:
                waited_for = send()
            except StopIteration:
                return
            self.suspended += 1
            if self.suspended == self._number:
                loop.call_soon(task.cancel)
            try:
                yield waited_for
            except BaseException as error:
                send = _throw(inner, error)
            else:
                send = _next(inner)


def _throw(inner: Generator[Any, Any, None], error: BaseException) -> Callable[[], Any]:
    return lambda: inner.throw(error)


def _next(inner: Generator[Any, Any, None]) -> Callable[[], Any]:
    return lambda: next(inner)


async def _produce(cluster: FakeCluster, client: AsyncClient) -> None:
    await client.send("t", b"one", key=b"k")
    await client.send_many("t", [b"%d" % i for i in range(50)])
    async with client.producer(batch_bytes=200, buffer_bytes=400, linger_ms=1) as producer:
        soon = [await producer.send_soon("t", b"soon-%d" % i) for i in range(12)]
        await producer.flush()
        for delivery in soon:
            await delivery


async def _produce_in_trouble(cluster: FakeCluster, client: AsyncClient) -> None:
    cluster.script(ApiKey.PRODUCE, Fault.DROP_AFTER, ErrorCode.NOT_LEADER_OR_FOLLOWER)
    cluster.script(ApiKey.INIT_PRODUCER_ID, Fault.DROP)
    cluster.script(ApiKey.METADATA, Fault.DROP)
    await client.send("t", b"one")
    await client.send_many("t", [b"two", b"three"])
    cluster.script(ApiKey.PRODUCE, Fault.DROP, ErrorCode.NOT_LEADER_OR_FOLLOWER)
    await client.send("t", b"four", timeout=1.0)
    await client.send("t", b"five")


async def _consume(cluster: FakeCluster, client: AsyncClient) -> None:
    await client.send_many("t", [b"%d" % i for i in range(20)], timestamps=list(range(20)))
    async with client.consumer("t", offset_reset="earliest", max_wait=0.02) as consumer:
        await anext(consumer)
        await consumer.next_batch(timeout=0.02)
        await consumer.seek_to_time(5)
        await consumer.position(T0)
        async for batch in consumer.batches():
            assert batch.offsets[0] == 5
            break
        await consumer.end_offsets()


async def _group(cluster: FakeCluster, client: AsyncClient) -> None:
    await client.send_many("t", [b"%d" % i for i in range(20)])
    async with client.consumer(
        "t", group="g", offset_reset="earliest", heartbeat_interval=0.02, max_wait=0.02
    ) as consumer:
        await consumer.wait_for_assignment(2)
        await anext(consumer)
        await consumer.commit()
        await consumer.committed()
        async with client.consumer(
            "t", group="g", commit="manual", heartbeat_interval=0.02, max_wait=0.02
        ) as other:
            await consumer.next_batch(timeout=0.02)
            await other.next_batch(timeout=0.02)


async def _administrate(cluster: FakeCluster, client: AsyncClient) -> None:
    admin = client.admin
    await client.create_topic("u", partitions=2)
    await admin.describe_topic("u", offsets=True)
    await admin.list_topics()
    await admin.describe_cluster()
    await admin.alter_group_offsets("g", {T0: 0})
    await client.send("t", b"x")
    await admin.list_groups()
    await admin.describe_groups(["g"])
    await admin.group_lag("g", seconds=True)
    await admin.delete_group("g")
    await client.delete_topic("u")


SCENARIOS: dict[str, Scenario] = {
    "produce": _produce,
    "produce-in-trouble": _produce_in_trouble,
    "consume": _consume,
    "group": _group,
    "administrate": _administrate,
}


async def _once(scenario: Scenario, number: int) -> bool:
    """Cancel it there; False once there is no such await."""

    async def work(cluster: FakeCluster) -> None:
        async with AsyncClient(
            cluster.bootstrap, options=OPTIONS, rng=random.Random(number)
        ) as client:
            clients.append(client)
            await scenario(cluster, client)

    clients: list[AsyncClient] = []
    async with FakeCluster() as cluster:
        cluster.add_topic("t")
        cancelled = CancelledAt(work(cluster), number)

        async def wait() -> None:
            await cancelled

        task = asyncio.create_task(wait())
        done, _ = await asyncio.wait([task], timeout=10)
        assert done, f"hangs when cancelled at await {number}"
        reached = cancelled.suspended >= number
        if not task.cancelled():
            error = task.exception()
            assert error is None, f"at await {number}: {error!r}"
        if clients:
            await clients[0].close()  # a second time: does nothing, or what the first could not
        await _check_nothing_is_left(cluster, number)
        values = cluster.topics["t"].partitions[0].values()
        assert len(values) == len(set(values)), f"doubled when cancelled at await {number}"
    return reached


async def _check_nothing_is_left(cluster: FakeCluster, number: int) -> None:
    for _ in range(200):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        open_ = [c for b in cluster.brokers.values() for c in b.connections]
        if not left and not open_:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"left behind when cancelled at await {number}: {left} {open_}")


@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelled_at_every_await(name: str, recwarn: pytest.WarningsRecorder) -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        number = 1
        while await _once(SCENARIOS[name], number):
            number += 1
        assert number > 5, "the scenario hardly waits: it shows nothing"
        gc.collect()

    asyncio.run(main())
    assert not complaints
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]
