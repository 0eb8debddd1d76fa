"""Produce requests encoded before the run, over plain sockets: the broker is what is measured.

One loop over non-blocking sockets, without asyncio: its timers are exact to a microsecond where
an event loop's are to a millisecond, and an open loop must send when it said it would.

Closed loop: every connection keeps ``in_flight`` requests unanswered. Open loop: request ``i`` is
due at ``start + i / rate``, whatever became of those before it, and its latency counts from that
moment. A broker that stalls for a second so shows up in every request that was due in that second,
not only in the one that happened to be in flight (no coordinated omission).
"""

from __future__ import annotations

import selectors
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import chain, cycle

from pegel.errors import PegelError
from pegel_bench.load.asking import Address, Asker
from pegel_bench.load.control import Control
from pegel_bench.load.latencies import Latencies
from pegel_bench.load.ledger import Ledger
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.load.wire import (
    Prepared,
    Receiver,
    answer_offset,
    connect,
    error_name,
    prepare,
    read_answer,
)
from pegel_bench.processes import total_cpu_seconds

# select() takes descriptors below this; above, an open loop's times are rounded to milliseconds.
_SELECT_LIMIT = 1000
_UNACKNOWLEDGED_AT_ONCE = 16
_IDLE_WAIT = 0.05
_MAX_WRONG = 1000
_IOV = 64


class Link:
    """One connection to one leader and the partitions that are written through it."""

    def __init__(self, address: Address) -> None:
        self.socket = connect(address)
        self.receiver = Receiver()
        self.requests: list[Prepared] = []
        self.next_request = 0
        self.unsent: deque[memoryview] = deque()
        # (due time, request, whether it is measured), in the order sent.
        self.waiting: deque[tuple[float, Prepared, bool]] = deque()
        self.wants_write = False

    def next(self) -> Prepared:
        request = self.requests[self.next_request]
        self.next_request = (self.next_request + 1) % len(self.requests)
        return request

    def flush(self) -> bool:
        """Send what the kernel takes; True once nothing is left. Raises PegelError."""
        unsent = self.unsent
        while unsent:
            try:
                sent = self.socket.sendmsg([*unsent][:_IOV] if len(unsent) > 1 else unsent)
            except BlockingIOError:
                return False
            except OSError as error:
                raise PegelError(
                    f"a broker closed its connection ({error}); with acks=0 that is how it refuses "
                    "a batch: its log says why"
                ) from error
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = unsent[0][sent:]
        return True


class RawProduce:
    """One worker's load; ``run`` returns what it measured."""

    def __init__(self, spec: LoadSpec, control: Control) -> None:
        self.spec, self.control = spec, control
        self.result = LoadResult()
        self.latencies = Latencies()
        self.behind = Latencies()
        self.ledger = Ledger()
        self._asker = Asker(spec.bootstrap)
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._links: list[Link] = []
        self._answer_at = answer_offset(spec.topic)
        self._correlation_id = 0
        self._measuring = False
        self._sent_bytes = 0
        self._sent_to: Counter[int] = Counter()
        self._started = self._last_answer = 0.0
        self._broker_cpu = 0.0
        self._errors: Counter[str] = Counter()

    def run(self) -> LoadResult:
        """Connect, warm up, measure, wait for the rest, look whether it is all there.

        Raises:
            OSError, PegelError: a broker cannot be reached, or goes away.
        """
        spec = self.spec
        self._connect()
        self.control.wait_for_go()
        cpu = time.process_time()
        if spec.rate > 0:
            self._open_loop()
        else:
            self._closed_loop()
        self.result.cpu_seconds = time.process_time() - cpu
        self.result.broker_cpu_seconds = total_cpu_seconds(spec.pids) - self._broker_cpu
        self.result.interrupted = self.control.stopped
        self._finish()
        return self.result

    # -- setting up

    def _connect(self) -> None:
        spec = self.spec
        leaders = self._asker.leaders(spec.topic, spec.partitions)
        by_leader: dict[Address, list[list[Prepared]]] = {}
        for partition in spec.own_partitions:
            made = prepare(
                spec.topic, partition, acks=spec.acks, records=spec.batch_records,
                record_bytes=spec.record_bytes, compression=spec.compression, seed=spec.seed,
            )  # fmt: skip
            by_leader.setdefault(leaders[partition], []).append(made)
        for address, requests in sorted(by_leader.items()):
            # Neighbours in a connection's order go to different partitions.
            mixed = list(chain.from_iterable(zip(*requests, strict=True)))
            for _ in range(spec.connections):
                link = Link(address)
                link.requests = mixed
                link.next_request = len(self._links) % len(mixed)
                self._links.append(link)
        if spec.rate > 0 and max(link.socket.fileno() for link in self._links) < _SELECT_LIMIT:
            self._selector = selectors.SelectSelector()
        elif spec.rate > 0:
            self.result.notes.append("with so many connections, due times are rounded to 1 ms")
        for link in self._links:
            self._selector.register(link.socket, selectors.EVENT_READ, link)

    # -- the two loops

    def _closed_loop(self) -> None:
        spec = self.spec
        refill = self._fill if spec.acks else self._fill_unacknowledged
        now = time.perf_counter()
        warm_end, end = now + spec.warm_up, float("inf")
        for link in self._links:
            refill(link)
        while True:
            self._poll(_IDLE_WAIT, refill)
            now = time.perf_counter()
            if not self._measuring and now >= warm_end and self._sent_bytes >= spec.warm_up_bytes:
                if not spec.acks:
                    self._await_unacknowledged()
                    now = time.perf_counter()
                self._begin(now)
                end = now + spec.seconds
                for link in self._links:  # without acknowledgements they fell silent meanwhile
                    refill(link)
            if now >= end or (spec.max_bytes and self.result.bytes >= spec.max_bytes):
                break
            if self._tick(now):
                break
        self._drain()

    def _fill(self, link: Link) -> None:
        now = time.perf_counter()
        while len(link.waiting) < self.spec.in_flight:
            self._send(link, now)

    def _fill_unacknowledged(self, link: Link) -> None:
        """Nothing tells when to send more but the socket: keep it full, and the loop alive."""
        for _ in range(_UNACKNOWLEDGED_AT_ONCE):
            if link.wants_write:
                return
            self._send(link, 0.0)
        self._want_write(link)

    def _open_loop(self) -> None:
        spec = self.spec
        links = cycle(self._links)
        start = time.perf_counter() + 0.005
        interval = 1 / spec.rate
        warm_count = int(spec.warm_up * spec.rate)
        count = warm_count + max(1, int(spec.seconds * spec.rate))
        number = 0
        due = start
        while number < count:
            now = time.perf_counter()
            while due <= now and number < count:
                if number == warm_count:
                    self._begin(due)
                if self._measuring:
                    self.behind.add(now - due)
                self._send(next(links), due)
                number += 1
                due = start + number * interval
            self._poll(max(0.0, min(due - time.perf_counter(), _IDLE_WAIT)), None)
            if self._tick(now):
                break
        sent = time.perf_counter() - (start + warm_count * interval)
        self.result.sent_rate = max(0, number - warm_count) / max(sent, interval)
        self._drain()

    def _begin(self, now: float) -> None:
        """The warm-up is over."""
        self._broker_cpu = total_cpu_seconds(self.spec.pids)
        self._measuring = True
        self._started = self._last_answer = now

    def _tick(self, now: float) -> bool:
        if self.control.due(now):
            self._tell()
        return self.control.stopped

    def _tell(self) -> None:
        r = self.result
        self.control.progress(
            "measure" if self._measuring else "warm-up",
            sent=r.sent, acknowledged=r.acknowledged, bytes=r.bytes, failed=r.failed,
            buckets=self.latencies.buckets, latency_sum=self.latencies.total, **self._more(),
        )  # fmt: skip

    def _more(self) -> dict[str, object]:
        """What else there is to tell (for subclasses)."""
        return {}

    # -- sending and receiving

    def _send(self, link: Link, due: float) -> None:
        request = link.next()
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        buffers = request.frame(self._correlation_id)
        link.unsent.extend(map(memoryview, buffers))
        self._sent_bytes += request.record_bytes
        self._sent_to[request.partition] += request.records
        if self._measuring:
            self.result.requests += 1
            self.result.sent += request.records
            if not self.spec.acks:
                self.result.bytes += request.record_bytes
        self._sending(request, due)
        if self.spec.acks:
            link.waiting.append((due, request, self._measuring))
        if not link.wants_write and not link.flush():
            self._want_write(link)

    def _sending(self, request: Prepared, due: float) -> None:
        """A request is about to leave (for subclasses)."""

    def _want_write(self, link: Link) -> None:
        link.wants_write = True
        self._selector.modify(link.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, link)

    def _poll(self, timeout: float, refill: Callable[[Link], None] | None) -> None:
        for key, events in self._selector.select(timeout):
            link: Link = key.data
            if events & selectors.EVENT_WRITE and link.flush():
                link.wants_write = False
                self._selector.modify(link.socket, selectors.EVENT_READ, link)
            if events & selectors.EVENT_READ:
                self._receive(link)
            if refill is not None:
                refill(link)

    def _receive(self, link: Link) -> None:
        frames = link.receiver.receive(link.socket)
        if frames is None:
            raise PegelError(f"a broker closed its connection with {len(link.waiting)} unanswered")
        now = time.perf_counter()
        result = self.result
        for frame in frames:
            due, request, measured = link.waiting.popleft()
            error, offset = read_answer(frame, self._answer_at)
            if error:
                self._errors[error_name(error)] += 1
                result.failed += request.records
                if self._errors.total() > _MAX_WRONG:
                    raise PegelError(f"{_MAX_WRONG} requests failed: {dict(self._errors)}")
                continue
            self.ledger.add(request.partition, offset, request.records, request.crc)
            if measured:
                result.acknowledged += request.records
                result.bytes += request.record_bytes
                self.latencies.add(now - due)
                self._last_answer = now

    def _drain(self) -> None:
        deadline = time.perf_counter() + self.spec.drain
        while any(link.waiting or link.unsent for link in self._links):
            self._poll(_IDLE_WAIT, None)
            now = time.perf_counter()
            self._tick(now)
            if now > deadline:
                left = sum(len(link.waiting) for link in self._links)
                self.result.notes.append(f"{left} requests unanswered after {self.spec.drain:g} s")
                self._errors["unanswered"] += left
                break
        if not self.spec.acks:
            self._await_unacknowledged()

    def _await_unacknowledged(self) -> None:
        """With acks=0 the work is done when the log shows it: wait for its high watermark."""
        deadline = time.perf_counter() + self.spec.drain
        for partition, sent in sorted(self._sent_to.items()):
            end = self._asker.end_offset(self.spec.topic, partition)
            while end < sent and time.perf_counter() < deadline:
                self._poll(0.0, None)
                time.sleep(0.001)
                end = self._asker.end_offset(self.spec.topic, partition)
                self._tick(time.perf_counter())
            if self._measuring:
                self.result.lost += max(0, sent - end)
        self._last_answer = time.perf_counter()

    # -- the end

    def _finish(self) -> None:
        from pegel_bench.load.worker import check

        result, spec = self.result, self.spec
        self._tell()  # all of it, before the check takes its time
        for link in self._links:
            self._selector.unregister(link.socket)
            link.socket.close()
        if self._measuring:
            result.seconds = max(self._last_answer - self._started, 1e-9)
        result.histogram = self.latencies.encode()
        result.errors = dict(self._errors)
        if spec.rate > 0:
            behind = self.behind.histogram
            result.behind_ms = behind.get_value_at_percentile(99) / 1000
            if not result.interrupted and result.sent_rate < 0.97 * spec.rate:
                result.notes.append(
                    f"this machine sent only {result.sent_rate:,.0f} of {spec.rate:,.0f} requests "
                    "a second: latencies include the wait for the load generator itself"
                )
        if not spec.acks:
            result.acknowledged = 0
        check(self._asker, spec, self.control, self.ledger, result)
        self._asker.close()
