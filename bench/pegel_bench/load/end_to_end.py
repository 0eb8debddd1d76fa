"""From the moment at which a record was to be sent until a consumer has it."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import deque

import pegel
from pegel.config import Acks
from pegel.errors import PegelError
from pegel.protocol.codec import decode_response
from pegel.protocol.messages.fetch import FetchResponse
from pegel.record.batch import iter_batches
from pegel_bench.load.asking import Address, records_of
from pegel_bench.load.control import Control
from pegel_bench.load.latencies import Latencies
from pegel_bench.load.raw_produce import Link, RawProduce
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.load.wire import FETCH_VERSION, Prepared, error_name, fetch_frame

_FETCH_WAIT_MS = 500


def run(spec: LoadSpec, control: Control) -> LoadResult:
    """``histogram``: to the acknowledgement; ``second_histogram``: to the consumer.

    Raises:
        OSError, PegelError.
    """
    if spec.driver == "pegel":
        return _OwnEndToEnd(spec, control).run()
    return _RawEndToEnd(spec, control).run()


class _FetchLink(Link):
    """A connection that consumes; it waits in the same selector as those that produce."""

    def __init__(self, address: Address, partitions: list[int]) -> None:
        super().__init__(address)
        self.offsets = dict.fromkeys(partitions, 0)


class _RawEndToEnd(RawProduce):
    """The raw producer with one consumer for each leader beside it.

    Batches of one partition go through one connection, so they are in the log in the order in
    which they were due: the n-th that a consumer gets is the n-th that was sent.
    """

    def __init__(self, spec: LoadSpec, control: Control) -> None:
        spec.connections = 1
        super().__init__(spec, control)
        self._consumed = Latencies()
        self._due: dict[int, deque[tuple[float, bool]]] = {p: deque() for p in spec.own_partitions}
        self._fetchers: list[_FetchLink] = []

    def _connect(self) -> None:
        super()._connect()
        leaders = self._asker.leaders(self.spec.topic, self.spec.partitions)
        by_leader: dict[Address, list[int]] = {}
        for partition in self.spec.own_partitions:
            by_leader.setdefault(leaders[partition], []).append(partition)
        for address, partitions in sorted(by_leader.items()):
            fetcher = _FetchLink(address, partitions)
            self._fetchers.append(fetcher)
            self._selector.register(fetcher.socket, selectors.EVENT_READ, fetcher)
            self._ask(fetcher)

    def _ask(self, fetcher: _FetchLink) -> None:
        frame = fetch_frame(
            self.spec.topic, fetcher.offsets, max_wait_ms=_FETCH_WAIT_MS,
            partition_max_bytes=self.spec.fetch_bytes,
        )  # fmt: skip
        fetcher.socket.send(frame)

    def _sending(self, request: Prepared, due: float) -> None:
        self._due[request.partition].append((due, self._measuring))

    def _receive(self, link: Link) -> None:
        if not isinstance(link, _FetchLink):
            super()._receive(link)
            return
        frames = link.receiver.receive(link.socket)
        if frames is None:
            raise PegelError("a broker closed the consumer's connection")
        now = time.perf_counter()
        for frame in frames:
            response = decode_response(FetchResponse, FETCH_VERSION, frame)
            for data in response.responses[0].partitions if response.responses else ():
                if data.error_code:
                    raise PegelError(f"fetching: {error_name(data.error_code)}")
                for _, header in iter_batches(records_of(data)):
                    link.offsets[data.partition_index] = header.next_offset
                    due, measured = self._due[data.partition_index].popleft()
                    if measured:
                        self._consumed.add(now - due)
            self._ask(link)

    def _more(self) -> dict[str, object]:
        return {
            "end_to_end_buckets": self._consumed.buckets, "end_to_end_sum": self._consumed.total,
        }  # fmt: skip

    def _drain(self) -> None:
        super()._drain()
        deadline = time.perf_counter() + self.spec.drain
        while any(self._due.values()) and time.perf_counter() < deadline:
            self._poll(0.05, None)
        missing = sum(map(len, self._due.values()))
        if missing and not self._errors and not self.control.stopped:
            self.result.lost += missing * self.spec.batch_records
            self.result.notes.append(f"{missing} acknowledged batches never reached the consumer")

    def _finish(self) -> None:
        for fetcher in self._fetchers:
            self._selector.unregister(fetcher.socket)
            fetcher.socket.close()
        super()._finish()
        self.result.second_histogram = self._consumed.encode()


class _OwnEndToEnd:
    """Pegel's producer and consumer in one event loop; values carry their number."""

    def __init__(self, spec: LoadSpec, control: Control) -> None:
        self._spec, self._control = spec, control
        self._acknowledged, self._consumed = Latencies(), Latencies()
        self._behind = Latencies()
        self._result = LoadResult()
        self._due: dict[int, float] = {}
        self._warm_count = int(spec.warm_up * spec.rate)
        self._count = self._warm_count + max(1, int(spec.seconds * spec.rate))
        self._seen = 0

    def run(self) -> LoadResult:
        result = self._result
        factory = lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())  # noqa: E731
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self._work())
        result.histogram = self._acknowledged.encode()
        result.second_histogram = self._consumed.encode()
        result.behind_ms = self._behind.histogram.get_value_at_percentile(99) / 1000
        result.interrupted = self._control.stopped
        if not result.interrupted:
            result.lost = result.acknowledged - self._consumed.histogram.get_total_count()
            result.verified = True
        return result

    async def _work(self) -> None:
        spec, result = self._spec, self._result
        acks: Acks = {0: 0, 1: 1, -1: "all"}[spec.acks]  # type: ignore[assignment]
        async with (
            pegel.AsyncClient(spec.bootstrap) as client,
            client.producer(acks=acks) as producer,
            client.consumer(spec.topic, offset_reset="earliest") as consumer,
        ):
            self._control.wait_for_go()
            reading = asyncio.create_task(self._read(consumer))
            own = spec.own_partitions
            padding = b"." * max(0, spec.record_bytes - 12)
            start = time.perf_counter() + 0.005
            tasks: set[asyncio.Task[None]] = set()
            for number in range(self._count):
                due = start + number / spec.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                self._due[number] = due
                self._behind.add(max(0.0, time.perf_counter() - due))
                value = b"%012d" % number + padding
                task = asyncio.create_task(
                    self._send(producer, value, own[number % len(own)], due, number)
                )
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                if self._control.due(due):
                    self._tell()
                if self._control.stopped:
                    break
            if tasks:
                await asyncio.wait(tasks, timeout=spec.drain)
            result.seconds = time.perf_counter() - (start + self._warm_count / spec.rate)
            result.sent_rate = result.sent / result.seconds
            try:
                await asyncio.wait_for(
                    reading, timeout=5.0 if self._control.stopped else spec.drain
                )
            except TimeoutError:
                result.notes.append("the consumer did not get everything in time")
            self._tell()

    def _tell(self) -> None:
        self._control.progress(
            "measure" if self._result.sent else "warm-up",
            sent=self._result.sent, acknowledged=self._result.acknowledged,
            buckets=self._acknowledged.buckets, latency_sum=self._acknowledged.total,
            end_to_end_buckets=self._consumed.buckets, end_to_end_sum=self._consumed.total,
        )  # fmt: skip

    async def _send(
        self, producer: pegel.Producer, value: bytes, partition: int, due: float, number: int
    ) -> None:
        measured = number >= self._warm_count
        self._result.sent += measured
        self._result.requests += measured
        try:
            await producer.send(self._spec.topic, value, partition=partition)
        except PegelError as error:
            name = type(error).__name__
            self._result.errors[name] = self._result.errors.get(name, 0) + 1
            self._result.failed += 1
            return
        if measured:
            self._result.acknowledged += 1
            self._result.bytes += len(value)
            self._acknowledged.add(time.perf_counter() - due)

    async def _read(self, consumer: pegel.Consumer) -> None:
        while self._seen < self._count:
            batch = await consumer.next_batch(timeout=1.0)
            now = time.perf_counter()
            for value in batch.values if batch is not None else ():
                number = int((value or b"")[:12])
                self._seen += 1
                due = self._due.pop(number, None)
                if due is None:
                    self._result.doubled += 1
                elif number >= self._warm_count:
                    self._consumed.add(now - due)
