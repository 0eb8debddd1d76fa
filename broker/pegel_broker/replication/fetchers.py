"""Which replica fetcher follows which partition: one for each leader, and a paced one for moves.

A replica that a reassignment adds has to copy everything. It does so over a connection of its own,
so that no replica in sync waits behind its bulk, and at the pace of ``throttle``; once it has
joined the ISR it goes over to the ordinary fetcher.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pegel_broker.replication.fetcher import Paced, ReplicaFetcher
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.partition import Follower
from pegel_broker.replication.throttle import CatchUpPace, RateLimit

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

# Leader, and whether what is followed is behind by design.
_Key = tuple[int, bool]


class ReplicaFetchers:
    """All replica fetchers of one broker."""

    def __init__(self, manager: ReplicaManager) -> None:
        self.limit = RateLimit()  # follower.replication.throttled.rate
        self._paced = Paced(self.limit, asyncio.Lock(), CatchUpPace(), self._standing)
        self._manager = manager
        self._fetchers: dict[_Key, ReplicaFetcher] = {}
        self._closing: dict[asyncio.Task[None], None] = {}

    def follow(self, hosted: HostedPartition) -> None:
        """Follow the leader that ``hosted`` has now, at the pace that it is to have now."""
        assert isinstance(hosted.core.state, Follower)
        self.forget(hosted)
        key = (hosted.core.state.leader_id, hosted.paced)
        fetcher = self._fetchers.get(key)
        if fetcher is None:
            paced = self._paced if hosted.paced else None
            fetcher = self._fetchers[key] = ReplicaFetcher(self._manager, key[0], paced)
        fetcher.add(hosted)

    def forget(self, hosted: HostedPartition) -> None:
        for fetcher in self._fetchers.values():
            fetcher.remove(hosted)

    def on_stable(self, hosted: HostedPartition) -> None:
        """Everything appended to a follower's log may be claimed."""
        assert isinstance(hosted.core.state, Follower)
        fetcher = self._fetchers.get((hosted.core.state.leader_id, hosted.paced))
        if fetcher is not None:
            fetcher.on_stable(hosted)

    def _standing(self) -> tuple[int, int]:
        """Of all paced fetchers."""
        found = [f.standing() for (_, paced), f in self._fetchers.items() if paced]
        return sum(position for position, _ in found), sum(lag for _, lag in found)

    def close_idle(self) -> None:
        """End the connections over which nothing is followed any more."""
        for key in [key for key, fetcher in self._fetchers.items() if not len(fetcher)]:
            task = asyncio.ensure_future(self._fetchers.pop(key).close())
            self._closing[task] = None
            task.add_done_callback(lambda done: self._closing.pop(done, None))

    async def close(self) -> None:
        fetchers, self._fetchers = self._fetchers, {}
        for _, fetcher in sorted(fetchers.items()):
            await fetcher.close()
