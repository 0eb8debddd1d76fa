"""Three controllers on loopback sockets and real files, and the channel of a broker."""

from __future__ import annotations

import asyncio
import random
import socket
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel.seams.clock import RealClock
from pegel.seams.disk import RealDisk, ThreadDiskQueue
from pegel.seams.network import RealNetwork
from pegel_controller.metadata import MetadataImage, decode_records
from pegel_controller.metadata.wire import Wire
from pegel_controller.node import ControllerNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel, ControllerUnavailableError
from pegel_controller.rpc.framing import RpcConnection, RpcRefusedError
from pegel_controller.rpc.hello import ROLE_BROKER, HelloRequest, open_rpc

CREATE = m.CreateTopicsRequest((m.CreatableTopic("t", 2, 1),), timeout_ms=5_000)


def _world(seed: int) -> World:
    return World(RealClock(), RealNetwork(), RealDisk(), ThreadDiskQueue, random.Random(seed))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll the loop; the limit only bounds a failing test."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)
    assert condition(), what


class FakeBroker:
    """Registers, sends heartbeats and follows the metadata, as a broker does."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster, self.node_id = cluster, node_id
        self.world = _world(100 + node_id)
        self.image = MetadataImage()
        self.epoch = -1
        self.fenced = True
        self.channel = ControllerChannel(
            self.world, node_id, cluster.voters, lambda: self.image.cluster_id
        )
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        class Quiet(asyncio.Protocol):
            pass

        self.listener = await self.world.network.listen(Quiet, "127.0.0.1", 0)
        self.channel.start()
        host, port = self.listener.address
        request = m.RegisterBrokerRequest(
            self.node_id, uuid.UUID(int=self.world.random.getrandbits(128)), host, port,
            boot_id="boot",
        )  # fmt: skip
        response = await self.channel.call("register_broker", request, 10)
        assert isinstance(response, m.RegisterBrokerResponse)
        assert response.error == 0, response.message
        self.epoch = response.broker_epoch
        self.tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._beat())]

    async def _follow(self) -> None:
        while True:
            request = m.MetadataFetchRequest(
                self.node_id, self.image.index, applied_index=self.image.index
            )
            response = await self.channel.call("metadata_fetch", request, 40)
            assert isinstance(response, m.MetadataFetchResponse)
            assert response.snapshot is None
            for entry in response.entries:
                self.image = self.image.apply(decode_records(entry.data), entry.index)

    async def _beat(self) -> None:
        while True:
            request = m.HeartbeatRequest(self.node_id, self.epoch, self.image.index)
            response = await self.channel.call("heartbeat", request, 10)
            assert isinstance(response, m.HeartbeatResponse)
            assert response.error == 0
            self.fenced = response.fenced
            await asyncio.sleep(0.02 if self.fenced else 0.1)

    async def die(self) -> None:
        """As SIGKILL does: the listener and the connections go at once."""
        for task in self.tasks:
            task.cancel()
        self.listener.close()
        await asyncio.sleep(0)
        await self.channel.close()


class Cluster:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.voters = {i: ("127.0.0.1", port) for i, port in enumerate(_free_ports(3), 1)}
        self.nodes: dict[int, ControllerNode] = {}
        # Slow elections show that nothing below waits for an election timeout.
        self.options = RaftOptions(election_timeout_min=8, election_timeout_max=12)
        self.brokers: dict[int, FakeBroker] = {}

    async def start(self, node_id: int) -> ControllerNode:
        node = ControllerNode(
            _world(node_id), node_id, str(self.path / str(node_id)), self.voters,
            raft_options=self.options,
        )  # fmt: skip
        self.nodes[node_id] = node
        await node.start()
        return node

    async def broker(self, node_id: int) -> FakeBroker:
        broker = self.brokers[node_id] = FakeBroker(self, node_id)
        await broker.start()
        await until(lambda: not broker.fenced, "the broker is unfenced")
        return broker

    async def active(self) -> ControllerNode:
        def found() -> bool:
            return any(n.active and n.image.cluster_id for n in self.nodes.values())

        await until(found, "a controller is active")
        return next(n for n in self.nodes.values() if n.active)

    async def kill(self, node_id: int) -> None:
        """End a controller without its goodbye."""
        node = self.nodes.pop(node_id)
        node._closed = True
        await node.raft.close()
        await node.links.close()
        await node._server.close()


def run(path: Path, test: Callable[[Cluster], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = Cluster(path)
        try:
            for node_id in (1, 2, 3):
                await cluster.start(node_id)
            await test(cluster)
        finally:
            for broker in cluster.brokers.values():
                await broker.die()
            for node in cluster.nodes.values():
                await node.close()

    asyncio.run(main())


def test_a_created_topic_is_answered_when_every_live_broker_has_it(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        brokers = [await cluster.broker(i) for i in (1, 2)]
        response = await brokers[0].channel.call("create_topics", CREATE, 10)
        assert isinstance(response, m.CreateTopicsResponse)
        assert response.topics[0].error == 0
        for broker in brokers:
            assert "t" in broker.image.topics_by_name
        again = await brokers[1].channel.call("create_topics", CREATE, 10)
        assert isinstance(again, m.CreateTopicsResponse)
        assert again.topics[0].error == ErrorCode.TOPIC_ALREADY_EXISTS
        for node in cluster.nodes.values():
            await until(lambda n=node: "t" in n.image.topics_by_name, "replicated")  # type: ignore[misc]

    run(tmp_path, test)


def test_a_dead_active_controller_is_replaced_and_brokers_follow(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        broker = await cluster.broker(7)
        old = await cluster.active()
        await broker.channel.call("create_topics", CREATE, 10)
        await cluster.kill(old.node_id)
        new = await cluster.active()
        assert "t" in new.image.topics_by_name
        more = m.CreateTopicsRequest((m.CreatableTopic("u", 1, 1),))
        response = await broker.channel.call("create_topics", more, 10)
        assert isinstance(response, m.CreateTopicsResponse)
        assert "u" in broker.image.topics_by_name
        assert broker.channel.controller_id == new.node_id

    run(tmp_path, test)


def test_a_controller_that_loses_its_lead_does_not_say_that_it_did_nothing(
    tmp_path: Path,
) -> None:
    """What it has proposed may be committed yet: a create must not be sent to the next one."""

    async def test(cluster: Cluster) -> None:
        broker = await cluster.broker(7)
        old = await cluster.active()
        asked: list[str] = []
        for node in cluster.nodes.values():
            _listen_in(node, asked)
        for node_id in [i for i in cluster.nodes if i != old.node_id]:
            await cluster.kill(node_id)
        proposed = old.raft.status().last_index
        call = asyncio.create_task(
            broker.channel.call("create_topics", CREATE, 20, retry_sent=False)
        )
        await until(lambda: old.raft.status().last_index > proposed, "proposed")
        assert old.raft.status().commit_index <= proposed
        for broker_task in broker.tasks:
            broker_task.cancel()
        old.on_leader_change(None, old.raft.status().term + 1, False)  # a later term is heard of
        with pytest.raises(ControllerUnavailableError, match="broke during create_topics"):
            await call
        # It is in the log, and others can commit it yet: told that nothing was done, the broker
        # would ask for it a second time.
        assert asked.count("create_topics") == 1

    run(tmp_path, test)


def test_a_controller_behind_its_broker_sends_it_back_only_if_it_leads(tmp_path: Path) -> None:
    """Seed 301216: one that was held up, and did not know of the next yet, took a broker back."""

    async def test(cluster: Cluster) -> None:
        old = await cluster.active()
        await until(lambda: old.raft.status().commit_index == old.feed.index, "all is applied")
        ahead = m.MetadataFetchRequest(7, old.feed.index + 5)
        others = [i for i in cluster.nodes if i != old.node_id]
        for node_id in others:
            await cluster.kill(node_id)
        asked = asyncio.create_task(old.requests.dispatch(ahead))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asked.done(), "nobody has confirmed that it leads"
        for node_id in others:
            await cluster.start(node_id)
        answer = await asked  # it does lead: the log has lost its end
        assert isinstance(answer, m.MetadataFetchResponse)
        assert answer.snapshot is not None
        assert answer.snapshot_index == old.feed.index

        for node_id in others:
            await cluster.kill(node_id)
        asked = asyncio.create_task(old.requests.dispatch(ahead))
        for _ in range(20):
            await asyncio.sleep(0)
        await cluster.kill(old.node_id)
        with pytest.raises(RpcRefusedError) as caught:
            await asked
        assert caught.value.code == ErrorCode.NOT_CONTROLLER

    run(tmp_path, test)


def _listen_in(node: ControllerNode, asked: list[str]) -> None:
    serve = node.serve

    async def note(connection: RpcConnection, method: str, request: Wire) -> Wire:
        asked.append(method)
        return await serve(connection, method, request)

    node.serve = note  # type: ignore[method-assign]


def test_a_dead_broker_is_fenced_without_waiting_for_its_session(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        dead, alive = await cluster.broker(1), await cluster.broker(2)
        started = asyncio.get_running_loop().time()
        await dead.die()
        await until(lambda: alive.image.brokers[1].fenced, "fenced")
        # The session is 2 s; the machine would have to stall for one to reach this.
        assert asyncio.get_running_loop().time() - started < 1.0
        active = await cluster.active()
        assert active.image.brokers[1].fenced
        assert not active.image.brokers[2].fenced

    run(tmp_path, test)


def test_a_broker_that_died_with_the_active_controller_is_fenced_by_the_next(
    tmp_path: Path,
) -> None:
    async def test(cluster: Cluster) -> None:
        dead, alive = await cluster.broker(1), await cluster.broker(2)
        old = await cluster.active()
        await dead.die()
        await cluster.kill(old.node_id)
        await until(lambda: alive.image.brokers[1].fenced, "fenced")
        assert not alive.image.brokers[2].fenced

    run(tmp_path, test)


def test_restarted_controllers_know_everything(tmp_path: Path) -> None:
    async def first(cluster: Cluster) -> None:
        broker = await cluster.broker(1)
        await broker.channel.call("create_topics", CREATE, 10)
        ids.append(broker.image.cluster_id)

    async def second(cluster: Cluster) -> None:
        active = await cluster.active()
        assert "t" in active.image.topics_by_name
        assert active.image.cluster_id == ids[0]

    ids: list[str] = []
    run(tmp_path, first)
    run(tmp_path, second)


def test_a_node_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        stranger = HelloRequest(9, ROLE_BROKER, "another-cluster")
        links = active.links
        with pytest.raises(RpcRefusedError, match="belongs to cluster another-cluster") as caught:
            await open_rpc(_world(5).network, links, cluster.voters[active.node_id], stranger, 5)
        assert caught.value.code == ErrorCode.INCONSISTENT_CLUSTER_ID

    run(tmp_path, test)


@pytest.mark.parametrize(
    "nonsense",
    [b"\x00\x00\x00\x05hello", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01\x90", b"GET / HTTP/1.1\r\n"],
)
def test_nonsense_costs_one_connection_only(tmp_path: Path, nonsense: bytes) -> None:
    async def test(cluster: Cluster) -> None:
        broker = await cluster.broker(1)
        active = await cluster.active()
        counted = active.listener_counters
        before = counted.accepted, counted.closed, counted.received_bytes
        reader, writer = await asyncio.open_connection(*cluster.voters[active.node_id])
        writer.write(nonsense)
        writer.write_eof()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        assert counted.accepted == before[0] + 1
        await until(lambda: counted.closed == before[1] + 1, "its end is counted")
        assert counted.received_bytes >= before[2] + len(nonsense)
        assert counted.protocol_errors == 1
        assert counted.sent_bytes > 0  # to the broker and to the other controllers
        response = await broker.channel.call("create_topics", CREATE, 10)
        assert isinstance(response, m.CreateTopicsResponse)

    run(tmp_path, test)
