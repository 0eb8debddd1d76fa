"""aiokafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from tests.interop.drivers.interface import DEADLINE_S, Pair, Received


class AioKafka:
    """aiokafka."""

    name = "aiokafka"

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def _with_admin(self, use: Callable[[Any], Any]) -> Any:
        async def main() -> Any:
            from aiokafka.admin import AIOKafkaAdminClient

            admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
            await admin.start()
            try:
                return await use(admin)
            finally:
                await admin.close()

        return asyncio.run(asyncio.wait_for(main(), DEADLINE_S))

    def create_topic(
        self, topic: str, partitions: int, replication: int, config: dict[str, str] | None = None
    ) -> None:
        from aiokafka.admin import NewTopic

        new = NewTopic(topic, partitions, replication, topic_configs=config or {})
        answer = self._with_admin(lambda admin: admin.create_topics([new]))
        assert all(error[1] == 0 for error in answer.topic_errors), answer

    def delete_topic(self, topic: str) -> None:
        answer = self._with_admin(lambda admin: admin.delete_topics([topic]))
        assert all(error[1] == 0 for error in answer.topic_error_codes), answer

    def grow_topic(self, topic: str, partitions: int) -> None:
        from aiokafka.admin import NewPartitions

        new = {topic: NewPartitions(partitions)}
        answer = self._with_admin(lambda admin: admin.create_partitions(new))
        assert all(error[1] == 0 for error in answer.topic_errors), answer

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
        async def main() -> list[int]:
            from aiokafka import AIOKafkaProducer

            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks=acks if not idempotent else "all",
                enable_idempotence=idempotent,
                compression_type=compression,
                linger_ms=1,
            )
            await producer.start()
            try:
                futures = []
                for key, value in records:
                    futures.append(
                        await producer.send(
                            topic, value, key, partition=partition, timestamp_ms=timestamp
                        )
                    )
                    await asyncio.sleep(0)  # its sender runs on this loop too
                await producer.flush()
                done = [await future for future in futures]
                return [-1 if result is None else result.offset for result in done]
            finally:
                await producer.stop()

        return asyncio.run(asyncio.wait_for(main(), DEADLINE_S))

    def _with_consumer(self, topic: str, partition: int, use: Callable[[Any, Any], Any]) -> Any:
        async def main() -> Any:
            from aiokafka import AIOKafkaConsumer, TopicPartition

            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap, group_id=None, fetch_max_wait_ms=100
            )
            await consumer.start()
            try:
                where = TopicPartition(topic, partition)
                consumer.assign([where])
                return await use(consumer, where)
            finally:
                await consumer.stop()

        return asyncio.run(asyncio.wait_for(main(), DEADLINE_S))

    def consume(self, topic: str, partition: int, offset: int, count: int) -> list[Received]:
        async def use(consumer: Any, where: Any) -> list[Received]:
            consumer.seek(where, offset)
            received: list[Received] = []
            while len(received) < count:
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    received += [Received(r.offset, r.key, r.value, r.timestamp) for r in batch]
            return received[:count]

        found: list[Received] = self._with_consumer(topic, partition, use)
        return found

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int | None:
        async def use(consumer: Any, where: Any) -> int | None:
            found = (await consumer.offsets_for_times({where: timestamp}))[where]
            return None if found is None else int(found.offset)

        offset: int | None = self._with_consumer(topic, partition, use)
        return offset

    def topic_config(self, topic: str) -> dict[str, str]:
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        answers = self._with_admin(lambda admin: admin.describe_configs([resource]))
        return {
            entry[0]: entry[1]
            for answer in answers
            for resource_answer in answer.resources
            for entry in resource_answer[4]
        }

    def set_topic_config(self, topic: str, key: str, value: str) -> None:
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})
        self._with_admin(lambda admin: admin.alter_configs([resource]))

    def topic_names(self) -> list[str]:
        return sorted(self._with_admin(lambda admin: admin.list_topics()))

    def partition_count(self, topic: str) -> int:
        found = self._with_admin(lambda admin: admin.describe_topics([topic]))
        return len(found[0]["partitions"])

    def broker_ids(self) -> list[int]:
        cluster = self._with_admin(lambda admin: admin.describe_cluster())
        return sorted(broker["node_id"] for broker in cluster["brokers"])
