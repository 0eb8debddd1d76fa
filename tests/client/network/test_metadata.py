"""What the client believes of the cluster, and how it stays true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

import pytest

from pegel.cluster import Cluster
from pegel.config import ClientOptions, parse_bootstrap
from pegel.errors import (
    BrokerError,
    ClosedError,
    ConnectionFailedError,
    InvalidTopicError,
    RequestTimeoutError,
    TopicNotFoundError,
)
from pegel.metadata import ClusterView
from pegel.network.pool import Endpoint
from pegel.offsets import LATEST, list_offsets
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from pegel.seams.clock import RealClock
from pegel.seams.network import RealNetwork
from pegel.types import TopicPartition
from tests.support.fake_broker import FakeCluster, Fault, stale_metadata

Body = Callable[[FakeCluster, Cluster], Coroutine[None, None, None]]


def _run(body: Body, brokers: int = 1, **options: float) -> None:
    async def main() -> None:
        async with FakeCluster(brokers) as fake:
            fake.add_topic("t", partitions=brokers)
            cluster = _cluster(fake.bootstrap, **options)
            try:
                await body(fake, cluster)
            finally:
                await cluster.close()

    asyncio.run(main())


def _cluster(bootstrap: str, **options: float) -> Cluster:
    settings: dict[str, float] = {"topic_grace": 0.05, "request_timeout": 2.0, **options}
    return Cluster(
        parse_bootstrap(bootstrap),
        network=RealNetwork(),
        clock=RealClock(),
        rng=random.Random(5),
        options=ClientOptions(**settings),  # type: ignore[arg-type]
    )


def _response(leader: int, epoch: int, topic_id: int = 1) -> MetadataResponse:
    import uuid

    partition = MetadataResponsePartition(partition_index=0, leader_id=leader, leader_epoch=epoch)
    topic = MetadataResponseTopic(
        name="t", topic_id=uuid.UUID(int=topic_id), partitions=[partition]
    )
    brokers = [MetadataResponseBroker(node_id=n, host="h", port=n) for n in (1, 2)]
    return MetadataResponse(brokers=brokers, topics=[topic])


def test_leader_epochs_never_go_back_but_begin_anew_with_a_new_topic() -> None:
    view = ClusterView()
    view.apply(_response(1, 5))
    view.apply(_response(2, 4))
    assert view.leader("t", 0) == Endpoint(1, "h", 1)
    view.apply(_response(2, 6))
    assert view.leader("t", 0) == Endpoint(2, "h", 2)
    view.apply(_response(1, 0, topic_id=2))
    assert view.leader("t", 0) == Endpoint(1, "h", 1)
    assert len(view.names_by_id) == 1


def test_hints_are_taken_only_when_they_are_news() -> None:
    view = ClusterView()
    view.apply(_response(1, 5))
    assert not view.apply_leader("t", 0, 2, 5, ())
    assert not view.apply_leader("t", 0, 3, 6, ())  # nobody knows where broker 3 is
    assert view.apply_leader("t", 0, 3, 6, [Endpoint(3, "h", 3)])
    assert view.leader("t", 0) == Endpoint(3, "h", 3)
    assert not view.apply_leader("nope", 0, 2, 9, ())


def test_a_lagging_broker_does_not_take_us_back() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        fake.move("t", 0, 2)
        await cluster.metadata.topic("t")
        fake.script(ApiKey.METADATA, stale_metadata)
        await cluster.metadata.refresh()
        leader = cluster.metadata.view.leader("t", 0)
        assert leader is not None
        assert leader.node_id == 2

    _run(body, brokers=2)


def test_callers_at_a_time_share_a_refresh() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        await asyncio.gather(*(cluster.metadata.topic("t") for _ in range(20)))
        assert len(fake.requests(MetadataRequest)) == 1
        for _ in range(10):
            cluster.metadata.request_refresh()
        await cluster.metadata.refresh()
        assert len(fake.requests(MetadataRequest)) <= 3

    _run(body)


def test_old_metadata_is_read_again() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        await cluster.metadata.topic("t")
        while len(fake.requests(MetadataRequest)) < 4:
            await asyncio.sleep(0.005)

    _run(body, metadata_max_age=0.02)


def test_a_broker_that_says_nothing_gets_company() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        fake.script(ApiKey.METADATA, Fault.SILENCE)
        assert (await cluster.metadata.topic("t", timeout=1.5)).name == "t"

    _run(body, brokers=2)


def test_any_broker_will_do_even_after_all_moved_away() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        await cluster.metadata.topic("t")
        fake.brokers[1].stop()
        await cluster.metadata.refresh()
        fake.brokers[2].stop()
        await cluster.metadata.refresh()
        await fake.brokers[1].start()
        fake.brokers[3].stop()
        await cluster.metadata.topic("t")
        with pytest.raises(TopicNotFoundError):
            await cluster.metadata.topic("nope")

    _run(body, brokers=3)


def test_topics_that_cannot_be() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        with pytest.raises(TopicNotFoundError):
            await cluster.metadata.topic("nope")
        fake.script(ApiKey.METADATA, ErrorCode.INVALID_TOPIC_EXCEPTION)
        with pytest.raises(InvalidTopicError):
            await cluster.metadata.topic("no/slash")
        assert cluster.metadata._wanted == {}

    _run(body)


def test_a_topic_created_a_moment_ago_is_waited_for() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        waiting = asyncio.create_task(cluster.metadata.topic("soon"))
        while not fake.requests(MetadataRequest):
            await asyncio.sleep(0)
        fake.add_topic("soon")
        assert (await waiting).name == "soon"

    _run(body, topic_grace=1.0)


def test_nobody_answers() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        fake.brokers[1].hung = True
        with pytest.raises(ConnectionFailedError, match=str(fake.brokers[1].port)):
            await cluster.metadata.refresh(timeout=0.05)
        await cluster.close()
        with pytest.raises(ClosedError):
            await cluster.metadata.refresh()

    _run(body)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("localhost", (("localhost", 9092),)),
        ("a:1, b:2,", (("a", 1), ("b", 2))),
        ("[::1]:9000,[::2]", (("::1", 9000), ("::2", 9092))),
    ],
)
def test_bootstrap_addresses(text: str, addresses: tuple[tuple[str, int], ...]) -> None:
    assert parse_bootstrap(text) == addresses


@pytest.mark.parametrize("text", ["", ",", "a:b", ":9092", "a:0", "a:70000"])
def test_bootstrap_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="localhost:9092"):
        parse_bootstrap(text)


def test_a_time_out_is_told_whole_and_not_what_was_left_of_it() -> None:
    """ "No broker answered within 0.135 s": what a refusal and its retries had left of it."""

    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        fake.script(ApiKey.METADATA, ErrorCode.LEADER_NOT_AVAILABLE, Fault.SILENCE)
        with pytest.raises(ConnectionFailedError, match=r"within 0\.4 s"):
            await cluster.metadata.topic("t", timeout=0.4)

    _run(body)


def test_what_a_broker_said_is_told_rather_than_a_last_moment_without_an_answer() -> None:
    async def body(fake: FakeCluster, cluster: Cluster) -> None:
        fake.script(ApiKey.LIST_OFFSETS, *[ErrorCode.KAFKA_STORAGE_ERROR] * 1_000)
        wanted = {TopicPartition("t", 0): LATEST}
        with pytest.raises(BrokerError, match="KAFKA_STORAGE_ERROR"):
            await list_offsets(cluster, wanted, timeout=0.3)
        fake.brokers[1].hung = True
        with pytest.raises(RequestTimeoutError, match=r"did not answer in 0\.3 s"):
            await list_offsets(cluster, wanted, timeout=0.3)

    _run(body)
