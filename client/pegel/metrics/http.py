"""A small HTTP/1.1 server for operators and scrapers that cannot hurt who runs it.

A page is written on a thread of its own, one at a time, and never uses more than a third of the
time: whoever asks for the same page meanwhile gets the same answer. Connections, request sizes, the
time that a request may take to arrive and that a client may take to read are all bounded.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast
from urllib.parse import parse_qsl

import h11

from pegel.metrics.listener import ListenerCounters
from pegel.seams import DiskQueue
from pegel.seams.network import Listener, Network

_log = logging.getLogger("pegel.http")

MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 32
# Seconds: between requests, for a request to arrive, for an answer to be read.
IDLE_TIMEOUT = 120.0
REQUEST_TIMEOUT = 10.0
READ_TIMEOUT = 10.0
# The share of time that writing pages may take.
MAX_SHARE = 1 / 3
_COMPRESS_FROM = 1024


class Page(NamedTuple):
    status: int
    content_type: str
    body: bytes


class HttpRequest(NamedTuple):
    path: str
    query: tuple[tuple[str, str], ...]
    accept: str

    def parameter(self, name: str, default: str = "") -> str:
        return dict(self.query).get(name, default)


Route = Callable[[HttpRequest], Page]


def json_page(value: object, status: int = 200) -> Page:
    return Page(status, "application/json", json.dumps(value).encode() + b"\n")


def text_page(text: str, status: int = 200) -> Page:
    return Page(status, "text/plain; charset=utf-8", text.encode())


_Key = tuple[HttpRequest, bool]


class HttpServer:
    """Serves ``quick`` routes on the event loop and ``slow`` ones on a thread."""

    def __init__(
        self,
        network: Network,
        new_queue: Callable[[str], DiskQueue],
        quick: Mapping[str, Route],
        slow: Mapping[str, Route],
        counters: ListenerCounters | None = None,
    ) -> None:
        self.counters = counters or ListenerCounters()
        self.connections: dict[_Connection, None] = {}
        self._network = network
        self._new_queue = new_queue
        self._quick = quick
        self._slow = slow
        self._queue: DiskQueue | None = None
        self._listener: Listener | None = None
        self._loop = asyncio.get_running_loop()
        # Pages that are asked for and not begun, in order, and the one that is being written.
        self._asked: dict[_Key, list[_Connection]] = {}
        self._writing: tuple[_Key, list[_Connection]] | None = None
        self._rests_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address bound. Raises OSError."""
        self._listener = await self._network.listen(lambda: _Connection(self), host, port)
        self._queue = self._new_queue("http")
        return self._listener.address

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    # -- requests

    def handle(self, connection: _Connection, request: HttpRequest, *, compress: bool) -> None:
        """Answer now or later, by ``connection.respond``."""
        quick = self._quick.get(request.path)
        if quick is not None:
            connection.respond(_call(quick, request), compressed=False)
        elif request.path not in self._slow:
            known = ", ".join(sorted([*self._quick, *self._slow]))
            connection.respond(text_page(f"not found; there are {known}\n", 404), compressed=False)
        else:
            self._asked.setdefault((request, compress), []).append(connection)
            self._begin()

    def _begin(self) -> None:
        if self._writing is not None or not self._asked or self._queue is None:
            return
        now = self._loop.time()
        if now < self._rests_until:
            if self._timer is None:
                self._timer = self._loop.call_at(self._rests_until, self._rested)
            return
        key = next(iter(self._asked))
        self._writing = key, self._asked.pop(key)
        request, compress = key
        route = self._slow[request.path]

        def write() -> tuple[Page, bool]:
            page = _call(route, request)
            if compress and len(page.body) >= _COMPRESS_FROM:
                return page._replace(body=gzip.compress(page.body, 1)), True
            return page, False

        self._queue.submit(write).add_done_callback(lambda done: self._written(done, now))

    def _rested(self) -> None:
        self._timer = None
        self._begin()

    def _written(self, done: asyncio.Future[tuple[Page, bool]], began: float) -> None:
        assert self._writing is not None
        _, waiting = self._writing
        self._writing = None
        now = self._loop.time()
        self._rests_until = now + (now - began) * (1 / MAX_SHARE - 1)
        if not done.cancelled():
            self._hand_out(waiting, *done.result())
        self._begin()

    def _hand_out(self, waiting: list[_Connection], page: Page, compressed: bool) -> None:
        """One answer in each turn of the event loop: a page may be long, and so may the queue."""
        waiting.pop().respond(page, compressed=compressed)
        if waiting:
            self._loop.call_soon(self._hand_out, waiting, page, compressed)


def _call(route: Route, request: HttpRequest) -> Page:
    try:
        return route(request)
    except Exception as error:  # a page must not take its process down
        _log.exception("the page %s failed", request.path)
        return json_page({"error": repr(error)}, 500)


class _Connection(asyncio.Protocol):
    """One request after another; nothing is read while an answer is on its way."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._request: h11.Request | None = None
        self._answering = False
        self._partial = False
        self._unread = False  # the client has not taken all of the last answer

    # -- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        server = self._server
        if len(server.connections) >= MAX_CONNECTIONS:
            server.counters.refused += 1
            self._transport.abort()
            return
        server.counters.accepted += 1
        server.connections[self] = None
        self._transport.set_write_buffer_limits(high=0)
        self._arm(REQUEST_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self in self._server.connections:
            self._server.connections.pop(self)
            self._server.counters.closed += 1
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._unread = True
        self._arm(READ_TIMEOUT)

    def resume_writing(self) -> None:
        self._unread = False
        self._next()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    # -- requests

    def data_received(self, data: bytes) -> None:
        self._server.counters.received_bytes += len(data)
        if not self._partial and not self._answering:
            self._partial = True  # from here on the request must arrive, however it trickles
            self._arm(REQUEST_TIMEOUT)
        try:
            self._h11.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as error:
            self._refuse(error)

    def _read(self) -> None:
        while not self._answering:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.Data):
                raise h11.RemoteProtocolError("no request here has a body", 413)
            elif isinstance(event, h11.EndOfMessage):
                self._answering, self._partial = True, False
                if self._transport is not None:
                    self._transport.pause_reading()
                self._dispatch()
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                return
            elif isinstance(event, h11.ConnectionClosed):
                self.close()
                return

    def _dispatch(self) -> None:
        request = self._request
        assert request is not None
        self._arm(60.0)  # the answer is being written; nobody waits longer
        if request.method not in {b"GET", b"HEAD"}:
            self.respond(text_page("only GET and HEAD\n", 405), compressed=False)
            return
        path, _, text = request.target.decode("latin-1").partition("?")
        try:
            query = tuple(sorted(parse_qsl(text, max_num_fields=20)))
        except ValueError as error:
            self.respond(text_page(f"{error}\n", 400), compressed=False)
            return
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        asked = HttpRequest(path, query, headers.get(b"accept", ""))
        compress = "gzip" in headers.get(b"accept-encoding", "")
        self._server.handle(self, asked, compress=compress)

    def respond(self, page: Page, *, compressed: bool) -> None:
        if self._transport is None or self._request is None:
            return  # the client did not wait
        with_body = self._request.method != b"HEAD"
        self._request = None
        self._send(page, compressed=compressed, with_body=with_body)
        if self._h11.our_state is h11.MUST_CLOSE:
            self.close()
        elif not self._unread:
            self._next()

    def _next(self) -> None:
        """The answer is out: the next request has its turn once everybody else had theirs.

        Else a client that sends thousands of small ones at once would have the loop to itself.
        """
        if self._transport is None or not self._answering or self._request is not None:
            return
        if self._h11.our_state is h11.DONE:
            asyncio.get_running_loop().call_soon(self._take_next)

    def _take_next(self) -> None:
        if self._transport is None:
            return
        self._answering = False
        self._arm(IDLE_TIMEOUT)
        self._h11.start_next_cycle()
        self._transport.resume_reading()
        try:
            self._read()
        except h11.RemoteProtocolError as error:
            self._refuse(error)

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        self._server.counters.protocol_errors += 1
        if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            page = text_page(f"{error}\n", error.error_status_hint)
            self._send(page, compressed=False, with_body=True)
        self.close()

    def _send(self, page: Page, *, compressed: bool, with_body: bool) -> None:
        assert self._transport is not None
        headers = [("content-type", page.content_type), ("content-length", str(len(page.body)))]
        if compressed:
            headers.append(("content-encoding", "gzip"))
        data = self._h11.send(h11.Response(status_code=page.status, headers=headers)) or b""
        if with_body:
            data += self._h11.send(h11.Data(data=page.body)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        self._server.counters.sent_bytes += len(data)
        self._transport.write(data)
