"""Reading a topic from its beginning to its end, again and again until the time is up."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Sequence

import pegel
from pegel.errors import PegelError
from pegel.protocol.codec import decode_response
from pegel.protocol.messages.fetch import FetchResponse
from pegel.record.batch import iter_batches
from pegel_bench.load.asking import Address, Asker, records_of
from pegel_bench.load.control import Control
from pegel_bench.load.latencies import Latencies
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.load.wire import FETCH_VERSION, Receiver, connect, error_name, fetch_frame

_WAIT = 0.25
_LIBRDKAFKA_AT_ONCE = 10_000


def run(spec: LoadSpec, control: Control) -> LoadResult:
    """Read with the driver that ``spec`` names. Raises OSError, PegelError."""
    asker = Asker(spec.bootstrap)
    try:
        leaders = asker.leaders(spec.topic, spec.partitions)
        ends = {p: asker.end_offset(spec.topic, p) for p in spec.own_partitions}
    finally:
        asker.close()
    if not any(ends.values()):
        raise PegelError(f"topic {spec.topic} is empty: there is nothing to consume")
    meter = Meter(spec, control, ends)
    control.wait_for_go()
    cpu = time.process_time()
    if spec.driver == "pegel":
        asyncio.run(_consume_pegel(spec, meter))
    elif spec.driver == "librdkafka":
        _consume_librdkafka(spec, meter)
    else:
        _RawConsume(spec, meter, leaders).run()
    meter.result.cpu_seconds = time.process_time() - cpu
    return meter.finish()


class Meter:
    """Counts what was read, tells warm-up from measurement, checks that no offset is missing.

    A driver calls ``take`` for what it got, ``over`` to know whether to go on, and reads a
    partition from 0 again where ``at_end`` says so.
    """

    def __init__(self, spec: LoadSpec, control: Control, ends: dict[int, int]) -> None:
        self.result = LoadResult()
        self.latencies = Latencies()
        self.positions = dict.fromkeys(ends, 0)
        self._spec, self._control, self._ends = spec, control, ends
        self._passed: set[int] = set()
        self._warm_end = time.perf_counter() + spec.warm_up
        self._started = self._last = 0.0

    def take(self, partition: int, base: int, end: int, size: int) -> None:
        """Offsets ``base`` to ``end`` (exclusive) in ``size`` bytes."""
        position = self.positions[partition]
        if base != position:
            self.result.lost += max(0, base - position)
            self.result.doubled += max(0, position - base)
        self.positions[partition] = end
        if self._started:
            self.result.acknowledged += end - base
            self.result.bytes += size
        if end >= self._ends[partition]:
            self._passed.add(partition)

    def at_end(self, partition: int) -> bool:
        return self.positions[partition] >= self._ends[partition]

    def restart(self, partition: int) -> None:
        self.positions[partition] = 0

    def over(self) -> bool:
        """Call it once a round: ends the warm-up, reports progress."""
        now = time.perf_counter()
        if not self._started and now >= self._warm_end:
            self._started = now
            self.latencies.clear()
        if self._control.due(now):
            self._control.progress(
                "measure" if self._started else "warm-up",
                acknowledged=self.result.acknowledged, bytes=self.result.bytes,
            )  # fmt: skip
        self._last = now
        if self._control.stopped:
            return True
        return bool(self._started) and now >= self._started + self._spec.seconds

    def finish(self) -> LoadResult:
        result = self.result
        result.seconds = max(self._last - self._started, 1e-9) if self._started else 0.0
        result.requests = self.latencies.histogram.get_total_count()
        result.histogram = self.latencies.encode()
        result.interrupted = self._control.stopped
        result.sent = result.acknowledged
        result.verified = not result.interrupted
        if not result.interrupted and self._passed != set(self._ends):
            left = len(self._ends) - len(self._passed)
            result.notes.append(f"{left} partitions were not read to their end: give more seconds")
        return result


class _RawConsume:
    """Fetches over plain sockets; of each batch only the header is looked at."""

    def __init__(self, spec: LoadSpec, meter: Meter, leaders: list[Address]) -> None:
        self._spec, self._meter = spec, meter
        self._partitions: dict[Address, list[int]] = {}
        for partition in spec.own_partitions:
            self._partitions.setdefault(leaders[partition], []).append(partition)

    def run(self) -> None:
        meter = self._meter
        selector = selectors.DefaultSelector()
        asked: dict[Address, float] = {}
        receivers: dict[Address, Receiver] = {}
        for address in sorted(self._partitions):
            link = connect(address)
            receivers[address] = Receiver(self._spec.fetch_bytes)
            selector.register(link, selectors.EVENT_READ, address)
            link.setblocking(True)
            link.sendall(self._request(address))
            link.setblocking(False)
            asked[address] = time.perf_counter()
        while not meter.over():
            for key, _ in selector.select(_WAIT):
                address = key.data
                frames = receivers[address].receive(key.fileobj)  # type: ignore[arg-type]
                if frames is None:
                    raise PegelError(f"the broker at {address[0]}:{address[1]} hung up")
                for frame in frames:
                    meter.latencies.add(time.perf_counter() - asked[address])
                    self._take(frame)
                    asked[address] = time.perf_counter()
                    key.fileobj.send(self._request(address))  # type: ignore[union-attr]
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _request(self, address: Address) -> bytes:
        meter = self._meter
        offsets = {}
        for partition in self._partitions[address]:
            if meter.at_end(partition):
                meter.restart(partition)
            offsets[partition] = meter.positions[partition]
        return fetch_frame(
            self._spec.topic, offsets, max_wait_ms=100, partition_max_bytes=self._spec.fetch_bytes
        )

    def _take(self, frame: memoryview) -> None:
        response = decode_response(FetchResponse, FETCH_VERSION, frame)
        for data in response.responses[0].partitions if response.responses else ():
            if data.error_code:
                raise PegelError(f"fetching: {error_name(data.error_code)}")
            for _, header in iter_batches(records_of(data)):
                self._meter.take(
                    data.partition_index, header.base_offset, header.next_offset, header.size
                )


async def _consume_pegel(spec: LoadSpec, meter: Meter) -> None:
    """With Pegel's client, by batches of decoded records."""
    partitions = [(spec.topic, p) for p in spec.own_partitions]
    async with (
        pegel.AsyncClient(spec.bootstrap) as client,
        client.consumer(
            partitions=partitions,
            offset_reset="earliest",
            partition_fetch_bytes=spec.fetch_bytes,
        ) as consumer,
    ):
        while not meter.over():
            asked = time.perf_counter()
            batch = await consumer.next_batch(timeout=_WAIT)
            if batch is None:
                continue
            meter.latencies.add(time.perf_counter() - asked)
            size = sum(map(len, filter(None, batch.values)))
            offsets = batch.offsets
            meter.take(batch.partition, offsets[0], offsets[-1] + 1, size)
            if meter.at_end(batch.partition):
                meter.restart(batch.partition)
                consumer.seek((spec.topic, batch.partition), 0)


def _consume_librdkafka(spec: LoadSpec, meter: Meter) -> None:
    """With confluent-kafka's consumer, many messages a call."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": spec.bootstrap,
            "group.id": f"{spec.topic}-{spec.worker}",
            "enable.auto.commit": False,
            "max.partition.fetch.bytes": spec.fetch_bytes,
        }
        | spec.client_settings
    )
    try:
        consumer.assign([TopicPartition(spec.topic, p, 0) for p in spec.own_partitions])
        while not meter.over():
            asked = time.perf_counter()
            messages = consumer.consume(_LIBRDKAFKA_AT_ONCE, _WAIT)
            meter.latencies.add(time.perf_counter() - asked)
            _take_messages(
                messages, meter, lambda p: consumer.seek(TopicPartition(spec.topic, p, 0))
            )
    finally:
        consumer.close()


def _take_messages(messages: Sequence[object], meter: Meter, rewind: Callable[[int], None]) -> None:
    runs: dict[int, tuple[int, int, int]] = {}
    for message in messages:
        if message.error() is not None:  # type: ignore[attr-defined]
            raise PegelError(f"librdkafka: {message.error()}")  # type: ignore[attr-defined]
        partition, offset = message.partition(), message.offset()  # type: ignore[attr-defined]
        size = len(message.value())  # type: ignore[attr-defined]
        first, end, total = runs.get(partition, (offset, offset, 0))
        runs[partition] = (first, offset + 1, total + size)
    for partition, (first, end, size) in runs.items():
        meter.take(partition, first, end, size)
        if meter.at_end(partition):
            meter.restart(partition)
            rewind(partition)
