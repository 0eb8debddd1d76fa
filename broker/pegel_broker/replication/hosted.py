"""A partition as this broker hosts it: the pure core, its log, and who waits for either."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from uuid import UUID

from pegel.logs import Event
from pegel.protocol.errors import ErrorCode
from pegel_broker.log.partition_log import PartitionLog
from pegel_broker.metrics.stats import TopicStats
from pegel_broker.purgatory import Delayed, Purgatory
from pegel_broker.replication.partition import Follower, Idle, Leader, Partition
from pegel_broker.replication.results import PartitionProduceResult, TrimResult
from pegel_broker.replication.throttle import throttled_replicas
from pegel_controller.config import Value
from pegel_controller.metadata import PartitionState

_log = logging.getLogger("pegel.broker")

# For how long a consumer that was sent to a follower may stay there without asking the leader
# again: clients do when their metadata is this old (metadata.max.age.ms in Kafka's clients).
READ_ELSEWHERE_TIME = 300.0


class DelayedProduce(Delayed):
    """An appended batch whose acknowledgement waits until ``required_offset`` is reached.

    ``on_done`` is called once with the ``result``, in the turn of the event loop that decides it.
    """

    __slots__ = ("on_done", "required_offset", "result")
    kind = "produce"

    def __init__(
        self, deadline: float, required_offset: int, result: PartitionProduceResult
    ) -> None:
        super().__init__(deadline)
        self.required_offset = required_offset
        self.result = result
        self.on_done: Callable[[PartitionProduceResult], None] | None = None

    def complete(self, error: ErrorCode) -> None:
        self.done = True
        if error:
            self.result = PartitionProduceResult(error)
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            on_done(self.result)

    def on_timeout(self) -> None:
        # It is appended and may yet be replicated: the client must retry, not forget.
        self.complete(ErrorCode.REQUEST_TIMED_OUT)


class DelayedTrim(Delayed):
    """DeleteRecords: waits until no live replica keeps anything below ``offset``."""

    __slots__ = ("future", "low_watermark", "offset")
    kind = "delete_records"

    def __init__(self, deadline: float, offset: int, low_watermark: int) -> None:
        super().__init__(deadline)
        self.offset = offset
        self.low_watermark = low_watermark
        self.future: asyncio.Future[TrimResult] = asyncio.get_running_loop().create_future()

    def complete(self, error: ErrorCode) -> None:
        self.done = True
        if not self.future.done():
            self.future.set_result(TrimResult(error, -1 if error else self.low_watermark))

    def on_timeout(self) -> None:
        self.complete(ErrorCode.REQUEST_TIMED_OUT)


class FetchWaiter(Delayed):
    """A fetch that waits for data; ``signal`` names which of its items changed."""

    __slots__ = ()
    kind = "fetch"

    def signal(self, item: int, *, wake: bool, at_once: bool = False) -> None:
        """``at_once``: answer even if there are no records, for the high watermark is news."""
        raise NotImplementedError

    @property
    def waits_for_appends(self) -> bool:
        """A replica is woken by an append, a consumer by the high watermark."""
        raise NotImplementedError


class HostedPartition:
    """Everything this broker keeps for one replica. All on the event loop."""

    __slots__ = (
        "acks_all", "acks_leader", "adding", "caught_up", "core", "in_sync", "log",
        "min_insync_replicas",
        "on_committed", "purgatory", "read_elsewhere_until", "stats", "throttled_as_follower",
        "throttled_as_leader", "topic_id", "trims", "watchers",
    )  # fmt: skip

    def __init__(
        self,
        core: Partition,
        log: PartitionLog,
        topic_id: UUID,
        purgatory: Purgatory,
        stats: TopicStats,
    ) -> None:
        self.core = core
        self.log = log
        self.topic_id = topic_id
        self.purgatory = purgatory
        self.stats = stats
        self.min_insync_replicas = 1
        # Whether this replica is being added, and whether it is in the ISR, by the metadata.
        self.adding = False
        self.caught_up = False  # as a paced follower, with what its leader has committed
        self.in_sync = False
        self.throttled_as_leader = False
        self.throttled_as_follower = False
        # Waiting for the high watermark, and for the leader's own stable offset; in offset order.
        self.acks_all: deque[DelayedProduce] = deque()
        self.acks_leader: deque[DelayedProduce] = deque()
        # A coordinator that replays what is committed here.
        self.on_committed: Callable[[], None] | None = None
        # Waiting fetches, with the number of this partition among their items.
        self.watchers: dict[FetchWaiter, int] = {}
        # Waiting for every live replica to have deleted what lies below an offset.
        self.trims: list[DelayedTrim] = []
        # Consumers were sent to a follower: until then followers hear of a new high watermark at
        # once. Without such readers it costs one more fetch for each batch and is good for nothing.
        self.read_elsewhere_until = float("-inf")

    @property
    def key(self) -> tuple[str, int]:
        return self.core.topic, self.core.partition

    @property
    def name(self) -> str:
        """As in logs and on disk: topic-number."""
        return f"{self.core.topic}-{self.core.partition}"

    @property
    def paced(self) -> bool:
        """Whether this replica, as a follower, may be copied at a limited pace only."""
        return (
            (self.adding or self.throttled_as_follower) and not self.in_sync and not self.caught_up
        )

    def take_membership(self, node_id: int, state: PartitionState) -> None:
        """Take from the metadata whether this replica is being added, and whether it is in sync."""
        in_sync = node_id in state.isr
        if self.in_sync and not in_sync:
            self.caught_up = False  # it fell behind: what it lacks is held to the limits anew
        self.adding, self.in_sync = node_id in state.adding, in_sync

    def set_throttled(self, node_id: int, values: Mapping[str, Value]) -> None:
        """Take ``leader.`` and ``follower.replication.throttled.replicas`` (KIP-73)."""
        own = (self.core.partition, node_id)
        for side in ("leader", "follower"):
            entries = values[f"{side}.replication.throttled.replicas"]
            assert isinstance(entries, list)
            named = throttled_replicas(entries)
            setattr(self, f"throttled_as_{side}", named is None or own in named)

    @property
    def leader_hint(self) -> tuple[int, int]:
        """Leader id and epoch as this replica knows them; -1 where it does not."""
        state = self.core.state
        if isinstance(state, Leader):
            return self.core.node_id, state.epoch
        if isinstance(state, Follower):
            return state.leader_id, state.epoch
        assert isinstance(state, Idle)
        return -1, state.epoch

    def is_read_elsewhere(self) -> bool:
        """Whether consumers read from a follower of this partition (KIP-392)."""
        return asyncio.get_running_loop().time() < self.read_elsewhere_until

    def send_readers_elsewhere(self) -> None:
        """A consumer is told to read from a follower."""
        self.read_elsewhere_until = asyncio.get_running_loop().time() + READ_ELSEWHERE_TIME

    def wait_for_ack(self, operation: DelayedProduce, *, all_replicas: bool) -> None:
        (self.acks_all if all_replicas else self.acks_leader).append(operation)
        self.purgatory.add(operation)

    def on_appended(self) -> None:
        """The leader's log has grown: waiting replicas may read it before it is stable."""
        for waiter, item in list(self.watchers.items()):
            if waiter.waits_for_appends:
                waiter.signal(item, wake=True)

    def on_stable(self) -> None:
        """The leader's stable offset has grown: acks=1 is answered; the rest may follow."""
        _complete(self.acks_leader, self.log.stable_offset, ErrorCode.NONE, self.purgatory)
        self.advance()

    def on_truncated(self, before: int, *, restarted: bool) -> None:
        """The log, whose end was at ``before``, was cut to what an earlier leader has, or begins
        anew at what is its end now."""
        core, log = self.core, self.log
        if log.log_end_offset < before:
            _log.info(Event(
                "truncated", partition=self.name, epoch=core.state.epoch,
                offset=log.log_end_offset, before=before,
            ))  # fmt: skip
        core.on_truncated(log.log_end_offset, restarted=restarted)
        log.high_watermark = core.high_watermark
        if isinstance(core.state, Leader):  # elected meanwhile
            log.assign_epoch(core.state.epoch)
            self.advance()
            self.on_high_watermark()

    @property
    def is_being_cut(self) -> bool:
        """Whether this leader still cuts its log for an earlier one: not to be followed yet."""
        state = self.core.state
        return isinstance(state, Leader) and (
            self.log.truncation is not None or self.log.latest_epoch < state.epoch
        )

    def advance(self) -> None:
        """Move the high watermark as far as it may go, and wake who waits for it."""
        if self.log.truncation is not None:
            return
        if self.core.advance(self.log.stable_offset, self.min_insync_replicas):
            self.on_high_watermark()

    def on_high_watermark(self) -> None:
        """Tell the log, acknowledge acks=all, wake consumers."""
        high_watermark = self.core.high_watermark
        self.log.high_watermark = high_watermark
        if self.acks_all and self.acks_all[0].required_offset <= high_watermark:
            error = self.core.check_in_sync(self.min_insync_replicas)
            if error is ErrorCode.NOT_ENOUGH_REPLICAS:
                error = ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
            _complete(self.acks_all, high_watermark, error, self.purgatory)
        elsewhere = bool(self.watchers) and self.is_read_elsewhere()
        if self.on_committed is not None:
            self.on_committed()
        for waiter, item in list(self.watchers.items()):
            tell = elsewhere and waiter.waits_for_appends
            waiter.signal(item, wake=tell or not waiter.waits_for_appends, at_once=tell)

    def fail_waiting(self, error: ErrorCode) -> None:
        """Leadership ended, or the log failed: nobody who waits here will be served."""
        for waiting in (self.acks_all, self.acks_leader):
            while waiting:
                operation = waiting.popleft()
                if not operation.done:
                    operation.complete(error)
                    self.purgatory.finished()
        trims, self.trims = self.trims, []
        for trim in trims:
            if not trim.done:
                trim.complete(error)
                self.purgatory.finished()
        self.wake_readers()

    def wake_readers(self) -> None:
        """Whoever waits for data looks again: at a new leader, or at a new epoch."""
        for waiter, item in list(self.watchers.items()):
            waiter.signal(item, wake=True)

    # -- the low watermark

    def wait_for_trim(self, operation: DelayedTrim) -> None:
        self.trims = [t for t in self.trims if not t.done]
        self.trims.append(operation)
        self.purgatory.add(operation)

    def on_log_start(self) -> None:
        """The log start of the leader moved: followers are told at once, not with the next data."""
        for waiter, item in list(self.watchers.items()):
            if waiter.waits_for_appends:
                waiter.signal(item, wake=True, at_once=True)

    def on_low_watermark(self, low_watermark: int) -> None:
        """No live replica keeps anything below ``low_watermark``: answer who waits for that."""
        waiting, self.trims = self.trims, []
        for trim in waiting:
            if trim.done:
                continue
            trim.low_watermark = low_watermark
            if low_watermark >= trim.offset:
                trim.complete(ErrorCode.NONE)
                self.purgatory.finished()
            else:
                self.trims.append(trim)


def _complete(
    waiting: deque[DelayedProduce], reached: int, error: ErrorCode, purgatory: Purgatory
) -> None:
    while waiting and (waiting[0].done or waiting[0].required_offset <= reached):
        operation = waiting.popleft()
        if not operation.done:
            operation.complete(error)
            purgatory.finished()
