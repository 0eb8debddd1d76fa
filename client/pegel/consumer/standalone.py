"""Offsets kept in a group by a consumer that is no member of it: it names its partitions itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from pegel.cluster import Cluster
from pegel.config import ConsumerOptions
from pegel.consumer.coordinator import Coordinator
from pegel.consumer.offsets import AutoCommit, by_hand, commit_offsets, fetch_offsets
from pegel.errors import PegelError
from pegel.types import CommittedOffset, TopicPartition

_log = logging.getLogger("pegel.consumer")


class StandaloneGroup:
    """What ``GroupSession`` does, without members, rebalances and heartbeats.

    A coordinator takes such commits only while the group has no members.
    """

    wants_rest = False
    failure: PegelError | None = None

    def __init__(
        self, cluster: Cluster, options: ConsumerOptions, fail: Callable[[Exception], None]
    ) -> None:
        assert options.group is not None
        self._cluster = cluster
        self._coordinator = Coordinator(cluster, options.group)
        self._auto = AutoCommit(self._start_commit, fail) if options.commit == "batch" else None

    def came_back(self) -> None: ...

    def went_away(self, *, busy: bool) -> None: ...

    async def ready(self) -> None: ...

    async def rest(self) -> None: ...

    def touch(self) -> None: ...

    def finished(self, tp: TopicPartition, committed: CommittedOffset) -> None:
        """Everything before ``committed`` has been worked on."""
        if self._auto is not None:
            self._auto.finished(tp, committed)

    async def commit(
        self, offsets: Mapping[TopicPartition, CommittedOffset], timeout: float
    ) -> None:
        """Raises CommitFailedError (the group has members), PegelError."""
        async with by_hand(self._auto, offsets, timeout) as left:
            await self._commit(offsets, left)

    async def _commit(
        self, offsets: Mapping[TopicPartition, CommittedOffset], timeout: float
    ) -> None:
        await commit_offsets(self._coordinator, offsets, None, timeout=timeout)

    async def committed(
        self, partitions: Sequence[TopicPartition], timeout: float
    ) -> dict[TopicPartition, CommittedOffset]:
        return await fetch_offsets(self._coordinator, partitions, timeout=timeout)

    def _start_commit(
        self, offsets: Mapping[TopicPartition, CommittedOffset]
    ) -> asyncio.Task[None]:
        work = self._commit(offsets, self._cluster.options.request_timeout)
        return asyncio.get_running_loop().create_task(work)

    async def close(self, timeout: float) -> None:
        if self._auto is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._auto.flush(timeout)
        except (TimeoutError, PegelError) as error:
            _log.warning("%s", error)
        finally:
            await self._auto.close()
