"""Admin calls, on every system and with both clients."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from pegel import (
    BrokerError,
    OffsetOutOfRangeError,
    TopicExistsError,
    TopicNotFoundError,
    TopicPartition,
    UnsupportedVersionError,
)
from pegel.admin.types import ConfigResourceType, ConfigSource
from tests.client.suite.conftest import System

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]
New = Callable[..., str]


def test_a_topic_from_creation_to_deletion(client: Any, system: System) -> None:
    name = f"suite-{uuid.uuid4().hex[:12]}"
    admin = client.admin
    made = client.create_topic(
        name, partitions=2, replication=system.replication, config={"retention.ms": 3_600_000}
    )
    with pytest.raises(TopicExistsError):
        client.create_topic(name)
    found = admin.describe_topic(name, offsets=True)
    assert (found.topic_id, len(found.partitions), found.replication) == (
        made, 2, system.replication,
    )  # fmt: skip
    assert [(p.start_offset, p.end_offset) for p in found.partitions] == [(0, 0)] * 2
    admin.grow_topic(name, 3)
    _until(lambda: len(admin.describe_topic(name).partitions) == 3)
    assert name in [t.name for t in admin.list_topics()]
    client.delete_topic(name)
    _until(lambda: name not in [t.name for t in admin.list_topics()])

    def is_gone() -> bool:  # a broker of Apache Kafka may know it longer than another one
        try:
            admin.describe_topic(name)
        except TopicNotFoundError:
            return True
        return False

    _until(is_gone)
    with pytest.raises(BrokerError):
        client.create_topic("not/legal")


def test_configurations(client: Any, new_topic: New) -> None:
    topic = new_topic()
    admin, kind = client.admin, ConfigResourceType.TOPIC

    def retention() -> tuple[str | None, ConfigSource]:
        entries = {e.name: e for e in admin.describe_config(kind, topic)}
        return entries["retention.ms"].value, entries["retention.ms"].source

    default = retention()
    assert default[1] is not ConfigSource.TOPIC
    admin.alter_config(kind, topic, {"retention.ms": 7_200_000})
    _until(lambda: retention() == ("7200000", ConfigSource.TOPIC))
    admin.alter_config(kind, topic, {"retention.ms": None})
    _until(lambda: retention() == default)
    with pytest.raises(BrokerError):
        admin.alter_config(kind, topic, {"no.such.key": 1})
    (node, *_) = admin.describe_cluster().brokers
    broker = admin.describe_config(ConfigResourceType.BROKER, str(node.node_id))
    assert "log.retention.ms" in [e.name for e in broker]


def test_the_cluster_and_its_replicas(client: Any, new_topic: New, system: System) -> None:
    topic = new_topic(2)
    client.send_many(topic, [b"x" * 100] * 10, partition=0)
    cluster = client.admin.describe_cluster()
    assert len(cluster.brokers) == len(system.bootstrap.split(","))
    assert cluster.controller_id in {b.node_id for b in cluster.brokers}
    assert not any(b.fenced for b in cluster.brokers)
    found = [
        r
        for d in client.admin.describe_log_dirs()
        for r in d.replicas
        if (r.topic, r.partition) == (topic, 0)
    ]
    assert len(found) == system.replication
    assert max(r.size_bytes for r in found) > 1000
    results = client.admin.elect_leaders([TopicPartition(topic, 0)])
    assert [r.error for r in results if r.topic == topic] == [None] * len(
        [r for r in results if r.topic == topic]
    )


def test_records_are_deleted_from_the_front(client: Any, new_topic: New) -> None:
    topic = new_topic()
    p0 = TopicPartition(topic, 0)
    client.send_many(topic, [b"%d" % i for i in range(10)])
    try:
        assert client.admin.delete_records({p0: 4}) == {p0: 4}
    except UnsupportedVersionError:
        pytest.skip("this broker does not delete records")
    with client.consumer(topic, offset_reset="earliest") as consumer:
        assert next(consumer).value == b"4"
    assert client.admin.delete_records({p0: -1}) == {p0: 10}
    with pytest.raises(OffsetOutOfRangeError):
        client.admin.delete_records({p0: 11})
    with pytest.raises(TopicNotFoundError):
        client.admin.delete_records({(topic, 5): 1})


def _until(condition: Callable[[], bool]) -> None:
    """A change reaches brokers one after another."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
