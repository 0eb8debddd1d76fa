"""Writing and reading, on every system and with both clients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from pegel import (
    ConnectionFailedError,
    ErrorCode,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicNotFoundError,
    TopicPartition,
)
from pegel.producer.partitioner import murmur2
from tests.client.suite.conftest import System
from tests.client.suite.flavours import connect

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]
New = Callable[..., str]


def read(client: Any, topic: str, count: int) -> list[Any]:
    with client.consumer(topic, offset_reset="earliest") as consumer:
        return list(islice(consumer, count))


def test_a_record_comes_back_as_it_was_written(client: Any, new_topic: New) -> None:
    topic = new_topic(3)
    headers = (("a", b"1"), ("a", None), ("b", b""))
    where = client.send(topic, b"value", key=b"key", headers=headers, timestamp=1_700_000_000_000)
    assert where == (topic, (murmur2(b"key") & 0x7FFFFFFF) % 3, 0, 1_700_000_000_000)
    (record,) = read(client, topic, 1)
    assert (record.key, record.value, record.headers) == (b"key", b"value", headers)
    assert (record.partition, record.offset, record.timestamp) == where[1:]
    client.send(topic, None, key=b"key")  # a tombstone goes to the same partition
    assert [r.value for r in read(client, topic, 2)] == [b"value", None]


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_mode_of_acknowledgement(client: Any, new_topic: New, acks: Any) -> None:
    topic = new_topic()
    values = [b"%d" % i for i in range(1000)]
    with client.producer(acks=acks) as producer:
        result = producer.send_many(topic, values)
        assert result.count == 1000
        assert (result.ranges[0].first_offset == -1) is (acks == 0)
    assert [r.value for r in read(client, topic, 1000)] == values


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec(client: Any, new_topic: New, codec: Any) -> None:
    topic = new_topic()
    values = [b"%d " % i * 20 for i in range(500)]
    with client.producer(compression=codec) as producer:
        producer.send_many(topic, values, keys=[b"k"] * 500)
    with client.consumer(topic, offset_reset="earliest") as consumer:
        seen: list[bytes] = []
        while len(seen) < 500:
            batch = consumer.next_batch(timeout=20)
            assert len(batch.keys) == len(batch.offsets) == len(batch.timestamps) == len(batch)
            seen += batch.values
    assert seen == values


def test_sent_soon_is_never_lost_silently(client: Any, new_topic: New) -> None:
    topic = new_topic(max_message_bytes=2000)
    with client.producer(linger_ms=1) as producer:
        pending = [producer.send_soon(topic, b"%d" % i, partition=0) for i in range(100)]
        assert [p.result(timeout=20).offset for p in pending] == list(range(100))
        large = producer.send_soon(topic, b"x" * 5000)
        with pytest.raises(RecordTooLargeError):
            large.result(timeout=20)
        producer.send_soon(topic, b"x" * 5000)  # nobody looks at this one
        with pytest.raises(RecordTooLargeError, match="nobody awaited"):
            producer.flush()
        producer.send_soon(topic, b"small")
    assert [r.value for r in read(client, topic, 101)][-1] == b"small"


def test_seeking_pausing_and_lag(client: Any, new_topic: New) -> None:
    topic = new_topic(2)
    for p in (0, 1):
        client.send_many(topic, [b"%d" % i for i in range(50)], partition=p,
                         timestamps=[1000 + i for i in range(50)])  # fmt: skip
    p0, p1 = TopicPartition(topic, 0), TopicPartition(topic, 1)
    with client.consumer(topic, offset_reset="earliest") as consumer:
        consumer.pause(p1)
        seen = list(islice(consumer, 50))
        assert {r.partition for r in seen} == {0}
        assert consumer.lag(p0) == 0
        assert consumer.position(p0) == 50
        assert consumer.beginning_offsets() == {p0: 0, p1: 0}
        assert consumer.end_offsets() == {p0: 50, p1: 50}
        assert consumer.offsets_at(1020) == {p0: 20, p1: 20}
        consumer.seek(p0, 45)
        assert next(consumer).value == b"45"
        consumer.seek_to_time(1030, p0)
        assert next(consumer).value == b"30"
        consumer.seek_to_beginning(p0)
        assert next(consumer).value == b"0"
        consumer.seek_to_end(p0)
        consumer.resume(p1)
        assert next(consumer).partition == 1
        assert consumer.reached({p0: 50})


def test_a_position_outside_of_the_log(client: Any, new_topic: New) -> None:
    topic = new_topic()
    client.send_many(topic, [b"a", b"b"])
    with client.consumer(topic, offset_reset="none") as consumer:
        consumer.seek((topic, 0), 99)
        with pytest.raises(OffsetOutOfRangeError, match="99"):
            consumer.next_batch()
        consumer.seek((topic, 0), 1)
        assert consumer.next_batch().values == [b"b"]
    with client.consumer(topic, offset_reset="earliest") as consumer:
        consumer.seek((topic, 0), 99)
        assert consumer.next_batch().values == [b"a", b"b"]


def test_what_is_not_there(client: Any, flavour: str, system: System) -> None:
    with pytest.raises(TopicNotFoundError, match="create_topic") as caught:
        client.send("there-is-no-such-topic", b"")
    assert caught.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    with pytest.raises(TopicNotFoundError), client.consumer("there-is-no-such-topic"):
        pass
    with (
        connect(flavour, "127.0.0.1:1") as nowhere,
        pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"),
    ):
        nowhere.admin.list_topics(timeout=0.5)


def test_aborted_transactions_are_left_out(client: Any, new_topic: New, system: System) -> None:
    if system.name == "pegel":
        pytest.skip("Pegel's brokers have no transactions yet")
    from confluent_kafka import Producer

    topic = new_topic()
    producer = Producer({"bootstrap.servers": system.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for value, commit in ((b"kept", True), (b"aborted", False), (b"kept too", True)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush()
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    with client.consumer(topic, offset_reset="earliest", isolation="read_committed") as consumer:
        assert [r.value for r in islice(consumer, 2)] == [b"kept", b"kept too"]
    assert [r.value for r in read(client, topic, 3)] == [b"kept", b"aborted", b"kept too"]
