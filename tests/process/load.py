"""A client that writes numbered records without pause, and tells what became of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType

import confluent_kafka

import pegel
from pegel.types import TopicPartition

PATIENCE = 60.0
BATCH = 10


class Load:
    """``async with Load(client, topic, partitions) as load``: acks=all to every partition.

    A failed request fails the test that ends the load: the client is to retry what can be.
    """

    def __init__(self, client: pegel.AsyncClient, topic: str, partitions: int) -> None:
        self.sent = [0] * partitions  # acknowledged, by partition
        self._client, self._topic = client, topic
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(len(self.sent))]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        if kind is None:
            failed = [r for r in results if r is not None]
            assert not failed, failed

    async def _write(self, partition: int) -> None:
        while not self._stop.is_set():
            first = self.sent[partition]
            values = [b"%d:%d" % (partition, first + i) for i in range(BATCH)]
            await self._client.send_many(self._topic, values, partition=partition)
            self.sent[partition] += BATCH

    async def acknowledged(self, more: int) -> None:
        """Wait until ``more`` records than now are acknowledged."""
        goal = sum(self.sent) + more
        async with asyncio.timeout(PATIENCE):
            while sum(self.sent) < goal and not any(t.done() for t in self._tasks):
                await asyncio.sleep(0.01)

    async def missing(self, skip: int = 0) -> list[str]:
        """What is lost, doubled or out of order, after ``skip`` other records per partition."""
        return await missing(self._client, self._topic, self.sent, skip)


async def missing(
    client: pegel.AsyncClient, topic: str, sent: Sequence[int], skip: int = 0
) -> list[str]:
    """Which partitions do not hold ``partition:0``, ``partition:1`` … for all that was sent."""
    wrong = []
    for number, count in enumerate(sent):
        read: list[bytes] = []
        partition = TopicPartition(topic, number)
        async with client.consumer(partitions=[partition], offset_reset="earliest") as consumer:
            async with asyncio.timeout(PATIENCE):
                while len(read) < skip + count:
                    batch = await consumer.next_batch(timeout=1.0)
                    read += [bytes(v or b"") for v in batch.values] if batch else []
        expected = [b"%d:%d" % (number, i) for i in range(count)]
        if read[skip : skip + count] != expected:
            wrong.append(f"{partition}: {count} acknowledged, read {read[skip:][:5]}…")
    return wrong


class ConfluentLoad:
    """The same with librdkafka, retrying as it does by default: ``async with ConfluentLoad(…)``.

    A thread writes one record after the other to each partition in turn, idempotent, acks=all. A
    delivery that fails, whatever the error, fails the test at the end.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.sent = [0] * partitions  # acknowledged, by partition
        self.failed: list[str] = []
        self._topic = topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, name="confluent-load")
        self._producer = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0,
        })  # fmt: skip

    async def __aenter__(self) -> ConfluentLoad:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        left = await asyncio.to_thread(self._producer.flush, PATIENCE)
        assert not left, f"{left} records neither acknowledged nor failed"
        assert not self.failed, self.failed

    def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            partition = number % len(self.sent)
            value = b"%d:%d" % (partition, number // len(self.sent))
            self._producer.produce(
                self._topic, value, partition=partition, on_delivery=self._delivered
            )
            number += 1
            self._producer.poll(0.005)

    def _delivered(
        self, error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message
    ) -> None:
        if error is not None:
            self.failed.append(str(error))
            return
        partition = message.partition()
        assert partition is not None
        self.sent[partition] += 1

    async def missing(self, client: pegel.AsyncClient) -> list[str]:
        """What is lost, doubled or out of order."""
        return await missing(client, self._topic, self.sent)
