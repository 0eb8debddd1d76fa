"""The http server under scrapers that are slow, hang, lie or come in crowds."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest

from pegel.metrics import http
from pegel.metrics.http import MAX_CONNECTIONS, HttpRequest, HttpServer, Page, Route, text_page
from pegel.seams.disk import ThreadDiskQueue
from pegel.seams.network import RealNetwork

GET = b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n"


class Served:
    def __init__(self, server: HttpServer, port: int) -> None:
        self.server, self.port = server, port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """One request; everything until the server closes, or the one answer."""
        reader, writer = await self.connect()
        writer.write(request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
        try:
            return await reader.read()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(
    slow: Callable[[], bytes] = lambda: b"slow",
    quick: Route = lambda _request: text_page("quick"),
) -> AsyncIterator[Served]:
    server = HttpServer(
        RealNetwork(),
        ThreadDiskQueue,
        {"/quick": quick},
        {"/slow": lambda _r: Page(200, "text/plain", slow())},
    )
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield Served(server, port)
    finally:
        await server.close()


def run(work: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_pages_and_mistakes() -> None:
    async def work() -> None:
        async with serving() as served:
            assert (await served.ask(GET % b"/quick")).endswith(b"quick")
            assert (await served.ask(GET % b"/slow")).endswith(b"slow")
            assert b" 404 " in await served.ask(GET % b"/nothing")
            assert b" 405 " in await served.ask(b"DELETE /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            head = await served.ask(b"HEAD /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"content-length: 4" in head
            assert head.endswith(b"\r\n\r\n")

    run(work())


def test_several_requests_on_one_connection_are_answered_in_order() -> None:
    async def work() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(GET % b"/slow" + GET % b"/quick" + GET % b"/slow")
            data = b""
            while data.count(b"slow") < 2:
                data += await reader.read(4096)
            assert data.index(b"slow") < data.index(b"quick") < data.rindex(b"slow")
            writer.close()

    run(work())


def test_a_page_is_compressed_where_that_is_welcome() -> None:
    async def work() -> None:
        async with serving(lambda: b"x" * 100_000) as served:
            plain = await served.ask(GET % b"/slow")
            request = b"GET /slow HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n"
            packed = await served.ask(request)
            assert len(packed) < len(plain) / 20
            assert gzip.decompress(packed.split(b"\r\n\r\n", 1)[1]) == b"x" * 100_000

    run(work())


def test_a_crowd_shares_one_page_and_the_loop_stays_free() -> None:
    """While a page is being written everybody who asks for it waits for the next one, together."""
    written = 0
    go = threading.Event()

    def slow() -> bytes:
        nonlocal written
        written += 1
        go.wait(20)
        return b"page"

    async def work() -> None:
        async with serving(slow) as served:
            asks = [asyncio.ensure_future(served.ask(GET % b"/slow")) for _ in range(20)]
            await until(lambda: len(served.server.connections) == 20)
            # The thread is held up; what the loop answers itself still comes.
            assert (await served.ask(GET % b"/quick")).endswith(b"quick")
            go.set()
            answers = await asyncio.gather(*asks)
            assert all(answer.endswith(b"page") for answer in answers)
            assert written <= 2

    run(work())


class Turns:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.now = 0
        self._count()

    def _count(self) -> None:
        self.now += 1
        asyncio.get_running_loop().call_soon(self._count)


def test_one_answer_in_each_turn_of_the_loop_however_many_are_asked_for() -> None:
    """A thousand requests in one packet: others run between any two of them."""
    many, seen = 1_000, []

    async def work() -> None:
        turns = Turns()

        def quick(_request: HttpRequest) -> Page:
            seen.append(turns.now)
            return text_page("quick")

        async with serving(quick=quick) as served:
            reader, writer = await served.connect()
            writer.write((GET % b"/quick") * many)
            answered = b""
            while answered.count(b"quick") < many:
                answered += await reader.read(65_536)
            writer.close()

    run(work())
    assert len(seen) == len(set(seen)) == many


def test_a_crowd_is_answered_one_in_each_turn_of_the_loop() -> None:
    class Waiting:
        def __init__(self, turns: Turns) -> None:
            self.turns = turns
            self.answered_in = asyncio.get_running_loop().create_future()

        def respond(self, page: Page, *, compressed: bool) -> None:
            assert (page.body, compressed) == (b"slow", False)
            self.answered_in.set_result(self.turns.now)

    async def work() -> None:
        async with serving() as served:
            turns = Turns()
            crowd = [Waiting(turns) for _ in range(MAX_CONNECTIONS)]
            for one in crowd:
                served.server.handle(cast(Any, one), HttpRequest("/slow", (), ""), compress=False)
            found = await asyncio.gather(*(one.answered_in for one in crowd))
            assert len(set(found)) == MAX_CONNECTIONS

    run(work())


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 3)

    async def work() -> None:
        async with serving() as served:
            held = [await served.connect() for _ in range(3)]
            await until(lambda: len(served.server.connections) == 3)
            reader, writer = await served.connect()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            assert served.server.counters.refused == 1
            for _, open_writer in held:
                open_writer.close()
            await until(lambda: not served.server.connections)
            assert (await served.ask(GET % b"/quick")).endswith(b"quick")

    run(work())


@pytest.mark.parametrize("trickle", [False, True])
def test_a_request_that_never_arrives_is_dropped(
    monkeypatch: pytest.MonkeyPatch, trickle: bool
) -> None:
    monkeypatch.setattr(http, "REQUEST_TIMEOUT", 0.1)

    async def work() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(b"GET /quick HTTP/1.1\r\n")
            with contextlib.suppress(ConnectionError):
                while trickle and served.server.connections:
                    writer.write(b"a: b\r\n")
                    await asyncio.sleep(0.02)
                assert await reader.read() == b""
            await until(lambda: not served.server.connections)
            writer.close()

    run(work())


def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.1)

    async def work() -> None:
        async with serving(lambda: random.Random(1).randbytes(32 << 20)) as served:
            _, writer = await served.connect()
            writer.write((GET % b"/slow") * 50)  # never reads; only one answer is ever begun
            await until(lambda: served.server.counters.sent_bytes > 0)
            await until(lambda: not served.server.connections)
            assert served.server.counters.sent_bytes < 40 << 20
            writer.close()

    run(work())


HOSTILE = [
    b"\x00" * 100_000,
    b"GET " + b"/" * 100_000,
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /quick HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    b"GET /quick HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    b"GET /quick HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n" + b"z" * 100_000,
    b"POST /quick HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /quick?" + b"&".join(b"a%d=1" % n for n in range(500)) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /quick HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
]


@pytest.mark.parametrize("bytes_sent", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_requests_get_an_error_and_cost_one_connection(bytes_sent: bytes) -> None:
    async def work() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(bytes_sent)
            writer.write_eof()
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await reader.read()
            assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer[:200]
            writer.close()
            await until(lambda: not served.server.connections)
            assert (await served.ask(GET % b"/quick")).endswith(b"quick")

    run(work())


def test_random_bytes_never_break_the_server() -> None:
    seeded = random.Random(11)

    async def work() -> None:
        async with serving() as served:
            for _ in range(60):
                request = bytearray(b"GET /quick HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n")
                for _ in range(seeded.randint(1, 8)):
                    request[seeded.randrange(len(request))] = seeded.randrange(256)
                reader, writer = await served.connect()
                writer.write(bytes(request))
                writer.write_eof()
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                writer.close()
            assert (await served.ask(GET % b"/quick")).endswith(b"quick")

    run(work())
