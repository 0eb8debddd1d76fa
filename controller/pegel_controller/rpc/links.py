"""How controllers reach each other: one outgoing connection to each peer, for Raft messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from pegel.seams import World
from pegel_controller.rpc.framing import Frame, RpcConnection, RpcError
from pegel_controller.rpc.hello import ROLE_CONTROLLER, HelloRequest, open_rpc

_log = logging.getLogger("pegel.controller")

RAFT = "raft"
CONNECT_TIMEOUT = 1.0
# The first tries follow quickly: a peer that crashed is to be known as dead within milliseconds.
BACK_OFF_MIN = 0.010
BACK_OFF_MAX = 0.250


class RaftLinks:
    """The ``RaftTransport`` of a controller.

    ``on_refused(peer)`` says that nothing listens at the peer's address: its process is gone.

    To a peer that it does not reach it answers on the connection that the peer has opened
    (``incoming``): it may not know where the peer listens before it has heard it out. What comes
    back in this way goes to ``on_message``.
    """

    def __init__(
        self,
        world: World,
        node_id: int,
        peers: Mapping[int, tuple[str, int]],
        cluster_id: Callable[[], str],
        on_connected: Callable[[int], None],
        on_refused: Callable[[int], None],
        incoming: Callable[[int], RpcConnection | None],
        on_message: Callable[[int, bytes], None],
    ) -> None:
        self._world = world
        self._node_id = node_id
        self._peers = {peer: address for peer, address in peers.items() if peer != node_id}
        self._cluster_id = cluster_id
        self._on_connected = on_connected
        self._on_refused = on_refused
        self._incoming = incoming
        self._on_message = on_message
        self._connections: dict[int, RpcConnection] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._lost: dict[int, asyncio.Event] = {}
        self._started = False

    def start(self) -> None:
        self._started = True
        for peer in sorted(self._peers):
            self._open(peer)

    def _open(self, peer: int) -> None:
        self._lost[peer] = asyncio.Event()
        self._tasks[peer] = asyncio.create_task(self._keep(peer), name=f"raft-link-{peer}")

    def set_peers(self, peers: Mapping[int, tuple[str, int]]) -> None:
        """Controllers have joined, left, or moved to another address."""
        before = self._peers
        self._peers = {peer: address for peer, address in peers.items() if peer != self._node_id}
        if not self._started:
            return
        for peer in sorted(set(before) | set(self._peers)):
            if before.get(peer) == self._peers.get(peer):
                continue
            if peer in self._tasks:
                self._tasks.pop(peer).cancel()
                del self._lost[peer]
                connection = self._connections.pop(peer, None)
                if connection is not None:
                    connection.drop("this controller has left or moved")
            if peer in self._peers:
                self._open(peer)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for connection in self._connections.values():
            connection.drop("closing")
        self._connections.clear()

    def send(self, peer_id: int, payload: bytes) -> None:
        """Best effort; dropped while there is no connection."""
        connection = self._connections.get(peer_id) or self._incoming(peer_id)
        if connection is not None:
            connection.push(RAFT, [payload])

    def connected(self, peer_id: int) -> bool:
        """Whether a message to it would leave now."""
        return peer_id in self._connections

    def check(self, peer_id: int) -> None:
        """Something suggests that ``peer_id`` died: look at once instead of after the back-off."""
        if peer_id in self._lost and peer_id not in self._connections:
            self._lost[peer_id].set()

    async def _keep(self, peer: int) -> None:
        """Connect again and again, for as long as this node lives."""
        back_off, lost = BACK_OFF_MIN, self._lost[peer]
        while True:
            lost.clear()
            hello = HelloRequest(self._node_id, ROLE_CONTROLLER, self._cluster_id())
            try:
                connection, _ = await open_rpc(
                    self._world.network, self, self._peers[peer], hello, CONNECT_TIMEOUT
                )
            except ConnectionRefusedError:
                self._on_refused(peer)
            except (OSError, RpcError) as error:
                _log.debug("no connection to controller %d: %s", peer, error)
            else:
                if not connection.closed:
                    connection.peer_id = peer
                    self._connections[peer] = connection
                    self._on_connected(peer)
                    await lost.wait()
                    _log.debug("connection to controller %d lost", peer)
                back_off = BACK_OFF_MIN
                continue
            try:
                async with asyncio.timeout(back_off):
                    await lost.wait()
            except TimeoutError:
                back_off = min(2 * back_off, BACK_OFF_MAX)

    def _is_current(self, connection: RpcConnection) -> bool:
        return self._connections.get(connection.peer_id) is connection

    # -- RpcOwner

    def on_rpc_request(self, connection: RpcConnection, frame: Frame) -> None:
        connection.refuse(frame, -1, "this end answers nothing")

    def on_rpc_push(self, connection: RpcConnection, frame: Frame) -> None:
        """The answers of a peer that does not reach this node by itself."""
        match frame.body:
            case [bytes(payload), *_] if frame.method == RAFT and self._is_current(connection):
                try:
                    self._on_message(connection.peer_id, payload)
                except Exception as error:  # a peer's broken message costs only its connection
                    _log.warning("controller %d sent nonsense: %s", connection.peer_id, error)
                    connection.abort()

    def on_rpc_closed(self, connection: RpcConnection, reason: str) -> None:
        if self._is_current(connection):
            del self._connections[connection.peer_id]
            self._lost[connection.peer_id].set()
