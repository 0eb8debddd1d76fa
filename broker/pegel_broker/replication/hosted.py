"""A partition as this broker hosts it: the pure core, its log, and who waits for either."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.partition_log import PartitionLog
from pegel_broker.purgatory import Delayed, Purgatory
from pegel_broker.replication.partition import Follower, Idle, Leader, Partition
from pegel_broker.replication.results import PartitionProduceResult


class DelayedProduce(Delayed):
    """An appended batch whose acknowledgement waits until ``required_offset`` is reached."""

    __slots__ = ("future", "required_offset", "result")

    def __init__(
        self, deadline: float, required_offset: int, result: PartitionProduceResult
    ) -> None:
        super().__init__(deadline)
        self.required_offset = required_offset
        self.result = result
        self.future: asyncio.Future[PartitionProduceResult] = (
            asyncio.get_running_loop().create_future()
        )

    def complete(self, error: ErrorCode) -> None:
        self.done = True
        if not self.future.done():
            if error:
                self.result = PartitionProduceResult(error)
            self.future.set_result(self.result)

    def on_timeout(self) -> None:
        # It is appended and may yet be replicated: the client must retry, not forget.
        self.complete(ErrorCode.REQUEST_TIMED_OUT)


class FetchWaiter(Delayed):
    """A fetch that waits for data; ``signal`` names which of its items changed."""

    __slots__ = ()

    def signal(self, item: int, *, wake: bool) -> None:
        raise NotImplementedError

    @property
    def waits_for_appends(self) -> bool:
        """A replica is woken by an append, a consumer by the high watermark."""
        raise NotImplementedError


class HostedPartition:
    """Everything this broker keeps for one replica. All on the event loop."""

    __slots__ = (
        "acks_all", "acks_leader", "core", "log", "min_insync_replicas", "purgatory", "topic_id",
        "watchers",
    )  # fmt: skip

    def __init__(
        self, core: Partition, log: PartitionLog, topic_id: UUID, purgatory: Purgatory
    ) -> None:
        self.core = core
        self.log = log
        self.topic_id = topic_id
        self.purgatory = purgatory
        self.min_insync_replicas = 1
        # Waiting for the high watermark, and for the leader's own stable offset; in offset order.
        self.acks_all: deque[DelayedProduce] = deque()
        self.acks_leader: deque[DelayedProduce] = deque()
        # Waiting fetches, with the number of this partition among their items.
        self.watchers: dict[FetchWaiter, int] = {}

    @property
    def key(self) -> tuple[str, int]:
        return self.core.topic, self.core.partition

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

    def advance(self) -> None:
        """Move the high watermark as far as it may go, and wake who waits for it."""
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
        for waiter, item in list(self.watchers.items()):
            waiter.signal(item, wake=not waiter.waits_for_appends)

    def fail_waiting(self, error: ErrorCode) -> None:
        """Leadership ended, or the log failed: nobody who waits here will be served."""
        for waiting in (self.acks_all, self.acks_leader):
            while waiting:
                operation = waiting.popleft()
                if not operation.done:
                    operation.complete(error)
                    self.purgatory.finished()
        for waiter, item in list(self.watchers.items()):
            waiter.signal(item, wake=True)


def _complete(
    waiting: deque[DelayedProduce], reached: int, error: ErrorCode, purgatory: Purgatory
) -> None:
    while waiting and (waiting[0].done or waiting[0].required_offset <= reached):
        operation = waiting.popleft()
        if not operation.done:
            operation.complete(error)
            purgatory.finished()
