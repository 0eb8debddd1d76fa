"""A client that writes numbered records without pause, and tells what became of them."""

from __future__ import annotations

import asyncio
from types import TracebackType

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
        wrong = []
        for number, count in enumerate(self.sent):
            read: list[bytes] = []
            partition = TopicPartition(self._topic, number)
            async with self._client.consumer(
                partitions=[partition], offset_reset="earliest"
            ) as consumer:
                async with asyncio.timeout(PATIENCE):
                    while len(read) < skip + count:
                        batch = await consumer.next_batch(timeout=1.0)
                        read += [bytes(v or b"") for v in batch.values] if batch else []
            expected = [b"%d:%d" % (number, i) for i in range(count)]
            if read[skip : skip + count] != expected:
                wrong.append(f"{partition}: {count} acknowledged, read {read[skip:][:5]}…")
        return wrong
