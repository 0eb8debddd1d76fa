"""A controller process part: Raft, the pure controller, and the RPC listener, tied together.

Requests become records through the pure ``Controller``; records are proposed to Raft as one entry;
only a committed entry is replayed, and only then does the response leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping
from random import Random

from pegel.logs import Event
from pegel.metrics.listener import ListenerCounters
from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_controller.control.controller import Controller, NotActiveError
from pegel_controller.control.options import ControllerOptions, ControllerResult
from pegel_controller.events import log_events
from pegel_controller.membership import refused_if_unknown
from pegel_controller.metadata import (
    MetadataImage,
    decode_records,
    decode_snapshot_and_history,
    encode_records,
    encode_snapshot,
)
from pegel_controller.metadata.records import EntryTimeRecord, Record
from pegel_controller.metadata.wire import Wire
from pegel_controller.metadata_feed import MetadataFeed
from pegel_controller.probe import process_is_gone
from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.interfaces import RaftStatus
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.runner import RaftRunner
from pegel_controller.requests import ControllerRequests
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcConnection, RpcRefusedError
from pegel_controller.rpc.hello import ROLE_BROKER, ROLE_CONTROLLER, HelloRequest, HelloResponse
from pegel_controller.rpc.links import RaftLinks
from pegel_controller.rpc.server import RpcServer
from pegel_controller.stats import ControllerStats
from pegel_controller.timer import DeadlineTimer

_log = logging.getLogger("pegel.controller")

HAND_OVER_TIMEOUT = 0.300
# A new active controller gives live brokers this long to connect before it probes them.
TAKEOVER_PROBE_DELAY = 0.030


# Addresses by node id; None: it has left.
Controllers = Mapping[int, tuple[str, int] | None]


def merge_controllers(
    first: Mapping[int, tuple[str, int]], joined: Controllers
) -> dict[int, tuple[str, int]]:
    """Where controllers listen: as configured, but for those that joined or left since."""
    merged: dict[int, tuple[str, int] | None] = {**first, **joined}
    return {node_id: at for node_id, at in sorted(merged.items()) if at is not None}


class ControllerNode:
    """One controller.

    ``voters`` are the addresses by node id of the controllers that a new cluster begins with.
    One that is none of them joins a running cluster: it needs an ``address`` of its own, and votes
    once it was added. ``known`` is what ``on_controllers`` told in an earlier life: controllers
    that joined, and (None) those that left. ``cluster_id`` is what the data directory says; empty
    on the very first start, when the first leader makes one.
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
        address: tuple[str, int] | None = None,
        known: Controllers | None = None,
        on_controllers: Callable[[Controllers], None] | None = None,
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> None:
        own = address or voters.get(node_id) or (known or {}).get(node_id)
        if own is None:
            raise ValueError(f"controller {node_id} is not among the controllers {sorted(voters)}")
        self.node_id = node_id
        self.controller = Controller(Random(world.random.getrandbits(64)), options)
        self.stats = ControllerStats(node_id)
        self.feed = MetadataFeed()
        self.world = world
        # Where every controller listens, as far as this one knows.
        self.controllers = merge_controllers(voters, known or {}) | {node_id: own}
        self._first = dict(voters)
        self._own = own
        self._on_controllers = on_controllers
        self._wanted_cluster_id = cluster_id
        self._server = RpcServer(world, self)
        self.links = RaftLinks(
            world, node_id, self.controllers, self.cluster_id, self._on_link,
            self._on_peer_refused, self._server.controller, self.on_raft_message,
        )  # fmt: skip
        self.raft = RaftRunner(
            world, node_id, directory, voters, self.links, raft_options or RaftOptions(), self,
            on_fatal,
        )  # fmt: skip
        # Requests whose entry is proposed, by its index: what to answer once it is applied.
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._last_proposed = 0
        self.requests = ControllerRequests(self)
        self._timer = DeadlineTimer(world.clock.monotonic, self._on_timer)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._closed = False
        self.leader_known = asyncio.Event()  # some controller leads, or has led

    # -- life

    async def start(self) -> None:
        """Recover, listen, take part.

        Raises:
            OSError: the listener's address is in use.
            RaftError: the metadata log is damaged, or its disk is full or fails.
        """
        await self._server.start(*self._own)
        try:
            await self.raft.start()
        except OSError as error:  # which is no matter of addresses
            raise RaftError(f"the metadata log cannot be opened: {error}") from error
        self.links.start()

    async def close(self) -> None:
        """Hand leadership over if there is somebody, then stop; safe to call twice."""
        if self._closed:
            return
        if self.raft.is_leader and len(self.status().voters) > 1:
            try:
                async with asyncio.timeout(HAND_OVER_TIMEOUT):
                    await self.raft.transfer_leadership()
            except (RaftError, TimeoutError) as error:
                _log.info("leadership was not handed over: %s", error)
        self._closed = True
        self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.requests.membership.close()
        # Raft first: a refused connection tells the others that this leader is gone for good.
        await self.raft.close()
        await self.links.close()
        await self._server.close()

    @property
    def listener_counters(self) -> ListenerCounters:
        """What its listener has counted; connections that it opened itself are not among them."""
        return self._server.counters

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

    def cluster_id(self) -> str:
        """Empty before the very first leader has made one."""
        return self.image.cluster_id or self._wanted_cluster_id

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    # -- RaftStateMachine

    def apply(self, index: int, term: int, data: bytes) -> None:
        records = decode_records(data)
        before = self.image
        self.controller.replay(records, index)
        if self.image.controllers is not before.controllers:
            self._take_controllers()
        self.feed.append(m.MetadataEntry(index, term, data))
        for waiter in self._waiting.pop(index, ()):
            if not waiter.done():
                waiter.set_result(None)
        if self.controller.active:
            log_events(before, records, self.world.clock.wall_ms())
            self.stats.on_records(before, records)
            self._arm()

    def snapshot(self) -> bytes:
        return encode_snapshot(self.image, self.controller.history)

    def restore(self, index: int, term: int, data: bytes) -> None:
        if self.controller.active:
            self._lose_leadership()
        self.controller.restore(*decode_snapshot_and_history(data))
        if self.image.controllers:
            self._take_controllers()
        self.feed.restart(index)

    def _take_controllers(self) -> None:
        """Controllers have joined or left."""
        joined = self.image.controllers
        self.controllers = merge_controllers(self._first, joined) | {self.node_id: self._own}
        self.links.set_peers(self.controllers)
        if self._on_controllers is not None:
            self._on_controllers(joined)

    def on_leader_change(self, leader_id: int | None, term: int, is_leader: bool) -> None:
        if self._closed:
            return
        if leader_id is not None:
            self.leader_known.set()
        now = self.world.clock.monotonic()
        self.stats.on_leader(now, leader_id, active=is_leader)
        if is_leader and not self.controller.active:
            _log.info(Event("active_controller", controller=self.node_id, term=term))
            self.controller.on_leadership(now, self.image)
            self._last_proposed = self.image.index
            if not self.image.cluster_id:
                # The runner is not to be entered from its own call.
                asyncio.get_running_loop().call_soon(self._bootstrap)
            self._arm()
            self._spawn(self._probe_absent_brokers(), "takeover-probe")
        elif not is_leader and self.controller.active:
            _log.info(Event("inactive_controller", term=term, leader=leader_id))
            self._lose_leadership()

    def _bootstrap(self) -> None:
        if self.active and not self.image.cluster_id:
            made = self._wanted_cluster_id or _new_cluster_id(self.world)
            self._propose_unasked(self.controller.bootstrap(made))

    def _lose_leadership(self) -> None:
        """Proposed records may never be committed: forget them, and let the brokers look again."""
        self.controller.on_leadership_lost()
        waiting, self._waiting = self._waiting, {}
        error = self.not_controller()
        for waiter in [w for waiters in waiting.values() for w in waiters]:
            _fail(waiter, error)
        self.requests.fail(error)
        for connection in self._server.connections(ROLE_BROKER):
            self._server.disconnect(connection, "this controller is not active any more")

    # -- proposals

    def not_controller(self) -> RpcRefusedError:
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
                time = EntryTimeRecord(self.world.clock.wall_ms())
                data = encode_records((time, *result.records))
                self._last_proposed = self.raft.propose_nowait(data)
            except RaftError:
                # The tip is ahead of what will ever be proposed. A new term begins with what is
                # committed; in this one others may still be, that no tip would know of.
                self._lose_leadership()
                self.raft.step_down()
                raise self.not_controller() from None
        self._arm()
        return self._last_proposed

    def _propose_unasked(self, result: ControllerResult) -> None:
        """As ``_propose``, where nobody waits: a leader that has just been deposed does nothing."""
        with contextlib.suppress(RpcRefusedError):
            self._propose(result)

    async def _committed(self, index: int) -> None:
        if index > self.image.index:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(index, []).append(waiter)
            await waiter

    async def record(self, record: Record) -> None:
        """Commit one record of this node's own. Raises RpcRefusedError where it does not lead."""
        await self._committed(self._propose(self.controller.note(record)))

    async def respond(self, result: ControllerResult) -> Wire:
        """The response, once what it rests on is committed."""
        await self._committed(self._propose(result))
        if not result.records and not self.raft.lease_valid(self.world.clock.monotonic()):
            # Nothing was committed for it: another controller may have changed what it tells of.
            await self.confirm_lead()
        assert result.response is not None
        return result.response

    async def confirm_lead(self) -> None:
        """Return once nobody else was active when this was called, and all of it is applied.

        Raises:
            RpcRefusedError: NOT_CONTROLLER.
        """
        try:
            await self.raft.read_barrier()
        except RaftError:
            raise self.not_controller() from None

    # -- RpcService

    def greet(self, hello: HelloRequest) -> HelloResponse:
        ours = self.cluster_id()
        if hello.cluster_id and ours and hello.cluster_id != ours:
            _log.warning("refused node %d of cluster %s", hello.node_id, hello.cluster_id)
            raise RpcRefusedError(
                ErrorCode.INCONSISTENT_CLUSTER_ID,
                f"node {hello.node_id} belongs to cluster {hello.cluster_id}, this is {ours}",
            )
        if hello.role == ROLE_CONTROLLER:
            refused_if_unknown(self, hello)
        leader = self.raft.leader_id
        active = self.active and bool(self.image.cluster_id)
        if leader is None:
            return HelloResponse(self.node_id, ours, -1, active)
        at = self.controllers.get(leader, ("", -1))
        return HelloResponse(self.node_id, ours, leader, active, *at)

    async def serve(self, connection: RpcConnection, method: str, request: Wire) -> Wire:
        if not self.active:
            raise self.not_controller()
        try:
            return await self.requests.dispatch(request)
        except NotActiveError:
            raise self.not_controller() from None

    def on_raft_message(self, peer_id: int, payload: bytes) -> None:
        self.raft.on_message(peer_id, payload)

    def on_peer_closed(self, connection: RpcConnection, reason: str) -> None:
        if connection.peer_role == ROLE_CONTROLLER:
            self.links.check(connection.peer_id)
            return
        broker_id = connection.peer_id
        if self._closed or not self.active or broker_id in self._server.connected_brokers():
            return
        now, at_ms = self.world.clock.monotonic(), self.world.clock.wall_ms()
        if self.controller.on_broker_connection_lost(now, broker_id):
            _log.info(Event("noticed", broker=broker_id, what="connection_lost", at_ms=at_ms))
            self._spawn(self._probe(broker_id), f"probe-{broker_id}")

    # -- failures

    def _on_link(self, peer: int) -> None:
        self.raft.on_peer_connected(peer)

    def _on_peer_refused(self, peer: int) -> None:
        """Nothing listens at the peer's address: it stopped leading before that."""
        if not self._closed and self.raft.leader_id == peer:
            at_ms = self.world.clock.wall_ms()
            _log.info(Event("noticed", controller=peer, what="gone", at_ms=at_ms))
        self.raft.on_peer_lost(peer)

    async def _probe(self, broker_id: int) -> None:
        broker = self.image.brokers.get(broker_id)
        if broker is None:
            return
        gone = await process_is_gone(self.world.network, broker.host, broker.port)
        if self.active and broker_id not in self._server.connected_brokers():
            now = self.world.clock.monotonic()
            self._propose_unasked(self.controller.on_probe_result(now, broker_id, gone))

    async def _probe_absent_brokers(self) -> None:
        """A broker that died with the last active controller would keep its leaderships."""
        await asyncio.sleep(TAKEOVER_PROBE_DELAY)
        for broker_id, broker in sorted(self.image.brokers.items()):
            if broker.fenced or broker_id in self._server.connected_brokers() or not self.active:
                continue
            if self.controller.on_broker_connection_lost(self.world.clock.monotonic(), broker_id):
                self._spawn(self._probe(broker_id), f"probe-{broker_id}")

    # -- time

    def _arm(self) -> None:
        deadline = self.controller.next_deadline()
        if deadline is None or self._closed:
            return
        self._timer.arm(deadline)

    def _on_timer(self) -> None:
        deadline = self.controller.next_deadline()
        if deadline is None or self._closed or not self.active:
            return
        now = self.world.clock.monotonic()
        if now >= deadline:
            # Without a lease a newer controller may know better: expire nobody.
            if self.raft.lease_valid(now):
                try:
                    self._propose(self.controller.tick(now))
                    self.requests.check_spread()
                except RpcRefusedError:
                    return
            else:
                self._timer.arm(now + 0.1)
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
