"""A broker's connection to the active controller: finds it, keeps it, and calls its methods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc.framing import (
    Frame,
    RpcClosedError,
    RpcConnection,
    RpcError,
    RpcRefusedError,
)
from pegel_controller.rpc.hello import ROLE_BROKER, HelloRequest, open_rpc
from pegel_controller.rpc.messages import METHODS

_log = logging.getLogger("pegel.broker")

CONNECT_TIMEOUT = 0.5
# After each round of all controllers without an active one among them.
BACK_OFF_MIN = 0.010
BACK_OFF_MAX = 0.200

W = TypeVar("W", bound=Wire)


class ControllerUnavailableError(RpcError):
    """No active controller answered in time; a request that was sent may have been done."""


class ControllerChannel:
    """Keeps one connection to the active controller.

    A broker that was away may know none of those that vote now. So a controller that does not lead
    tells where the leader is, and the controllers of the beginning are asked too, even those that
    have left, once the others were asked for a while in vain.

    ``on_connected`` is called for each new connection to an active controller, ``on_refused_hello``
    when a controller refuses this node as such (another cluster's, for example).
    """

    def __init__(
        self,
        world: World,
        node_id: int,
        controllers: Mapping[int, tuple[str, int]],
        cluster_id: Callable[[], str],
        *,
        on_connected: Callable[[], None] | None = None,
        on_refused_hello: Callable[[RpcRefusedError], None] | None = None,
    ) -> None:
        if not controllers:
            raise ValueError("a broker needs the address of at least one controller")
        self.controller_id = -1  # the active one connected to, or -1
        self.cluster_id = ""  # as the active controller tells it
        self._world = world
        self._node_id = node_id
        self._first = dict(controllers)
        self._controllers = dict(sorted(controllers.items()))
        self._cluster_id = cluster_id
        self._on_connected = on_connected
        self._on_refused_hello = on_refused_hello
        self._connection: RpcConnection | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._hint = -1
        self._told: dict[int, tuple[str, int]] = {}  # where the hint is, if that was said
        self._served = False  # this connection has answered something
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="controller-channel")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            self._connection.drop("closing")
            self._connection = None

    def set_controllers(self, controllers: Mapping[int, tuple[str, int]]) -> None:
        """Controllers have joined or left; the connection that there is stays."""
        if controllers:
            self._controllers = dict(sorted(controllers.items()))

    async def wait_connected(self) -> None:
        """Return once there is a connection to an active controller."""
        await self._connected.wait()

    def drop(self, hint: int = -1) -> None:
        """This controller is of no use (any more): look for another, ``hint`` first.

        It is heard out, for it may only be slow: what must not be sent twice would be given up
        for nothing.
        """
        connection = self._connection
        if connection is not None:
            self._hint = hint
            self._disconnected()
            connection.retire("looking for the active controller")

    async def call(
        self, method: str, request: Wire, timeout: float, *, retry_sent: bool = True
    ) -> Wire:
        """The active controller's response, within ``timeout`` seconds.

        A request is sent again after a lost connection or a change of controller, unless
        ``retry_sent`` is false: then one that may have been done is not repeated. The answer
        NOT_CONTROLLER says that nothing was done: a controller that stops being active while a
        request waits for its records drops the connection instead of answering.

        Raises:
            ControllerUnavailableError: no answer in time.
            RpcRefusedError: the controller refused the request.
        """
        response_type = METHODS[method][1]
        body = request.to_wire()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._connected.wait()
                    connection = self._connection
                    if connection is None:
                        # Lost again before it was this call's turn, or closed for good. Without
                        # this the wait would end at once, for ever, and stop the event loop.
                        self._connected.clear()
                        continue
                    try:
                        answer = await connection.call(method, body, once=not retry_sent)
                    except RpcRefusedError as error:
                        if error.code != ErrorCode.NOT_CONTROLLER:
                            raise
                        if self._connection is connection:
                            self.drop(error.leader_id)
                    except RpcClosedError as error:
                        if not retry_sent:
                            raise ControllerUnavailableError(
                                f"the connection broke during {method}: {error}"
                            ) from None
                        await asyncio.sleep(0)
                    else:
                        if self._connection is connection:
                            self._served = True
                        return response_type.from_wire(answer)
        except TimeoutError:
            raise ControllerUnavailableError(
                f"no active controller answered {method} in {timeout:g} s"
            ) from None
        except ValueError as error:
            raise RpcError(f"{method}: {error}") from None

    async def _keep(self) -> None:
        """Find the active controller again and again."""
        back_off, tried, position = BACK_OFF_MIN, 0, self._node_id
        while True:
            known = {**self._controllers}
            if back_off >= BACK_OFF_MAX:
                known = {**self._first, **known}
            order = sorted(known)
            hint, self._hint = self._hint, -1
            address = known.get(hint) or self._told.get(hint)
            if address is not None:
                target = hint
            else:
                target = order[position % len(order)]
                address = known[target]
                position += 1
                tried += 1
            if await self._try(target, address):
                tried = 0
                await self._lost.wait()
                if self._served:
                    back_off = BACK_OFF_MIN
                elif self._hint < 0:
                    # It takes itself for active and refuses all the same: it has lost its quorum
                    # and not yet noticed. Asking again at once would ask hundreds of times.
                    await asyncio.sleep(back_off)
                    back_off = min(2 * back_off, BACK_OFF_MAX)
            elif tried >= len(order):
                tried = 0
                await asyncio.sleep(back_off)
                back_off = min(2 * back_off, BACK_OFF_MAX)

    async def _try(self, target: int, address: tuple[str, int]) -> bool:
        """Whether ``target``, which is to listen at ``address``, is active and now connected."""
        hello = HelloRequest(self._node_id, ROLE_BROKER, self._cluster_id())
        try:
            connection, response = await open_rpc(
                self._world.network, self, address, hello, CONNECT_TIMEOUT
            )
        except RpcRefusedError as error:
            if self._on_refused_hello is not None:
                self._on_refused_hello(error)
            return False
        except (OSError, RpcError) as error:
            _log.debug("controller %d: %s", target, error)
            return False
        if not response.active or connection.closed:
            connection.drop("not the active controller")
            if response.leader_id != target:
                self._hint = response.leader_id
                told = (response.leader_host, response.leader_port)
                self._told = {response.leader_id: told} if told[1] >= 0 else {}
            return False
        self._connection, self.controller_id = connection, target
        self._served = False
        self.cluster_id = response.cluster_id
        self._lost.clear()
        self._connected.set()
        _log.info("connected to the active controller %d", target)
        if self._on_connected is not None:
            self._on_connected()
        return True

    def _disconnected(self) -> None:
        self._connection, self.controller_id = None, -1
        self._connected.clear()
        self._lost.set()

    # -- RpcOwner

    def on_rpc_request(self, connection: RpcConnection, frame: Frame) -> None:
        connection.refuse(frame, ErrorCode.INVALID_REQUEST, "a broker answers nothing here")

    def on_rpc_push(self, connection: RpcConnection, frame: Frame) -> None:
        """Nothing is pushed to brokers."""

    def on_rpc_closed(self, connection: RpcConnection, reason: str) -> None:
        if connection is self._connection:
            _log.info("lost controller %d: %s", self.controller_id, reason)
            self._disconnected()
