"""A controller process part: Raft, the pure controller, and the RPC listener, tied together.

Requests become records through the pure ``Controller``; records are proposed to Raft as one entry;
only a committed entry is replayed, and only then does the response leave.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from random import Random

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_controller.control.controller import Controller, NotActiveError
from pegel_controller.control.options import ControllerOptions, ControllerResult
from pegel_controller.events import log_events
from pegel_controller.metadata import (
    MetadataImage,
    decode_records,
    decode_snapshot,
    encode_records,
    encode_snapshot,
)
from pegel_controller.metadata.wire import Wire
from pegel_controller.metadata_feed import MetadataFeed
from pegel_controller.probe import process_is_gone
from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.interfaces import RaftStatus
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.runner import RaftRunner
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcConnection, RpcRefusedError
from pegel_controller.rpc.hello import ROLE_BROKER, ROLE_CONTROLLER, HelloRequest, HelloResponse
from pegel_controller.rpc.links import RaftLinks
from pegel_controller.rpc.server import RpcServer
from pegel_controller.spreading import Spreading

_log = logging.getLogger("pegel.controller")

MAX_METADATA_WAIT = 30.0
MAX_TOPIC_WAIT = 60.0
HAND_OVER_TIMEOUT = 0.300
# A new active controller gives live brokers this long to connect before it probes them.
TAKEOVER_PROBE_DELAY = 0.030


class ControllerNode:
    """One controller.

    ``voters`` are the controllers' addresses by node id, this one's included. ``cluster_id`` is
    what the data directory says; empty on the very first start, when the first leader makes one.
    """

    def __init__(
        self,
        world: World,
        node_id: int,
        directory: str,
        voters: Mapping[int, tuple[str, int]],
        *,
        cluster_id: str = "",
        raft_options: RaftOptions | None = None,
        options: ControllerOptions | None = None,
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> None:
        if node_id not in voters:
            raise ValueError(f"controller {node_id} is not among the controllers {sorted(voters)}")
        self.node_id = node_id
        self.controller = Controller(Random(world.random.getrandbits(64)), options)
        self.feed = MetadataFeed()
        self._world = world
        self._voters = dict(voters)
        self._wanted_cluster_id = cluster_id
        self._server = RpcServer(world, self)
        self._links = RaftLinks(
            world, node_id, voters, self._cluster_id, self._on_link, self._on_peer_refused
        )
        self.raft = RaftRunner(
            world, node_id, directory, voters, self._links, raft_options or RaftOptions(), self,
            on_fatal,
        )  # fmt: skip
        # Requests whose entry is proposed, by its index: what to answer once it is applied.
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._last_proposed = 0
        self._spreading = Spreading()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")  # uvloop's handles do not all tell
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.leader_known = asyncio.Event()  # some controller leads, or has led

    # -- life

    async def start(self) -> None:
        """Recover, listen, take part.

        Raises:
            OSError: the listener's address is in use.
            RaftError: the metadata log is damaged.
        """
        await self._server.start(*self._voters[self.node_id])
        await self.raft.start()
        self._links.start()

    async def close(self) -> None:
        """Hand leadership over if there is somebody, then stop; safe to call twice."""
        if self._closed:
            return
        if self.raft.is_leader and len(self._voters) > 1:
            try:
                async with asyncio.timeout(HAND_OVER_TIMEOUT):
                    await self.raft.transfer_leadership()
            except (RaftError, TimeoutError) as error:
                _log.info("leadership was not handed over: %s", error)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Raft first: a refused connection tells the others that this leader is gone for good.
        await self.raft.close()
        await self._links.close()
        await self._server.close()

    @property
    def image(self) -> MetadataImage:
        """The committed metadata."""
        return self.controller.committed

    @property
    def active(self) -> bool:
        """Whether this controller may decide: it leads and knows all that was decided."""
        return self.controller.active and self.raft.is_leader

    def status(self) -> RaftStatus:
        return self.raft.status()

    def _cluster_id(self) -> str:
        return self.image.cluster_id or self._wanted_cluster_id

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- RaftStateMachine

    def apply(self, index: int, term: int, data: bytes) -> None:
        records = decode_records(data)
        before = self.image
        self.controller.replay(records, index)
        self.feed.append(m.MetadataEntry(index, term, data))
        for waiter in self._waiting.pop(index, ()):
            if not waiter.done():
                waiter.set_result(None)
        if self.controller.active:
            log_events(before, records, self._world.clock.wall_ms())
            self._arm()

    def snapshot(self) -> bytes:
        return encode_snapshot(self.image)

    def restore(self, index: int, term: int, data: bytes) -> None:
        if self.controller.active:
            self._lose_leadership()
        self.controller.restore(decode_snapshot(data))
        self.feed.restart(index)

    def on_leader_change(self, leader_id: int | None, term: int, is_leader: bool) -> None:
        if self._closed:
            return
        if leader_id is not None:
            self.leader_known.set()
        if is_leader and not self.controller.active:
            now = self._world.clock.monotonic()
            _log.info("active controller %d in term %d", self.node_id, term)
            self.controller.on_leadership(now, self.image)
            self._last_proposed = self.image.index
            if not self.image.cluster_id:
                # The runner is not to be entered from its own call.
                asyncio.get_running_loop().call_soon(self._bootstrap)
            self._arm()
            self._spawn(self._probe_absent_brokers(), "takeover-probe")
        elif not is_leader and self.controller.active:
            _log.info("no longer the active controller (term %d, leader %s)", term, leader_id)
            self._lose_leadership()

    def _bootstrap(self) -> None:
        if self.active and not self.image.cluster_id:
            made = self._wanted_cluster_id or _new_cluster_id(self._world)
            self._propose(self.controller.bootstrap(made))

    def _lose_leadership(self) -> None:
        """Proposed records may never be committed: forget them, and let the brokers look again."""
        self.controller.on_leadership_lost()
        waiting, self._waiting = self._waiting, {}
        error = self._not_controller()
        for waiter in [w for waiters in waiting.values() for w in waiters]:
            _fail(waiter, error)
        self._spreading.fail(error)
        for connection in self._server.connections(ROLE_BROKER):
            self._server.disconnect(connection, "this controller is not active any more")

    # -- proposals

    def _not_controller(self) -> RpcRefusedError:
        leader = self.raft.leader_id
        return RpcRefusedError(
            ErrorCode.NOT_CONTROLLER,
            "This is not the correct controller for this cluster.",
            -1 if leader is None or leader == self.node_id else leader,
        )

    def _propose(self, result: ControllerResult) -> int:
        """Propose the result's records; the index that its response depends on.

        A response without records may rest on records that are proposed and not yet committed.
        """
        if result.records:
            try:
                data = encode_records(result.records)
                self._last_proposed = self.raft.propose_nowait(data)
            except RaftError:
                # The tip is ahead of what will ever be proposed.
                self._lose_leadership()
                raise self._not_controller() from None
        self._arm()
        return self._last_proposed

    async def _committed(self, index: int) -> None:
        if index > self.image.index:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(index, []).append(waiter)
            await waiter

    async def _respond(self, result: ControllerResult) -> Wire:
        await self._committed(self._propose(result))
        assert result.response is not None
        return result.response

    # -- RpcService

    def greet(self, hello: HelloRequest) -> HelloResponse:
        ours = self._cluster_id()
        if hello.cluster_id and ours and hello.cluster_id != ours:
            _log.warning("refused node %d of cluster %s", hello.node_id, hello.cluster_id)
            raise RpcRefusedError(
                ErrorCode.INCONSISTENT_CLUSTER_ID,
                f"node {hello.node_id} belongs to cluster {hello.cluster_id}, this is {ours}",
            )
        if hello.role == ROLE_CONTROLLER and hello.node_id not in self._voters:
            raise RpcRefusedError(
                ErrorCode.INVALID_REQUEST, f"node {hello.node_id} is none of the controllers"
            )
        leader = self.raft.leader_id
        active = self.active and bool(self.image.cluster_id)
        return HelloResponse(self.node_id, ours, -1 if leader is None else leader, active)

    async def serve(self, connection: RpcConnection, method: str, request: Wire) -> Wire:
        if not self.active:
            raise self._not_controller()
        try:
            return await self._dispatch(request)
        except NotActiveError:
            raise self._not_controller() from None

    async def _dispatch(self, request: Wire) -> Wire:
        now, controller = self._world.clock.monotonic(), self.controller
        match request:
            case m.HeartbeatRequest():
                return await self._heartbeat(request)
            case m.MetadataFetchRequest():
                return await self._fetch(request)
            case m.AlterPartitionRequest():
                return await self._respond(controller.alter_partition(now, request))
            case m.CreateTopicsRequest():
                result = controller.create_topics(now, request)
                return await self._spread(result, request.timeout_ms)
            case m.DeleteTopicsRequest():
                result = controller.delete_topics(now, request)
                return await self._spread(result, request.timeout_ms)
            case m.CreatePartitionsRequest():
                result = controller.create_partitions(now, request)
                return await self._spread(result, request.timeout_ms)
            case m.AlterConfigsRequest():
                result = controller.alter_configs(now, request)
                return await self._spread(result, int(MAX_TOPIC_WAIT * 1000))
            case m.ElectLeadersRequest():
                return await self._elect(request)
            case m.ResignRequest():
                return await self._respond(controller.resign(now, request))
            case m.RegisterBrokerRequest():
                return await self._respond(controller.register_broker(now, request))
            case m.AllocateProducerIdsRequest():
                return await self._respond(controller.allocate_producer_ids(now, request))
            case m.UnregisterBrokerRequest():
                return await self._respond(controller.unregister_broker(now, request))
            case m.UpdateOfflineReplicasRequest():
                return await self._respond(controller.update_offline_replicas(now, request))
            case m.StatusRequest():
                return self._status_response()
        raise RpcRefusedError(ErrorCode.UNSUPPORTED_VERSION, f"no rule for {type(request)}")

    def on_raft_message(self, peer_id: int, payload: bytes) -> None:
        self.raft.on_message(peer_id, payload)

    def on_peer_closed(self, connection: RpcConnection, reason: str) -> None:
        if connection.peer_role == ROLE_CONTROLLER:
            self._links.check(connection.peer_id)
            return
        broker_id = connection.peer_id
        if self._closed or not self.active or broker_id in self._server.connected_brokers():
            return
        now, at_ms = self._world.clock.monotonic(), self._world.clock.wall_ms()
        if self.controller.on_broker_connection_lost(now, broker_id):
            _log.info("noticed broker=%d connection lost at_ms=%d", broker_id, at_ms)
            self._spawn(self._probe(broker_id), f"probe-{broker_id}")

    # -- requests that wait

    async def _heartbeat(self, request: m.HeartbeatRequest) -> Wire:
        now = self._world.clock.monotonic()
        # A lease may be given only by a controller that nobody can have replaced.
        if not self.raft.lease_valid(now):
            raise self._not_controller()
        result = self.controller.heartbeat(now, request)
        self._check_spread()
        response = await self._respond(result)
        if not self.raft.lease_valid(self._world.clock.monotonic()):
            raise self._not_controller()
        return response

    async def _fetch(self, request: m.MetadataFetchRequest) -> m.MetadataFetchResponse:
        """Long poll; asking for what follows an index says that it is applied."""
        self.controller.on_metadata_applied(request.broker_id, request.from_index)
        self._check_spread()
        entries = self.feed.after(request.from_index, request.max_bytes)
        if entries == ():
            await self.feed.changed(min(request.max_wait_ms / 1000, MAX_METADATA_WAIT))
            if not self.active:
                raise self._not_controller()
            entries = self.feed.after(request.from_index, request.max_bytes)
        if entries is None:
            image = self.image
            return m.MetadataFetchResponse(
                snapshot=encode_snapshot(image), snapshot_index=image.index,
                commit_index=self.feed.index,
            )  # fmt: skip
        return m.MetadataFetchResponse(entries=entries, commit_index=self.feed.index)

    async def _spread(self, result: ControllerResult, timeout_ms: int) -> Wire:
        """Answer when every live broker has applied the change, or the time is up."""
        response = await self._respond(result)
        if result.records:
            timeout = min(max(timeout_ms, 0) / 1000, MAX_TOPIC_WAIT)
            await self._spreading.wait(self.image.index, timeout, self.controller.brokers_behind)
        return response

    async def _elect(self, request: m.ElectLeadersRequest) -> Wire:
        """Answer when live leaders have handed over, or the time is up."""
        now = self._world.clock.monotonic()
        deadline = now + min(max(request.timeout_ms, 0) / 1000, MAX_TOPIC_WAIT)
        response = await self._spread(
            self.controller.elect_leaders(now, request), request.timeout_ms
        )
        assert isinstance(response, m.ElectLeadersResponse)
        while (late := self._not_led_by_preferred(response.awaited)) and self.active:
            left = deadline - self._world.clock.monotonic()
            if left <= 0:
                break
            await self.feed.changed(left)
        if not late:
            return replace(response, awaited=())
        code = ErrorCode.REQUEST_TIMED_OUT
        partitions = tuple(
            replace(p, error=code, message=code.message) if (p.topic, p.partition) in late else p
            for p in response.partitions
        )
        return replace(response, partitions=partitions, awaited=())

    def _not_led_by_preferred(self, awaited: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        late = set()
        for topic, number in awaited:
            state = self.image.partition(topic, number)
            if state is not None and state.leader != state.preferred_leader:
                late.add((topic, number))
        return late

    def _check_spread(self) -> None:
        self._spreading.check(self.controller.brokers_behind)

    def _status_response(self) -> m.StatusResponse:
        status = self.raft.status()
        voters = tuple(
            m.VoterStatus(node_id, *self._voters.get(node_id, ("", -1)))
            for node_id in status.voters
        )
        return m.StatusResponse(
            leader_id=-1 if status.leader_id is None else status.leader_id, term=status.term,
            commit_index=status.commit_index, voters=voters, cluster_id=self.image.cluster_id,
        )  # fmt: skip

    # -- failures

    def _on_link(self, peer: int) -> None:
        self.raft.on_peer_connected(peer)

    def _on_peer_refused(self, peer: int) -> None:
        """Nothing listens at the peer's address: it stopped leading before that."""
        if not self._closed and self.raft.leader_id == peer:
            _log.info("noticed controller=%d gone at_ms=%d", peer, self._world.clock.wall_ms())
        self.raft.on_peer_lost(peer)

    async def _probe(self, broker_id: int) -> None:
        broker = self.image.brokers.get(broker_id)
        if broker is None:
            return
        gone = await process_is_gone(self._world.network, broker.host, broker.port)
        if self.active and broker_id not in self._server.connected_brokers():
            now = self._world.clock.monotonic()
            self._propose(self.controller.on_probe_result(now, broker_id, gone))

    async def _probe_absent_brokers(self) -> None:
        """A broker that died with the last active controller would keep its leaderships."""
        await asyncio.sleep(TAKEOVER_PROBE_DELAY)
        for broker_id, broker in sorted(self.image.brokers.items()):
            if broker.fenced or broker_id in self._server.connected_brokers() or not self.active:
                continue
            if self.controller.on_broker_connection_lost(self._world.clock.monotonic(), broker_id):
                self._spawn(self._probe(broker_id), f"probe-{broker_id}")

    # -- time

    def _arm(self) -> None:
        deadline = self.controller.next_deadline()
        if deadline is None or self._closed:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return  # fires early at worst; deadlines mostly move back
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)
        self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self.controller.next_deadline()
        if deadline is None or self._closed or not self.active:
            return
        now = self._world.clock.monotonic()
        if now >= deadline:
            # Without a lease a newer controller may know better: expire nobody.
            if self.raft.lease_valid(now):
                try:
                    self._propose(self.controller.tick(now))
                    self._check_spread()
                except RpcRefusedError:
                    return
            else:
                self._timer = asyncio.get_running_loop().call_later(0.1, self._on_timer)
                self._timer_at = now + 0.1
                return
        self._arm()


def _new_cluster_id(world: World) -> str:
    """Kafka's form: 16 random bytes in URL-safe base 64."""
    import base64

    made = uuid.UUID(int=world.random.getrandbits(128), version=4)
    return base64.urlsafe_b64encode(made.bytes).decode().rstrip("=")


def _fail(waiter: asyncio.Future[None], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()  # whoever waits still gets it; nobody waiting is no error
