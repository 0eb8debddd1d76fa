"""Connections to brokers: one for each broker and purpose, opened when needed.

Purposes keep requests apart that would wait for each other on one connection, because a broker
answers in order: a fetch that waits half a second for data must not hold up an acknowledgement.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pegel.config import ClientOptions
from pegel.errors import ClosedError, PegelError
from pegel.network.backoff import Backoff
from pegel.network.connection import Connection
from pegel.protocol.schema import Message
from pegel.seams import Clock, Network

M = TypeVar("M", bound=Message)

CONTROL = "control"
PRODUCE = "produce"
FETCH = "fetch"

_RECONNECT_BACKOFF = 0.02
# Of a session's life after which its connection is replaced (Kafka's clients: 85 to 95 %).
_SESSION_SHARE = 0.85
_NEVER = float("inf")


class Endpoint(NamedTuple):
    """A broker's address. Bootstrap addresses, whose node id is not known, have negative ids."""

    node_id: int
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


async def ask(
    connection: Connection,
    request: Message,
    response_type: type[M],
    *,
    timeout: float,
    max_version: int | None = None,
) -> M:
    """Send a request and wait for its typed response.

    Raises:
        RequestTimeoutError, ConnectionFailedError, UnsupportedVersionError: as ``Connection``.
    """
    version = connection.version_for(request.api_key, max_version)
    response = await connection.request(request, version=version, timeout=timeout)
    assert isinstance(response, response_type)
    return response


def _retrieve(task: asyncio.Task[Connection]) -> None:
    """Callers that gave up leave nobody to see the error; that is no error of its own."""
    if not task.cancelled():
        task.exception()


def forked(process: int) -> ClosedError:
    """The error of a client that came into this process by a fork."""
    return ClosedError(
        f"this client was made in process {process} and cannot be used in its child {os.getpid()}: "
        "make a client in each process, after the fork"
    )


class ConnectionPool:
    """Opens, keeps and drops connections. Names are resolved again at each connect."""

    def __init__(
        self, network: Network, clock: Clock, rng: random.Random, options: ClientOptions
    ) -> None:
        self._network, self._clock, self._random = network, clock, rng
        self._options = options
        self._open: dict[tuple[int, str], Connection] = {}
        self._opening: dict[tuple[int, str], tuple[Endpoint, asyncio.Task[Connection]]] = {}
        # By address: how long to leave it alone. An entry goes when a connect succeeds.
        self._backoffs: dict[tuple[str, int], Backoff] = {}
        self._not_before: dict[tuple[str, int], float] = {}
        # When connections are to be replaced whose sessions end.
        self._renew_at: dict[Connection, float] = {}
        # Replaced, and still to answer what they were asked.
        self._retired: list[tuple[tuple[int, str], Connection]] = []
        self._closed = False
        self._process = os.getpid()
        self._used = False

    def check_process(self) -> None:
        """Raises ClosedError: a fork's child cannot share its parent's connections and loop."""
        if self._process != os.getpid():
            raise forked(self._process)

    @property
    def in_use(self) -> bool:
        """Whether this process connected, or tried to, and did not close the pool."""
        return self._used and not self._closed and self._process == os.getpid()

    def ready(self, endpoint: Endpoint, purpose: str = CONTROL) -> Connection | None:
        """The open connection, if there is one."""
        connection = self._open.get((endpoint.node_id, purpose))
        if connection is None:
            return None
        if connection.closed or (connection.host, connection.port) != endpoint[1:]:
            # Closed by the peer, or the broker came back at another address.
            connection.close()
            del self._open[endpoint.node_id, purpose]
            return None
        if self._renew_at and self._renew_at.get(connection, _NEVER) <= self._clock.monotonic():
            # Its session ends soon (KIP-368): a new connection logs in anew.
            del self._open[endpoint.node_id, purpose], self._renew_at[connection]
            connection.retire()
            self._retired = [(key, old) for key, old in self._retired if not old.closed]
            self._retired.append(((endpoint.node_id, purpose), connection))
            return None
        return connection

    def is_failing(self, endpoint: Endpoint) -> bool:
        """Whether the last attempt to connect failed."""
        return (endpoint.host, endpoint.port) in self._not_before

    async def get(self, endpoint: Endpoint, purpose: str = CONTROL) -> Connection:
        """The open connection, or a new one; callers at the same time share the attempt.

        After a failure the next attempt waits for its back-off. The wait ends within
        ``connect_timeout`` and the longest back-off.

        Raises:
            ConnectionFailedError, RequestTimeoutError, UnsupportedVersionError: cannot connect.
            AuthenticationError: the broker does not take the credentials.
            ClosedError: the client was closed.
        """
        connection = self.ready(endpoint, purpose)
        if connection is not None:
            return connection
        self.check_process()
        if self._closed:
            raise ClosedError("the client is closed")
        key = (endpoint.node_id, purpose)
        opening = self._opening.get(key)
        if opening is not None and opening[0] != endpoint:
            opening[1].cancel()  # the broker moved while we were knocking at its old address
            opening = None
        if opening is None:
            task = asyncio.get_running_loop().create_task(self._connect(endpoint, key))
            task.add_done_callback(_retrieve)
            self._opening[key] = opening = (endpoint, task)
        try:
            return await asyncio.shield(opening[1])
        except asyncio.CancelledError:
            if not opening[1].cancelled():
                raise
            if self._closed:
                raise ClosedError("the client is closed") from None
            return await self.get(endpoint, purpose)

    async def _connect(self, endpoint: Endpoint, key: tuple[int, str]) -> Connection:
        address = (endpoint.host, endpoint.port)
        self._used = True
        try:
            pause = self._not_before.get(address, 0.0) - self._clock.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            try:
                connection = await Connection.open(
                    self._network,
                    self._clock,
                    endpoint.host,
                    endpoint.port,
                    client_id=self._options.client_id,
                    timeout=self._options.connect_timeout,
                    credentials=self._options.credentials,
                )
            except PegelError:
                backoff = self._backoffs.get(address)
                if backoff is None:
                    longest = self._options.reconnect_backoff_max
                    backoff = Backoff(_RECONNECT_BACKOFF, longest, self._random)
                    self._backoffs[address] = backoff
                self._not_before[address] = self._clock.monotonic() + backoff.next()
                raise
            self._backoffs.pop(address, None)
            self._not_before.pop(address, None)
            self._open[key] = connection
            if connection.session_lifetime:
                now = self._clock.monotonic()
                self._renew_at = {c: at for c, at in self._renew_at.items() if not c.closed}
                self._renew_at[connection] = now + connection.session_lifetime * _SESSION_SHARE
            return connection
        finally:
            opening = self._opening.get(key)
            if opening is not None and opening[1] is asyncio.current_task():
                del self._opening[key]

    async def ask(
        self,
        endpoint: Endpoint,
        request: Message,
        response_type: type[M],
        *,
        purpose: str = CONTROL,
        timeout: float | None = None,
        max_version: int | None = None,
    ) -> M:
        """One request to one broker, its connection opened if need be.

        Raises:
            PegelError: as ``get`` and ``Connection.request``.
        """
        connection = await self.get(endpoint, purpose)
        wait = self._options.request_timeout if timeout is None else timeout
        return await ask(connection, request, response_type, timeout=wait, max_version=max_version)

    def drop(self, node_id: int, purpose: str) -> None:
        """Close a connection; what is in flight on it fails at once."""
        connection = self._open.pop((node_id, purpose), None)
        if connection is not None:
            connection.close()
        self._close_retired(lambda key: key == (node_id, purpose))

    def drop_all(self, purpose: str) -> None:
        """Close the connections of one purpose, whichever broker they go to."""
        for key in [key for key in self._open if key[1] == purpose]:
            self._open.pop(key).close()
        self._close_retired(lambda key: key[1] == purpose)
        for key in [key for key in self._opening if key[1] == purpose]:
            self._opening.pop(key)[1].cancel()

    def _close_retired(self, chosen: Callable[[tuple[int, str]], bool]) -> None:
        for key, connection in self._retired:
            if chosen(key):
                connection.close()
        self._retired = [(key, old) for key, old in self._retired if not chosen(key)]

    async def close(self) -> None:
        """Close everything; attempts to connect are cancelled."""
        self._closed = True
        tasks = [task for _, task in self._opening.values()]
        for task in tasks:
            task.cancel()
        for connection in self._open.values():
            connection.close()
        self._open.clear()
        self._close_retired(lambda _: True)
        if tasks:
            await asyncio.wait(tasks)
