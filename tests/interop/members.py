"""One member of a consumer group, by any library, in a process of its own that may be killed.

``python -m tests.interop.members LIBRARY BOOTSTRAP TOPIC GROUP [INSTANCE]`` prints one JSON
document per line, with the time in milliseconds: ``{"read": {partition: [offset, …]}}`` for what it
got, then ``{"committed": {partition: offset}}`` or ``{"refused": why}``. SIGTERM lets it leave in
good order.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

SESSION_MS = 3000
HEARTBEAT_MS = 200


def say(document: dict[str, Any]) -> None:
    print(json.dumps({**document, "at": time.time() * 1000}), flush=True)


def commit(reads: dict[int, list[int]], work: Callable[[], object]) -> None:
    """Say what was read, commit it, say so. A member that is thrown out meanwhile goes on."""
    say({"read": reads})
    try:
        work()
    except Exception as error:
        say({"refused": repr(error)})
    else:
        say({"committed": {p: offsets[-1] + 1 for p, offsets in reads.items()}})


def told_to_stop() -> Callable[[], bool]:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    return lambda: bool(stopped)


def pegel(bootstrap: str, topic: str, group: str, instance: str | None) -> None:
    from pegel import Client

    stopped = told_to_stop()
    with (
        Client(bootstrap) as client,
        client.consumer(
            topic, group=group, instance_id=instance, offset_reset="earliest", commit="manual",
            assignors=["range"], session_timeout=SESSION_MS / 1000,
            heartbeat_interval=HEARTBEAT_MS / 1000,
        ) as consumer,
    ):  # fmt: skip
        while not stopped():
            batch = consumer.next_batch(timeout=0.1)
            if batch is not None:
                commit({batch.partition: list(batch.offsets)}, consumer.commit)


def confluent(bootstrap: str, topic: str, group: str, instance: str | None) -> None:
    from confluent_kafka import Consumer

    stopped = told_to_stop()
    settings = {
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": SESSION_MS,
        "heartbeat.interval.ms": HEARTBEAT_MS, "partition.assignment.strategy": "range",
    }  # fmt: skip
    if instance:
        settings["group.instance.id"] = instance
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    while not stopped():
        messages = [m for m in consumer.consume(500, timeout=0.1) if m.error() is None]
        reads: dict[int, list[int]] = {}
        for m in messages:
            reads.setdefault(m.partition(), []).append(m.offset())
        if reads:
            commit(reads, lambda: consumer.commit(asynchronous=False))
    consumer.close()


def kafka_python(bootstrap: str, topic: str, group: str, instance: str | None) -> None:
    from kafka import KafkaConsumer
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    stopped = told_to_stop()
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap.split(","), group_id=group,
        auto_offset_reset="earliest", enable_auto_commit=False, session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
        partition_assignment_strategy=[RangePartitionAssignor], group_instance_id=instance,
    )  # fmt: skip
    while not stopped():
        polled = consumer.poll(timeout_ms=100)
        reads = {where.partition: [r.offset for r in found] for where, found in polled.items()}
        if reads:
            commit(reads, consumer.commit)
    consumer.close()


def aiokafka(bootstrap: str, topic: str, group: str, instance: str | None) -> None:
    async def main() -> None:
        from aiokafka import AIOKafkaConsumer
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor

        stopped = told_to_stop()
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
            enable_auto_commit=False, session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS, group_instance_id=instance,
            partition_assignment_strategy=(RangePartitionAssignor,),
        )  # fmt: skip
        await consumer.start()
        while not stopped():
            polled = await consumer.getmany(timeout_ms=100)
            reads = {w.partition: [r.offset for r in found] for w, found in polled.items()}
            if not reads:
                continue
            say({"read": reads})
            try:
                await consumer.commit()
            except Exception as error:
                say({"refused": repr(error)})
            else:
                say({"committed": {p: offsets[-1] + 1 for p, offsets in reads.items()}})
        await consumer.stop()

    asyncio.run(main())


MEMBERS = {
    "pegel": pegel,
    "confluent": confluent,
    "kafka-python": kafka_python,
    "aiokafka": aiokafka,
}

if __name__ == "__main__":
    library, bootstrap, topic, group, *instance = sys.argv[1:]
    MEMBERS[library](bootstrap, topic, group, instance[0] if instance else None)
