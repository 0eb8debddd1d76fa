"""A follower's fetch session, watched between its requests: only what changed is looked at.

A follower of a thousand partitions asks for all of them, again and again, and almost none has
news. So the watch that wakes a waiting fetch is not taken down when the answer leaves: partitions
mark themselves, and the next request reads those that it names and those that are marked. An
idle partition costs nothing, and a busy one does not pay for its idle neighbours.

Whatever changes without a mark (retention moves a log's start, a refused change of the ISR is to
be asked again) is found by a full round every ``FULL_ROUND_SECONDS``.

An idle follower waits for as long as it asked to, up to an instant at which the leader is awake
anyway. Where the answer before held anything, more is due that wakes nobody (how far the other
replicas have come with the same records): then for ``NEWS_WAIT_SECONDS`` at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pegel.protocol.errors import ErrorCode
from pegel.seams.beat import last_beat
from pegel_broker.purgatory import Delayed
from pegel_broker.replication.fetch_session import FetchSession, Key
from pegel_broker.replication.fetching import Reader, collect
from pegel_broker.replication.hosted import FetchWaiter, HostedPartition
from pegel_broker.replication.results import FetchItem, FetchPlan, PartitionFetchResult

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

FULL_ROUND_SECONDS = 20.0
# Kafka's replica.fetch.wait.max.ms.
NEWS_WAIT_SECONDS = 0.5
# Sessions of one follower: one for each of its fetchers, and one of before it reconnected.
MAX_PER_FOLLOWER = 4

T = TypeVar("T")
Answered = tuple[Sequence[FetchItem], Sequence[PartitionFetchResult]]


class StandingFetches:
    """The watches of all followers; the oldest of a follower makes room for a new one.

    Followers are the cluster's brokers. Whoever else claims to be one is answered without a watch,
    so that no client can have more of them kept by naming more ids.
    """

    def __init__(self, manager: ReplicaManager) -> None:
        self._manager = manager
        self._by_follower: dict[int, dict[int, StandingFetch]] = {}

    def knows(self, follower: int) -> bool:
        """Whether there is, or may be, a watch for this replica id."""
        return follower in self._manager.image.brokers

    def on_brokers_changed(self) -> None:
        """Drop the watches of brokers that are registered no longer."""
        for follower in [f for f in self._by_follower if not self.knows(f)]:
            for standing in self._by_follower.pop(follower).values():
                standing.close()

    def fetch(
        self,
        plan: FetchPlan,
        session: FetchSession,
        named: Sequence[FetchItem],
        forgotten: Iterable[Key],
        respond: Callable[[Answered], T],
    ) -> T | asyncio.Future[T]:
        """An incremental request of a broker: the response to it, now or once there is enough.

        ``named`` and ``forgotten`` are what the request changes of the session; ``respond`` makes
        the response of what was read.
        """
        assert self.knows(plan.replica_id)
        standing = self._of(plan.replica_id, session)
        for key in forgotten:
            standing.forget(key)
        for item in named:
            standing.take(item)
        return standing.request(plan, respond)

    def _of(self, follower: int, session: FetchSession) -> StandingFetch:
        watches = self._by_follower.setdefault(follower, {})
        standing = watches.get(session.session_id)
        if standing is None:
            while len(watches) >= MAX_PER_FOLLOWER:
                watches.pop(next(iter(watches))).close()
            standing = watches[session.session_id] = StandingFetch(self._manager, session)
        return standing

    def close(self) -> None:
        for watches in self._by_follower.values():
            for standing in watches.values():
                standing.close()
        self._by_follower.clear()


class _Wait(Delayed, Generic[T]):
    """One request that waits; ``future`` is the response itself, so nothing is to be chained."""

    __slots__ = ("future", "plan", "respond", "standing")
    kind = "fetch"

    def __init__(
        self,
        standing: StandingFetch,
        plan: FetchPlan,
        deadline: float,
        respond: Callable[[Answered], T],
    ) -> None:
        super().__init__(deadline)
        self.standing = standing
        self.plan = plan
        self.respond = respond
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def answer(self, answered: Answered) -> None:
        if self.future.done():
            return
        try:
            self.future.set_result(self.respond(answered))
        except Exception as error:  # it must cost this connection, not whoever woke the fetch
            self.future.set_exception(error)

    def on_read(self, read: asyncio.Future[Answered]) -> None:
        """The devices have answered."""
        if read.cancelled():
            self.future.cancel()
        elif (error := read.exception()) is None:
            self.answer(read.result())
        elif not self.future.done():
            self.future.set_exception(error)

    def on_timeout(self) -> None:
        self.standing.expire(self)


class StandingFetch(FetchWaiter):
    """One session's watch. Partitions are known by numbers, which stay the same for its life."""

    __slots__ = (
        "_at_once", "_changed", "_full_round_at", "_hosted", "_items", "_manager", "_next_number",
        "_numbers", "_quiet", "_results", "_scheduled", "_wait",
    )  # fmt: skip

    def __init__(self, manager: ReplicaManager, session: FetchSession) -> None:
        super().__init__(float("inf"))
        self._manager = manager
        self._numbers: dict[Key, int] = {}
        self._next_number = 0
        self._items: dict[int, FetchItem] = {}
        self._hosted: dict[int, HostedPartition] = {}
        # To be read before the next answer, in the order in which they changed.
        self._changed: dict[int, None] = {}
        # Read since the last answer, without records.
        self._results: dict[int, PartitionFetchResult] = {}
        self._wait: _Wait[Any] | None = None
        self._scheduled = False
        self._at_once = False
        self._quiet = False  # the last answer was empty
        self._full_round_at = manager.clock.monotonic() + FULL_ROUND_SECONDS
        for known in session.partitions.values():
            self.take(known.item)

    @property
    def waits_for_appends(self) -> bool:
        return True

    # -- what is watched

    def take(self, item: FetchItem) -> None:
        """A request names this partition: it is new, or its offset or epoch is."""
        key = (item.topic, item.topic_id, item.partition)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._next_number
            self._next_number += 1
        self._items[number] = item
        self._changed[number] = None

    def forget(self, key: Key) -> None:
        """The session leaves this partition out from now on."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self._unwatch(number)
            self._items.pop(number, None)
            self._changed.pop(number, None)
            self._results.pop(number, None)

    def _watch(self, number: int, item: FetchItem) -> HostedPartition | None:
        """Be told of changes by whatever hosts the partition now."""
        hosted = self._manager.find(item)
        if hosted is not self._hosted.get(number):
            self._unwatch(number)
            if hosted is not None:
                self._hosted[number] = hosted
                hosted.watchers[self] = number
        return hosted

    def _unwatch(self, number: int) -> None:
        hosted = self._hosted.pop(number, None)
        if hosted is not None:
            hosted.watchers.pop(self, None)

    def close(self) -> None:
        """Watch nothing any more; who waits gets an empty answer."""
        for number in list(self._hosted):
            self._unwatch(number)
        self._end_wait(([], []))

    # -- requests

    def request(self, plan: FetchPlan, respond: Callable[[Answered], T]) -> T | asyncio.Future[T]:
        """Read what is named or marked; wait where there is too little and no error."""
        self._end_wait(([], []))  # a session has one request at a time
        now = self._manager.clock.monotonic()
        if now >= self._full_round_at:
            self._full_round_at = now + FULL_ROUND_SECONDS
            self._changed |= dict.fromkeys(self._items)
        answered = self._attempt(plan, at_once=self._at_once or plan.max_wait_ms <= 0)
        if isinstance(answered, asyncio.Future):
            wait = _Wait(self, plan, now, respond)
            answered.add_done_callback(wait.on_read)
            return wait.future
        if answered is not None:
            return respond(answered)
        longest = plan.max_wait_ms / 1000
        if not self._quiet:
            longest = min(longest, NEWS_WAIT_SECONDS)
        wait = self._wait = _Wait(self, plan, last_beat(now, longest), respond)
        wait.future.add_done_callback(self._on_done)
        self._manager.purgatory.add(wait)
        return wait.future

    def signal(self, item: int, *, wake: bool, at_once: bool = False) -> None:
        self._changed[item] = None
        self._at_once |= at_once
        if wake and not self._scheduled and self._wait is not None:
            # After this turn of the loop: one answer then covers all that it brought.
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._try)

    def _try(self) -> None:
        self._scheduled = False
        if self._wait is not None:
            self._finish(self._wait, at_once=self._at_once)

    def expire(self, wait: _Wait[Any]) -> None:
        """The time of a request is up: answer what there is."""
        if wait is self._wait:
            self._finish(wait, at_once=True)

    def _finish(self, wait: _Wait[Any], *, at_once: bool) -> None:
        answered = self._attempt(wait.plan, at_once=at_once)
        if isinstance(answered, asyncio.Future):
            self._wait = None  # the devices answer it
            self._leave(wait)
            answered.add_done_callback(wait.on_read)
        elif answered is not None:
            self._end_wait(answered)

    def _attempt(
        self, plan: FetchPlan, *, at_once: bool
    ) -> Answered | asyncio.Future[Answered] | None:
        """The answer, if there is enough or the time is up."""
        reader = Reader(self._manager, plan)
        fresh: dict[int, PartitionFetchResult] = {}
        for number in list(self._changed):
            item = self._items.get(number)
            if item is None:
                continue
            self._watch(number, item)
            fresh[number] = reader.read(number, item)
        enough = reader.urgent or reader.pending or reader.size >= plan.min_bytes
        if not (at_once or enough or not self._items):
            if not reader.size:  # nothing is held: what was read need not be read again
                self._results |= fresh
                self._changed.clear()
            return None
        for number in fresh:  # before any wait for a device: marks that come meanwhile stay
            self._changed.pop(number, None)
        results = self._results | fresh
        self._results = {}
        self._at_once = False
        if reader.pending:
            return asyncio.ensure_future(self._read_devices(results, reader))
        return self._answer(results)

    async def _read_devices(
        self, results: dict[int, PartitionFetchResult], reader: Reader
    ) -> Answered:
        await collect(results, reader.pending)
        return self._answer(results)

    def _answer(self, results: dict[int, PartitionFetchResult]) -> Answered:
        """What was read, with its items; what stays marked has more to tell next time."""
        found = [(number, r) for number, r in results.items() if number in self._items]
        self._quiet = not found
        for number, result in found:
            if self._has_more(number, result):
                self._changed[number] = None  # behind those that wait already
        return [self._items[number] for number, _ in found], [result for _, result in found]

    def _has_more(self, number: int, result: PartitionFetchResult) -> bool:
        hosted = self._hosted.get(number)
        return (
            hosted is None
            or result.error is not ErrorCode.NONE
            or result.diverging is not None
            or self._items[number].fetch_offset < hosted.log.log_end_offset
            or hosted.core.has_follower_outside
        )

    # -- the end of a wait

    def _end_wait(self, answered: Answered) -> None:
        wait, self._wait = self._wait, None
        if wait is not None:
            self._leave(wait)
            wait.answer(answered)

    def _leave(self, wait: _Wait[Any]) -> None:
        if not wait.done:
            wait.done = True
            self._manager.purgatory.finished()

    def _on_done(self, future: asyncio.Future[T]) -> None:
        """Whoever asked may be gone before the data comes."""
        if future.cancelled() and self._wait is not None and self._wait.future is future:
            self._leave(self._wait)
            self._wait = None
