"""kafka-python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tests.interop.drivers.interface import DEADLINE_S, Pair, Received


class KafkaPython:
    """kafka-python."""

    name = "kafka-python"

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap.split(",")

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            yield admin
        finally:
            admin.close()

    def create_topic(
        self, topic: str, partitions: int, replication: int, config: dict[str, str] | None = None
    ) -> None:
        options = {
            "num_partitions": partitions,
            "replication_factor": replication,
            "configs": config or {},
        }
        with self._admin() as admin:
            admin.create_topics({topic: options})

    def delete_topic(self, topic: str) -> None:
        with self._admin() as admin:
            admin.delete_topics([topic])

    def grow_topic(self, topic: str, partitions: int) -> None:
        with self._admin() as admin:
            admin.create_partitions({topic: partitions})

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
        from kafka import KafkaProducer

        producer = KafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks=acks,
            enable_idempotence=idempotent,
            compression_type=compression,
            linger_ms=1,
        )
        try:
            futures = [
                producer.send(topic, value, key, partition=partition, timestamp_ms=timestamp)
                for key, value in records
            ]
            producer.flush(DEADLINE_S)
            return [future.get(DEADLINE_S).offset for future in futures]
        finally:
            producer.close(DEADLINE_S)

    @contextlib.contextmanager
    def _consumer(self, topic: str, partition: int) -> Iterator[Any]:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=None, fetch_max_wait_ms=100
        )
        try:
            consumer.assign([TopicPartition(topic, partition)])
            yield consumer
        finally:
            consumer.close()

    def consume(self, topic: str, partition: int, offset: int, count: int) -> list[Received]:
        from kafka import TopicPartition

        where = TopicPartition(topic, partition)
        with self._consumer(topic, partition) as consumer:
            consumer.seek(where, offset)
            received: list[Received] = []
            deadline = time.monotonic() + DEADLINE_S
            while len(received) < count and time.monotonic() < deadline:
                for batch in consumer.poll(500).values():
                    received += [Received(r.offset, r.key, r.value, r.timestamp) for r in batch]
            return received[:count]

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int | None:
        from kafka import TopicPartition

        where = TopicPartition(topic, partition)
        with self._consumer(topic, partition) as consumer:
            found = consumer.offsets_for_times({where: timestamp})[where]
            return None if found is None else found.offset

    def topic_config(self, topic: str) -> dict[str, str]:
        from kafka.admin import ConfigResource, ConfigResourceType

        with self._admin() as admin:
            answer = admin.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all"
            )
        return _flatten_configs(answer)

    def set_topic_config(self, topic: str, key: str, value: str) -> None:
        from kafka.admin import ConfigResource, ConfigResourceType

        with self._admin() as admin:
            admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, configs={key: value})]
            )

    def topic_names(self) -> list[str]:
        with self._admin() as admin:
            return sorted(admin.list_topics())

    def partition_count(self, topic: str) -> int:
        with self._admin() as admin:
            return len(admin.describe_topics([topic])[0]["partitions"])

    def broker_ids(self) -> list[int]:
        with self._admin() as admin:
            return sorted(broker["node_id"] for broker in _brokers(admin.describe_cluster()))


def _brokers(answer: dict[str, Any]) -> list[dict[str, Any]]:
    brokers = answer["brokers"]
    return [{"node_id": b.get("node_id", b.get("broker_id"))} for b in brokers]


def _flatten_configs(answer: Any) -> dict[str, str]:
    """kafka-python answers with nested dicts: type, then resource, then key, then details."""
    found: dict[str, str] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if isinstance(value, dict) and "value" in value:
                    found[key] = value["value"]
                else:
                    walk(value)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(answer)
    return found
