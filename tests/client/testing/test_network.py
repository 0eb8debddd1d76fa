"""The proxies between the nodes of a test cluster, with an echo in the place of a node."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pegel.protocol.codec import encode_request
from pegel.protocol.messages.api_versions import ApiVersionsRequest
from pegel.testing.network import HOST, OUTSIDE, FaultyNetwork, free_ports

WAIT = 20.0
QUIET = 0.15  # how long nothing has to come, to call it nothing


class Echo:
    """A listener that sends back what it gets."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind((HOST, port))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def close(self) -> None:
        # accept() returns only once the socket is shut down.
        if self._server.fileno() >= 0:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()


@pytest.fixture
def network() -> Iterator[FaultyNetwork]:
    network = FaultyNetwork()
    yield network
    network.close()


@pytest.fixture
def echo() -> Iterator[tuple[Echo, int]]:
    (port,) = free_ports(1)
    echo = Echo(port)
    yield echo, port
    echo.close()


def _connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=WAIT)


def _hear(connection: socket.socket, wait: float = WAIT) -> bytes | None:
    """What comes; None where nothing does."""
    connection.settimeout(wait)
    try:
        return connection.recv(4096)
    except TimeoutError:
        return None


def _controller_door(network: FaultyNetwork, to: int, source: int = 1, target: int = 2) -> int:
    (port,) = free_ports(1)
    network.door(port, target, "controller", (HOST, to), source)
    return port


def test_bytes_pass_both_ways(network: FaultyNetwork, echo: tuple[Echo, int]) -> None:
    with _connect(_controller_door(network, echo[1])) as connection:
        for data in (b"one", b"two", b"x" * 4_000):
            connection.sendall(data)
            assert _hear(connection) == data


@pytest.mark.parametrize("way", [(1, 2), (2, 1)])
def test_a_cut_holds_what_is_sent_and_its_end_lets_it_go(
    network: FaultyNetwork, echo: tuple[Echo, int], way: tuple[int, int]
) -> None:
    with _connect(_controller_door(network, echo[1])) as connection:
        connection.sendall(b"before")
        assert _hear(connection) == b"before"
        network.cut(*way)
        connection.sendall(b"during")
        assert _hear(connection, QUIET) is None
        network.heal()
        assert _hear(connection) == b"during"


def test_a_cut_is_of_two_nodes_and_of_a_kind(
    network: FaultyNetwork, echo: tuple[Echo, int]
) -> None:
    mine = _connect(_controller_door(network, echo[1]))
    others = _connect(_controller_door(network, echo[1], source=3))
    with mine, others:
        network.cut(1, 2, ["client"])
        mine.sendall(b"another kind")
        assert _hear(mine) == b"another kind"
        network.separate([1], [2, 4])
        mine.sendall(b"held")
        others.sendall(b"another node")
        assert _hear(others) == b"another node"
        assert _hear(mine, QUIET) is None


def test_during_a_cut_connections_are_not_made(
    network: FaultyNetwork, echo: tuple[Echo, int]
) -> None:
    door = _controller_door(network, echo[1])
    network.separate([1], [2])
    with _connect(door) as connection:
        connection.sendall(b"first")
        assert _hear(connection, QUIET) is None
        assert echo[0].connections == 0
        network.heal()
        assert _hear(connection) == b"first"


def test_the_end_of_a_connection_is_held_as_well(
    network: FaultyNetwork, echo: tuple[Echo, int]
) -> None:
    with _connect(_controller_door(network, echo[1])) as connection:
        connection.sendall(b"x")
        assert _hear(connection) == b"x"
        network.cut(2, 1)
        echo[0].close()
        connection.sendall(b"unheard")
        assert _hear(connection, QUIET) is None


@pytest.mark.parametrize(
    ("name", "source"),
    [("broker-3-fetcher", 3), ("broker-12-lag", 12), ("broker-x", OUTSIDE), ("rdkafka", OUTSIDE),
     (None, OUTSIDE), ("my-broker-3-", OUTSIDE)],
)  # fmt: skip
def test_who_comes_to_a_clients_listener_is_known_by_its_first_request(
    network: FaultyNetwork, echo: tuple[Echo, int], name: str | None, source: int
) -> None:
    (port,) = free_ports(1)
    network.door(port, 2, "client", (HOST, echo[1]))
    request = b"".join(encode_request(ApiVersionsRequest(), 0, 1, name))
    network.cut(source, 2)
    with _connect(port) as connection:
        connection.sendall(request[:9])
        connection.sendall(request[9:])
        assert _hear(connection, QUIET) is None
        network.heal()
        assert _hear(connection) == request
    for other in {3, 12, OUTSIDE} - {source}:
        network.cut(other, 2)
    with _connect(port) as connection:
        connection.sendall(request)
        assert _hear(connection) == request


def test_a_node_that_is_killed_refuses(network: FaultyNetwork, echo: tuple[Echo, int]) -> None:
    door = _controller_door(network, echo[1])
    network.refuse(2)
    with pytest.raises(ConnectionRefusedError):
        _connect(door)
    network.admit(2)
    with _connect(door) as connection:
        connection.sendall(b"again")
        assert _hear(connection) == b"again"


def test_a_node_that_has_ended_by_itself_refuses_until_it_is_back(network: FaultyNetwork) -> None:
    (port,) = free_ports(1)
    door = _controller_door(network, port)
    with _connect(door) as connection:
        assert _hear(connection) == b""  # the first to notice is let in, and turned away
    with pytest.raises(ConnectionRefusedError):
        _connect(door)
    echo = Echo(port)
    try:
        while True:
            try:
                connection = _connect(door)
                break
            except ConnectionRefusedError:
                continue
        with connection:
            connection.sendall(b"back")
            assert _hear(connection) == b"back"
    finally:
        echo.close()


def test_delays(network: FaultyNetwork, echo: tuple[Echo, int]) -> None:
    with _connect(_controller_door(network, echo[1])) as connection:
        network.delay(1, 2, QUIET)
        began = time.monotonic()
        connection.sendall(b"slow")
        assert _hear(connection) == b"slow"
        assert time.monotonic() - began >= QUIET  # later at will, never sooner
