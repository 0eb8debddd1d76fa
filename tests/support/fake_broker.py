"""Scriptable brokers in this process, over loopback, for tests of the client.

They keep real logs with real sequence checks, so a test can let things go wrong and then look at
what was written. ``script`` queues faults for the next requests of an API.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any

from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.codec import decode_request, encode_response, read_request_header
from pegel.protocol.errors import ErrorCode
from pegel.protocol.framing import FrameProtocol
from pegel.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse
from pegel.protocol.messages.metadata import MetadataResponse
from pegel.protocol.schema import Message
from pegel.seams.network import Listener, RealNetwork
from tests.support.fake_apis import HANDLERS
from tests.support.fake_group import FakeGroup
from tests.support.fake_partition import FakePartition

# An empty fetch is answered after this wait, instead of the long one that a client asks for.
_EMPTY_FETCH_WAIT = 0.01


class Fault(Enum):
    """What happens to one request instead of an answer."""

    DROP = "the connection closes, nothing is done"
    DROP_AFTER = "it is done, then the connection closes"
    SILENCE = "nothing is done, no answer comes"
    SILENCE_AFTER = "it is done, no answer comes"


Script = Fault | ErrorCode | Message | Callable[["FakeBroker", Message, int], Message | None]


@dataclass
class FakeTopic:
    topic_id: uuid.UUID
    partitions: list[FakePartition]


class FakeCluster:
    """Brokers 1 … n and their topics; use it with ``async with``.

    Attributes:
        log: every request as (node id, message), in the order of arrival.
        versions: highest version of an API to be advertised; 0 keys are left out if None.
    """

    def __init__(self, brokers: int = 1) -> None:
        self.brokers = {n: FakeBroker(self, n) for n in range(1, brokers + 1)}
        self.topics: dict[str, FakeTopic] = {}
        self.configs: dict[str, dict[str, str | None]] = defaultdict(dict)
        self.log: list[tuple[int, Message]] = []
        self.versions: dict[int, int] = {}
        self.controller_id = 1
        self.coordinator_id = 1
        self.groups: dict[str, FakeGroup] = {}
        self.next_member = 0
        self.next_producer_id = 1000
        self._scripts: dict[ApiKey, deque[Script]] = defaultdict(deque)

    async def __aenter__(self) -> FakeCluster:
        for broker in self.brokers.values():
            await broker.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for broker in self.brokers.values():
            broker.stop()
        for group in self.groups.values():
            group.stop()

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{b.port}" for b in self.brokers.values())

    def add_topic(self, name: str, partitions: int = 1) -> FakeTopic:
        nodes = sorted(self.brokers)
        logs = [FakePartition(leader=nodes[i % len(nodes)]) for i in range(partitions)]
        topic = self.topics[name] = FakeTopic(uuid.uuid4(), logs)
        return topic

    def group(self, name: str) -> FakeGroup:
        """The group, made on first use."""
        return self.groups.setdefault(name, FakeGroup(name))

    def topic_by(self, name: str, topic_id: uuid.UUID) -> tuple[str, FakeTopic | None]:
        """By name, or by id where a request has no name."""
        if name:
            return name, self.topics.get(name)
        for known, topic in self.topics.items():
            if topic.topic_id == topic_id:
                return known, topic
        return "", None

    def script(self, api: ApiKey, *faults: Script) -> None:
        """Let the next requests of ``api`` meet these, in this order."""
        self._scripts[api].extend(faults)

    def next_script(self, api: ApiKey) -> Script | None:
        return self._scripts[api].popleft() if self._scripts[api] else None

    def move(self, name: str, partition: int, leader: int) -> None:
        """Another broker leads from now on."""
        state = self.topics[name].partitions[partition]
        state.leader = leader
        state.leader_epoch += 1

    def requests(self, kind: type[Message]) -> list[Message]:
        return [message for _, message in self.log if isinstance(message, kind)]


class FakeBroker:
    """One listener; ``hung`` keeps it from answering anything."""

    def __init__(self, cluster: FakeCluster, node_id: int) -> None:
        self.cluster, self.node_id = cluster, node_id
        self.port = 0
        self.hung = False
        self.connections: dict[_Connection, None] = {}
        self._listener: Listener | None = None

    async def start(self) -> None:
        """Listen, on the port that it had before if there was one."""
        self._listener = await RealNetwork().listen(
            lambda: _Connection(self), "127.0.0.1", self.port
        )
        self.port = self._listener.address[1]

    def stop(self) -> None:
        """As if killed."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self.connections):
            connection.abort()

    @property
    def alive(self) -> bool:
        return self._listener is not None

    def answer(self, message: Message, version: int) -> Any:
        """What a broker that works answers, now or later (a future); ``None``: nothing."""
        return HANDLERS[ApiKey(message.api_key)](self.cluster, self.node_id, message, version)


class _Connection(FrameProtocol):
    def __init__(self, broker: FakeBroker) -> None:
        super().__init__()
        self._broker = broker

    def on_connected(self) -> None:
        self._broker.connections[self] = None

    def on_disconnected(self, exc: Exception | None) -> None:
        self._broker.connections.pop(self, None)

    def on_frame(self, frame: memoryview) -> None:
        broker, cluster = self._broker, self._broker.cluster
        if broker.hung:
            return
        header = read_request_header(frame)
        api, version = ApiKey(header.api_key), header.api_version
        script = cluster.next_script(api)
        if api is ApiKey.API_VERSIONS and script is None:
            self._answer_versions(version, header.correlation_id)
            return
        message = decode_request(header, frame)
        cluster.log.append((broker.node_id, message))
        if script is Fault.DROP:
            self.abort()
            return
        if script is Fault.SILENCE:
            return
        response: Message | asyncio.Future[Message] | None
        if isinstance(script, Message):
            response = script
        elif isinstance(script, ErrorCode):
            response = HANDLERS[api](cluster, broker.node_id, message, version, error=script)
        elif callable(script) and not isinstance(script, Fault):
            response = script(broker, message, version)
        else:
            response = broker.answer(message, version)
        if script is Fault.DROP_AFTER:
            self.abort()
        elif isinstance(response, asyncio.Future):  # a group's member waits for the others
            response.add_done_callback(
                lambda done: self._respond(api, done.result(), version, header.correlation_id)
            )
        elif response is not None and script is not Fault.SILENCE_AFTER:
            self._respond(api, response, version, header.correlation_id)

    def _respond(self, api: ApiKey, response: Message, version: int, correlation_id: int) -> None:
        buffers = encode_response(response, version, correlation_id)
        if api is ApiKey.FETCH and sum(map(len, buffers)) < 200:
            asyncio.get_running_loop().call_later(_EMPTY_FETCH_WAIT, self.write, buffers)
        else:
            self.write(buffers)

    def _answer_versions(self, version: int, correlation_id: int) -> None:
        cluster = self._broker.cluster
        keys = [
            ApiVersion(
                api_key=key,
                min_version=APIS[key].min_version,
                max_version=cluster.versions.get(key, APIS[key].max_version),
            )
            for key in sorted({*HANDLERS, ApiKey.API_VERSIONS})
        ]
        highest = cluster.versions.get(ApiKey.API_VERSIONS, APIS[ApiKey.API_VERSIONS].max_version)
        error = 0
        if version > highest:
            version, error = 0, ErrorCode.UNSUPPORTED_VERSION
        response = ApiVersionsResponse(error_code=error, api_keys=keys)
        self.write(encode_response(response, version, correlation_id))


def stale_metadata(broker: FakeBroker, message: Message, version: int) -> Message | None:
    """An answer with all leader epochs one behind, as of a broker that has not heard the news."""
    response = broker.answer(message, version)
    assert isinstance(response, MetadataResponse)
    for topic in response.topics:
        for partition in topic.partitions:
            partition.leader_epoch -= 1
            partition.leader_id = 1
    return response
