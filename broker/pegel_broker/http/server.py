"""A small HTTP/1.1 server for operators: one request after another, bounded in every way."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import h11

from pegel.seams import World
from pegel.seams.network import Listener
from pegel_broker.http import views

if TYPE_CHECKING:
    from pegel_broker.node import Node

_log = logging.getLogger("pegel.broker")

MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 100
IDLE_TIMEOUT = 60.0

Answer = tuple[int, str, bytes]


class HttpServer:
    """``/metrics``, ``/healthz``, ``/readyz`` and ``/`` of one node."""

    def __init__(self, world: World, node: Node) -> None:
        self._world = world
        self._node = node
        self._listener: Listener | None = None
        self.connections: set[_Connection] = set()
        self._routes: dict[str, Callable[[Node], Answer]] = {
            "/": views.node_view,
            "/healthz": views.health,
            "/readyz": views.readiness,
            "/metrics": views.metrics,
        }

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address bound. Raises OSError."""
        self._listener = await self._world.network.listen(lambda: _Connection(self), host, port)
        return self._listener.address

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.abort()

    def answer(self, method: str, path: str) -> Answer:
        route = self._routes.get(path.partition("?")[0])
        if route is None:
            known = ", ".join(sorted(self._routes))
            return 404, "text/plain", f"not found; there are {known}\n".encode()
        if method not in {"GET", "HEAD"}:
            return 405, "text/plain", b"only GET and HEAD\n"
        try:
            return route(self._node)
        except Exception as error:  # a view must not take the node down
            _log.exception("the view %s failed", path)
            return 500, "application/json", json.dumps({"error": repr(error)}).encode()


class _Connection(asyncio.Protocol):
    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if len(self._server.connections) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        self._server.connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(IDLE_TIMEOUT, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._h11.receive_data(data)
            while True:
                event = self._h11.next_event()
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.EndOfMessage):
                    assert self._request is not None
                    self._respond(self._request)
                    if self._h11.our_state is not h11.DONE:
                        return
                    self._h11.start_next_cycle()
                elif event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    self.close()
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(error)

    def _respond(self, request: h11.Request) -> None:
        method, target = request.method.decode(), request.target.decode("latin-1")
        status, content_type, body = self._server.answer(method, target)
        self._send(status, content_type, body, with_body=method != "HEAD")
        if self._h11.our_state is h11.MUST_CLOSE:
            self.close()

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._send(error.error_status_hint, "text/plain", f"{error}\n".encode())
        self.close()

    def _send(self, status: int, content_type: str, body: bytes, *, with_body: bool = True) -> None:
        assert self._transport is not None
        headers = [
            ("content-type", f"{content_type}; charset=utf-8"),
            ("content-length", str(len(body))),
        ]
        data = self._h11.send(h11.Response(status_code=status, headers=headers)) or b""
        if with_body:
            data += self._h11.send(h11.Data(data=body)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
