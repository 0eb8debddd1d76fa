"""Producing with Pegel's own client, closed loop and open loop."""

from __future__ import annotations

import asyncio
import random
import selectors
import time

import pegel
from pegel.config import Acks, Compression
from pegel.errors import PegelError
from pegel.producer.producer import Producer
from pegel_bench.load.asking import Asker
from pegel_bench.load.control import Control
from pegel_bench.load.latencies import Latencies
from pegel_bench.load.ledger import Ledger
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.load.wire import values_of
from pegel_bench.load.worker import check
from pegel_bench.processes import total_cpu_seconds

_ACKS: dict[int, Acks] = {0: 0, 1: 1, -1: "all"}


def run(spec: LoadSpec, control: Control) -> LoadResult:
    """Raises OSError, PegelError."""
    control.wait_for_go()
    return _OwnProduce(spec, control).run()


class _OwnProduce:
    def __init__(self, spec: LoadSpec, control: Control) -> None:
        self._spec, self._control = spec, control
        self._result = LoadResult()
        self._latencies, self._behind = Latencies(), Latencies()
        self._ledger = Ledger()
        self._errors: dict[str, int] = {}
        self._values = values_of(random.Random(spec.seed), spec.batch_records, spec.record_bytes)
        self._size = sum(map(len, self._values))
        self._measuring = False
        self._broker_cpu = 0.0
        self._started = self._last_answer = 0.0
        self._written = 0  # records, the warm-up's included

    def run(self) -> LoadResult:
        result, spec = self._result, self._spec
        cpu = time.process_time()
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._work())
        self._tell()  # all of it, before the check takes its time
        result.cpu_seconds = time.process_time() - cpu
        result.broker_cpu_seconds = total_cpu_seconds(spec.pids) - self._broker_cpu
        if self._measuring:
            result.seconds = max(self._last_answer - self._started, 1e-9)
        result.histogram = self._latencies.encode()
        result.errors, result.interrupted = self._errors, self._control.stopped
        result.behind_ms = self._behind.histogram.get_value_at_percentile(99) / 1000
        asker = Asker(spec.bootstrap)
        check(asker, spec, self._control, self._ledger, result)
        asker.close()
        return result

    def _loop_factory(self) -> asyncio.AbstractEventLoop:
        if self._spec.rate > 0:
            # The one selector whose time-outs are exact to a microsecond.
            return asyncio.SelectorEventLoop(selectors.SelectSelector())
        try:
            import uvloop
        except ImportError:
            return asyncio.new_event_loop()
        return uvloop.new_event_loop()

    async def _work(self) -> None:
        spec = self._spec
        compression: Compression = spec.compression  # type: ignore[assignment]
        async with (
            pegel.AsyncClient(spec.bootstrap) as client,
            client.producer(
                acks=_ACKS[spec.acks],
                compression=compression,
                batch_bytes=max(16 * 1024, self._size + 20 * spec.batch_records + 1024),
                delivery_timeout=spec.drain,
            ) as producer,
        ):
            if spec.rate > 0:
                await self._open_loop(producer)
            else:
                await self._closed_loop(producer)
            if not spec.acks:
                await producer.flush()
                await asyncio.to_thread(self._await_unacknowledged)

    async def _closed_loop(self, producer: Producer) -> None:
        spec = self._spec
        now = time.perf_counter()
        self._warm_end, self._end = now + spec.warm_up, float("inf")
        writers = [
            asyncio.create_task(self._write(producer, p))
            for p in spec.own_partitions
            for _ in range(spec.in_flight * spec.connections)
        ]
        await asyncio.gather(*writers)

    async def _write(self, producer: Producer, partition: int) -> None:
        """One call after the other."""
        spec = self._spec
        while not self._over():
            await self._send(producer, partition, time.perf_counter(), self._measuring)
            if not spec.acks:
                await asyncio.sleep(0)

    def _over(self) -> bool:
        now = time.perf_counter()
        spec = self._spec
        warm = now >= self._warm_end and self._written * spec.record_bytes >= spec.warm_up_bytes
        if warm and not self._measuring:
            self._begin(now)
            self._end = now + spec.seconds
        self._tick(now)
        enough = spec.max_bytes and self._result.bytes >= spec.max_bytes
        return bool(now >= self._end or enough or self._control.stopped)

    async def _open_loop(self, producer: Producer) -> None:
        spec = self._spec
        start = time.perf_counter() + 0.005
        warm_count = int(spec.warm_up * spec.rate)
        count = warm_count + max(1, int(spec.seconds * spec.rate))
        tasks: set[asyncio.Task[None]] = set()
        own = spec.own_partitions
        for number in range(count):
            due = start + number / spec.rate
            now = time.perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
            elif number % 16 == 0:
                await asyncio.sleep(0)
            if number == warm_count:
                self._begin(due)
            if self._measuring:
                self._behind.add(max(0.0, time.perf_counter() - due))
            task = asyncio.create_task(
                self._send(producer, own[number % len(own)], due, self._measuring)
            )
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            self._tick(now)
            if self._control.stopped:
                break
        took = max(time.perf_counter() - self._started, 1e-9)
        self._result.sent_rate = self._result.requests / took
        if tasks:
            await asyncio.wait(tasks, timeout=spec.drain)
        if self._result.sent_rate < 0.97 * spec.rate and not self._control.stopped:
            self._result.notes.append(
                f"this machine sent only {self._result.sent_rate:,.0f} of {spec.rate:,.0f} "
                "requests a second: latencies include the wait for the load generator itself"
            )

    async def _send(self, producer: Producer, partition: int, due: float, measured: bool) -> None:
        spec, result = self._spec, self._result
        count = spec.batch_records
        self._written += count
        if measured:
            result.requests += 1
            result.sent += count
        try:
            if count == 1:
                where = await producer.send(spec.topic, self._values[0], partition=partition)
                offsets = [(where.offset, 1)]
            else:
                done = await producer.send_many(spec.topic, self._values, partition=partition)
                offsets = [(r.first_offset, r.count) for r in done.ranges]
        except PegelError as error:
            name = type(error).__name__
            self._errors[name] = self._errors.get(name, 0) + 1
            result.failed += count
            return
        now = time.perf_counter()
        if spec.acks:
            for offset, records in offsets:
                if offset < 0:  # a retry that the broker had seen: it does not tell where
                    continue
                self._ledger.add(partition, offset, records)
            if measured:
                result.acknowledged += count
                self._latencies.add(now - due)
        if measured:
            result.bytes += self._size
            self._last_answer = now

    def _begin(self, now: float) -> None:
        self._measuring = True
        self._broker_cpu = total_cpu_seconds(self._spec.pids)
        self._started = self._last_answer = now

    def _tick(self, now: float) -> None:
        if self._control.due(now):
            self._tell()

    def _tell(self) -> None:
        r = self._result
        self._control.progress(
            "measure" if self._measuring else "warm-up",
            sent=r.sent, acknowledged=r.acknowledged, bytes=r.bytes, failed=r.failed,
            buckets=self._latencies.buckets, latency_sum=self._latencies.total,
        )  # fmt: skip

    def _await_unacknowledged(self) -> None:
        """With acks=0 the work is done when the log shows it."""
        spec = self._spec
        asker = Asker(spec.bootstrap)
        deadline = time.perf_counter() + spec.drain
        try:
            while True:
                end = sum(asker.end_offset(spec.topic, p) for p in spec.own_partitions)
                if end >= self._written or time.perf_counter() > deadline:
                    break
                time.sleep(0.002)
        finally:
            asker.close()
        self._result.lost += max(0, self._written - end)
        self._last_answer = time.perf_counter()
