"""Keeps the in-sync replicas right: asks the controller, one request at a time (AlterPartition)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pegel.logs import Event
from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.partition import Leader
from pegel_controller.rpc.framing import RpcError
from pegel_controller.rpc.messages import (
    AlterPartitionItem,
    AlterPartitionRequest,
    AlterPartitionResponse,
    AlterPartitionResult,
    IsrMember,
)

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

_log = logging.getLogger("pegel.broker")

RETRY_DELAY = 0.050
# After an error that no controller and no network is to blame for.
FAILURE_DELAY = 1.0
# Errors that say: this was certainly not done, and metadata that says why need not come.
_DEFINITE = {ErrorCode.INELIGIBLE_REPLICA, ErrorCode.INVALID_REQUEST}

T = TypeVar("T")
Alter = Callable[[AlterPartitionRequest], Awaitable[AlterPartitionResponse]]


class IsrSync:
    """Proposes ISR changes of the partitions that this broker leads.

    An unforeseen error is logged and costs a pause, and one partition its turn: whoever is proposed
    counts as in sync until it is certain that he is not, so a proposal that is asked again, or
    that nobody hears of, is safe. Without this task no ISR would change for as long as the node
    lives, and acks=all would wait for a follower that is gone.
    """

    def __init__(self, manager: ReplicaManager, alter: Alter) -> None:
        self._manager = manager
        self._alter = alter
        self._considered: dict[HostedPartition, None] = {}
        self._wake = asyncio.Event()
        # Partitions with a follower that is behind: no others are ever looked at.
        self._lagging: dict[HostedPartition, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False  # something, in this round
        self._task = asyncio.create_task(self._run(), name="isr-sync")

    def consider(self, hosted: HostedPartition) -> None:
        """Its ISR may have to change."""
        self._considered[hosted] = None
        self._wake.set()

    def watch_lag(self, hosted: HostedPartition) -> None:
        """Have a follower that does not catch up in time removed."""
        if hosted not in self._lagging:
            self._lagging[hosted] = None
            if self._timer is None:
                interval = self._manager.options.lag_time_max / 2
                self._timer = asyncio.get_running_loop().call_later(interval, self._check_lag)

    def on_broker_eligible(self, broker_id: int) -> None:
        """A broker is back: it may join where its fetches already have caught up."""
        for hosted in self._manager.all_hosted():
            state = hosted.core.state
            if isinstance(state, Leader) and broker_id in state.followers:
                self.consider(hosted)

    def forget(self, hosted: HostedPartition) -> None:
        self._considered.pop(hosted, None)
        self._lagging.pop(hosted, None)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _check_lag(self) -> None:
        self._timer = None
        lagging, self._lagging = self._lagging, {}
        lag_max = self._manager.options.lag_time_max
        for hosted in lagging:
            end = hosted.log.log_end_offset
            if hosted.core.next_lag_deadline(end, lag_max) is not None:
                self.consider(hosted)
                self.watch_lag(hosted)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            considered, self._considered = self._considered, {}
            self._failed = False
            items = [i for h in considered if (i := self._guard(h, self._propose)) is not None]
            while items:
                request = AlterPartitionRequest(
                    self._manager.node_id,
                    self._manager.broker_epoch(),
                    tuple(item for _, item in items),
                )
                try:
                    response = await self._alter(request)
                except RpcError as error:
                    _log.info("the controller does not take ISR changes: %s", error)
                    response = None
                except Exception:
                    _log.exception("asking for ISR changes failed")
                    response = None
                    await asyncio.sleep(FAILURE_DELAY)
                if response is not None and not response.error:
                    break
                # It may or may not have been done: ask the same again; it is a compare-and-set.
                await asyncio.sleep(RETRY_DELAY)
                items = [(h, item) for h, item in items if _still_proposed(h, item)]
            if items:
                assert response is not None
                by_key = {(h.topic_id, h.core.partition): h for h, _ in items}
                for result in response.partitions:
                    hosted = by_key.get((result.topic_id, result.partition))
                    if hosted is not None:
                        self._guard(hosted, partial(self._take, result=result))
            if self._failed:
                await asyncio.sleep(FAILURE_DELAY)

    def _guard(self, hosted: HostedPartition, step: Callable[[HostedPartition], T]) -> T | None:
        """One step of one partition; its error is not the others'."""
        try:
            return step(hosted)
        except Exception:
            self._failed = True
            _log.exception("the ISR of %s cannot be kept right", hosted.name)
            return None

    def _propose(
        self, hosted: HostedPartition
    ) -> tuple[HostedPartition, AlterPartitionItem] | None:
        manager, core = self._manager, hosted.core
        if manager.hosted(*hosted.key) is not hosted:
            return None
        now, end = manager.clock.monotonic(), hosted.log.log_end_offset
        wanted = core.wanted_isr(now, end, manager.options.lag_time_max)
        if wanted is None:
            return None
        state = core.state
        assert isinstance(state, Leader)
        if len(wanted) < len(state.isr):
            manager.stats.isr_shrinks += 1
        else:
            manager.stats.isr_expands += 1
        detail = core.lag_of(now, end, wanted)
        _log.info(Event(
            "isr_asked", partition=hosted.name, epoch=state.epoch, isr=list(wanted),
            before=list(state.isr), detail=detail,
        ))  # fmt: skip
        members = tuple(IsrMember(broker, epoch) for broker, epoch in core.propose(wanted))
        return hosted, AlterPartitionItem(
            hosted.topic_id, core.partition, state.epoch, state.partition_epoch, members,
            detail=detail,
        )  # fmt: skip

    def _take(self, hosted: HostedPartition, result: AlterPartitionResult) -> None:
        core = hosted.core
        if not result.error:
            now = self._manager.clock.monotonic()
            core.on_isr_accepted(now, result.leader_epoch, result.partition_epoch, result.isr)
            hosted.advance()
            self.consider(hosted)
            return
        _log.info(Event(
            "isr_refused", partition=hosted.name, epoch=core.state.epoch,
            error=ErrorCode(result.error).name,
        ))  # fmt: skip
        core.on_isr_refused(core.state.epoch, definite=result.error in _DEFINITE)


def _still_proposed(hosted: HostedPartition, item: AlterPartitionItem) -> bool:
    state = hosted.core.state
    return (
        isinstance(state, Leader)
        and state.proposed is not None
        and state.epoch == item.leader_epoch
        and state.partition_epoch == item.partition_epoch
    )
