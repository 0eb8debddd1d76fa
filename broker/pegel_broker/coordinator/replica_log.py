"""A hosted partition as the coordinators' log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.errors import LogError
from pegel_broker.log.results import ReadResult
from pegel_broker.replication import producing
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.manager import ReplicaManager
from pegel_broker.replication.partition import Leader


class ReplicaLog:
    """A ``CoordinatorLog``: valid while this broker leads the partition in ``epoch``."""

    def __init__(self, replicas: ReplicaManager, hosted: HostedPartition) -> None:
        state = hosted.core.state
        assert isinstance(state, Leader)
        self.hosted = hosted
        self.epoch = state.epoch
        self._replicas = replicas
        self._state = state

    @property
    def epoch_start_offset(self) -> int:
        return self._state.epoch_start_offset

    @property
    def is_current(self) -> bool:
        """Whether the leadership that it stands for goes on."""
        return self.hosted.core.state is self._state and self.hosted.log.offline is None

    @property
    def may_act(self) -> bool:
        return (
            self.is_current
            and not self._state.resigned
            and self._replicas.holds_lease(self._replicas.clock.monotonic())
        )

    @property
    def start_offset(self) -> int:
        return self.hosted.log.log_start_offset

    @property
    def high_watermark(self) -> int:
        return self.hosted.core.high_watermark

    def append(self, batch: bytearray) -> tuple[ErrorCode, int]:
        if not self.is_current:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER, -1
        return producing.append_for_all(self._replicas, self.hosted, memoryview(batch))

    async def read(self, offset: int, max_bytes: int) -> tuple[list[memoryview], int]:
        found = self.hosted.log.read(offset, max_bytes, limit_offset=self.high_watermark)
        result = await found if isinstance(found, asyncio.Future) else found
        assert isinstance(result, ReadResult)
        if not result.records and result.next_offset <= offset:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, f"nothing can be read at {offset}")
        return [memoryview(piece) for piece in result.records], result.next_offset

    def watch(self, on_high_watermark: Callable[[], None] | None) -> None:
        self.hosted.on_committed = on_high_watermark
