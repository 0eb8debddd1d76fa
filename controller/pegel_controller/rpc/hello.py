"""The greeting that opens every controller RPC connection: who calls, and who answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pegel.seams import Network
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc.framing import RpcConnection, RpcError, RpcOwner

HELLO = "hello"
ROLE_BROKER = "broker"
ROLE_CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class HelloRequest(Wire):
    """``cluster_id`` is empty for a node that has never been part of a cluster."""

    node_id: int
    role: str
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class HelloResponse(Wire):
    """``active``: the answering controller leads. ``leader_id`` is the one it knows of, or -1, and
    ``leader_host``, ``leader_port`` say where, for a caller that was away when it joined."""

    node_id: int
    cluster_id: str = ""
    leader_id: int = -1
    active: bool = False
    leader_host: str = ""
    leader_port: int = -1


async def open_rpc(
    network: Network,
    owner: RpcOwner,
    address: tuple[str, int],
    hello: HelloRequest,
    timeout: float,
) -> tuple[RpcConnection, HelloResponse]:
    """Connect and greet, within ``timeout`` seconds.

    Raises:
        ConnectionRefusedError: nobody listens there.
        OSError, RpcError: any other failure, a refusal or the time-out included.
    """
    connection = RpcConnection(owner)
    try:
        async with asyncio.timeout(timeout):
            await network.connect(lambda: connection, *address)
            body = await connection.call(HELLO, hello.to_wire())
        response = HelloResponse.from_wire(body)
    except TimeoutError:
        connection.drop("the greeting took too long")
        raise RpcError(f"{address[0]}:{address[1]} did not greet in {timeout} s") from None
    except ValueError as error:
        connection.drop("a bad greeting")
        raise RpcError(f"{address[0]}:{address[1]} sent a bad greeting: {error}") from None
    except BaseException:
        connection.drop("the greeting failed")
        raise
    connection.peer_id, connection.peer_role = response.node_id, ROLE_CONTROLLER
    return connection, response
