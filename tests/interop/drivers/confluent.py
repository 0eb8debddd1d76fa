"""librdkafka, through confluent-kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tests.interop.drivers.interface import DEADLINE_S, Pair, Received


class Confluent:
    """librdkafka through confluent-kafka."""

    name = "confluent-kafka"

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka.admin import AdminClient

        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    def create_topic(
        self, topic: str, partitions: int, replication: int, config: dict[str, str] | None = None
    ) -> None:
        from confluent_kafka.admin import NewTopic

        new = NewTopic(topic, partitions, replication, config=config or {})
        self._admin.create_topics([new])[topic].result(DEADLINE_S)

    def delete_topic(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result(DEADLINE_S)

    def grow_topic(self, topic: str, partitions: int) -> None:
        from confluent_kafka.admin import NewPartitions

        future = self._admin.create_partitions([NewPartitions(topic, partitions)])[topic]
        future.result(DEADLINE_S)

    def produce(
        self,
        topic: str,
        partition: int,
        records: Iterable[Pair],
        *,
        acks: int = -1,
        idempotent: bool = False,
        compression: str | None = None,
        timestamp: int | None = None,
    ) -> list[int]:
        from confluent_kafka import Producer

        settings: dict[str, Any] = {
            "bootstrap.servers": self._bootstrap,
            "acks": acks,
            "enable.idempotence": idempotent,
            "linger.ms": 1,
            "compression.type": compression or "none",
            "message.timeout.ms": int(DEADLINE_S * 1000),
        }
        producer = Producer(settings)
        offsets: list[int] = []

        def delivered(error: object, message: Any) -> None:
            assert error is None, error
            offsets.append(message.offset() if acks else -1)

        extra = {} if timestamp is None else {"timestamp": timestamp}
        for key, value in records:
            producer.produce(topic, value, key, partition=partition, on_delivery=delivered, **extra)
            producer.poll(0)
        assert producer.flush(DEADLINE_S) == 0
        return offsets

    def consume(self, topic: str, partition: int, offset: int, count: int) -> list[Received]:
        from confluent_kafka import TopicPartition

        with self._consumer() as consumer:
            consumer.assign([TopicPartition(topic, partition, offset)])
            received: list[Received] = []
            deadline = time.monotonic() + DEADLINE_S
            while len(received) < count and time.monotonic() < deadline:
                for message in consumer.consume(count - len(received), 0.5):
                    assert message.error() is None, message.error()
                    received.append(
                        Received(
                            message.offset(),
                            message.key(),
                            message.value(),
                            message.timestamp()[1],
                        )
                    )
            return received

    @contextlib.contextmanager
    def _consumer(self) -> Iterator[Any]:
        from confluent_kafka import Consumer

        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int | None:
        from confluent_kafka import TopicPartition

        with self._consumer() as consumer:
            found = consumer.offsets_for_times(
                [TopicPartition(topic, partition, timestamp)], DEADLINE_S
            )[0]
            return found.offset if found.offset >= 0 else None

    def topic_config(self, topic: str) -> dict[str, str]:
        from confluent_kafka.admin import ConfigResource, ResourceType

        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self._admin.describe_configs([resource])[resource].result(DEADLINE_S)
        return {name: entry.value for name, entry in entries.items()}

    def set_topic_config(self, topic: str, key: str, value: str) -> None:
        from confluent_kafka.admin import (
            AlterConfigOpType,
            ConfigEntry,
            ConfigResource,
            ResourceType,
        )

        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        self._admin.incremental_alter_configs([resource])[resource].result(DEADLINE_S)

    def topic_names(self) -> list[str]:
        return sorted(self._admin.list_topics(timeout=DEADLINE_S).topics)

    def partition_count(self, topic: str) -> int:
        return len(self._admin.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions)

    def broker_ids(self) -> list[int]:
        return sorted(self._admin.list_topics(timeout=DEADLINE_S).brokers)
