"""A transport in memory under a real protocol object, and a network that shows its listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from pegel.seams.network import Listener, RealNetwork

WRITTEN_MAX = 64 << 20


class MemoryTransport(asyncio.Transport):
    """Takes what the protocol writes and forgets all but the newest; closing is told to it.

    Attributes:
        written: bytes in all.
        last: the newest buffers, for who wants to read an answer.
        closing: closed by the protocol, or by us.
    """

    def __init__(self, protocol: asyncio.BaseProtocol, *, keep: bool = False) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = 0
        self.keep = keep
        self.last = bytearray()
        self.closing = False
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 9) if name in {"peername", "sockname"} else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)
        if self.keep:
            self.last += data

    def writelines(self, buffers: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in buffers:
            self.write(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading and not self.closing

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def feed(self, data: bytes | memoryview) -> None:
        """Deliver bytes as the event loop does, until the protocol closes or will not read."""
        protocol = self.protocol
        rest = memoryview(data)
        while rest and not self.closing and self.reading:
            if isinstance(protocol, asyncio.BufferedProtocol):
                buffer = memoryview(protocol.get_buffer(-1))
                size = min(len(buffer), len(rest))
                buffer[:size] = rest[:size]
                protocol.buffer_updated(size)
                rest = rest[size:]
            else:
                assert isinstance(protocol, asyncio.Protocol)
                protocol.data_received(bytes(rest))
                return


class TappedNetwork(RealNetwork):
    """The real network; what its listeners would make of a connection can be had without one."""

    def __init__(self) -> None:
        self.factories: dict[int, Callable[[], asyncio.BaseProtocol]] = {}

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> Listener:
        listener = await super().listen(factory, host, port)
        self.factories[listener.address[1]] = factory
        return listener

    def connect_to(self, port: int, *, keep: bool = False) -> MemoryTransport:
        protocol = self.factories[port]()
        transport = MemoryTransport(protocol, keep=keep)
        protocol.connection_made(transport)
        return transport
