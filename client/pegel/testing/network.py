"""TCP proxies between the nodes of a local cluster, so that a test can cut any way between two.

A cut does what a cut cable does: bytes under way stand still, nobody is told, new connections hang,
and what was held is delivered when the cut ends (TCP would send it again). Nothing is dropped from
within a stream. It works without privileges, on any system.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Kind = Literal["client", "controller"]
KINDS: tuple[Kind, ...] = ("client", "controller")
# Whoever is no node: clients, tools.
OUTSIDE = 0

_CHUNK = 64 * 1024
_WATCH_INTERVAL = 0.02
_HEAD_BYTES = 14  # a Kafka request up to the length of its client id
_BROKER_NAME = re.compile(rb"broker-(\d+)-")
# Below the range that the system takes outgoing ports from: a port that is given up for a moment,
# as that of a killed node, must not be taken by some connection.
_PORTS = range(10_000, 32_000)
HOST = "127.0.0.1"
T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Different free ports of this host. Raises OSError where there are not so many."""
    generator = random.SystemRandom()
    found: list[int] = []
    for _ in range(10_000):
        port = generator.choice(_PORTS)
        if port in found:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


@dataclass(slots=True)
class _Door:
    """A listening port that leads to one listener of one node.

    ``source`` is who comes through it; None where the first request tells.
    """

    port: int
    target: int
    kind: Kind
    to: tuple[str, int]
    source: int | None = None
    server: asyncio.Server | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class FaultyNetwork:
    """All proxies of a cluster, in a thread of its own; methods may be called from any thread.

    Nodes are named by their ids, everybody else is ``OUTSIDE``. A rule holds for packets *from* one
    *to* another, of a kind of listener: ``cut(1, 2)`` stops what 1 sends to 2, be it requests of
    1 or answers to requests of 2.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="faulty-network", daemon=True
        )
        self._thread.start()
        self._doors: list[_Door] = []
        # A way is open while its event is set; ways that were never cut are not here.
        self._ways: dict[tuple[int, int, Kind], asyncio.Event] = {}
        self._delays: dict[tuple[int, int, Kind], float] = {}
        self.closed = False

    # -- from any thread

    def door(
        self,
        port: int,
        target: int,
        kind: Kind,
        to: tuple[str, int],
        source: int | None = None,
    ) -> None:
        """Listen on ``port`` and pass on to ``to``, a listener of node ``target``.

        Raises:
            OSError: the port is in use.
        """
        door = _Door(port, target, kind, to, source)
        self._do(self._open(door))
        self._doors.append(door)

    def cut(self, source: int, target: int, kinds: Iterable[Kind] = KINDS) -> None:
        """Stop what ``source`` sends to ``target``."""

        def do() -> None:
            for kind in kinds:
                self._ways.setdefault((source, target, kind), asyncio.Event()).clear()

        self._call(do)

    def separate(
        self, some: Iterable[int], others: Iterable[int], kinds: Iterable[Kind] = KINDS
    ) -> None:
        """Stop everything between two groups, both ways."""
        wanted, rest = tuple(kinds), tuple(others)
        for one in some:
            for other in rest:
                if one != other:
                    self.cut(one, other, wanted)
                    self.cut(other, one, wanted)

    def delay(
        self, source: int, target: int, seconds: float, kinds: Iterable[Kind] = KINDS
    ) -> None:
        """Hold each chunk from ``source`` to ``target`` for so long."""

        def do() -> None:
            for kind in kinds:
                self._delays[source, target, kind] = seconds

        self._call(do)

    def heal(self) -> None:
        """Everything flows again, what was held first."""

        def do() -> None:
            self._delays.clear()
            for way in self._ways.values():
                way.set()

        self._call(do)

    def refuse(self, target: int) -> None:
        """Listen for ``target`` no more: its process is about to be gone.

        To be called before it is killed: a connection that is refused is the proof of a crash.
        """
        self._do(self._shut(target))

    def admit(self, target: int) -> None:
        """Listen for ``target`` again."""

        async def reopen() -> None:
            for door in self._doors:
                if door.target == target and door.server is None:
                    await self._open(door)

        self._do(reopen())

    def close(self) -> None:
        """Close every door and connection. Safe to call twice."""
        if self.closed:
            return
        self.closed = True

        async def end() -> None:
            for target in {door.target for door in self._doors}:
                await self._shut(target)
            tasks = [task for door in self._doors for task in door.tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _call(self, do: Callable[[], None]) -> None:
        async def work() -> None:
            do()

        self._do(work())

    # -- in the network's own thread

    async def _open(self, door: _Door) -> None:
        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            door.tasks.add(task)
            task.add_done_callback(door.tasks.discard)
            # Broken and cancelled connections are what this is for.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._pass(door, reader, writer)

        door.server = await asyncio.start_server(on_connection, HOST, door.port)

    def _await(self, door: _Door) -> None:
        """Open the door again once its listener is there."""

        async def watch() -> None:
            while door.server is None:
                await asyncio.sleep(_WATCH_INTERVAL)
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(*door.to)
                    writer.close()
                    if door.server is None:
                        await self._open(door)

        task = asyncio.ensure_future(watch())
        door.tasks.add(task)
        task.add_done_callback(door.tasks.discard)

    async def _shut(self, target: int) -> None:
        for door in self._doors:
            if door.target == target and door.server is not None:
                door.server.close()
                door.server = None

    async def _pass(
        self, door: _Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection, from the first byte to the last."""
        onward: asyncio.StreamWriter | None = None
        try:
            first = b""
            source = door.source
            if source is None:
                first = await reader.read(_CHUNK)
                while 0 < len(first) < _HEAD_BYTES:
                    more = await reader.read(_CHUNK)
                    if not more:
                        return
                    first += more
                source = _sender(first)
            there, back = (source, door.target, door.kind), (door.target, source, door.kind)
            # A connection is made by packets in both directions.
            await self._flow(there)
            await self._flow(back)
            try:
                answers, onward = await asyncio.open_connection(*door.to)
            except ConnectionRefusedError:
                # Nobody listens there (yet, or any more): whoever comes next is to be refused too.
                if door.server is not None:
                    door.server.close()
                    door.server = None
                    self._await(door)
                return
            if first:
                onward.write(first)
            pumps = [
                asyncio.ensure_future(self._pump(there, reader, onward)),
                asyncio.ensure_future(self._pump(back, answers, writer)),
            ]
            try:
                # Where one side has ended, so has the connection: nobody here half-closes.
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            writer.close()
            if onward is not None:
                onward.close()

    async def _pump(
        self,
        way: tuple[int, int, Kind],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            data = await reader.read(_CHUNK)
            delay = self._delays.get(way, 0.0)
            if delay:
                await asyncio.sleep(delay)
            await self._flow(way)  # the end of a stream is held as well
            if not data:
                return
            writer.write(data)
            await writer.drain()

    async def _flow(self, way: tuple[int, int, Kind]) -> None:
        gate = self._ways.get(way)
        if gate is not None and not gate.is_set():
            await gate.wait()


def _sender(first: bytes) -> int:
    """The node that sent this first request of a connection: brokers say so in their client id."""
    length = int.from_bytes(first[12:14], "big")
    found = _BROKER_NAME.match(first[14 : 14 + length])
    return int(found.group(1)) if found else OUTSIDE
