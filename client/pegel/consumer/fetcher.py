"""Fetches ahead of the reader: one request at a time for each broker, within bounded memory.

Like the producer's sender it has no task of its own: it runs when something happened, decides
from the ``Subscription`` what may be fetched, and sends.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from functools import partial

from pegel.cluster import Cluster
from pegel.config import ConsumerOptions
from pegel.consumer.fetched import Fetched
from pegel.consumer.positions import Positions
from pegel.consumer.session import FetchSession, Wanted
from pegel.consumer.subscription import PartitionState, Subscription
from pegel.errors import (
    AuthenticationError,
    ConnectionFailedError,
    CorruptResponseError,
    OffsetOutOfRangeError,
    PegelError,
    RequestTimeoutError,
    broker_error,
    to_error_code,
)
from pegel.network.pool import FETCH, Endpoint
from pegel.offsets import EARLIEST, LATEST
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import FetchRequest, FetchResponse, PartitionData
from pegel.protocol.schema import NULL_UUID, Message
from pegel.record import CorruptBatchError
from pegel.types import TopicPartition

_WATCH_INTERVAL = 0.2
# A fetch that has data is answered sooner; one that waits for data is given up for a seek.
_HASTEN_AFTER = 0.005
# From this version on topics are named by their id.
_TOPIC_ID_VERSION = 13
_SESSION_ERRORS = {
    ErrorCode.FETCH_SESSION_ID_NOT_FOUND,
    ErrorCode.INVALID_FETCH_SESSION_EPOCH,
    ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR,
}
# Answered by trying again, once the metadata is fresh where the error says that it is not.
_RETRIED = {
    ErrorCode.UNKNOWN_LEADER_EPOCH, ErrorCode.OFFSET_NOT_AVAILABLE, ErrorCode.REPLICA_NOT_AVAILABLE,
    ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.CORRUPT_MESSAGE,
}  # fmt: skip


class _Node:
    """One broker that is fetched from; ``sent_at`` and ``future`` while a request is out."""

    __slots__ = ("connecting", "endpoint", "future", "generations", "given_up", "names",
                 "not_before", "sent_at", "session")  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.session = FetchSession()
        self.future: asyncio.Future[Message] | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.given_up = False  # its connection was closed on purpose
        self.sent_at = 0.0
        self.not_before = 0.0
        self.generations: dict[TopicPartition, int] = {}
        self.names: dict[object, str] = {}


_numbers = itertools.count(1)


class Fetcher:
    """Keeps ``ready`` filled; ``Consumer`` empties it."""

    def __init__(
        self, cluster: Cluster, subscription: Subscription, options: ConsumerOptions
    ) -> None:
        self._cluster, self._subscription, self._options = cluster, subscription, options
        self._view = cluster.metadata.view
        self._loop = asyncio.get_running_loop()
        # Connections of its own: the fetch of another consumer may wait at the broker for long.
        self._purpose = f"{FETCH}-{next(_numbers)}"
        self._nodes: dict[int, _Node] = {}
        self._positions = Positions(cluster, subscription, options, self.wake, self.stop)
        self.ready: deque[Fetched] = deque()
        self.buffered_bytes = 0
        self.error: Exception | None = None
        self._stopped: dict[TopicPartition, PartitionState] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._run_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False
        cluster.metadata.listen(self._on_metadata)

    # What the consumer calls

    async def wait(self) -> None:
        """Return when ``ready`` or ``error`` has something, or a position moved."""
        if self.ready or self.error is not None or self._closed:
            return
        if self._waiter is None or self._waiter.done():
            self._waiter = self._loop.create_future()
        await asyncio.shield(self._waiter)

    def release(self, fetched: Fetched) -> None:
        """The reader is through with it, or does not want it any more."""
        self.buffered_bytes -= fetched.size
        fetched.state.buffered_bytes -= fetched.size
        self.wake()

    def drop_stale(self) -> None:
        """After a seek: forget what was fetched for the old position."""
        for fetched in [f for f in self.ready if f.stale]:
            self.ready.remove(fetched)
            self.release(fetched)

    def hasten(self, partition: TopicPartition) -> None:
        """After a seek: a request that waits for data at the old position is in the way.

        A broker answers one fetch of a connection after another, so a new connection takes over,
        unless the answer comes within a moment anyway.
        """
        for node in self._nodes.values():
            if node.future is not None and partition in node.generations:
                self._loop.call_later(_HASTEN_AFTER, self._give_up_waiting, node, node.future)

    def _give_up_waiting(self, node: _Node, future: asyncio.Future[Message]) -> None:
        if node.future is future and not self._closed:
            node.given_up = True
            self._cluster.pool.drop(node.endpoint.node_id, self._purpose)

    def wake(self) -> None:
        if not self._run_scheduled and not self._closed:
            self._run_scheduled = True
            self._loop.call_soon(self._run)

    def fail(self, error: Exception) -> None:
        """Something that the reader must know; told once."""
        if self.error is None:
            self.error = error
        self._notify()

    def stop(self, state: PartitionState, error: PegelError) -> None:
        """Fetch this partition no more; the reader is told until it seeks."""
        state.stopped = error
        self._stopped[state.topic_partition] = state
        self._notify()

    def trouble(self) -> Exception | None:
        """What the reader must know now: once, but of a stopped partition each time it asks."""
        error, self.error = self.error, None
        if self._stopped:
            states = self._subscription.states
            self._stopped = {
                tp: s for tp, s in self._stopped.items()
                if s.stopped is not None and states.get(tp) is s
            }  # fmt: skip
            if error is None:
                error = next((s.stopped for s in self._stopped.values() if not s.paused), None)
        return error

    def close(self) -> None:
        self._closed = True
        self._cluster.metadata.unlisten(self._on_metadata)
        for handle in (self._timer, self._watch):
            if handle is not None:
                handle.cancel()
        for node in self._nodes.values():
            if node.connecting is not None:
                node.connecting.cancel()
            if node.future is not None:
                node.future.cancel()
        self._cluster.pool.drop_all(self._purpose)
        self._positions.close()
        self.ready.clear()
        self._notify()

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Deciding what to fetch

    def _run(self) -> None:
        self._run_scheduled = False
        if self._closed:
            return
        if self._watch is None:
            self._watch = self._loop.call_later(_WATCH_INTERVAL, self._on_watch)
        now = self._loop.time()
        next_time = self._positions.run(now)
        wanted: dict[Endpoint, dict[TopicPartition, Wanted]] = {}
        full: set[Endpoint] = set()
        busy: set[Endpoint] = set()
        share = self._options.prefetch_bytes // max(1, len(self._subscription.states))
        most = max(2 * self._options.partition_fetch_bytes, share)
        for tp, state in self._subscription.states.items():
            if state.paused or state.stopped or not self._positions.is_good(state):
                continue
            if state.retry_at > now:
                next_time = min(next_time, state.retry_at)
                continue
            source = self._source(state, now)
            if source is None:
                state.on_trouble(now, self._cluster.retry_pause(state.attempts))
                next_time = min(next_time, state.retry_at)
                self._cluster.metadata.request_refresh()
                continue
            if state.buffered_bytes >= most:
                # Asking for the others alone would hold this one up for as long as the broker
                # waits for them; what it has buffered stands before their records anyway.
                full.add(source)
                continue
            node = self._nodes.get(source.node_id)
            if node is not None and (node.future is not None or node.connecting is not None):
                node.endpoint = source
                busy.add(source)
                continue
            topic = self._view.topics[tp.topic]
            epoch = topic.partitions[tp.partition].leader_epoch
            wanted.setdefault(source, {})[tp] = Wanted(
                topic.topic_id, state.fetch_offset, epoch, state.max_bytes
            )
        room = self._options.prefetch_bytes - self.buffered_bytes
        if room > 0:
            limit = max(1, room // max(1, len(wanted) + len(busy)))
            for endpoint, partitions in wanted.items():
                if endpoint not in full:
                    next_time = min(next_time, self._fetch(endpoint, partitions, limit, now))
        self._set_timer(next_time)

    def _source(self, state: PartitionState, now: float) -> Endpoint | None:
        if state.read_replica >= 0:
            if now < state.read_replica_until and state.read_replica in self._view.brokers:
                return self._view.brokers[state.read_replica]
            state.read_replica = -1
        return self._view.leader(*state.topic_partition)

    def _fetch(
        self, endpoint: Endpoint, wanted: dict[TopicPartition, Wanted], limit: int, now: float
    ) -> float:
        """Send a request to a broker that has none; returns when to look again."""
        node = self._nodes.get(endpoint.node_id)
        if node is None:
            node = self._nodes[endpoint.node_id] = _Node(endpoint)
        node.endpoint = endpoint
        if node.not_before > now:
            return node.not_before
        connection = self._cluster.pool.ready(endpoint, self._purpose)
        if connection is None:
            node.session.reset(keep_id=True)
            node.connecting = self._loop.create_task(self._connect(node))
            return float("inf")
        names_only = any(w.topic_id == NULL_UUID for w in wanted.values())
        topics, forgotten = node.session.plan(wanted)
        # The broker's answers for these may be to what was wanted before.
        behind = node.session.behind
        options = self._options
        request = FetchRequest(
            replica_id=-1,
            max_wait_ms=0 if behind else int(options.max_wait * 1000),
            min_bytes=options.min_bytes,
            max_bytes=min(options.fetch_bytes, limit),
            isolation_level=options.isolation_level,
            session_id=node.session.session_id,
            session_epoch=node.session.epoch,
            topics=topics,
            forgotten_topics_data=forgotten,
            rack_id=options.rack,
        )
        node.generations = {
            tp: self._subscription.states[tp].generation for tp in wanted if tp not in behind
        }
        node.names = {w.topic_id: tp.topic for tp, w in wanted.items()}
        node.sent_at = now
        try:
            highest = _TOPIC_ID_VERSION - 1 if names_only else None
            version = connection.version_for(ApiKey.FETCH, highest)
            node.future = connection.send(request, version)
        except PegelError as error:
            self._on_failed(node, error)
            return float("inf")
        node.future.add_done_callback(partial(self._on_done, node))
        return float("inf")

    async def _connect(self, node: _Node) -> None:
        try:
            await self._cluster.pool.get(node.endpoint, self._purpose)
        except PegelError as error:
            if isinstance(error, AuthenticationError):
                self.fail(error)
            self._on_failed(node, error)
        finally:
            node.connecting = None
            self.wake()

    # Answers

    def _on_done(self, node: _Node, future: asyncio.Future[Message]) -> None:
        node.future = None
        given_up, node.given_up = node.given_up, False
        if self._closed:
            return
        if given_up and not future.cancelled() and future.exception() is not None:
            node.session.reset(keep_id=True)
            self.wake()
            return
        if future.cancelled():
            self._on_failed(node, RequestTimeoutError(f"{node.endpoint} did not answer a fetch"))
            return
        error = future.exception()
        if error is not None:
            assert isinstance(error, PegelError)
            self._on_failed(node, error)
            return
        response = future.result()
        assert isinstance(response, FetchResponse)
        now = self._loop.time()
        if response.throttle_time_ms > 0:
            node.not_before = now + response.throttle_time_ms / 1000
        if response.error_code:
            code = to_error_code(response.error_code)
            node.session.reset(keep_id=False)
            if code not in _SESSION_ERRORS:
                self._on_failed(node, broker_error(code, f"fetch from {node.endpoint}"))
                return
            if code is ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR:
                self._cluster.metadata.request_refresh()
            self.wake()
            return
        node.session.accept(response.session_id)
        endpoints = [Endpoint(n.node_id, n.host, n.port) for n in response.node_endpoints]
        for topic in response.responses:
            name = topic.topic or node.names.get(topic.topic_id) or ""
            for data in topic.partitions:
                tp = TopicPartition(name, data.partition_index)
                state = self._subscription.states.get(tp)
                if state is not None and node.generations.get(tp) == state.generation:
                    self._on_partition(node, state, data, endpoints, now)
        self.wake()

    def _on_failed(self, node: _Node, error: PegelError) -> None:
        node.session.reset(keep_id=isinstance(error, ConnectionFailedError))
        now = self._loop.time()
        if not error.retriable and error.code is not ErrorCode.UNKNOWN_SERVER_ERROR:
            self.fail(error)
        for state in self._subscription.states.values():
            if self._source(state, now) == node.endpoint:
                state.on_trouble(now, self._cluster.retry_pause(state.attempts))
        self._cluster.metadata.request_refresh()
        self.wake()

    def _on_partition(
        self,
        node: _Node,
        state: PartitionState,
        data: PartitionData,
        endpoints: list[Endpoint],
        now: float,
    ) -> None:
        if data.error_code:
            self._on_error(node, state, data, endpoints, now)
            return
        state.high_watermark = data.high_watermark
        state.last_stable_offset = data.last_stable_offset
        state.log_start_offset = data.log_start_offset
        if data.diverging_epoch.end_offset >= 0:
            self._positions.on_truncated(state, data.diverging_epoch.end_offset)
            return
        if data.preferred_read_replica >= 0:
            state.read_replica = data.preferred_read_replica
            state.read_replica_until = now + self._cluster.options.metadata_max_age
            return
        records = data.records
        assert records is None or isinstance(records, bytes | bytearray | memoryview)
        if not records:
            return
        try:
            fetched = Fetched(state, records, data.aborted_transactions)
        except CorruptBatchError as error:
            self._on_corrupt(state, error)
            return
        last = fetched.last
        if last is None:
            # Only a piece of a batch: an old broker's way to say that it is larger than asked for.
            state.max_bytes *= 2
            return
        if last.next_offset <= state.fetch_offset:
            return
        state.on_fetched(last.next_offset, last.partition_leader_epoch, fetched.size)
        self.buffered_bytes += fetched.size
        self.ready.append(fetched)
        self._notify()

    def _on_error(
        self,
        node: _Node,
        state: PartitionState,
        data: PartitionData,
        endpoints: list[Endpoint],
        now: float,
    ) -> None:
        code = to_error_code(data.error_code)
        tp = state.topic_partition
        if code is ErrorCode.OFFSET_OUT_OF_RANGE:
            if state.read_replica >= 0:  # the follower may lag: ask the leader
                state.read_replica = -1
                return
            if self._options.offset_reset == "none":
                self.stop(
                    state,
                    OffsetOutOfRangeError(
                        f"{tp}: offset {state.fetch_offset} is not in the log (any more), and "
                        "nothing more is read from there: seek, or set offset_reset to earliest "
                        "or latest"
                    ),
                )
                return
            earliest = self._options.offset_reset == "earliest"
            state.request_reset(EARLIEST if earliest else LATEST)
            return
        if not code.retriable and code not in _RETRIED:
            self.stop(state, broker_error(code, str(tp)))
            return
        hint = data.current_leader
        if self._cluster.metadata.apply_leader(
            tp.topic, tp.partition, hint.leader_id, hint.leader_epoch, endpoints
        ):
            return
        state.on_trouble(now, self._cluster.retry_pause(state.attempts))
        self._cluster.metadata.request_refresh()

    def _on_corrupt(self, state: PartitionState, error: CorruptBatchError) -> None:
        self.stop(
            state,
            CorruptResponseError(
                f"{state.topic_partition} at offset {state.fetch_offset}: {error.message}; "
                "seek past it to go on"
            ),
        )

    # Metadata and time

    def _on_metadata(self) -> None:
        if self._cluster.metadata.refused is not None:
            self.fail(self._cluster.metadata.refused)
        now = self._loop.time()
        for state in self._subscription.states.values():
            known = self._view.partition(*state.topic_partition)
            if known is not None and known.leader_epoch > state.checked_epoch:
                state.retry_at = 0.0
        for node in self._nodes.values():
            patience = self._options.max_wait + self._cluster.options.stall
            if node.future is not None and now - node.sent_at > patience and self._moved(node):
                self._cluster.pool.drop(node.endpoint.node_id, self._purpose)
        self.wake()

    def _moved(self, node: _Node) -> bool:
        """Whether somebody else leads a partition that this broker keeps silent about."""
        for tp in node.generations:
            known = self._view.partition(*tp)
            state = self._subscription.states.get(tp)
            if known is None or state is None or state.read_replica == node.endpoint.node_id:
                continue
            if known.leader not in {-1, node.endpoint.node_id}:
                return True
        return False

    def _on_watch(self) -> None:
        self._watch = None
        if self._closed:
            return
        now = self._loop.time()
        for node in self._nodes.values():
            if node.future is None:
                continue
            silent = now - node.sent_at - self._options.max_wait
            if silent > self._cluster.options.request_timeout:
                node.future.cancel()
                self._cluster.pool.drop(node.endpoint.node_id, self._purpose)
            elif silent > self._cluster.options.stall:
                self._cluster.metadata.request_refresh()
        self._watch = self._loop.call_later(_WATCH_INTERVAL, self._on_watch)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when != float("inf"):
            self._timer = self._loop.call_at(when, self._run)
