"""What the client knows of the cluster: brokers, topics, and who leads which partition.

``ClusterView`` is the knowledge, changed only by responses. ``Metadata`` keeps it fresh: by need
(somebody met an error or an unknown topic) and by age.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TypeVar

from pegel.config import ClientOptions
from pegel.errors import (
    AuthenticationError,
    ClosedError,
    ConnectionFailedError,
    PegelError,
    TopicNotFoundError,
    broker_error,
    is_shut_out,
    to_error_code,
)
from pegel.network.backoff import retry_pause
from pegel.network.hedge import ask_hedged
from pegel.network.pool import ConnectionPool, Endpoint
from pegel.portions import in_portions
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from pegel.protocol.schema import NULL_UUID
from pegel.seams import Clock
from pegel.types import check_topic_name

T = TypeVar("T")

_ATTEMPT_TIMEOUT = 5.0
# All brokers shut the door so many times in a row on a client that none ever let in: it stays shut.
_SHUT_OUT_AFTER = 5
# Refreshes on behalf of everybody are at least this far apart.
_MIN_INTERVAL = 0.02
_NOT_THERE = {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID}


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; ``leader`` is -1 while there is none, ``leader_epoch`` -1 if unknown."""

    index: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    offline: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic; ``partitions`` stand at their index. ``topic_id`` is null on old brokers."""

    name: str
    topic_id: uuid.UUID
    is_internal: bool
    partitions: tuple[Partition, ...]


class ClusterView:
    """Brokers and topics as the newest responses tell them."""

    def __init__(self) -> None:
        self.cluster_id: str | None = None
        self.controller_id = -1
        self.brokers: dict[int, Endpoint] = {}
        self.racks: dict[int, str | None] = {}
        self.topics: dict[str, Topic] = {}
        # Topics that could not be described, with the error that the broker gave.
        self.topic_errors: dict[str, ErrorCode] = {}
        self.names_by_id: dict[uuid.UUID, str] = {}

    def apply(self, response: MetadataResponse) -> None:
        """Take over a response. Topics that it does not mention are kept."""
        self.cluster_id = response.cluster_id
        self.controller_id = response.controller_id
        if response.brokers:
            self.brokers = {
                b.node_id: Endpoint(b.node_id, b.host, b.port) for b in response.brokers
            }
            self.racks = {b.node_id: b.rack for b in response.brokers}
        for topic in response.topics:
            name = topic.name
            if name is None:
                continue
            code = to_error_code(topic.error_code)
            if code is not ErrorCode.NONE and not topic.partitions:
                self.topic_errors[name] = code
                if code in _NOT_THERE:
                    self.forget(name)
                continue
            self.topic_errors.pop(name, None)
            self._apply_topic(name, topic)

    def _apply_topic(self, name: str, topic: MetadataResponseTopic) -> None:
        old = self.topics.get(name)
        if old is not None and old.topic_id != topic.topic_id:
            self.forget(name)  # deleted and created again: its epochs begin anew
            old = None
        before = {} if old is None else {p.index: p for p in old.partitions}
        partitions = [
            _newer(before.get(p.partition_index), p)
            for p in sorted(topic.partitions, key=lambda p: p.partition_index)
        ]
        if [p.index for p in partitions] != list(range(len(partitions))):
            return  # a broker that skips partitions: keep what is known
        self.topics[name] = Topic(name, topic.topic_id, topic.is_internal, tuple(partitions))
        if topic.topic_id != NULL_UUID:
            self.names_by_id[topic.topic_id] = name

    def forget(self, name: str) -> None:
        """Drop a topic that is gone."""
        topic = self.topics.pop(name, None)
        if topic is not None:
            self.names_by_id.pop(topic.topic_id, None)

    def apply_leader(
        self,
        name: str,
        partition: int,
        leader: int,
        leader_epoch: int,
        endpoints: Iterable[Endpoint],
    ) -> bool:
        """Take the hint of a response that refused for want of leadership (KIP-951).

        Returns whether it is news: a later epoch, and a leader whose address is known.
        """
        for endpoint in endpoints:
            self.brokers[endpoint.node_id] = endpoint
        topic = self.topics.get(name)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return False
        old = topic.partitions[partition]
        if leader_epoch <= old.leader_epoch or leader not in self.brokers:
            return False
        new = Partition(partition, leader, leader_epoch, old.replicas, old.isr, old.offline)
        partitions = (*topic.partitions[:partition], new, *topic.partitions[partition + 1 :])
        self.topics[name] = Topic(topic.name, topic.topic_id, topic.is_internal, partitions)
        return True

    def partition(self, name: str, partition: int) -> Partition | None:
        topic = self.topics.get(name)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def leader(self, name: str, partition: int) -> Endpoint | None:
        """The address of a partition's leader, if it has one that is known."""
        known = self.partition(name, partition)
        return None if known is None else self.brokers.get(known.leader)


def _newer(old: Partition | None, new: MetadataResponsePartition) -> Partition:
    """The partition as of the later leader epoch: a broker that lags must not take us back."""
    if old is not None and 0 <= new.leader_epoch < old.leader_epoch:
        return old
    return Partition(
        new.partition_index,
        new.leader_id,
        new.leader_epoch,
        tuple(new.replica_nodes),
        tuple(new.isr_nodes),
        tuple(new.offline_replicas),
    )


class Metadata:
    """Keeps a ``ClusterView`` fresh. All waits are bounded by the caller's time-out."""

    def __init__(
        self,
        bootstrap: tuple[tuple[str, int], ...],
        pool: ConnectionPool,
        clock: Clock,
        rng: random.Random,
        options: ClientOptions,
    ) -> None:
        self.view = ClusterView()
        # Why the cluster does not let this client in (any more), as of the last refresh.
        self.refused: AuthenticationError | None = None
        # Why the last refresh failed; ``None`` where it did not.
        self.trouble: BaseException | None = None
        self._shut_out = 0
        self._bootstrap = [Endpoint(-1 - i, *address) for i, address in enumerate(bootstrap)]
        self._pool, self._clock, self._random, self._options = pool, clock, rng, options
        self._wanted: dict[str, None] = {}
        self._creating: set[str] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_success = float("-inf")
        self._last_start = float("-inf")
        self._failures = 0
        self._listeners: list[Callable[[], None]] = []
        self._closed = False

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each change of the view, and when the client is refused."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    def notify(self) -> None:
        for listener in list(self._listeners):
            listener()

    def apply_leader(
        self,
        name: str,
        partition: int,
        leader: int,
        leader_epoch: int,
        endpoints: Iterable[Endpoint],
    ) -> bool:
        """``ClusterView.apply_leader``, telling the listeners."""
        changed = self.view.apply_leader(name, partition, leader, leader_epoch, endpoints)
        if changed:
            self.notify()
        return changed

    async def topic(
        self, name: str, *, timeout: float | None = None, create: bool = False
    ) -> Topic:
        """The topic, once it is known.

        Args:
            timeout: seconds; one below ``topic_grace`` ends the wait for an unknown topic as well.
            create: let the broker create it (and only if the broker is set to).

        Raises:
            TypeError: the name is not text.
            TopicNotFoundError: no broker knows it, for ``topic_grace`` seconds.
            BrokerError: the name is not legal, or not for this client.
            ConnectionFailedError, RequestTimeoutError: no broker answers.
            AuthenticationError: the cluster does not take this client's credentials.
        """
        known = self.view.topics.get(name)
        if known is not None:
            return known
        self.want((name,))
        if create:
            self._creating.add(name)
        options = self._options
        patience = options.request_timeout if timeout is None else timeout
        deadline = self._clock.monotonic() + patience
        grace_ends = min(deadline, self._clock.monotonic() + options.topic_grace)
        attempts = 0
        while True:
            error: PegelError | None = None
            try:
                left = max(0.001, deadline - self._clock.monotonic())
                await self.refresh(timeout=left, patience=patience)
            except PegelError as caught:
                error = caught
            known = self.view.topics.get(name)
            if known is not None:
                return known
            code = self.view.topic_errors.get(name)
            now = self._clock.monotonic()
            if error is None and code is not None:
                final = not code.retriable or (code in _NOT_THERE and now >= grace_ends)
                if final or now >= deadline:
                    self._wanted.pop(name, None)
                    self._creating.discard(name)
                    raise _topic_error(name, code)
            final = isinstance(error, ClosedError | AuthenticationError)
            if final or now >= deadline or self.stays_out(self._shut_out):
                raise error or ConnectionFailedError(f"no broker described topic {name!r} in time")
            pause = retry_pause(
                attempts, options.retry_backoff, options.retry_backoff_max, self._random
            )
            attempts += 1
            await asyncio.sleep(min(pause, deadline - now))

    def want(self, names: Iterable[str]) -> None:
        """Keep these topics in view from the next refresh on, if they are there.

        Raises:
            TypeError: a name that is not text; every later refresh would ask for it.
        """
        names = list(names)
        for name in names:
            check_topic_name(name)
        self._wanted.update(dict.fromkeys(names))

    def unknown(self, name: str, waited: float) -> PegelError:
        """Why a topic was not described in ``waited`` seconds, as far as that is known."""
        code = self.view.topic_errors.get(name)
        return self.no_answer(waited) if code is None else _topic_error(name, code)

    def no_answer(self, waited: float) -> ConnectionFailedError:
        """The error of whoever waited so many seconds for any broker."""
        why = "" if self.trouble is None else f": {self.trouble}"
        tried = "" if "tried" in why else f"; tried {self._addresses()}"
        return ConnectionFailedError(f"no broker answered within {waited:.3g} s{tried}{why}")

    def stays_out(self, refusals: int) -> bool:
        """Whether a client that no broker ever let in knows enough after so many in a row."""
        return self._last_success == float("-inf") and refusals >= _SHUT_OUT_AFTER

    async def refresh(self, *, timeout: float | None = None, patience: float | None = None) -> None:
        """Ask a broker now, or share the answer that somebody already waits for.

        Args:
            patience: seconds that the caller waits in all, where ``timeout`` is what is left.

        Raises:
            ConnectionFailedError, RequestTimeoutError: no broker answers; addresses are named.
        """
        if self._closed:
            raise ClosedError("the client is closed")
        wanted = tuple(self._wanted)
        while True:
            task = self._refreshing or self._start()
            asked = self._asking
            wait = self._options.request_timeout if timeout is None else timeout
            try:
                async with asyncio.timeout(wait):
                    await asyncio.shield(task)
            except TimeoutError:
                raise self.no_answer(patience or wait) from None
            except asyncio.CancelledError:
                if task.cancelled() and self._closed:
                    raise ClosedError("the client is closed") from None
                raise
            if asked is None or all(name in asked for name in wanted):
                return

    def request_refresh(self) -> None:
        """Have the view refreshed soon; many requests at a time make one."""
        if self._closed or self._refreshing is not None:
            return
        pause = _MIN_INTERVAL
        if self._failures:
            options = self._options
            pause = retry_pause(
                self._failures - 1, options.retry_backoff, options.retry_backoff_max, self._random
            )
        delay = self._last_start + pause - self._clock.monotonic()
        if delay <= 0:
            self._start()
        else:
            self._set_timer(delay)

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def any_broker(self) -> Endpoint:
        """A broker that is likely to answer."""
        return self._candidates()[0]

    def endpoints(self) -> list[Endpoint]:
        """All that may be asked, the most promising first."""
        return self._candidates()

    def _set_timer(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + delay
        if self._timer is not None:
            if not self._timer.cancelled() and loop.time() <= self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._closed and self._refreshing is None:
            self._start()

    def _start(self) -> asyncio.Task[None]:
        self._last_start = self._clock.monotonic()
        self._asking: frozenset[str] | None = frozenset(self._wanted)
        task = asyncio.get_running_loop().create_task(self._refresh())
        self._refreshing = task
        task.add_done_callback(self._on_refreshed)
        return task

    def _on_refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if task.cancelled() or self._closed:
            return
        error = task.exception()
        self.trouble = error
        if error is not None:
            self._failures += 1
            shut = is_shut_out(error)
            self._shut_out = self._shut_out + 1 if shut else 0
            if isinstance(error, AuthenticationError):
                self.refused = error
                self.notify()  # whoever waits for a leader waits in vain
            if self._last_success != float("-inf"):
                self.request_refresh()
            return
        self._failures = self._shut_out = 0
        self.refused = None
        self._last_success = self._clock.monotonic()
        self._set_timer(self._options.metadata_max_age)
        self.notify()

    async def _refresh(self) -> None:
        names = sorted(self._wanted)
        creating = [n for n in names if n in self._creating and n not in self.view.topics]
        for portion in in_portions(names) if names else [[]]:
            request = MetadataRequest(
                topics=[MetadataRequestTopic(name=n) for n in portion],
                allow_auto_topic_creation=bool(creating),
            )
            self.view.apply(await self._ask_any(request))

    async def fetch(self, topics: Iterable[str] | None, *, timeout: float) -> MetadataResponse:
        """A one-off description of ``topics`` (``None``: all), not kept.

        Raises:
            ConnectionFailedError: no broker answers.
        """
        portions: list[list[str] | None] = [None] if topics is None else [*in_portions(topics)]
        described: MetadataResponse | None = None
        try:
            async with asyncio.timeout(timeout):
                for portion in portions or [[]]:
                    wanted = None
                    if portion is not None:
                        wanted = [MetadataRequestTopic(name=n) for n in portion]
                    answer = await self._ask_any(
                        MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
                    )
                    if described is None:
                        described = answer
                    else:
                        described.topics += answer.topics
        except TimeoutError:
            raise self.no_answer(timeout) from None
        assert described is not None
        return described

    async def _ask_any(self, request: MetadataRequest) -> MetadataResponse:
        return await self.ask_hedged(lambda endpoint: self._ask_one(endpoint, request))

    async def ask_hedged(self, ask: Callable[[Endpoint], Coroutine[None, None, T]]) -> T:
        """The first answer, as ``pegel.network.hedge``: for questions alone."""
        return await ask_hedged(self._candidates(), ask)

    async def _ask_one(self, endpoint: Endpoint, request: MetadataRequest) -> MetadataResponse:
        response = await self._pool.ask(
            endpoint, request, MetadataResponse, timeout=_ATTEMPT_TIMEOUT
        )
        if response.error_code:
            raise broker_error(response.error_code, f"metadata from {endpoint}")
        if endpoint.node_id < 0 and response.brokers:
            # From now on its own name is used; its other connection would only be kept idle.
            self._pool.drop(endpoint.node_id, "control")
        return response

    def _candidates(self) -> list[Endpoint]:
        """Brokers in the order in which to ask: connected, unknown, then those that failed."""
        known = [self.view.brokers[n] for n in sorted(self.view.brokers)]
        self._random.shuffle(known)
        addresses = {(e.host, e.port) for e in known}
        known += [e for e in self._bootstrap if (e.host, e.port) not in addresses]
        pool = self._pool
        return sorted(
            known,
            key=lambda e: 0 if pool.ready(e) is not None else 2 if pool.is_failing(e) else 1,
        )

    def _addresses(self) -> str:
        return ", ".join(str(e) for e in self._candidates()[:5])


def _topic_error(name: str, code: ErrorCode) -> PegelError:
    if code in _NOT_THERE:
        return TopicNotFoundError(
            f"there is no topic {name!r}; create it with create_topic() or `pegel topics create`",
            code,
        )
    return broker_error(code, f"topic {name!r}")
