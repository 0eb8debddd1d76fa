"""A node of one, in this process: real sockets on loopback, its disk in memory.

``RawClient`` speaks to it frame by frame, in any version and in any disorder.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

from pegel.protocol.codec import decode_response, encode_request
from pegel.protocol.messages import RESPONSES
from pegel.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from pegel.protocol.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)
from pegel.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from pegel.protocol.schema import Message
from pegel.record.encode import encode_batch
from pegel.seams import World
from pegel.seams.clock import RealClock
from pegel.seams.network import RealNetwork
from pegel_broker.config import NodeConfig
from pegel_broker.node import Node
from tests.support.disk_queue import LoopDiskQueues
from tests.support.memory_disk import MemoryDisk

M = TypeVar("M", bound=Message)
TIMEOUT = 20.0
NO_ID = UUID(int=0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RawClient:
    """One connection. Not for use by two tasks at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._correlation_id = 0

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send(self, message: Message, version: int) -> int:
        """Write a request; its correlation id."""
        self._correlation_id += 1
        frame = encode_request(message, version, self._correlation_id, "raw")
        await self.write(b"".join(frame))
        return self._correlation_id

    async def frame(self) -> memoryview:
        """The next frame. Raises asyncio.IncompleteReadError once the node has closed."""
        async with asyncio.timeout(TIMEOUT):
            (size,) = struct.unpack(">i", await self._reader.readexactly(4))
            return memoryview(await self._reader.readexactly(size))

    async def receive(self, kind: type[M], version: int) -> tuple[int, M]:
        """The next response: correlation id and message."""
        frame = await self.frame()
        return struct.unpack_from(">i", frame)[0], decode_response(kind, version, frame)

    async def ask(self, message: Message, version: int, kind: type[M]) -> M:
        """Send and receive."""
        assert RESPONSES[message.api_key] is kind
        sent = await self.send(message, version)
        answered, response = await self.receive(kind, version)
        assert answered == sent
        return response

    async def is_closed(self) -> bool:
        """Wait for the node's end of the connection: True without another byte."""
        async with asyncio.timeout(TIMEOUT):
            try:
                return await self._reader.read(1) == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        self._writer.close()


class NodeUnderTest:
    """A serving node, and what tests ask of it."""

    def __init__(self, node: Node, disk: MemoryDisk) -> None:
        self.node = node
        self.disk = disk
        self._clients: list[RawClient] = []

    async def connect(self) -> RawClient:
        assert self.node.addresses.client is not None
        client = RawClient(*await asyncio.open_connection(*self.node.addresses.client))
        self._clients.append(client)
        return client

    def topic_id(self, topic: str) -> UUID:
        assert self.node.broker is not None
        return self.node.broker.image.topics_by_name[topic].topic_id

    async def create(self, topic: str, partitions: int = 1, **config: object) -> None:
        client = await self.connect()
        settings = [
            CreatableTopicConfig(name=k.replace("_", "."), value=str(v)) for k, v in config.items()
        ]
        request = CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name=topic, num_partitions=partitions, replication_factor=1, configs=settings
                )
            ],
            timeout_ms=10_000,
        )
        response = await client.ask(request, 7, CreateTopicsResponse)
        assert response.topics[0].error_code == 0, response.topics[0].error_message
        client.close()

    async def close(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def running_node(**settings: object) -> AsyncIterator[NodeUnderTest]:
    """``running_node(auto_create_topics_enable=False)`` and so on: Kafka's keys, underscores.

    ``users`` ("alice:secret"): clients have to log in.
    """
    disk, queues = MemoryDisk(), LoopDiskQueues()
    users = settings.pop("users", None)
    if users is not None:
        disk.write_file("/users", str(users).encode())
        settings.setdefault("sasl_enabled_mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512")
        settings["sasl_bootstrap_users_file"] = "/users"
    world = World(RealClock(), RealNetwork(), disk, queues, random.Random(1))
    config = NodeConfig(
        node_id=1,
        data_dir="/node",
        controllers={1: ("127.0.0.1", free_port())},
        listen=("127.0.0.1", 0),
        settings={k.replace("_", "."): _text(v) for k, v in settings.items()},
    )
    node = Node(world, config)
    await node.start()
    ready = asyncio.ensure_future(node.ready.wait())
    await asyncio.wait({ready, node.failed}, timeout=TIMEOUT, return_when="FIRST_COMPLETED")  # type: ignore[type-var]
    if not ready.done():
        ready.cancel()
        await node.stop(controlled=False)
        raise node.failed.result() if node.failed.done() else TimeoutError
    under_test = NodeUnderTest(node, disk)
    try:
        yield under_test
    finally:
        await under_test.close()
        await node.stop(controlled=False)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def run(main: Callable[[NodeUnderTest], Coroutine[None, None, None]], **settings: object) -> None:
    """Run a test against a node of its own."""

    async def body() -> None:
        async with running_node(**settings) as node:
            await main(node)

    asyncio.run(body())


# -- requests of one partition


def records(
    *values: bytes | None,
    keys: Sequence[bytes | None] | None = None,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> bytearray:
    return encode_batch(
        values, keys=keys, timestamps=1_700_000_000_000, producer_id=producer[0],
        producer_epoch=producer[1], base_sequence=producer[2],
    )  # fmt: skip


def produce_request(
    topic: str, data: bytes | bytearray | None, *, acks: int = -1, partition: int = 0,
    topic_id: UUID = NO_ID,
) -> ProduceRequest:  # fmt: skip
    part = PartitionProduceData(index=partition, records=None if data is None else memoryview(data))
    return ProduceRequest(
        acks=acks, timeout_ms=10_000,
        topic_data=[TopicProduceData(name=topic, topic_id=topic_id, partition_data=[part])],
    )  # fmt: skip


async def produce(
    client: RawClient,
    topic: str,
    data: bytes | bytearray | None,
    *,
    version: int = 12,
    acks: int = -1,
    partition: int = 0,
) -> PartitionProduceResponse:
    response = await client.ask(
        produce_request(topic, data, acks=acks, partition=partition), version, ProduceResponse
    )
    return response.responses[0].partition_responses[0]


def fetch_request(
    topic: str,
    *offsets: int,
    topic_id: UUID = NO_ID,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
    partition_max_bytes: int = 1 << 20,
    current_leader_epoch: int = -1,
    session: tuple[int, int] = (0, -1),
) -> FetchRequest:
    """Partition n of the topic from the n-th offset."""
    partitions = [
        FetchPartition(
            partition=n, fetch_offset=offset, partition_max_bytes=partition_max_bytes,
            current_leader_epoch=current_leader_epoch,
        )
        for n, offset in enumerate(offsets)
    ]  # fmt: skip
    topics = [FetchTopic(topic=topic, topic_id=topic_id, partitions=partitions)]
    return FetchRequest(
        replica_id=-1, max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=max_bytes,
        session_id=session[0], session_epoch=session[1], topics=topics if offsets else [],
    )  # fmt: skip


async def fetch(client: RawClient, request: FetchRequest, version: int = 12) -> list[PartitionData]:
    """The partitions of the response, in its order."""
    response = await client.ask(request, version, FetchResponse)
    assert response.error_code == 0
    return [p for topic in response.responses for p in topic.partitions]


def size_of(data: PartitionData) -> int:
    assert data.records is not None, "empty records are of length 0, never null"
    return len(data.records)  # type: ignore[arg-type]
