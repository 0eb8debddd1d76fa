"""What is fuzzed: the listeners of a real node, and our client's connection to a hostile broker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Mapping
from typing import ClassVar, Protocol

from pegel.errors import PegelError
from pegel.network.connection import Connection
from pegel.protocol.codec import encode_request
from pegel.protocol.errors import ProtocolError
from pegel.protocol.messages import REQUESTS
from pegel.protocol.messages.api_versions import ApiVersionsRequest
from pegel.protocol.messages.sasl_authenticate import SaslAuthenticateRequest
from pegel.protocol.messages.sasl_handshake import SaslHandshakeRequest
from pegel.record.batch import CorruptBatchError
from pegel.record.decode import decode_batch
from pegel.seams import World
from pegel.seams.clock import RealClock
from pegel_broker.config import NodeConfig
from pegel_broker.node import Node
from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.messages import decode as decode_raft
from tests.fuzz import frames
from tests.fuzz.transport import MemoryTransport, TappedNetwork
from tests.support.disk_queue import LoopDiskQueues
from tests.support.memory_disk import MemoryDisk
from tests.support.node import NO_ID, NodeUnderTest, free_port

REQUEST = frames.framed
STEPS_MAX = 200


class Target(Protocol):
    """One life of something that takes frames. ``r`` draws everything that is sent."""

    async def start(self, r: random.Random) -> None: ...

    async def connect(self) -> None:
        """Begin a connection (the one before is over)."""
        ...

    def draw(self) -> bytes:
        """The next hostile bytes."""
        ...

    def feed(self, data: bytes) -> None: ...

    @property
    def closed(self) -> bool: ...

    async def check(self) -> None:
        """Raises AssertionError where the target does not serve others any more."""
        ...

    async def stop(self) -> None: ...


class _NodeTarget:
    """A node of one on a disk in memory."""

    settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self.network = TappedNetwork()
        self.transport: MemoryTransport | None = None

    async def start(self, r: random.Random) -> None:
        self.r = r
        self.disk = MemoryDisk()
        self.disk.write_file("/users", b"alice:secret")
        world = World(RealClock(), self.network, self.disk, LoopDiskQueues(), random.Random(1))
        config = NodeConfig(
            node_id=1, data_dir="/node", controllers={1: ("127.0.0.1", free_port())},
            listen=("127.0.0.1", 0), http=("127.0.0.1", 0), settings=self.settings,
        )  # fmt: skip
        self.node = Node(world, config)
        await self.node.start()
        await asyncio.wait_for(self.node.ready.wait(), 20)

    @property
    def closed(self) -> bool:
        return self.transport is None or self.transport.closing

    def feed(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.feed(data)

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()
            self.transport = None

    async def check(self) -> None:
        """The node answers somebody else."""
        assert self.node.addresses.client is not None
        other = self.network.connect_to(self.node.addresses.client[1], keep=True)
        other.feed(b"".join(encode_request(ApiVersionsRequest(), 0, 7, "other")))
        await _until(lambda: len(other.last) > 10, "another client is answered")
        assert struct.unpack_from(">ih", other.last, 4) == (7, 0)
        other.close()
        await asyncio.sleep(0)
        assert not self.node.failed.done(), self.node.failed

    async def stop(self) -> None:
        self.hang_up()
        await asyncio.wait_for(self.node.stop(), 30)


class BrokerTarget(_NodeTarget):
    """The client listener, before and after the handshake."""

    async def start(self, r: random.Random, *, partitions: int = 2) -> None:
        await super().start(r)
        under_test = NodeUnderTest(self.node, self.disk)
        await under_test.create(frames.TOPIC, partitions=partitions)
        await under_test.close()
        self.valid = frames.kafka_requests(r, under_test.topic_id(frames.TOPIC))

    async def connect(self) -> None:
        self.hang_up()
        assert self.node.addresses.client is not None
        self.transport = self.network.connect_to(self.node.addresses.client[1])
        if self.r.random() < 0.5:
            self.feed(b"".join(encode_request(ApiVersionsRequest(), 3, 1, "fuzz")))

    def draw(self) -> bytes:
        return frames.hostile_frame(self.r, self.valid)


class LoginTarget(_NodeTarget):
    """A client listener that asks who is there: nobody who is drawn here comes in."""

    settings: ClassVar[Mapping[str, str]] = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "sasl.bootstrap.users.file": "/users",
        "connection.failed.authentication.delay.ms": "0",
    }

    async def start(self, r: random.Random) -> None:
        await super().start(r)
        self.valid = frames.kafka_requests(r, NO_ID)
        self.tokens = frames.sasl_tokens(r)
        self.raw = False

    async def connect(self) -> None:
        self.hang_up()
        assert self.node.addresses.client is not None
        self.transport = self.network.connect_to(self.node.addresses.client[1])
        mechanism = self.r.choice(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "PEGEL-BROKER", ""))
        version = self.r.randrange(2)
        self.raw = bool(mechanism) and version == 0
        if mechanism:
            request = SaslHandshakeRequest(mechanism=mechanism)
            self.feed(b"".join(encode_request(request, version, 1, "fuzz")))

    def draw(self) -> bytes:
        if self.r.random() < 0.3:
            return frames.hostile_frame(self.r, self.valid)
        token = frames.mutate(self.r, self.r.choice(self.tokens))
        if self.raw:
            return frames.framed(token)
        request = SaslAuthenticateRequest(auth_bytes=token)
        return b"".join(encode_request(request, self.r.randrange(3), 2, "fuzz"))

    async def check(self) -> None:
        await super().check()
        assert self.node.listener is not None
        door = self.node.listener.door
        assert door is not None
        assert door.counters.failed > 0
        assert door.counters.successful == 0, "somebody came in"


class ControllerTarget(_NodeTarget):
    """The controller listener, before the greeting and as a broker or a controller."""

    async def start(self, r: random.Random) -> None:
        await super().start(r)
        self.valid = frames.rpc_requests(r)
        self.pushes = frames.raft_pushes(r)
        self.greeted = ""

    async def connect(self) -> None:
        greeting = self.r.choice(("", "broker", "controller"))
        self.begin(greeting, 1 if greeting == "controller" else self.r.choice((2, 3, -1, 2**40)))

    def begin(self, greeting: str, node_id: int) -> None:
        """A connection that is greeted on as that role; "" sends no greeting."""
        self.hang_up()
        assert self.node.addresses.controller is not None
        self.transport = self.network.connect_to(self.node.addresses.controller[1])
        self.greeted = greeting
        if greeting:
            self.feed(frames.hello(greeting, node_id))

    def draw(self) -> bytes:
        r = self.r
        if r.random() < 0.1:
            return frames.framed(frames.hostile_msgpack(r))
        if self.greeted == "controller" and r.random() < 0.3:
            return frames.framed(_still_old(r, r.choice(self.pushes)))
        return frames.hostile_frame(r, self.valid)


def _still_old(r: random.Random, push: bytes) -> bytes:
    """A push with something wrong, but no well-formed message of a term to come.

    A peer that speaks Raft and lies can take a quorum's place; Raft does not tolerate that.
    """
    for _ in range(10):
        body = frames.mutate(r, push)
        at = body.find(b"raft")
        try:
            message = decode_raft(body[at + 8 :]) if at >= 0 else None
        except RaftError:
            return body
        if message is None or message.term == 0:
            return body
    return push


class HttpTarget(_NodeTarget):
    """The http listener."""

    async def connect(self) -> None:
        self.hang_up()
        assert self.node.addresses.http is not None
        self.transport = self.network.connect_to(self.node.addresses.http[1])

    def draw(self) -> bytes:
        return frames.http_request(self.r)


class ClientTarget:
    """Our client's connection, answered by a broker that lies; and the records that it sends."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.futures: list[asyncio.Future[object]] = []

    async def start(self, r: random.Random) -> None:
        self.r = r
        self.responses = frames.kafka_responses(r)
        self.known = {(key, version) for key, version, _ in self.responses}
        self.batches = frames.batches(r)
        await self.connect()

    async def connect(self) -> None:
        if self.connection is not None:
            self.connection.close()
        for future in self.futures:
            if future.done() and not future.cancelled():
                future.exception()  # seen; ``check`` looks at those of the newest connection
        self.connection = Connection("broker", 9092, "fuzz", 16 << 20)
        self.transport = MemoryTransport(self.connection._wire)
        self.connection._wire.connection_made(self.transport)
        self.futures = []

    @property
    def closed(self) -> bool:
        return self.transport.closing

    def draw(self) -> bytes:
        r = self.r
        if r.random() < 0.2:
            return b"B" + frames.mutate(r, r.choice(self.batches))
        key, version, frame = r.choice(self.responses)
        body = frames.mutate(r, frame[4:]) if r.random() < 0.9 else frame[4:]
        return struct.pack(">chh", b"R", key, version) + body

    def feed(self, data: bytes) -> None:
        if data[:1] == b"B":
            with contextlib.suppress(CorruptBatchError):
                decode_batch(data[1:])
            return
        assert self.connection is not None
        _, key, version = struct.unpack_from(">chh", data)
        request = REQUESTS[key]()  # type: ignore[index]
        try:
            future = self.connection.send(request, version)
        except ProtocolError:
            return  # not sendable with its defaults in that version
        self.futures.append(future)  # type: ignore[arg-type]
        number = self.connection._correlation_id
        if self.r.random() < 0.02:
            number += 1
        body = struct.pack(">i", number) + data[5:]
        self.transport.feed(frames.framed(body))

    async def check(self) -> None:
        """Every request has its answer or its error once the connection is closed."""
        if self.connection is not None:
            self.connection.close()
        await asyncio.sleep(0)
        for future in self.futures:
            assert future.done(), "a request that is never answered"
            if not future.cancelled() and (error := future.exception()) is not None:
                assert isinstance(error, PegelError | ProtocolError), error
        await self.connect()

    async def stop(self) -> None:
        if self.connection is not None:
            self.connection.close()


async def _until(condition: object, what: str) -> None:
    for _ in range(STEPS_MAX):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)
    assert condition(), what  # type: ignore[operator]


TARGETS = {
    "broker": BrokerTarget,
    "controller": ControllerTarget,
    "login": LoginTarget,
    "http": HttpTarget,
    "client": ClientTarget,
}
