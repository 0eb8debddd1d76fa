"""One consumer of somebody's library in a process of its own, which a test may kill.

``python -m tests.interop.member LIBRARY BOOTSTRAP GROUP TOPIC [INSTANCE]`` commits what it has read
and prints what happens, one JSON object a line: ``assigned``, ``read``, ``committed``. SIGTERM
makes it leave.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

SESSION_MS, HEARTBEAT_MS = 6_000, 500

stopping = False


def tell(event: str, **details: Any) -> None:
    print(json.dumps({"at": time.time(), "event": event, **details}), flush=True)


def told_assigned(partitions: Iterable[Any]) -> None:
    tell("assigned", partitions=sorted(p.partition for p in partitions))


def confluent(bootstrap: str, group: str, topic: str, instance: str | None) -> None:
    from confluent_kafka import Consumer, KafkaException

    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "partition.assignment.strategy": "range", "log_level": 0,
        "session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": HEARTBEAT_MS,
    }  # fmt: skip
    if instance is not None:
        config["group.instance.id"] = instance
    consumer = Consumer(config)
    consumer.subscribe([topic], on_assign=lambda _consumer, partitions: told_assigned(partitions))
    while not stopping:
        record = consumer.poll(0.1)
        if record is None or record.error() is not None:
            continue
        tell("read", partition=record.partition(), offset=record.offset())
        try:
            (done,) = consumer.commit(message=record, asynchronous=False)
        except KafkaException:
            continue  # a rebalance; the next commit covers it
        tell("committed", partition=done.partition, offset=done.offset)
    consumer.close()


def kafka_python(bootstrap: str, group: str, topic: str, instance: str | None) -> None:
    from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.errors import KafkaError

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Any) -> None:
            pass

        def on_partitions_assigned(self, assigned: Any) -> None:
            told_assigned(assigned)

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
        enable_auto_commit=False, partition_assignment_strategy=[RangePartitionAssignor],
        session_timeout_ms=SESSION_MS, heartbeat_interval_ms=HEARTBEAT_MS, max_poll_records=20,
        group_instance_id=instance,
    )  # fmt: skip
    consumer.subscribe([topic], listener=Listener())
    while not stopping:
        for where, records in consumer.poll(100).items():
            for record in records:
                tell("read", partition=record.partition, offset=record.offset)
            offset = records[-1].offset + 1
            try:
                consumer.commit(
                    {TopicPartition(topic, where.partition): OffsetAndMetadata(offset, "", -1)}
                )
            except KafkaError:
                continue
            tell("committed", partition=where.partition, offset=offset)
    consumer.close(autocommit=False)


def aiokafka(bootstrap: str, group: str, topic: str, instance: str | None) -> None:
    asyncio.run(_aiokafka(bootstrap, group, topic, instance))


async def _aiokafka(bootstrap: str, group: str, topic: str, instance: str | None) -> None:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.abc import ConsumerRebalanceListener
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.errors import KafkaError

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Any) -> None:
            pass

        def on_partitions_assigned(self, assigned: Any) -> None:
            told_assigned(assigned)

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
        enable_auto_commit=False, partition_assignment_strategy=[RangePartitionAssignor],
        session_timeout_ms=SESSION_MS, heartbeat_interval_ms=HEARTBEAT_MS,
        group_instance_id=instance,
    )  # fmt: skip
    consumer.subscribe([topic], listener=Listener())
    await consumer.start()
    while not stopping:
        for where, records in (await consumer.getmany(timeout_ms=100, max_records=20)).items():
            for record in records:
                tell("read", partition=record.partition, offset=record.offset)
            offset = records[-1].offset + 1
            try:
                await consumer.commit({where: offset})
            except KafkaError:
                continue
            tell("committed", partition=where.partition, offset=offset)
    await consumer.stop()


LIBRARIES: dict[str, Callable[[str, str, str, str | None], None]] = {
    "confluent": confluent,
    "kafka_python": kafka_python,
    "aiokafka": aiokafka,
}


def main() -> None:
    def stop(_number: int, _frame: object) -> None:
        global stopping  # noqa: PLW0603
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    library, bootstrap, group, topic, *rest = sys.argv[1:]
    LIBRARIES[library](bootstrap, group, topic, rest[0] if rest else None)


if __name__ == "__main__":
    main()
