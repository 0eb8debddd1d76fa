"""The client listener: accepts connections and drops those that stall or idle for too long."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from pegel.metrics.listener import ListenerCounters
from pegel.seams import World
from pegel.seams.network import Listener
from pegel_broker.handlers.context import Broker
from pegel_broker.network.accounting import Accounting
from pegel_broker.network.connection import ClientConnection
from pegel_broker.network.receiving import ReceivingMemory
from pegel_broker.network.session import LOGIN_TIMEOUT, Doorkeeper

_log = logging.getLogger("pegel.broker")

# A request must arrive whole within this time, in seconds, once its first byte is here.
PARTIAL_FRAME_TIMEOUT = 30.0
SWEEP_INTERVAL = 10.0
# Connections beyond this are closed as they come, or take the place of one that has not logged in.
MAX_CONNECTIONS = 10_000


class ClientListener:
    """Serves ``broker`` on one address. Times in seconds."""

    def __init__(
        self,
        world: World,
        broker: Broker,
        *,
        max_request_bytes: int,
        idle_max: float = 600.0,
        max_connections: int = MAX_CONNECTIONS,
        slow_after: float = 0.0,
        max_receiving_bytes: int = -1,
        door: Doorkeeper | None = None,
    ) -> None:
        """``max_receiving_bytes``: see ``ReceivingMemory``. ``door``: clients have to log in.

        ``slow_after``: requests that take longer are logged (seconds; 0 logs none).
        """
        self.broker = broker
        self.door = door
        self.accounting = Accounting(broker, slow_after)
        self.now = world.clock.monotonic
        self.counters = ListenerCounters()
        self.receiving = ReceivingMemory(max_receiving_bytes)
        self._world = world
        self._max_request_bytes = max_request_bytes
        self._idle_max = idle_max
        self._max_connections = max_connections
        self._connections: dict[ClientConnection, None] = {}
        # Those of them that have not logged in yet and have to, in the order in which they came.
        self._strangers: OrderedDict[ClientConnection, None] = OrderedDict()
        self.serving = False
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Accept; the address bound. Raises OSError."""
        self._listener = await self._world.network.listen(self._accept, host, port)
        return self._listener.address

    def begin_serving(self) -> None:
        """The metadata is here: handle what connections have been waiting with."""
        self.serving = True
        for connection in list(self._connections):
            connection.resume_reading()

    def _accept(self) -> ClientConnection:
        return ClientConnection(self, self._max_request_bytes)

    def on_opened(self, connection: ClientConnection) -> None:
        if len(self._connections) >= self._max_connections and not self._make_room():
            self.counters.refused += 1
            _log.warning("refusing %s: %d connections are open", connection.peer,
                         len(self._connections))  # fmt: skip
            connection.abort()
            return
        self.counters.accepted += 1
        self._connections[connection] = None
        if connection.session is not None:
            self._strangers[connection] = None
        if not self.serving:
            connection.pause_reading()
        if self._timer is None:
            self._arm()

    def _make_room(self) -> bool:
        """Who waits longest without having logged in goes: whoever fills all places with silent
        connections keeps nobody out, brokers neither, who logs in in less time than that takes.
        """
        while self._strangers:
            oldest, _ = self._strangers.popitem(last=False)
            if oldest.session is not None and oldest.session.user is not None:
                continue
            _log.warning("closing %s, which has not logged in: %d connections are open",
                         oldest.peer, len(self._connections))  # fmt: skip
            self.on_closed(oldest)  # now, and not when the event loop comes to it
            oldest.abort()
            return True
        return False

    def on_known(self, connection: ClientConnection) -> None:
        """It has logged in."""
        self._strangers.pop(connection, None)

    def on_closed(self, connection: ClientConnection) -> None:
        self._strangers.pop(connection, None)
        if self._connections.pop(connection, 0) is None:
            self.counters.closed += 1

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_INTERVAL, self._sweep)

    def _sweep(self) -> None:
        """Runs only while there are connections."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            since = connection.partial_since
            if since is not None and now - since > PARTIAL_FRAME_TIMEOUT:
                _log.warning("closing %s: a request did not arrive whole in %d s",
                             connection.peer, PARTIAL_FRAME_TIMEOUT)  # fmt: skip
                connection.abort()
            elif (
                self.serving
                and connection.session is not None
                and connection.session.user is None
                and now - connection.opened_at > LOGIN_TIMEOUT
            ):
                _log.warning("closing %s: it did not log in within %d s",
                             connection.peer, LOGIN_TIMEOUT)  # fmt: skip
                connection.abort()
            elif not connection.in_flight and now - connection.last_used > self._idle_max:
                _log.debug("closing %s: idle", connection.peer)
                connection.close()
        if self._connections:
            self._arm()

    def stop_accepting(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def close(self) -> None:
        """Stop accepting, flush what is written, close every connection."""
        self.stop_accepting()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.abort()
        self._connections.clear()
        self._strangers.clear()
