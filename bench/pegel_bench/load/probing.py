"""One record after the other while a broker fails: for how long is none acknowledged?

Three observers: a prober that asks every node, so that it sees what the cluster does and not what
a client library makes of it; Pegel's client; librdkafka with its default settings. Every value is
a number, so that afterwards the log tells which of those acknowledged are missing or there twice.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections import Counter, deque
from typing import Any

import pegel
from pegel.errors import PegelError
from pegel.protocol.codec import encode_request
from pegel.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from pegel.record.batch import iter_batches
from pegel.record.decode import decode_batch
from pegel.record.encode import encode_batch
from pegel_bench.load.asking import Address, Asker
from pegel_bench.load.control import Control
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.load.wire import (
    CLIENT_ID,
    PRODUCE_VERSION,
    Receiver,
    answer_offset,
    connect,
    error_name,
    read_answer,
)

# So long the prober waits for an answer before it asks the other nodes as well.
_PATIENCE = 0.02
_FETCH_BYTES = 4 * 1024 * 1024
_READ_WAIT = 30.0


def run(spec: LoadSpec, control: Control) -> LoadResult:
    """Records at ``spec.rate`` until ``spec.seconds`` are over. Raises OSError, PegelError."""
    asker = Asker(spec.bootstrap)
    addresses = asker.addresses()
    control.wait_for_go()
    if spec.driver == "pegel":
        probe: _Probe = _OwnProbe(spec, control)
    elif spec.driver == "librdkafka":
        probe = _LibrdkafkaProbe(spec, control)
    else:
        probe = _EveryNodeProbe(spec, control, addresses)
    probe.work()
    probe.result.interrupted = control.stopped
    if not control.stopped:
        probe.compare(asker)
    asker.close()
    return probe.result


class _Probe:
    """What the observers share: numbers sent and acknowledged, and the look at the log."""

    # Without idempotence a retry may be there twice; that is what was asked for.
    may_double = False

    def __init__(self, spec: LoadSpec, control: Control) -> None:
        self.spec, self.control = spec, control
        self.result = LoadResult()
        self.acknowledged: set[int] = set()
        self._mark = b"%d:" % spec.worker

    def work(self) -> None:
        raise NotImplementedError

    def value(self, number: int) -> bytes:
        return self._mark + b"%d" % number

    def on_acknowledged(self, number: int, sent_at: float) -> None:
        now = time.monotonic()
        self.acknowledged.add(number)
        self.result.acknowledged += 1
        self.result.series.append((now, now - sent_at))

    def on_failed(self, name: str) -> None:
        self.result.failed += 1
        self.result.errors[name] = self.result.errors.get(name, 0) + 1

    def tick(self) -> bool:
        now = time.perf_counter()
        if self.control.due(now):
            self.control.progress("measure", sent=self.result.sent,
                                  acknowledged=self.result.acknowledged)  # fmt: skip
        return self.control.stopped

    def compare(self, asker: Asker) -> None:
        """Read the whole log: which acknowledged values are missing, which are there twice?"""
        deadline = time.monotonic() + _READ_WAIT
        seen: Counter[int] = Counter()
        offset = end = 0
        while True:
            try:
                end = max(end, asker.end_offset(self.spec.topic, 0))
                if offset >= end:
                    break
                records = asker.fetch(self.spec.topic, 0, offset, _FETCH_BYTES)
            except (OSError, PegelError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
                continue
            for position, header in iter_batches(records):
                offset = header.next_offset
                if header.is_control:
                    continue
                for value in decode_batch(records, position).values:
                    if value and value.startswith(self._mark):
                        seen[int(value[len(self._mark) :])] += 1
        self.result.lost = sum(1 for n in self.acknowledged if not seen[n])
        doubled = sum(count - 1 for count in seen.values() if count > 1)
        if self.may_double:
            if doubled:
                self.result.notes.append(f"{doubled} retries without idempotence are there twice")
        else:
            self.result.doubled = doubled
        self.result.verified = True


class _EveryNodeProbe(_Probe):
    """Plain sockets to all nodes; whoever says that it leads, leads."""

    may_double = True

    def __init__(self, spec: LoadSpec, control: Control, addresses: list[Address]) -> None:
        super().__init__(spec, control)
        self._addresses = addresses
        self._links: dict[Address, socket.socket] = {}
        self._receivers: dict[Address, Receiver] = {}
        self._waiting: dict[Address, deque[tuple[int, float]]] = {}
        self._at = answer_offset(spec.topic)
        self._leader: Address | None = None

    def work(self) -> None:
        spec = self.spec
        number = 0
        end = time.monotonic() + spec.seconds
        while (now := time.monotonic()) < end and not self.tick():
            self._ask(number, now)
            number += 1
            left = now + 1 / spec.rate - time.monotonic()
            if left > 0:
                self._poll(left, forever=True)
        self._poll(0.2, forever=True)
        for link in self._links.values():
            link.close()

    def _ask(self, number: int, now: float) -> None:
        """The known leader first; after a moment of silence, or a no, everybody."""
        self.result.sent += 1
        frame = self._frame(number)
        before = self.result.acknowledged
        if self._leader is not None and self._send(self._leader, frame, number, now):
            self._poll(_PATIENCE)
            if self.result.acknowledged > before:
                return
        self._leader = None
        for address in self._addresses:
            self._send(address, frame, number, now)
        self._poll(_PATIENCE)

    def _send(self, address: Address, frame: bytes, number: int, now: float) -> bool:
        waiting = self._waiting.setdefault(address, deque())
        if len(waiting) > 50:  # it hangs
            return False
        try:
            link = self._links.get(address)
            if link is None:
                link = self._links[address] = connect(address)
                self._receivers[address] = Receiver(65536)
            link.send(frame)
        except OSError:
            self._drop(address)
            return False
        waiting.append((number, now))
        return True

    def _drop(self, address: Address) -> None:
        link = self._links.pop(address, None)
        if link is not None:
            link.close()
        self._waiting.pop(address, None)
        if self._leader == address:
            self._leader = None

    def _poll(self, seconds: float, *, forever: bool = False) -> None:
        """Take answers until one acknowledges, or for the whole time."""
        end = time.monotonic() + seconds
        before = self.result.acknowledged
        while (left := end - time.monotonic()) > 0:
            if not self._links or (self.result.acknowledged > before and not forever):
                break
            ready, _, _ = select.select(list(self._links.values()), [], [], left)
            for address, link in list(self._links.items()):
                if link in ready:
                    self._receive(address, link)
        if not self._links:
            time.sleep(max(0.0, min(0.005, end - time.monotonic())))

    def _receive(self, address: Address, link: socket.socket) -> None:
        frames = self._receivers[address].receive(link)
        if frames is None:
            self._drop(address)
            return
        for frame in frames:
            number, sent_at = self._waiting[address].popleft()
            error, _ = read_answer(frame, self._at)
            if not error:
                self._leader = address
                if number not in self.acknowledged:
                    self.on_acknowledged(number, sent_at)
            elif self._leader == address:
                self._leader = None
                self.on_failed(error_name(error))

    def _frame(self, number: int) -> bytes:
        batch = encode_batch([self.value(number)], timestamps=int(time.time() * 1000))
        data = [PartitionProduceData(index=0, records=batch)]
        request = ProduceRequest(
            transactional_id=None, acks=-1, timeout_ms=30_000,
            topic_data=[TopicProduceData(name=self.spec.topic, partition_data=data)],
        )  # fmt: skip
        return b"".join(encode_request(request, PRODUCE_VERSION, number, CLIENT_ID))


class _OwnProbe(_Probe):
    """Pegel's producer: acks=all, idempotent."""

    def work(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        spec = self.spec
        async with (
            pegel.AsyncClient(spec.bootstrap) as client,
            client.producer(delivery_timeout=60.0) as producer,
        ):
            tasks: set[asyncio.Task[None]] = set()
            end = time.monotonic() + spec.seconds
            number = 0
            while (now := time.monotonic()) < end and not self.tick():
                task = asyncio.create_task(self._send(producer, number, now))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
                await asyncio.sleep(1 / spec.rate)
            if tasks:
                await asyncio.wait(tasks, timeout=30.0)

    async def _send(self, producer: pegel.Producer, number: int, now: float) -> None:
        self.result.sent += 1
        try:
            await producer.send(self.spec.topic, self.value(number), partition=0)
        except PegelError as error:
            self.on_failed(type(error).__name__)
        else:
            self.on_acknowledged(number, now)


class _LibrdkafkaProbe(_Probe):
    """librdkafka as it comes (acks=all), idempotent so that doubles are its fault."""

    def work(self) -> None:
        from confluent_kafka import Producer

        spec = self.spec
        producer = Producer({"bootstrap.servers": spec.bootstrap, "enable.idempotence": True})
        end = time.monotonic() + spec.seconds
        number = 0
        while (now := time.monotonic()) < end and not self.tick():
            self.result.sent += 1

            def delivered(error: Any, _: Any, number: int = number, at: float = now) -> None:
                if error is not None:
                    self.on_failed(str(error))
                else:
                    self.on_acknowledged(number, at)

            producer.produce(spec.topic, self.value(number), partition=0, on_delivery=delivered)
            number += 1
            producer.poll(1 / spec.rate)
        producer.flush(30.0)
