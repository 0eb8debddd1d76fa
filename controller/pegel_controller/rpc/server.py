"""The controller listener: greets peers, then hands their requests to the method table."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Protocol

from pegel.metrics.listener import ListenerCounters
from pegel.protocol.errors import ErrorCode
from pegel.protocol.schema import Buffer
from pegel.seams import World
from pegel.seams.network import Listener
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc.framing import (
    MAX_HELLO_BYTES,
    MAX_RPC_FRAME_BYTES,
    Frame,
    RpcConnection,
    RpcRefusedError,
)
from pegel_controller.rpc.hello import (
    HELLO,
    ROLE_BROKER,
    ROLE_CONTROLLER,
    HelloRequest,
    HelloResponse,
)
from pegel_controller.rpc.messages import METHODS

_log = logging.getLogger("pegel.controller")

# A peer needs one or two; a leak of connections must not exhaust the node.
MAX_CONNECTIONS = 1_000
# Requests of one connection whose answers are still due.
MAX_IN_FLIGHT = 256


class RpcService(Protocol):
    """What the listener serves."""

    def greet(self, hello: HelloRequest) -> HelloResponse:
        """Raises RpcRefusedError for a peer that does not belong here."""
        ...

    def serve(self, connection: RpcConnection, method: str, request: Wire) -> Awaitable[Wire]:
        """The response. Raises RpcRefusedError."""
        ...

    def on_raft_message(self, peer_id: int, payload: bytes) -> None:
        """Raises RaftError or ValueError for what is no message."""
        ...

    def on_peer_closed(self, connection: RpcConnection, reason: str) -> None:
        """A peer that had greeted is gone."""
        ...


class _Accepted(RpcConnection):
    """Counts what goes through it in what its listener counts."""

    def __init__(self, server: RpcServer) -> None:
        super().__init__(server, MAX_HELLO_BYTES)
        self._counters = server.counters

    def buffer_updated(self, nbytes: int) -> None:
        self._counters.received_bytes += nbytes
        super().buffer_updated(nbytes)

    def write(self, buffers: Sequence[Buffer]) -> None:
        if self.transport is not None and not self.closed:
            self._counters.sent_bytes += sum(map(len, buffers))
        super().write(buffers)

    def on_broken(self, reason: str) -> None:
        self._counters.protocol_errors += 1
        super().on_broken(reason)


class RpcServer:
    """Accepts connections on ``host:port`` and serves ``service``."""

    def __init__(self, world: World, service: RpcService) -> None:
        self.counters = ListenerCounters()
        self._world = world
        self._service = service
        self._listener: Listener | None = None
        # In order of arrival: what closes them must not depend on where they lie in memory.
        self._connections: dict[RpcConnection, None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._in_flight: dict[RpcConnection, int] = {}

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address bound. Raises OSError."""
        self._listener = await self._world.network.listen(self._accept, host, port)
        return self._listener.address

    async def close(self) -> None:
        """Stop listening, end every connection, cancel what is being served."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.drop("this controller is closing")
        self._connections.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def connections(self, role: str) -> list[RpcConnection]:
        """Those that greeted in ``role``, by node id."""
        found = [c for c in self._connections if c.peer_role == role and not c.closed]
        return sorted(found, key=lambda c: c.peer_id)

    def connected_brokers(self) -> set[int]:
        return {c.peer_id for c in self.connections(ROLE_BROKER)}

    def controller(self, peer_id: int) -> RpcConnection | None:
        """The newest connection that this controller has opened."""
        found = [c for c in self.connections(ROLE_CONTROLLER) if c.peer_id == peer_id]
        return found[-1] if found else None

    def disconnect(self, connection: RpcConnection, reason: str) -> None:
        """End one connection; the service is not told."""
        self._forget(connection)
        connection.drop(reason)

    def _accept(self) -> RpcConnection:
        connection = _Accepted(self)
        if len(self._connections) >= MAX_CONNECTIONS:
            self.counters.refused += 1
            _log.warning("refusing a connection: %d are open", len(self._connections))
            asyncio.get_running_loop().call_soon(connection.abort)
            connection.closed = True
        else:
            self.counters.accepted += 1
            self._connections[connection] = None
        return connection

    # -- RpcOwner

    def on_rpc_request(self, connection: RpcConnection, frame: Frame) -> None:
        try:
            if frame.method == HELLO:
                self._greet(connection, frame)
                return
            if not connection.peer_role:
                raise RpcRefusedError(ErrorCode.INVALID_REQUEST, "say hello first")
            if frame.method not in METHODS:
                raise RpcRefusedError(
                    ErrorCode.UNSUPPORTED_VERSION, f"there is no method {frame.method!r:.60}"
                )
            if self._in_flight.get(connection, 0) >= MAX_IN_FLIGHT:
                raise RpcRefusedError(
                    ErrorCode.THROTTLING_QUOTA_EXCEEDED, f"{MAX_IN_FLIGHT} requests wait already"
                )
            try:
                request = METHODS[frame.method][0].from_wire(frame.body)
            except ValueError as error:
                raise RpcRefusedError(ErrorCode.INVALID_REQUEST, str(error)) from None
        except RpcRefusedError as error:
            connection.refuse(frame, error.code, error.message, error.leader_id)
            return
        answer = self._service.serve(connection, frame.method, request)
        self._in_flight[connection] = self._in_flight.get(connection, 0) + 1
        task = asyncio.ensure_future(self._answer(connection, frame, answer))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _greet(self, connection: RpcConnection, frame: Frame) -> None:
        try:
            hello = HelloRequest.from_wire(frame.body)
        except ValueError as error:
            raise RpcRefusedError(ErrorCode.INVALID_REQUEST, str(error)) from None
        response = self._service.greet(hello)
        connection.peer_id, connection.peer_role = hello.node_id, hello.role
        connection.max_frame_bytes = MAX_RPC_FRAME_BYTES
        connection.respond(frame, response.to_wire())

    async def _answer(
        self, connection: RpcConnection, frame: Frame, answer: Awaitable[Wire]
    ) -> None:
        try:
            response = await answer
        except RpcRefusedError as error:
            connection.refuse(frame, error.code, error.message, error.leader_id)
        except Exception as error:  # one request must not take the controller down
            _log.exception("%s of node %d failed", frame.method, connection.peer_id)
            connection.refuse(frame, ErrorCode.UNKNOWN_SERVER_ERROR, repr(error))
        else:
            connection.respond(frame, response.to_wire())
        finally:
            left = self._in_flight.get(connection, 1) - 1
            if left:
                self._in_flight[connection] = left
            else:
                self._in_flight.pop(connection, None)

    def on_rpc_push(self, connection: RpcConnection, frame: Frame) -> None:
        match frame.body:
            case [bytes(payload), *_] if connection.peer_role and frame.method == "raft":
                try:
                    self._service.on_raft_message(connection.peer_id, payload)
                except Exception as error:  # a peer's broken message costs only its connection
                    self.counters.protocol_errors += 1
                    _log.warning("controller %d sent nonsense: %s", connection.peer_id, error)
                    self.disconnect(connection, "nonsense")
            case _:
                self.counters.protocol_errors += 1
                self.disconnect(connection, "an unknown push")

    def on_rpc_closed(self, connection: RpcConnection, reason: str) -> None:
        self._forget(connection)
        if connection.peer_role:
            self._service.on_peer_closed(connection, reason)
        else:
            _log.info("dropped a connection that never greeted: %s", reason)

    def _forget(self, connection: RpcConnection) -> None:
        if self._connections.pop(connection, 0) is None:
            self.counters.closed += 1
