"""Sends batches to the leaders of their partitions until each is acknowledged or has failed.

One object on the event loop, without a task of its own: it runs when something happened (records
came, an answer, new metadata, a timer), decides from ``PartitionQueue`` what may leave, and sends.
"""

from __future__ import annotations

import asyncio
from functools import partial

from pegel.cluster import Cluster
from pegel.config import ProducerOptions
from pegel.errors import (
    AuthenticationError,
    ClosedError,
    PegelError,
    RequestTimeoutError,
    broker_error,
    to_error_code,
)  # fmt: skip
from pegel.metrics import clients
from pegel.network.connection import Connection
from pegel.network.pool import PRODUCE, Endpoint
from pegel.portions import AT_ONCE
from pegel.producer.accumulator import Memory, PartitionQueue, new_batch
from pegel.producer.batch import BatchResult, ProducerBatch
from pegel.producer.idempotence import ProducerIdentity, SequenceState
from pegel.producer.requests import (
    BrokerState,
    InFlight,
    Verdict,
    ask_identity,
    encode_all,
    expired,
    verdict,
)  # fmt: skip
from pegel.protocol.messages.produce import PartitionProduceResponse, ProduceResponse
from pegel.protocol.schema import Message

_WATCH_INTERVAL = 0.1
# The broker's own wait for replicas ends before the client gives up on its answer.
_BROKER_SHARE = 0.8


class Sender:
    """Owns the queues; ``Producer`` puts records in and waits."""

    def __init__(self, cluster: Cluster, options: ProducerOptions) -> None:
        self._cluster, self._options = cluster, options
        self._view = cluster.metadata.view
        self._loop = asyncio.get_running_loop()
        self.memory = Memory(options.buffer_bytes)
        self._stats = clients.watch_producer()
        self.queues: dict[tuple[str, int], PartitionQueue] = {}
        # Queues with something to send or in flight; a dict keeps the order of arrival.
        self._active: dict[tuple[str, int], PartitionQueue] = {}
        self._brokers: dict[int, BrokerState] = {}
        self._identity: ProducerIdentity | None = None
        self._initializing: asyncio.Task[None] | None = None
        self._idempotent = options.is_idempotent
        self._linger = options.linger_ms / 1000
        self._codec = options.codec
        self._run_scheduled = False
        self._unanswered = 0  # produce requests, of all brokers
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._flushing = 0
        self._closed = False
        self.last_error: PegelError | None = None
        # Failures of records whose delivery nobody awaited: told by flush() and close().
        self.lost_records = 0
        self.lost_error: BaseException | None = None
        cluster.metadata.listen(self._on_metadata)

    # What the producer calls

    def queue(self, topic: str, partition: int) -> PartitionQueue:
        """The queue of a partition, made on first use."""
        queue = self.queues.get((topic, partition))
        if queue is None:
            queue = self.queues[topic, partition] = PartitionQueue(topic, partition)
        return queue

    def open_batch(self, queue: PartitionQueue, size: int) -> ProducerBatch:
        """The batch that takes ``size`` more bytes; closes the one that cannot."""
        if self._closed:  # while the record waited for metadata or memory
            raise ClosedError("the producer is closed")
        batch = queue.open
        if batch is None or batch.size + size > self._options.batch_bytes:
            batch = new_batch(
                queue.topic, queue.partition, self._loop.time(), self._options.delivery_timeout
            )
            queue.add(batch)
            self._active[queue.topic, queue.partition] = queue
        return batch

    def wake(self) -> None:
        """Look at the queues in this turn of the loop's next round, once for many calls."""
        if not self._run_scheduled and not self._closed:
            self._run_scheduled = True
            self._loop.call_soon(self._run)

    def send_now(self, queue: PartitionQueue) -> None:
        """Send what was just put into ``queue``, for somebody waits for it, and nothing else.

        Where anything else is to be sent or unanswered, the record is better gathered with others:
        then this is ``wake``.
        """
        if (
            self._unanswered
            or self._run_scheduled
            or len(self._active) > 1
            or self._linger > 0
            or (self._idempotent and self._identity is None)
        ):
            self.wake()
            return
        now = self._loop.time()
        leader = self._view.leader(queue.topic, queue.partition)
        broker = None if leader is None else self._brokers.get(leader.node_id)
        if leader is None or broker is None or broker.not_before > now:
            self.wake()
            return
        connection = self._cluster.pool.ready(leader, PRODUCE)
        if connection is None or connection.paused or self._due(queue, now) > now:
            self.wake()
            return
        self._keep_watch()
        batch = queue.take()
        self._send(broker, connection, {(queue.topic, queue.partition): (queue, batch)}, now)
        if queue.pending:
            self.wake()

    async def flush(self) -> None:
        """Wait until every batch that exists now is acknowledged or has failed."""
        self._flushing += 1
        try:
            ends = {key: queue.next_number for key, queue in self._active.items()}
            while True:
                self.wake()
                waiting = [
                    batch.future
                    for key, end in ends.items()
                    for batch in (*self.queues[key].in_flight, *self.queues[key].pending)
                    if batch.number < end and not batch.done
                ]
                if not waiting:
                    return
                await asyncio.wait(waiting)
        finally:
            self._flushing -= 1

    def close(self) -> None:
        """Fail what is left and stop."""
        self._closed = True
        self._cluster.metadata.unlisten(self._on_metadata)
        for handle in (self._timer, self._watch):
            if handle is not None:
                handle.cancel()
        if self._initializing is not None:
            self._initializing.cancel()
        error = ClosedError("the producer was closed before the record was acknowledged")
        self.memory.fail(error)
        for queue in self._active.values():
            for batch in (*queue.in_flight, *queue.pending):
                self._fail(batch, error)
        clients.retire(self._stats)
        for broker in self._brokers.values():
            if broker.connecting is not None:
                broker.connecting.cancel()

    # Deciding what leaves

    def _run(self) -> None:
        self._run_scheduled = False
        if self._closed:
            return
        now = self._loop.time()
        self._keep_watch()
        if self._idempotent and self._identity is None:
            self._initialize()
            return
        next_time = float("inf")
        by_leader: dict[Endpoint, list[PartitionQueue]] = {}
        for key, queue in list(self._active.items()):
            if queue.idle:
                del self._active[key]
                continue
            due = self._due(queue, now)
            if due > now:
                next_time = min(next_time, due)
                continue
            leader = self._view.leader(*key)
            if leader is None:
                next_time = min(next_time, self._pause(queue, now))
                self._cluster.metadata.request_refresh()
                continue
            by_leader.setdefault(leader, []).append(queue)
        for endpoint, queues in by_leader.items():
            next_time = min(next_time, self._send_to(endpoint, queues, now))
        self._set_timer(next_time)

    def _due(self, queue: PartitionQueue, now: float) -> float:
        if queue.sequences is None and self._identity is not None:
            queue.sequences = SequenceState(self._identity)
        if queue.needs_epoch and not queue.in_flight and not queue.begin_epoch():
            self._identity = None  # every partition that needs one gets the new producer id
            self._initialize()
            return float("inf")
        linger = 0.0 if self._flushing else self._linger
        return queue.due(now, linger, self._options.max_in_flight)

    def _pause(self, queue: PartitionQueue, now: float) -> float:
        """Leave a queue alone for a moment; returns until when."""
        queue.retry_at = now + self._cluster.retry_pause(queue.attempts)
        queue.attempts += 1
        return queue.retry_at

    def _send_to(self, endpoint: Endpoint, queues: list[PartitionQueue], now: float) -> float:
        """Fill requests for one broker; returns when to look again (``inf``: when it answers)."""
        broker = self._brokers.get(endpoint.node_id)
        if broker is None:
            broker = self._brokers[endpoint.node_id] = BrokerState(endpoint)
        broker.endpoint = endpoint
        if broker.not_before > now:
            return broker.not_before
        connection = self._cluster.pool.ready(endpoint, PRODUCE)
        if connection is None or connection.paused:
            if broker.connecting is None:
                broker.connecting = self._loop.create_task(self._connect(broker, connection))
            return float("inf")
        while len(broker.in_flight) < self._options.max_in_flight and not connection.paused:
            batches: dict[tuple[str, int], tuple[PartitionQueue, ProducerBatch]] = {}
            size = 0
            for queue in queues:
                if len(batches) == AT_ONCE or self._due(queue, now) > now:
                    continue
                if size and size + queue.pending[0].size > self._options.request_bytes:
                    continue
                batch = queue.take()
                size += batch.size
                key = (queue.topic, queue.partition)
                batches[key] = (queue, batch)
                self._active.pop(key)  # behind the others for the next request
                self._active[key] = queue
            if not batches:
                break
            self._send(broker, connection, batches, now)
        return float("inf")

    async def _connect(self, broker: BrokerState, connection: Connection | None) -> None:
        try:
            if connection is not None:
                await connection.drain()
            else:
                await self._cluster.pool.get(broker.endpoint, PRODUCE)
        except PegelError as error:
            self.last_error = error
            self._cluster.metadata.request_refresh()
            now = self._loop.time()
            for key, queue in self._active.items():
                if queue.pending and self._view.leader(*key) == broker.endpoint:
                    self._pause(queue, now)
                    if isinstance(error, AuthenticationError):
                        self._fail_pending(queue, error)
        finally:
            broker.connecting = None
            self.wake()

    def _send(
        self,
        broker: BrokerState,
        connection: Connection,
        batches: dict[tuple[str, int], tuple[PartitionQueue, ProducerBatch]],
        now: float,
    ) -> None:
        options, timeout = self._options, self._cluster.options.request_timeout
        for key, failed in encode_all(batches, self._codec, options.compression_level).items():
            queue, batch = batches.pop(key)
            queue.on_given_up(batch)
            self._fail(batch, failed)
        if not batches:
            self.wake()
            return
        sent = InFlight(broker, connection, batches, now, now + timeout)
        acks = options.required_acks
        try:
            request, version = sent.build(self._view, acks=acks, timeout=timeout * _BROKER_SHARE)
            if acks == 0:
                connection.send_no_response(request, version)
            else:
                connection.send_to(partial(self._on_done, sent), request, version)
        except PegelError as error:
            self._on_request_failed(sent, error)
            return
        if acks == 0:
            for queue, batch in batches.values():
                queue.on_answered(batch)
                self._succeed(batch, BatchResult(-1, -1))
            self.wake()
            return
        broker.in_flight.append(sent)
        self._unanswered += 1

    # Answers

    def _on_done(self, sent: InFlight, response: Message | PegelError) -> None:
        """The answer came, or there will be none."""
        if sent.done:
            return
        sent.done = True
        sent.broker.in_flight.remove(sent)
        self._unanswered -= 1
        if self._closed:
            return
        if isinstance(response, PegelError):
            self._on_request_failed(sent, response)
            return
        assert isinstance(response, ProduceResponse)
        now = self._loop.time()
        if response.throttle_time_ms > 0:
            sent.broker.not_before = now + response.throttle_time_ms / 1000
        endpoints = [Endpoint(n.node_id, n.host, n.port) for n in response.node_endpoints]
        answers = sent.answers(response)
        for key, (queue, batch) in sent.batches.items():
            answer = answers.get(key)
            if answer is None:
                answer = PartitionProduceResponse(index=key[1], error_code=13)
            self._on_answer(queue, batch, answer, endpoints, now)
            if queue.idle:
                self._active.pop(key, None)
        if self._active:
            self.wake()

    def _on_request_failed(self, sent: InFlight, error: PegelError) -> None:
        """No answer, or none that can be read: whether the batches were written is not known."""
        self.last_error = error
        now = self._loop.time()
        for queue, batch in sent.batches.values():
            if error.retriable:
                queue.on_failed(batch)
                self._pause(queue, now)
            else:
                queue.on_answered(batch)
                self._fail(batch, error)
        self._cluster.metadata.request_refresh()
        self.wake()

    def _on_answer(
        self,
        queue: PartitionQueue,
        batch: ProducerBatch,
        answer: PartitionProduceResponse,
        endpoints: list[Endpoint],
        now: float,
    ) -> None:
        if answer.error_code == 0:
            what, result = Verdict.DONE, BatchResult(answer.base_offset, answer.log_append_time_ms)
        else:
            code = to_error_code(answer.error_code)
            what, result = verdict(code, idempotent=self._idempotent), BatchResult(-1, -1)
        if what is Verdict.DONE:
            queue.attempts = 0
            queue.on_answered(batch, written=True)
            self._succeed(batch, result)
            return
        where = f"{queue.topic}-{queue.partition}"
        error = broker_error(answer.error_code, where, answer.error_message)
        if what is Verdict.TOO_LARGE and len(batch) > 1 and batch.span > 1:
            queue.split(batch, self._loop.create_future)
            return
        if what in {Verdict.FAILED, Verdict.TOO_LARGE}:
            queue.on_answered(batch)
            for record in answer.record_errors[:3]:
                error.add_note(f"record {record.batch_index}: {record.batch_index_error_message}")
            self._fail(batch, error)
            return
        self.last_error = error
        if what is Verdict.NEW_EPOCH or (what is Verdict.OUT_OF_ORDER and queue.is_first(batch)):
            queue.needs_epoch = True
        queue.on_failed(batch)
        if what is Verdict.MOVED:
            leader = answer.current_leader
            if not self._cluster.metadata.apply_leader(
                queue.topic, queue.partition, leader.leader_id, leader.leader_epoch, endpoints
            ):
                self._cluster.metadata.request_refresh()
                known_now = self._view.partition(queue.topic, queue.partition)
                if known_now is None or known_now.leader_epoch <= queue.tried_epoch:
                    self._pause(queue, now)
        elif what is Verdict.RETRY:
            self._pause(queue, now)

    def _succeed(self, batch: ProducerBatch, result: BatchResult) -> None:
        if not batch.done:
            age = self._loop.time() - batch.created
            self._stats.on_acknowledged(len(batch), batch.size, age)
            batch.succeed(result)
            self.memory.release(batch.size)

    def _fail(self, batch: ProducerBatch, error: PegelError) -> None:
        if not batch.done:
            if batch.unawaited:
                self.lost_records += batch.unawaited
                self.lost_error = self.lost_error or error
            self._stats.on_failed(len(batch), error)
            batch.fail(error)
            self.memory.release(batch.size)

    # Metadata and time

    def _on_metadata(self) -> None:
        """Partitions whose leadership moved on need not sit out their pause."""
        if self._cluster.metadata.refused is not None:
            self._fail_everything(self._cluster.metadata.refused)
        for key, queue in self._active.items():
            known = self._view.partition(*key)
            if known is not None and known.leader_epoch > queue.tried_epoch and known.leader >= 0:
                queue.retry_at = 0.0
        now = self._loop.time()
        for broker in list(self._brokers.values()):
            self._give_up_on_old_leader(broker, now)
        if self._active:
            self.wake()

    def _give_up_on_old_leader(self, broker: BrokerState, now: float) -> None:
        """A broker that hangs keeps requests for partitions that others lead by now.

        Its lease has run out by then, so it cannot write them any more; where it already has,
        the new leader knows the sequence.
        """
        if not broker.in_flight or now - broker.in_flight[0].sent_at < self._cluster.options.stall:
            return
        if broker.keeps_what_others_lead(self._view):
            self._cluster.pool.drop(broker.endpoint.node_id, PRODUCE)

    def _keep_watch(self) -> None:
        if self._watch is None and self._active:
            self._watch = self._loop.call_later(_WATCH_INTERVAL, self._on_watch)

    def _on_watch(self) -> None:
        """Deadlines, requests without an answer, brokers that seem to hang."""
        self._watch = None
        if self._closed:
            return
        now = self._loop.time()
        for queue in self._active.values():
            for batch in queue.drop_expired(now):
                self._fail(batch, expired(batch, self._options, self.last_error))
        for broker in self._brokers.values():
            if not broker.in_flight:
                continue
            oldest = broker.in_flight[0]
            if now >= oldest.deadline:
                error = RequestTimeoutError(f"{broker.endpoint} did not answer a produce request")
                self._on_done(oldest, error)
                self._cluster.pool.drop(broker.endpoint.node_id, PRODUCE)
            elif now - oldest.sent_at >= self._cluster.options.stall:
                self._cluster.metadata.request_refresh()
        self._keep_watch()
        self.wake()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when != float("inf"):
            self._timer = self._loop.call_at(when, self._run)

    # Identity

    def _initialize(self) -> None:
        if self._initializing is None:
            self._initializing = self._loop.create_task(self._init_producer_id())

    async def _init_producer_id(self) -> None:
        try:
            self._identity = await ask_identity(self._cluster, partial(setattr, self, "last_error"))
            for queue in self.queues.values():
                if queue.sequences is not None and queue.needs_epoch:
                    queue.sequences.renew(self._identity)
                    queue.restamp()
        except PegelError as error:
            self._fail_everything(error)
        finally:
            self._initializing = None
            self.wake()

    def _fail_everything(self, error: PegelError) -> None:
        for queue in self._active.values():
            self._fail_pending(queue, error)

    def _fail_pending(self, queue: PartitionQueue, error: PegelError) -> None:
        while queue.pending:
            self._fail(queue.pending.popleft(), error)
        queue.open = None
