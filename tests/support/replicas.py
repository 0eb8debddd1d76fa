"""Brokers of one topic without a controller: the test is the controller, record by record.

Each broker is real (logs, replica manager, listener, fetchers over loopback) on a disk in memory.
Metadata reaches a broker when the test says so, which is how replicas are made to disagree.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import read_header
from pegel.record.decode import decode_batch
from pegel.record.encode import encode_batch
from pegel.seams import World
from pegel.seams.network import RealNetwork
from pegel_broker.coordinator.service import Coordinators
from pegel_broker.group.options import GroupOptions
from pegel_broker.handlers.context import Broker
from pegel_broker.log import LogManager, PartitionLog
from pegel_broker.network.listener import ClientListener
from pegel_broker.producer_ids import ProducerIds
from pegel_broker.replication.fetch_session import FetchSessionCache
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.manager import ReplicaManager, ReplicationOptions
from pegel_broker.replication.results import (
    FetchItem,
    FetchPlan,
    PartitionFetchResult,
    PartitionProduceResult,
)
from pegel_controller.metadata import MetadataDelta, MetadataImage, Record
from pegel_controller.metadata import records as r
from pegel_controller.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC
from pegel_controller.rpc import messages as m
from tests.support.disk_queue import LoopDiskQueues
from tests.support.memory_disk import MemoryDisk

TOPIC = "orders"
TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
WALL_MS = 1_700_000_000_000
WAIT_LIMIT = 20.0


class LoopClock:
    """The running loop's time; the wall clock stands still."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return WALL_MS


def batch(*values: bytes, producer: tuple[int, int, int] = (-1, -1, -1)) -> memoryview:
    """One record batch; ``producer`` is (id, epoch, first sequence)."""
    encoded = encode_batch(
        values, timestamps=WALL_MS, producer_id=producer[0], producer_epoch=producer[1],
        base_sequence=producer[2],
    )  # fmt: skip
    return memoryview(encoded)


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Let the loop run until ``condition``; the limit only bounds a test that fails."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not condition():
            await asyncio.sleep(0.001)
    assert condition(), what


async def turns(count: int = 50) -> None:
    """Turns of the loop with time for sockets, to see that something does *not* happen."""
    for _ in range(count):
        await asyncio.sleep(0.0005)


class NoController:
    """A broker's way to the controller that leads nowhere."""

    controller_id = -1

    async def call(self, *_: object, **__: object) -> m.ResignResponse:
        raise AssertionError("nothing here asks the controller")


@dataclass
class Member:
    """One broker. ``manager`` and what hangs on it are new after each restart."""

    node_id: int
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    queues: LoopDiskQueues = field(default_factory=LoopDiskQueues)
    image: MetadataImage = field(default_factory=MetadataImage)
    epoch: int = -1
    rack: str | None = None
    world: World = field(init=False)
    logs: LogManager = field(init=False)
    manager: ReplicaManager = field(init=False)
    listener: ClientListener = field(init=False)
    address: tuple[str, int] = field(init=False)

    def hosted(self, partition: int = 0) -> HostedPartition:
        hosted = self.manager.hosted(TOPIC, partition)
        assert hosted is not None
        return hosted

    @property
    def log(self) -> PartitionLog:
        return self.hosted().log

    @property
    def high_watermark(self) -> int:
        return self.hosted().core.high_watermark

    async def values(self, partition: int = 0) -> list[bytes]:
        """Every value in the log, acknowledged or not."""
        data = await self.content(partition)
        found: list[bytes] = []
        while data:
            size = read_header(data).size
            found += [bytes(v or b"") for v in decode_batch(data[:size]).values]
            data = data[size:]
        return found

    async def content(self, partition: int = 0) -> bytes:
        """The log's bytes."""
        log = self.hosted(partition).log
        offset, pieces = log.log_start_offset, []
        while offset < log.log_end_offset:
            found = log.read(offset, 1 << 20, limit_offset=log.log_end_offset, min_one=True)
            result = await found if isinstance(found, asyncio.Future) else found
            pieces += [bytes(piece) for piece in result.records]
            offset = result.next_offset
        return b"".join(pieces)


class Replicas:
    """``async with Replicas() as replicas``: brokers 1 … ``count`` that know nothing yet."""

    def __init__(
        self, count: int = 3, *, racks: Mapping[int, str] | None = None, lag_time_max: float = 30.0
    ) -> None:
        self.image = MetadataImage()
        self.members = {i: Member(i, rack=(racks or {}).get(i)) for i in range(1, count + 1)}
        self.asked: list[m.AlterPartitionItem] = []
        # What the controller does with a change of the ISR; by default it takes each.
        self.alter: Callable[[m.AlterPartitionItem], m.AlterPartitionResult | None] = self.accept
        self._lag_time_max = lag_time_max

    async def __aenter__(self) -> Replicas:
        records: list[Record] = [r.ClusterIdRecord("cluster-1")]
        for member in self.members.values():
            await self.start(member)
            records += self._registration(member)
        self.commit(records)
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members.values():
            await self.stop(member.node_id)

    def _registration(self, member: Member) -> list[Record]:
        node_id = member.node_id
        member.epoch = self.image.last_broker_epoch + 100 + node_id
        host, port = member.address
        return [
            r.BrokerRegisteredRecord(
                node_id, member.epoch, UUID(int=node_id), host, port, member.rack, "boot"
            ),
            r.BrokerUnfencedRecord(node_id, member.epoch),
        ]

    # -- a story that several begin with

    async def begin_to_cut(self) -> Member:
        """Replica 3 has a record of leader 2 that leader 1 lacks, and its disk hangs as it cuts it.

        Of three brokers, and a topic that is made here; ``queues.named("log-write").release()``
        lets the truncation go on.
        """
        self.create(1, 2, 3)
        self.tell()
        three = self.members[3]
        await self.produce(1, b"common")
        self.elect(2)
        self.tell(2, 3)
        await self.produce(2, b"not on 1", acks=1)
        await until(lambda: three.log.stable_offset == 2)
        three.queues.named("log-write").hold()
        self.elect(1)
        self.tell(1, 3)
        await until(lambda: three.log.truncation is not None)
        return three

    # -- processes

    async def start(self, member: Member) -> None:
        """A new process on the member's disk."""
        member.queues = LoopDiskQueues()
        member.image = MetadataImage()
        world = World(
            LoopClock(), RealNetwork(), member.disk, member.queues, random.Random(member.node_id)
        )
        member.world = world
        member.logs = LogManager(world, ["/data"])
        await member.logs.start("cluster-1", member.node_id)
        member.manager = ReplicaManager(
            world, member.node_id, member.logs, ReplicationOptions(lag_time_max=self._lag_time_max),
            self._alter_partition, lambda: member.epoch,
            lambda: None,
        )  # fmt: skip
        member.manager.on_lease(float("inf"))
        broker = Broker(
            world, member.node_id, member.image, member.manager, NoController(),
            FetchSessionCache(world.random), ProducerIds(_no_ids), {},
            Coordinators(world, member.manager, GroupOptions(), commit_timeout=5.0),
        )  # fmt: skip
        member.listener = ClientListener(world, broker, max_request_bytes=1 << 20)
        member.address = await member.listener.start("127.0.0.1", 0)
        member.listener.begin_serving()

    async def kill(self, node_id: int) -> None:
        """SIGKILL: what was queued for the disk is not written, what was written stays."""
        member = self.members[node_id]
        member.queues.drop()
        await member.listener.close()
        await member.manager.close()
        member.disk.locks.clear()

    async def restart(self, node_id: int) -> None:
        """After ``kill``: a new process and a new registration, committed but told to nobody."""
        member = self.members[node_id]
        await self.start(member)
        self.commit(self._registration(member))

    async def stop(self, node_id: int) -> None:
        member = self.members[node_id]
        await member.listener.close()
        await member.manager.close()
        if not any(queue.dropped for queue in member.queues.made):
            await member.logs.close()

    # -- the controller

    def commit(self, records: Iterable[Record]) -> None:
        self.image = self.image.apply(records, self.image.index + 1)

    def tell(self, *node_ids: int) -> None:
        """These brokers (all, if none is named) learn all that is committed."""
        for node_id in node_ids or tuple(self.members):
            member = self.members[node_id]
            delta = MetadataDelta.between(member.image, self.image)
            member.image = member.listener.broker.image = self.image
            member.manager.apply(delta, self.image)

    def create(
        self, *replicas: int, partitions: int = 1, topic_id: UUID = TOPIC_ID, **config: object
    ) -> None:
        """Commit the topic; the first replica leads. Config keys with underscores."""
        records: list[Record] = [r.TopicRecord(TOPIC, topic_id)]
        records += [
            r.PartitionRecord(topic_id, number, replicas, replicas, replicas[0])
            for number in range(partitions)
        ]
        records += [
            r.ConfigRecord(RESOURCE_TOPIC, TOPIC, key.replace("_", "."), str(value))
            for key, value in config.items()
        ]
        self.commit(records)

    def elect(
        self,
        leader: int,
        isr: tuple[int, ...] | None = None,
        *,
        elr: tuple[int, ...] = (),
        last_known: tuple[int, ...] = (),
    ) -> None:
        """Commit a new leader (-1 for none) in the next leader epoch."""
        topic = self.image.topics_by_name[TOPIC]
        old = topic.partitions[0]
        self.commit([
            r.PartitionChangeRecord(
                topic.topic_id, 0, old.isr if isr is None else isr, elr, last_known, leader,
                old.leader_epoch + 1, old.partition_epoch + 1,
            )
        ])  # fmt: skip

    def configure(self, *, of_the_topic: bool = True, **config: object) -> None:
        """Commit keys of the topic, or of all brokers."""
        kind, name = (RESOURCE_TOPIC, TOPIC) if of_the_topic else (RESOURCE_BROKER, "")
        self.commit(
            r.ConfigRecord(kind, name, key.replace("_", "."), str(value))
            for key, value in config.items()
        )

    @property
    def partition(self) -> r.PartitionChangeRecord:
        """What is committed, as the record that would say so."""
        topic = self.image.topics_by_name[TOPIC]
        p = topic.partitions[0]
        return r.PartitionChangeRecord(
            topic.topic_id, 0, p.isr, p.elr, p.last_known_elr, p.leader, p.leader_epoch,
            p.partition_epoch,
        )  # fmt: skip

    def accept(self, item: m.AlterPartitionItem) -> m.AlterPartitionResult:
        """The controller's compare-and-set: committed, and told by the answer alone."""
        now = self.partition
        isr = tuple(member.broker_id for member in item.new_isr)
        error = 0
        if item.leader_epoch != now.leader_epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        elif item.partition_epoch != now.partition_epoch:
            error = ErrorCode.INVALID_UPDATE_VERSION
        elif any(
            m_.broker_epoch not in {-1, self.members[m_.broker_id].epoch} for m_ in item.new_isr
        ):
            error = ErrorCode.INELIGIBLE_REPLICA
        if error:
            return m.AlterPartitionResult(item.topic_id, item.partition, error)
        changed = replace(now, isr=isr, elr=(), partition_epoch=now.partition_epoch + 1)
        self.commit([changed])
        return m.AlterPartitionResult(
            item.topic_id, item.partition, 0, now.leader, now.leader_epoch, isr,
            partition_epoch=changed.partition_epoch,
        )  # fmt: skip

    async def _alter_partition(self, request: m.AlterPartitionRequest) -> m.AlterPartitionResponse:
        results = []
        for item in request.partitions:
            self.asked.append(item)
            result = self.alter(item)
            if result is None:  # the answer is lost
                return await asyncio.get_running_loop().create_future()
            results.append(result)
        return m.AlterPartitionResponse(partitions=tuple(results))

    # -- requests

    def produce(
        self,
        node_id: int,
        *values: bytes,
        acks: int = -1,
        partition: int = 0,
        producer: tuple[int, int, int] = (-1, -1, -1),
        timeout_ms: int = 15_000,
    ) -> asyncio.Future[PartitionProduceResult]:
        """One batch; the future is done at once where nothing is to be waited for."""
        result = self.members[node_id].manager.produce(
            TOPIC, partition, batch(*values, producer=producer), acks, timeout_ms
        )
        done: asyncio.Future[PartitionProduceResult] = asyncio.get_running_loop().create_future()
        if isinstance(result, PartitionProduceResult):
            done.set_result(result)
        else:
            result.on_done = lambda r: None if done.done() else done.set_result(r)
        return done

    async def fetch(
        self,
        node_id: int,
        offset: int,
        *,
        replica_id: int = -1,
        max_wait_ms: int = 0,
        min_bytes: int = 1,
        current_leader_epoch: int = -1,
        last_fetched_epoch: int = -1,
        rack: str = "",
        allow_follower: bool = False,
        replica_epoch: int = -1,
    ) -> PartitionFetchResult:
        """Partition 0 from ``offset``."""
        plan = FetchPlan(
            [FetchItem(TOPIC, UUID(int=0), 0, offset, 1 << 20, current_leader_epoch,
                       last_fetched_epoch, 0)],
            max_wait_ms, min_bytes, 1 << 20, replica_id, replica_epoch, rack=rack,
            allow_follower=allow_follower,
        )  # fmt: skip
        found = self.members[node_id].manager.fetch(plan)
        return (await found if isinstance(found, asyncio.Future) else found)[0]

    async def until_identical(self, *node_ids: int) -> bytes:
        """Wait until these logs end at the same offset; they must then be the same bytes."""
        members = [self.members[i] for i in node_ids or tuple(self.members)]
        await until(
            lambda: (
                len({member.log.log_end_offset for member in members}) == 1
                and all(member.log.stable_offset == member.log.log_end_offset for member in members)
            ),
            "the logs do not get equally long",
        )
        contents = [await member.content() for member in members]
        assert all(content == contents[0] for content in contents)
        return contents[0]


async def _no_ids() -> tuple[int, int]:
    raise AssertionError("nobody asks for a producer id here")


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(main())
