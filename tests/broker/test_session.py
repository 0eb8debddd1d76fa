"""A broker's session with the controller: how it takes the metadata log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from uuid import UUID

from pegel.seams import World
from pegel.seams.network import RealNetwork
from pegel_broker.heartbeat import BrokerSession
from pegel_controller.metadata import MetadataImage, Record, encode_records
from pegel_controller.metadata import records as r
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from tests.support.disk_queue import LoopDiskQueues
from tests.support.memory_disk import MemoryDisk
from tests.support.replicas import LoopClock

INCARNATION = UUID(int=9)


class OneEntryAtATime:
    """A controller whose every response carries a single entry of its log."""

    def __init__(self, entries: Sequence[Sequence[Record]]) -> None:
        self.entries = [
            m.MetadataEntry(i, 1, encode_records(records)) for i, records in enumerate(entries, 1)
        ]
        self.applied: list[int] = []
        self.fetched: list[int] = []
        self.fetched_applied: list[int] = []

    async def call(
        self, method: str, request: Wire, timeout: float, *, retry_sent: bool = True
    ) -> Wire:
        await asyncio.sleep(0)
        match request:
            case m.RegisterBrokerRequest():
                return m.RegisterBrokerResponse(0, "", 7, "cluster")
            case m.HeartbeatRequest():
                self.applied.append(request.applied_index)
                return m.HeartbeatResponse(caught_up=request.applied_index >= len(self.entries))
            case m.MetadataFetchRequest():
                self.fetched.append(request.from_index)
                self.fetched_applied.append(request.applied_index)
                left = self.entries[request.from_index : request.from_index + 1]
                if not left:
                    await asyncio.get_running_loop().create_future()
                return m.MetadataFetchResponse(entries=tuple(left), commit_index=len(self.entries))
        raise AssertionError(method)

    def drop(self) -> None:
        raise AssertionError("this controller is fine")


def test_the_past_of_the_log_is_taken_as_a_whole() -> None:
    """In its midst a topic that is on disk does not exist yet; its files are no strays."""

    async def main() -> None:
        topic_id = UUID(int=1)
        controller = OneEntryAtATime(
            [
                [r.ClusterIdRecord("cluster")],
                [r.TopicRecord("t", topic_id)],
                [r.PartitionRecord(topic_id, 0, (1,), (1,), 1)],
                [r.BrokerRegisteredRecord(1, 7, INCARNATION, "h", 1, None, "")],
            ]
        )
        seen: list[MetadataImage] = []
        session = BrokerSession(
            World(LoopClock(), RealNetwork(), MemoryDisk(), LoopDiskQueues(), Random(1)),
            controller,  # type: ignore[arg-type]
            m.RegisterBrokerRequest(1, INCARNATION, "h", 1),
            0.01, lambda _delta, image: seen.append(image), lambda _until: None, lambda: None,
            lambda _partitions: (),
        )  # fmt: skip
        session.start()
        async with asyncio.timeout(20):
            await session.caught_up.wait()
        assert [image.index for image in seen] == [4], "nothing before all of it"
        assert seen[0].partition("t", 0) is not None
        assert set(controller.applied) <= {0, 4}, "what was not handed on is not applied"
        await session.close()

    asyncio.run(main())


def test_what_is_not_hosted_yet_is_not_applied() -> None:
    """Many new replicas come in slices: a create of topics is not answered before the last."""

    async def main() -> None:
        controller = OneEntryAtATime(
            [
                [r.ClusterIdRecord("cluster")],
                [r.BrokerRegisteredRecord(1, 7, INCARNATION, "h", 1, None, "")],
                [r.TopicRecord("t", UUID(int=1))],
            ]
        )
        arriving = True
        session = BrokerSession(
            World(LoopClock(), RealNetwork(), MemoryDisk(), LoopDiskQueues(), Random(1)),
            controller,  # type: ignore[arg-type]
            m.RegisterBrokerRequest(1, INCARNATION, "h", 1),
            60.0, lambda _delta, _image: None, lambda _until: None, lambda: None,
            lambda _partitions: (), arriving=lambda: arriving,
        )  # fmt: skip
        session.start()
        async with asyncio.timeout(20):
            while session.image.index < 3 or not controller.fetched or controller.fetched[-1] < 3:
                await asyncio.sleep(0)
            assert set(controller.applied) == {0}
            assert set(controller.fetched_applied) == {0}
            arriving = False
            session.wake()
            await session.caught_up.wait()
        assert controller.applied[-1] == 3
        await session.close()

    asyncio.run(main())
