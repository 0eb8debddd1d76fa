"""A simulated TCP network between hosts: latency, cuts, resets, half-open connections.

Bytes arrive in order or not at all. While the path from one host to another is cut, what was sent
is held back (TCP sends it again) and arrives after the path is whole; nobody is told. A killed
process's sockets are closed by its kernel; a host without power closes nothing, and whoever sends
to it once it is up again gets a reset.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from random import Random
from typing import Any

from pegel.seams.network import Listener
from tests.simulation.cluster.kernel import Scheduler, SimLoop
from tests.simulation.cluster.transport import Pipe, SimTransport

SYN_RETRIES = (0.0, 1.0, 3.0, 7.0)
CONNECT_GIVES_UP = 15.0
ANY_PORT = -1


class Network:
    """All hosts, links and listeners.

    Attributes:
        cuts: (from, to, port) of hosts whose packets are lost, with the number of causes; the
            port is that of the listener, whoever sends, or ``ANY_PORT``.
        slow: extra seconds of delay, at most, for a (from, to) pair.
    """

    def __init__(self, scheduler: Scheduler, random: Random) -> None:
        self.scheduler = scheduler
        self.random = random
        self.latency = (0.0001, 0.0006)
        self.cuts: dict[tuple[str, str, int], int] = {}
        self.slow: dict[tuple[str, str], float] = {}
        self.off: set[str] = set()  # hosts without power; only asked, never iterated
        self.listeners: dict[tuple[str, int], SimListener] = {}
        self.connections: dict[int, tuple[SimTransport, SimTransport]] = {}
        self.made = 0

    # -- paths

    def delay(self, source: str, target: str) -> float:
        if source == target:
            return 0.00002
        low, high = self.latency
        delay = low + (high - low) * self.random.random()
        extra = self.slow.get((source, target))
        if extra is not None:
            delay += extra * self.random.random()
        return delay

    def is_cut(self, source: str, target: str, port: int) -> bool:
        off, cuts = self.off, self.cuts
        if off and (source in off or target in off):
            return True
        return bool(cuts) and ((source, target, ANY_PORT) in cuts or (source, target, port) in cuts)

    def cut(self, source: str, target: str, port: int = ANY_PORT) -> None:
        path = (source, target, port)
        self.cuts[path] = self.cuts.get(path, 0) + 1

    def mend(self, source: str, target: str, port: int = ANY_PORT) -> None:
        path = (source, target, port)
        left = self.cuts.pop(path, 0) - 1
        if left > 0:
            self.cuts[path] = left
        else:
            self._resend(lambda pipe: pipe.source == source and pipe.target == target)

    def _resend(self, which: Callable[[Pipe], bool]) -> None:
        for ends in self.connections.values():
            for end in ends:
                if end.out.segments and which(end.out):
                    self.scheduler.after(0.4 * self.random.random(), end.out.pump)

    def power_off(self, host: str) -> None:
        """Its kernel forgets everything and tells nobody."""
        self.off.add(host)
        for number, ends in list(self.connections.items()):
            for end in ends:
                if end.host == host:
                    end.vanish()
            if ends[0].vanished and ends[1].vanished:
                del self.connections[number]
        for address in [a for a in self.listeners if a[0] == host]:
            del self.listeners[address]

    def power_on(self, host: str) -> None:
        self.off.discard(host)
        self._resend(lambda pipe: pipe.target == host)

    def reset_one(self, source: str, target: str, *, both: bool) -> bool:
        """Break a connection between two hosts, for one end alone unless ``both``."""
        open_ = [
            ends
            for ends in self.connections.values()
            if {ends[0].host, ends[1].host} == {source, target}
        ]
        if not open_:
            return False
        ends = open_[self.random.randrange(len(open_))]
        first = self.random.randrange(2)
        ends[first].on_reset()
        if both:
            ends[1 - first].on_reset()
        return True

    # -- processes

    def close_process(self, loop: SimLoop, host: str) -> None:
        """The kernel closes the sockets of a process that has ended."""
        for address in [a for a, listener in self.listeners.items() if listener.loop is loop]:
            del self.listeners[address]
        for ends in list(self.connections.values()):
            for end in ends:
                if end.loop is loop:
                    end.on_process_end()

    def for_process(self, loop: SimLoop, host: str) -> ProcessNetwork:
        return ProcessNetwork(self, loop, host)

    def connected(self, client: SimTransport, listener: SimListener, port: int) -> None:
        self.made += 1
        number = self.made
        server = SimTransport(self, listener.loop, listener.host, number)
        client.number = number
        client.join(server, (listener.host, port), port)
        server.join(client, (client.host, 30_000 + number), port)
        self.connections[number] = (client, server)
        listener.accept(server)


class SimListener:
    """One listening socket."""

    def __init__(
        self,
        network: Network,
        loop: SimLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        address: tuple[str, int],
    ) -> None:
        self.loop = loop
        self.host = address[0]
        self._network = network
        self._factory = factory
        self._address = address

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        if self._network.listeners.get(self._address) is self:
            del self._network.listeners[self._address]

    def accept(self, transport: SimTransport) -> None:
        """The kernel has it; the process sees it when it next runs."""
        self.loop.call_soon(self._accepted, transport)

    def _accepted(self, transport: SimTransport) -> None:
        if self._network.listeners.get(self._address) is not self:
            transport.on_process_end()  # closed with connections in its backlog
            return
        transport.begin(self._factory())


class ProcessNetwork:
    """The network seam of one process."""

    def __init__(self, network: Network, loop: SimLoop, host: str) -> None:
        self._network = network
        self._loop = loop
        self._host = host

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> Listener:
        network = self._network
        if port == 0:
            port = 20_000
            while (host, port) in network.listeners:
                port += 1
        if (host, port) in network.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        listener = SimListener(network, self._loop, factory, (host, port))
        network.listeners[host, port] = listener
        return listener

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        attempt = _Connect(self._network, self._loop, self._host, (host, port))
        attempt.send_syn(0)
        try:
            transport = await attempt.future
        except asyncio.CancelledError:
            attempt.abandon()
            raise
        protocol = factory()
        transport.begin(protocol)
        return transport, protocol


class _Connect:
    """The three-way handshake; the server's side exists once its acknowledgement is on its way."""

    def __init__(
        self, network: Network, loop: SimLoop, host: str, address: tuple[str, int]
    ) -> None:
        self.network, self.loop, self.host, self.address = network, loop, host, address
        self.future: asyncio.Future[SimTransport] = loop.create_future()
        self.over = False
        self.transport: SimTransport | None = None

    def send_syn(self, attempt: int) -> None:
        if self.over or self.loop.dead:
            return
        network, target = self.network, self.address[0]
        if not network.is_cut(self.host, target, self.address[1]):
            network.scheduler.after(network.delay(self.host, target), self.on_syn)
        if attempt + 1 < len(SYN_RETRIES):
            wait = SYN_RETRIES[attempt + 1] - SYN_RETRIES[attempt]
            network.scheduler.after(wait, self.send_syn, attempt + 1)
        else:
            wait = CONNECT_GIVES_UP - SYN_RETRIES[attempt]
            error = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
            network.scheduler.after(wait, self.fail, error)

    def on_syn(self, _: None) -> None:
        network, target = self.network, self.address[0]
        if self.over or self.loop.dead or target in network.off:
            return
        if not network.is_cut(target, self.host, self.address[1]):
            network.scheduler.after(network.delay(target, self.host), self.on_answer)

    def on_answer(self, _: None) -> None:
        if self.over or self.loop.dead or self.host in self.network.off:
            return
        listener = self.network.listeners.get(self.address)
        if listener is None:
            self.fail(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
            return
        self.over = True
        self.transport = SimTransport(self.network, self.loop, self.host, 0)
        self.network.connected(self.transport, listener, self.address[1])
        self.future.set_result(self.transport)

    def fail(self, error: OSError) -> None:
        if not self.over and not self.loop.dead:
            self.over = True
            if not self.future.done():
                self.future.set_exception(error)

    def abandon(self) -> None:
        self.over = True
        if self.transport is not None:
            self.transport.abort()
