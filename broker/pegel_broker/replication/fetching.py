"""The fetch path: reading for consumers and followers, and waiting until there is enough."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.errors import LogError
from pegel_broker.log.results import ReadResult
from pegel_broker.replication.hosted import FetchWaiter, HostedPartition
from pegel_broker.replication.partition import Leader
from pegel_broker.replication.results import FetchItem, FetchPlan, PartitionFetchResult

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

Results = list[PartitionFetchResult]
# Results, with the reads that wait for a device by their number.
_Pending = dict[int, asyncio.Future[ReadResult]]
Numbered = TypeVar("Numbered", Results, dict[int, PartitionFetchResult])


def fetch(manager: ReplicaManager, plan: FetchPlan) -> Results | asyncio.Future[Results]:
    """Read every item; wait in the purgatory where there is too little and no error."""
    reader = Reader(manager, plan)
    results: Results = []
    for number, item in enumerate(plan.items):
        results.append(reader.read(number, item))
    if reader.pending:
        return _finish_reads(results, reader.pending)
    if reader.urgent or reader.size >= plan.min_bytes or plan.max_wait_ms <= 0 or not plan.items:
        return results
    return DelayedFetch(manager, plan, results).future


class Reader:
    """Reads items of one plan in order, within its ``max_bytes``."""

    def __init__(self, manager: ReplicaManager, plan: FetchPlan, size: int = 0) -> None:
        """``size``: bytes that the answer holds already."""
        self.manager = manager
        self.plan = plan
        self.size = size
        self.urgent = False  # an error or a divergence: no reason to wait
        self.pending: _Pending = {}

    def read(self, number: int, item: FetchItem) -> PartitionFetchResult:
        result = self._read(number, item)
        if result.error is ErrorCode.OFFSET_NOT_AVAILABLE:
            return result  # it will be: wait for it
        if result.error or result.diverging is not None or result.preferred_read_replica >= 0:
            self.urgent = True
        return result

    def _read(self, number: int, item: FetchItem) -> PartitionFetchResult:
        manager, plan = self.manager, self.plan
        hosted = manager.find(item)
        if hosted is None:
            return _not_found(manager, item)
        core, log = hosted.core, hosted.log
        follower = plan.replica_id >= 0
        if follower or not plan.allow_follower:
            error = core.check_leader(item.current_leader_epoch)
        else:
            error = core.check_replica(item.current_leader_epoch)
        if not error and log.offline is not None:
            # What it seems to hold is no answer: a follower would truncate to it.
            error = ErrorCode.KAFKA_STORAGE_ERROR
        elif not error and follower and hosted.is_being_cut:
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        if error:
            leader_id, leader_epoch = hosted.leader_hint
            return PartitionFetchResult(error, leader_id=leader_id, leader_epoch=leader_epoch)
        result = PartitionFetchResult(
            high_watermark=core.high_watermark,
            last_stable_offset=core.high_watermark,
            log_start_offset=log.log_start_offset,
        )
        if not isinstance(core.state, Leader) and item.fetch_offset > core.high_watermark:
            # This follower is behind what the consumer has seen, or has written itself: nothing
            # can be said of that offset before the high watermark has come so far (KIP-392).
            result.error = ErrorCode.OFFSET_NOT_AVAILABLE
            return result
        try:
            if item.last_fetched_epoch >= 0:
                result.diverging = _divergence(hosted, item)
                if result.diverging is not None:
                    return result
            if not follower and plan.rack and isinstance(core.state, Leader):
                result.preferred_read_replica = manager.preferred_replica(hosted, plan.rack, item)
                if result.preferred_read_replica >= 0:
                    hosted.send_readers_elsewhere()
                    return result
            limit = log.log_end_offset if follower else core.high_watermark
            room = min(item.max_bytes, plan.max_bytes - self.size)
            throttled = follower and self._throttled(hosted)
            if throttled and manager.leader_limit.wait(manager.clock.monotonic()) > 0:
                manager.on_follower_fetch(hosted, plan, item)
                return result
            min_one = self.size == 0
            read = (
                log.read(item.fetch_offset, max(room, 0), limit_offset=limit, min_one=min_one)
                if room > 0 or min_one
                else ReadResult([], 0, item.fetch_offset, item.fetch_offset)
            )
        except LogError as refused:
            result.error = refused.code
            return result
        if follower:
            before = core.high_watermark
            manager.on_follower_fetch(hosted, plan, item)
            if core.high_watermark > before and hosted.is_read_elsewhere():
                self.urgent = True  # this follower's readers wait for it
            result.high_watermark = result.last_stable_offset = core.high_watermark
        if throttled:
            size = room if isinstance(read, asyncio.Future) else read.size
            manager.leader_limit.take(manager.clock.monotonic(), size)
        if isinstance(read, asyncio.Future):
            self.pending[number] = read
            self.size += max(room, 1)  # what it may bring: the next items get the rest
        else:
            result.records, result.size = read.records, read.size
            self.size += read.size
        return result

    def _throttled(self, hosted: HostedPartition) -> bool:
        """Whether this fetch of a replica is held to the leader's limit (KIP-73)."""
        state = hosted.core.state
        return (
            hosted.throttled_as_leader
            and self.manager.leader_limit.limited
            and isinstance(state, Leader)
            and self.plan.replica_id not in state.isr
        )


def _not_found(manager: ReplicaManager, item: FetchItem) -> PartitionFetchResult:
    """Why this broker does not hold it, and who leads (KIP-951)."""
    name = item.topic
    if not name:
        topic = manager.image.topics_by_id.get(item.topic_id)
        if topic is None:
            return PartitionFetchResult(ErrorCode.UNKNOWN_TOPIC_ID)
        name = topic.name
    state = manager.image.partition(name, item.partition)
    if state is None:
        return PartitionFetchResult(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    return PartitionFetchResult(
        ErrorCode.NOT_LEADER_OR_FOLLOWER, leader_id=state.leader, leader_epoch=state.leader_epoch
    )


def _divergence(hosted: HostedPartition, item: FetchItem) -> tuple[int, int] | None:
    """Where the fetcher's log parts from ours: the answer that it truncates to (KIP-595).

    Raises:
        LogError: OFFSET_OUT_OF_RANGE where no common epoch is known here.
    """
    epoch, end_offset = hosted.log.end_offset_for_epoch(item.last_fetched_epoch)
    if epoch < 0 or end_offset < 0:
        raise LogError(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"the end of epoch {item.last_fetched_epoch} is not known here",
        )
    if epoch < item.last_fetched_epoch or end_offset < item.fetch_offset:
        return epoch, end_offset
    return None


async def collect(results: Numbered, pending: _Pending) -> Numbered:
    """Fill in what the devices bring, by number."""
    for number, read in pending.items():
        try:
            found = await read
        except LogError as refused:
            results[number].error = refused.code
        else:
            results[number].records, results[number].size = found.records, found.size
    return results


def _finish_reads(results: Results, pending: _Pending) -> asyncio.Future[Results]:
    """The results once the devices have answered."""
    return asyncio.ensure_future(collect(results, pending))


class DelayedFetch(FetchWaiter):
    """A fetch in the purgatory. Woken items are read again; the others keep their results."""

    __slots__ = (
        "_at_once", "_changed", "_hosted", "_kept_bytes", "_manager", "_plan", "_results",
        "_scheduled", "future",
    )  # fmt: skip

    def __init__(self, manager: ReplicaManager, plan: FetchPlan, results: Results) -> None:
        super().__init__(manager.clock.monotonic() + plan.max_wait_ms / 1000)
        self._manager = manager
        self._plan = plan
        self._results = results
        self._changed: set[int] = set()
        # Of the items that need not be read again; they count for min_bytes and max_bytes.
        self._kept_bytes = sum(result.size for result in results)
        self._scheduled = False
        self._at_once = False
        self._hosted: list[HostedPartition] = []
        self.future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        # Whoever asked may be gone before the data comes: then nobody is to be woken.
        self.future.add_done_callback(lambda _: self._leave())
        for number, item in enumerate(plan.items):
            hosted = manager.find(item)
            if hosted is not None:
                hosted.watchers[self] = number
                self._hosted.append(hosted)
        manager.purgatory.add(self)

    @property
    def waits_for_appends(self) -> bool:
        return self._plan.replica_id >= 0

    def signal(self, item: int, *, wake: bool, at_once: bool = False) -> None:
        if item not in self._changed:
            self._changed.add(item)
            self._kept_bytes -= self._results[item].size
        self._at_once |= at_once
        if wake and not self._scheduled and not self.done:
            # After this turn of the loop: one answer then covers all that it brought.
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._try)

    def _try(self) -> None:
        self._scheduled = False
        if not self.done:
            self._finish(at_once=self._at_once)

    def on_timeout(self) -> None:
        self._finish(at_once=True)

    def _finish(self, *, at_once: bool) -> None:
        """Read what changed; answer if that is enough, or if the time is up."""
        if self.future.done():
            return
        reader = Reader(self._manager, self._plan, self._kept_bytes)
        fresh = {
            number: reader.read(number, self._plan.items[number])
            for number in sorted(self._changed)
        }
        if not (at_once or reader.urgent or reader.pending or reader.size >= self._plan.min_bytes):
            return
        was_done, self.done = self.done, True
        if not was_done:
            self._manager.purgatory.finished()
        for number, result in fresh.items():
            self._results[number] = result
        if reader.pending:
            _finish_reads(self._results, reader.pending).add_done_callback(self._collected)
        else:
            self.future.set_result(self._results)

    def _collected(self, done: asyncio.Future[Results]) -> None:
        if not self.future.done() and not done.cancelled():
            self.future.set_result(done.result())

    def _leave(self) -> None:
        if not self.done:
            self.done = True
            self._manager.purgatory.finished()
        for hosted in self._hosted:
            hosted.watchers.pop(self, None)
