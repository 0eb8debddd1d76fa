"""Scenarios that every client library plays on one broker and on three.

The libraries are unmodified; what one of them writes, all of them have to read.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from pegel.testing import LocalCluster
from tests.interop.conftest import Clients
from tests.interop.drivers import DRIVERS, Driver, Pair, Received

pytestmark = [pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(60)]

RECORDS: list[Pair] = [(b"key-%d" % (i % 7), b"value-%d " % i * 20) for i in range(100)]


def pairs(received: list[Received]) -> list[tuple[bytes | None, bytes | None]]:
    return [(record.key, record.value) for record in received]


@pytest.mark.parametrize("acks", [0, 1, -1], ids=["acks-0", "acks-1", "acks-all"])
def test_what_is_produced_is_consumed(driver: Driver, topic: str, acks: int) -> None:
    offsets = driver.produce(topic, 1, RECORDS, acks=acks)
    if acks != 0:
        assert offsets == list(range(100))
    received = driver.consume(topic, 1, 0, 100)
    assert [record.offset for record in received] == list(range(100))
    assert pairs(received) == RECORDS


def test_idempotent_producers_follow_one_another(driver: Driver, topic: str) -> None:
    for start in (0, 100):
        offsets = driver.produce(topic, 0, RECORDS, idempotent=True)
        assert offsets == list(range(start, start + 100))
    assert pairs(driver.consume(topic, 0, 0, 200)) == RECORDS * 2


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_all_clients_read_each_codec(
    driver: Driver, clients: Clients, topic: str, codec: str
) -> None:
    driver.produce(topic, 0, RECORDS, compression=codec)
    for reader in DRIVERS:
        assert pairs(clients.driver(reader).consume(topic, 0, 0, 100)) == RECORDS, reader


def test_consumers_seek_by_offset_and_by_time(driver: Driver, topic: str) -> None:
    now = int(time.time() * 1000)
    times = [now - 60_000, now - 30_000, now]
    for i, timestamp in enumerate(times):
        pair = (None, b"%d" % i)
        driver.produce(topic, 0, [pair] * 3, timestamp=timestamp)
    assert [driver.offset_at(topic, 0, t) for t in times] == [0, 3, 6]
    assert [driver.offset_at(topic, 0, t + 1) for t in times] == [3, 6, None]
    received = driver.consume(topic, 0, 4, 5)
    assert [record.offset for record in received] == [4, 5, 6, 7, 8]
    assert [record.timestamp for record in received] == [times[1]] * 2 + [times[2]] * 3


def test_topics_are_configured(driver: Driver, clients: Clients) -> None:
    topic = f"interop-{uuid.uuid4().hex[:10]}"
    driver.create_topic(topic, 1, clients.brokers, {"retention.ms": "3600000"})
    config = driver.topic_config(topic)
    assert config["retention.ms"] == "3600000"
    assert config["cleanup.policy"] == "delete"
    assert config["max.message.bytes"] == "1048588"
    driver.set_topic_config(topic, "retention.ms", "7200000")
    deadline = time.monotonic() + 10
    while driver.topic_config(topic)["retention.ms"] != "7200000":
        assert time.monotonic() < deadline


def test_topics_grow_and_go(driver: Driver, topic: str) -> None:
    assert driver.partition_count(topic) == 2
    driver.produce(topic, 0, RECORDS[:10])
    driver.grow_topic(topic, 5)
    assert driver.partition_count(topic) == 5
    assert driver.produce(topic, 4, RECORDS[:10]) == list(range(10))
    assert pairs(driver.consume(topic, 0, 0, 10)) == RECORDS[:10]
    assert topic in driver.topic_names()
    driver.delete_topic(topic)
    assert topic not in driver.topic_names()


def test_every_broker_is_described(driver: Driver, clients: Clients) -> None:
    ids = driver.broker_ids()
    assert len(ids) == clients.brokers
    if clients.local is not None:
        assert ids == sorted(clients.local.nodes)


def test_a_leader_killed_in_between_costs_nothing(
    driver: Driver, clients: Clients, topic: str
) -> None:
    """Of three another takes over; the only one there is is started again."""
    cluster = clients.local
    if cluster is None:
        pytest.skip("needs brokers that may be killed")
    leader = cluster.leader_of(topic, 0)
    values = [b"%d" % i for i in range(600)]

    def records() -> Iterator[Pair]:
        for i, value in enumerate(values):
            if i == 200:
                cluster.kill(leader)
                if clients.brokers == 1:
                    cluster.restart(leader)
            yield None, value
            if i % 20 == 0:
                time.sleep(0.002)  # so that some are acknowledged and some under way by then

    try:
        offsets = driver.produce(topic, 0, records(), idempotent=True)
        assert (cluster.leader_of(topic, 0) == leader) == (clients.brokers == 1)
        assert offsets == list(range(600))
        received = driver.consume(topic, 0, 0, 600)
        assert [record.value for record in received] == values
    finally:
        if not cluster.nodes[leader].alive:
            cluster.restart(leader)
    _wait_until_in_sync(cluster, topic, 0, replicas=clients.brokers)
    received = driver.consume(topic, 0, 0, 600)
    assert [record.value for record in received] == values


def _wait_until_in_sync(
    cluster: LocalCluster, topic: str, partition: int, *, replicas: int
) -> None:
    deadline = time.monotonic() + 20
    in_sync: list[int] = []
    while len(in_sync) < replicas:
        assert time.monotonic() < deadline, f"only {in_sync} are in sync"
        view = cluster.view(cluster.leader_of(topic, partition))
        for entry in view["broker"]["partitions"]:
            if (entry["topic"], entry["partition"], entry["role"]) == (topic, partition, "leader"):
                in_sync = entry["isr"]
