"""The load of one round, and all that its clients saw: what was promised and what was read.

Probers write one record after the other to each partition, so that a gap between two
acknowledgements is a time in which that partition was not available. Writers keep many records in
flight, with Pegel's client and with librdkafka where it is installed. A reader follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from importlib.util import find_spec
from random import Random
from typing import Any

import pegel
from pegel.errors import PegelError
from pegel.producer.batch import Delivery
from pegel.testing.delivery import History, Place, Sent, Verdict, judge

DELIVERY_TIMEOUT = 90.0
STOP_TIMEOUT = 120.0
PROBE_PAUSE = 0.010
WRITE_PAUSE = 0.004
IN_FLIGHT = 32
READ_WAIT = 30.0


class Load:
    """Runs in threads of its own between ``start`` and ``stop``; times are of ``time.time``."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, seed: str) -> None:
        self.history = History()
        # By partition: when each record of its prober was acknowledged.
        self.acknowledged: dict[int, list[float]] = {p: [] for p in range(partitions)}
        self.began = self.ended = 0.0
        # Values that a client gave up, by error: they may be in the log or not.
        self.gave_up: dict[str, int] = {}
        # Why Pegel's client ended before it was asked to; "" as it should be.
        self.failed = ""
        self._bootstrap, self._topic = bootstrap, topic
        self._random = Random(seed)
        self._ends = threading.Event()
        self._orders: dict[tuple[str, int], int] = {}
        self._threads = [threading.Thread(target=self._pegel, daemon=True)]
        if find_spec("confluent_kafka"):
            self._threads.append(threading.Thread(target=self._librdkafka, daemon=True))

    def start(self) -> None:
        self.began = time.time()
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Stop writing, wait for what is in flight; False where a client hangs."""
        self.ended = time.time()
        self._ends.set()
        deadline = time.monotonic() + STOP_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def acknowledged_since(self, at: float) -> int:
        """The smallest number of acknowledgements of any prober since then."""
        return min(sum(t > at for t in times[-200:]) for times in self.acknowledged.values())

    # -- Pegel's client

    def _sent(self, producer: str, partition: int) -> Sent:
        order = self._orders[producer, partition] = self._orders.get((producer, partition), -1) + 1
        value = f"{producer}/{partition}/{order}".encode()
        return self.history.send(Sent(value, producer, (self._topic, partition), order))

    def _pegel(self) -> None:
        try:
            asyncio.run(self._run())
        except PegelError as error:
            self.failed = str(error)

    async def _run(self) -> None:
        async with pegel.AsyncClient(self._bootstrap) as client:
            await asyncio.gather(
                *(self._probe(client, partition) for partition in self.acknowledged),
                self._write(client),
                self._read(client),
            )

    async def _probe(self, client: pegel.AsyncClient, partition: int) -> None:
        times = self.acknowledged[partition]
        async with client.producer(acks="all", delivery_timeout=DELIVERY_TIMEOUT) as producer:
            while not self._ends.is_set():
                sent = self._sent("prober", partition)
                delivery = await producer.send_soon(self._topic, sent.value, partition=partition)
                if await self._settled(delivery, sent):
                    times.append(time.time())
                await asyncio.sleep(PROBE_PAUSE)

    async def _write(self, client: pegel.AsyncClient) -> None:
        running: set[asyncio.Task[bool]] = set()
        async with client.producer(
            acks="all", linger_ms=2, delivery_timeout=DELIVERY_TIMEOUT
        ) as producer:
            while not self._ends.is_set():
                sent = self._sent("writer", self._random.randrange(len(self.acknowledged)))
                delivery = await producer.send_soon(
                    self._topic, sent.value, partition=sent.place[1]
                )
                task = asyncio.create_task(self._settled(delivery, sent))
                running.add(task)
                task.add_done_callback(running.discard)
                while len(running) >= IN_FLIGHT and not self._ends.is_set():
                    await asyncio.wait(running, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(WRITE_PAUSE)
            if running:
                await asyncio.wait(running)

    async def _settled(self, delivery: Delivery, sent: Sent) -> bool:
        try:
            where = await delivery
        except (PegelError, TimeoutError) as error:
            self._on_given_up(type(error).__name__)
            return False
        sent.offset, sent.acknowledged = where.offset, True
        return True

    def _on_given_up(self, name: str) -> None:
        self.gave_up[name] = self.gave_up.get(name, 0) + 1

    async def _read(self, client: pegel.AsyncClient) -> None:
        """Follow everything; what was read once must stay."""
        places: list[Place] = [(self._topic, partition) for partition in self.acknowledged]
        while not self._ends.is_set():
            parts: dict[Place, list[tuple[int, bytes]]] = {place: [] for place in places}
            for place, part in parts.items():
                self.history.reads["reader", place].append(part)
            with contextlib.suppress(PegelError, TimeoutError):
                async with client.consumer(partitions=places, offset_reset="earliest") as consumer:
                    while not self._ends.is_set():
                        batch = await consumer.next_batch(timeout=0.2)
                        if batch is not None:
                            read = zip(batch.offsets, batch.values, strict=True)
                            parts[batch.topic, batch.partition] += ((o, v or b"") for o, v in read)

    # -- librdkafka

    def _librdkafka(self) -> None:
        from confluent_kafka import KafkaException, Producer

        silent = logging.getLogger("pegel.chaos.librdkafka")
        silent.disabled = True
        producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": int(DELIVERY_TIMEOUT * 1000),
            },
            logger=silent,
        )

        def on_delivery(sent: Sent) -> Any:
            def told(error: Any, message: Any) -> None:
                if error is not None:
                    self._on_given_up(f"librdkafka {error.name()}")
                else:
                    sent.offset, sent.acknowledged = message.offset(), True

            return told

        random = Random(self._topic)
        while not self._ends.is_set():
            sent = self._sent("librdkafka", random.randrange(len(self.acknowledged)))
            try:
                producer.produce(
                    self._topic, sent.value, partition=sent.place[1], on_delivery=on_delivery(sent)
                )
            except (BufferError, KafkaException) as error:
                self._on_given_up(f"librdkafka {type(error).__name__}")
            producer.poll(WRITE_PAUSE)
        producer.flush(STOP_TIMEOUT)

    # -- afterwards

    def verdict(self) -> Verdict:
        """Read the whole topic and judge.

        Raises:
            PegelError: it cannot be read to its end.
        """
        asyncio.run(self._read_everything())
        return judge(self.history)

    async def _read_everything(self) -> None:
        places: list[Place] = [(self._topic, partition) for partition in self.acknowledged]
        self.history.final = {place: [] for place in places}
        async with (
            pegel.AsyncClient(self._bootstrap) as client,
            client.consumer(partitions=places, offset_reset="earliest") as reader,
        ):
            starts, ends = await reader.beginning_offsets(), await reader.end_offsets()
            for place, start in starts.items():
                self.history.log_starts[place.topic, place.partition] = start
            while not reader.reached(ends):
                batch = await reader.next_batch(timeout=READ_WAIT)
                if batch is None:
                    raise PegelError(f"{self._topic} cannot be read to its end")
                self.history.final[batch.topic, batch.partition] += [
                    (offset, value or b"")
                    for offset, value in zip(batch.offsets, batch.values, strict=True)
                ]
