"""The network seam: listen and connect, with asyncio's own transports and protocols."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Listener(Protocol):
    """A bound, accepting socket."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port actually bound (the port is never 0)."""
        ...

    def close(self) -> None:
        """Stop accepting at once. Connections that exist stay open."""
        ...


class Network(Protocol):
    """Opens listeners and connections."""

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> Listener:
        """Accept connections on ``host:port`` (0 picks a free port).

        Raises:
            OSError: the address is in use or cannot be bound.
        """
        ...

    async def connect(
        self, factory: Callable[[], P], host: str, port: int
    ) -> tuple[asyncio.Transport, P]:
        """Open one connection. The caller bounds the wait (``asyncio.timeout``).

        Raises:
            ConnectionRefusedError: nothing listens there (proof that the process is gone).
            OSError: any other failure.
        """
        ...


class _RealListener:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        name = server.sockets[0].getsockname()
        self._address = (str(name[0]), int(name[1]))

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        self._server.close()


class RealNetwork:
    """TCP by the running event loop."""

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> Listener:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, host, port, backlog=1024)
        return _RealListener(server)

    async def connect(
        self, factory: Callable[[], P], host: str, port: int
    ) -> tuple[asyncio.Transport, P]:
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.create_connection(factory, host, port)
        except (ValueError, OverflowError) as error:
            # A name that does not encode or has a NUL, or no port: peers tell such addresses.
            raise OSError(errno.EINVAL, f"no address: {host!r:.80}:{port}: {error}") from None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return transport, protocol
