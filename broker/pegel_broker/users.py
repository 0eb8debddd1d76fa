"""Authentication of a node: what its settings ask for, and the first users of a new cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from pegel.scram import (
    MIN_ITERATIONS,
    SALT_BYTES,
    Mechanism,
    derive_keys,
    is_plain,
    salt_password,
)
from pegel.seams import World
from pegel_broker.config import NodeConfig, NodeConfigError
from pegel_broker.handlers.context import Broker
from pegel_broker.network.sasl import Users
from pegel_broker.network.session import Doorkeeper
from pegel_controller.rpc.credential_messages import (
    AlterCredentialsRequest,
    AlterCredentialsResponse,
    CredentialChange,
)
from pegel_controller.rpc.framing import RpcError

_log = logging.getLogger("pegel.broker")

USERS_FILE_KEY = "sasl.bootstrap.users.file"
# First users, which come in one request, each after milliseconds of hashing.
MAX_FIRST_USERS = 1000
_SECRET_BYTES = 32
_RPC_TIMEOUT = 5.0
_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class FirstUser:
    """A line of the file."""

    line: int
    name: str
    password: str = field(repr=False)


def new_door(config: NodeConfig, world: World, broker: Broker) -> Doorkeeper | None:
    """None where nobody has to log in."""
    if not config.mechanisms:
        return None
    return Doorkeeper(
        Users(lambda: broker.image),
        config.mechanisms,
        world.clock.monotonic,
        failure_delay=config.number("connection.failed.authentication.delay.ms") / 1000,
        lifetime=config.number("connections.max.reauth.ms") / 1000,
    )


async def prepare_users(config: NodeConfig, world: World, broker: Broker) -> None:
    """Before this broker serves: the brokers' own secret, and the users of a new cluster.

    Both are made once for the whole cluster: the controller drops what comes second.

    Raises:
        NodeConfigError: the file of users cannot be used.
    """
    if not config.mechanisms:
        return
    path = str(config.value(USERS_FILE_KEY))
    image = broker.image
    users: list[FirstUser] = []
    changes: tuple[CredentialChange, ...] = ()
    if path and not image.credentials:
        users = read_users(world, path)
        changes = await _first_credentials(world, users)
    elif not image.credentials:
        _log.warning(
            "clients have to log in, and there is no user: nobody can. Stop the cluster, and give "
            "%s, a file of lines user:password", USERS_FILE_KEY,
        )  # fmt: skip
    if image.inter_broker_secret and not changes:
        return
    secret = world.random.randbytes(_SECRET_BYTES)
    request = AlterCredentialsRequest(changes, first_users=True, inter_broker_secret=secret)
    while True:
        try:
            # Asked twice it does nothing the second time.
            answer = await broker.controllers.call("alter_credentials", request, _RPC_TIMEOUT)
            break
        except RpcError as error:
            _log.info("no users yet: %s", error)
            await asyncio.sleep(_PAUSE)
    assert isinstance(answer, AlterCredentialsResponse)
    lines = {user.name: user.line for user in users}
    for result in answer.results:
        if result.error:
            line = lines[result.user]
            raise NodeConfigError(f"{path}, line {line}: user {result.user!r}: {result.message}")
    # What is committed is on its way here; until then nobody could log in.
    while not broker.image.inter_broker_secret or (changes and not broker.image.credentials):
        broker.changed.clear()
        await broker.changed.wait()


async def _first_credentials(
    world: World, users: Sequence[FirstUser]
) -> tuple[CredentialChange, ...]:
    changes = []
    for user in users:
        for mechanism in Mechanism:
            salt = world.random.randbytes(SALT_BYTES)
            salted = await asyncio.to_thread(
                salt_password, mechanism, user.password, salt, MIN_ITERATIONS
            )
            keys = derive_keys(mechanism, salted)
            changes.append(CredentialChange(user.name, mechanism, MIN_ITERATIONS, salt, *keys))
    return tuple(changes)


def read_users(world: World, path: str) -> list[FirstUser]:
    """Raises NodeConfigError."""
    try:
        text = world.disk.read_file(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NodeConfigError(f"{USERS_FILE_KEY}={path} cannot be read: {reason}") from None
    return parse_users(text, path)


def parse_users(text: str, path: str) -> list[FirstUser]:
    """Lines ``user:password``; ``#`` starts a comment line.

    Raises:
        NodeConfigError: with the number of the line, and nothing of what it holds.
    """
    found: dict[str, FirstUser] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not (user and colon and password):
            raise NodeConfigError(f"{path}, line {number}: not user:password")
        for what, value in (("name", user), ("password", password)):
            if not is_plain(value):
                raise NodeConfigError(
                    f"{path}, line {number}: the {what} has characters that not every client sends "
                    "alike: use printable ones in their plain form"
                )
        if user in found:
            raise NodeConfigError(f"{path}, line {number}: this user is there already")
        if len(found) == MAX_FIRST_USERS:
            raise NodeConfigError(
                f"{path}, line {number}: more than {MAX_FIRST_USERS} first users; add the others "
                "with `pegel users add`"
            )
        found[user] = FirstUser(number, user, password)
    if not found:
        raise NodeConfigError(f"{path} names no user: write lines user:password")
    return list(found.values())
