"""Logging in: every mechanism, every way to fail, and what comes before it."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest
from scramp import ScramClient

from pegel.errors import AuthenticationError
from pegel.network.connection import Connection
from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages import REQUESTS
from pegel.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from pegel.protocol.messages.fetch import FetchResponse
from pegel.protocol.messages.metadata import MetadataRequest, MetadataResponse
from pegel.protocol.messages.sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from pegel.protocol.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from pegel.seams.clock import RealClock
from pegel.seams.network import RealNetwork
from pegel_broker.network.sasl import (
    BROKER_MECHANISM,
    BROKER_USER,
    MAX_TOKEN_BYTES,
    BrokerCredentials,
)
from tests.support.node import NodeUnderTest, RawClient, fetch_request, run

USERS = "# the first ones\nalice:a secret\nbob:another:one\n"
MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
SETTINGS = {"users": USERS, "connection_failed_authentication_delay_ms": 1}
PLAIN_TOKEN = b"\0alice\0a secret"


async def shake(client: RawClient, mechanism: str, version: int = 1) -> SaslHandshakeResponse:
    request = SaslHandshakeRequest(mechanism=mechanism)
    return await client.ask(request, version, SaslHandshakeResponse)


async def exchange(client: RawClient, token: bytes, version: int = 2) -> SaslAuthenticateResponse:
    request = SaslAuthenticateRequest(auth_bytes=token)
    return await client.ask(request, version, SaslAuthenticateResponse)


async def log_in(
    client: RawClient, mechanism: str, user: str = "alice", password: str = "a secret"
) -> SaslAuthenticateResponse:
    """The last answer, whatever it says."""
    answer = await shake(client, mechanism)
    assert answer.error_code == 0
    if mechanism == "PLAIN":
        return await exchange(client, f"\0{user}\0{password}".encode())
    name = "SCRAM-SHA-256" if mechanism == BROKER_MECHANISM else mechanism
    scram = ScramClient([name], user, password)
    first = await exchange(client, scram.get_client_first().encode())
    if first.error_code:
        return first
    scram.set_server_first(bytes(first.auth_bytes).decode())
    last = await exchange(client, scram.get_client_final().encode())
    if not last.error_code:
        scram.set_server_final(bytes(last.auth_bytes).decode())
    return last


async def is_served(client: RawClient) -> bool:
    answer = await client.ask(MetadataRequest(topics=[]), 9, MetadataResponse)
    return bool(answer.brokers)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_who_proves_to_be_a_user_is_served(mechanism: str) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        spoken = await client.ask(ApiVersionsRequest(), 0, ApiVersionsResponse)
        assert {ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE} <= {
            a.api_key for a in spoken.api_keys
        }
        answer = await log_in(client, mechanism)
        assert (answer.error_code, answer.session_lifetime_ms) == (0, 0)
        assert await is_served(client)
        other = await node.connect()
        assert (await log_in(other, mechanism, "bob", "another:one")).error_code == 0
        door = node.node.listener.door  # type: ignore[union-attr]
        assert door is not None
        assert (door.counters.successful, door.counters.failed) == (2, 0)

    run(main, **SETTINGS)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    ("user", "password"),
    [("alice", "wr0ng"), ("nobody", "a secret"), (BROKER_USER, "a secret"), ("alice", "A secret")],
)
def test_who_does_not_is_told_so_and_closed(
    mechanism: str, user: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        caplog.set_level(logging.WARNING)
        answer = await log_in(client, mechanism, user, password)
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert answer.error_message
        assert await client.is_closed()
        door = node.node.listener.door  # type: ignore[union-attr]
        assert door is not None
        assert (door.counters.successful, door.counters.failed) == (0, 1)
        lines = [r for r in caplog.messages if r.startswith("authentication_failed")]
        assert len(lines) == 1
        assert f"user={user!r}" in lines[0]
        assert f"mechanism={mechanism!r}" in lines[0]
        assert password not in caplog.text

    run(main, **SETTINGS)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_an_answer_does_not_tell_who_exists(mechanism: str) -> None:
    """SCRAM: an unknown user gets a salt as well, and the same one each time."""

    async def first_answer(node: NodeUnderTest, user: str) -> tuple[str, ...]:
        client = await node.connect()
        await shake(client, mechanism)
        scram = ScramClient([mechanism], user, "x")
        answer = await exchange(client, scram.get_client_first().encode())
        assert answer.error_code == 0
        return tuple(bytes(answer.auth_bytes).decode().split(",")[1:])

    async def main(node: NodeUnderTest) -> None:
        unknown = await first_answer(node, "nobody")
        assert unknown == await first_answer(node, "nobody")
        assert unknown != await first_answer(node, "somebody")
        known = await first_answer(node, "alice")
        assert len(known[0]) == len(unknown[0])
        assert known[1] == unknown[1] == "i=4096"
        # PLAIN: the same hash, as often.
        door = node.node.listener.door  # type: ignore[union-attr]
        assert door is not None
        alice, nobody = door.users.any_of("alice"), door.users.any_of("nobody")
        assert (alice.mechanism, alice.iterations) == (nobody.mechanism, nobody.iterations)
        for part in ("salt", "stored_key", "server_key"):
            assert len(getattr(alice, part)) == len(getattr(nobody, part))

    run(main, **SETTINGS)


def test_a_mechanism_that_is_not_there_is_refused_with_those_that_are() -> None:
    async def main(node: NodeUnderTest) -> None:
        for mechanism in ("GSSAPI", "", "SCRAM-SHA-512", "x" * 10_000):
            client = await node.connect()
            answer = await shake(client, mechanism)
            assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
            assert answer.mechanisms == ["PLAIN", "SCRAM-SHA-256"]
            assert await client.is_closed()

    run(main, **SETTINGS, sasl_enabled_mechanisms="PLAIN,SCRAM-SHA-256")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_tokens_without_a_header_follow_a_handshake_of_version_0(mechanism: str) -> None:
    async def main(node: NodeUnderTest) -> None:
        async def token(client: RawClient, data: bytes) -> bytes:
            await client.write(struct.pack(">i", len(data)) + data)
            return bytes(await client.frame())

        client = await node.connect()
        assert (await shake(client, mechanism, version=0)).error_code == 0
        if mechanism == "PLAIN":
            assert await token(client, PLAIN_TOKEN) == b""
        else:
            scram = ScramClient([mechanism], "alice", "a secret")
            first = await token(client, scram.get_client_first().encode())
            scram.set_server_first(first.decode())
            scram.set_server_final(
                (await token(client, scram.get_client_final().encode())).decode()
            )
        assert await is_served(client)

        wrong = await node.connect()
        await shake(wrong, "PLAIN", version=0)
        await wrong.write(struct.pack(">i", 8) + b"\0alice\0x")
        assert await wrong.is_closed()

    run(main, **SETTINGS)


def test_nothing_else_is_served_before() -> None:
    """Each API that this broker has; by a body that would be right, and by none."""

    async def main(node: NodeUnderTest) -> None:
        await _forbidden(node)

    run(main, **SETTINGS)


async def _forbidden(node: NodeUnderTest) -> None:
    allowed = {ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE}
    for key in set(APIS) - allowed:
        client = await node.connect()
        await client.send(REQUESTS[key](), APIS[key].max_version)
        assert await client.is_closed(), key
    metadata, cut_off = struct.pack(">hhih", 3, 9, 1, -1), struct.pack(">hh", 17, 1)
    for body in (b"", b"\0", metadata, cut_off, b"\xff" * 99):
        client = await node.connect()
        await client.write(struct.pack(">i", len(body)) + body)
        assert await client.is_closed(), body


def test_pipelined_behind_a_log_in_that_fails_nothing_is_served() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        await shake(client, "PLAIN")
        await client.send(SaslAuthenticateRequest(auth_bytes=b"\0alice\0wrong"), 2)
        await client.send(MetadataRequest(topics=[]), 9)
        assert await client.is_closed()

    run(main, **SETTINGS)


def test_tokens_out_of_order_are_refused() -> None:
    async def main(node: NodeUnderTest) -> None:
        early = await node.connect()
        answer = await exchange(early, PLAIN_TOKEN)
        assert answer.error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert await early.is_closed()

        twice = await node.connect()
        await shake(twice, "PLAIN")
        assert (await shake(twice, "PLAIN")).error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert await twice.is_closed()

        late = await node.connect()
        await log_in(late, "PLAIN")
        assert (await shake(late, "PLAIN")).error_code == ErrorCode.ILLEGAL_SASL_STATE
        answer = await exchange(late, PLAIN_TOKEN)
        assert answer.error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert await is_served(late)

    run(main, **SETTINGS)


HOSTILE_TOKENS = [
    b"", b"\0", b"\0\0", b"\0\0\0", b"\xff\xfe", b"mallory\0alice\0a secret", b"alice", b"n,,",
    b"n,,n=alice", b"n,,n==,r=x", b"y,,n=alice,r=abc", b"p=tls-unique,,n=alice,r=abc",
    b"n,,m=1,n=alice,r=abc", b"x" * (MAX_TOKEN_BYTES + 1), b"n,,n=" + b"a" * 4000,
    "n,,n=\u0000,r=abc".encode(), b"n,,n=alice,r=" + b"\0" * 10, b",,,,,,", b"=" * 100,
]  # fmt: skip


@pytest.mark.parametrize("mechanism", [*MECHANISMS, BROKER_MECHANISM])
def test_nonsense_is_refused_at_once(mechanism: str) -> None:
    async def main(node: NodeUnderTest) -> None:
        for token in HOSTILE_TOKENS:
            client = await node.connect()
            await shake(client, mechanism)
            answer = await exchange(client, token)
            if answer.error_code == 0:  # a first token that could be right: the second is not
                answer = await exchange(client, b"c=biws,r=wrong,p=" + b"A" * 43 + b"=")
            assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED, token
            assert await client.is_closed()

    run(main, **SETTINGS)


def test_a_session_ends_and_can_be_renewed_on_its_connection() -> None:
    """KIP-368, on a clock that stands still until it is moved."""

    async def main(node: NodeUnderTest) -> None:
        door = node.node.listener.door  # type: ignore[union-attr]
        assert door is not None
        now = 1000.0
        door.now = lambda: now
        node.node.listener.now = lambda: now  # type: ignore[union-attr]
        client, other = await node.connect(), await node.connect()
        for c in (client, other):
            answer = await log_in(c, "SCRAM-SHA-256")
            assert answer.session_lifetime_ms == 60_000
        now += 59
        assert await is_served(client)
        assert (await log_in(client, "SCRAM-SHA-256")).error_code == 0
        now += 2
        assert await is_served(client)
        await other.send(MetadataRequest(topics=[]), 9)
        assert await other.is_closed()
        now += 60
        assert (await log_in(client, "SCRAM-SHA-256")).error_code == 0  # late, and taken
        assert await is_served(client)
        assert (await log_in(client, "SCRAM-SHA-256", "bob", "another:one")).error_code == 58
        assert await client.is_closed()

    run(main, **SETTINGS, connections_max_reauth_ms=60_000)


def test_the_session_of_another_broker_does_not_end() -> None:
    """Replication was cut at each end of a session."""

    async def main(node: NodeUnderTest) -> None:
        assert node.node.broker is not None
        assert node.node.addresses.client is not None
        door = node.node.listener.door  # type: ignore[union-attr]
        assert door is not None
        now = 1000.0
        door.now = lambda: now
        node.node.listener.now = lambda: now  # type: ignore[union-attr]
        network, clock, address = RealNetwork(), RealClock(), node.node.addresses.client
        credentials = BrokerCredentials.of(node.node.broker.image)
        assert credentials is not None
        connection = await Connection.open(network, clock, *address, credentials=credentials)
        assert connection.session_lifetime == 0
        now += 10_000
        assert await connection.request(MetadataRequest(topics=[]))
        connection.close()

    run(main, **SETTINGS, connections_max_reauth_ms=60_000)


def test_only_a_broker_may_fetch_as_a_follower() -> None:
    async def main(node: NodeUnderTest) -> None:
        broker = node.node.broker
        assert broker is not None
        request = fetch_request("t", 0, max_wait_ms=0)
        request.replica_id = 2
        user = await node.connect()
        await log_in(user, "SCRAM-SHA-512")
        refused = await user.ask(request, 12, FetchResponse)
        assert refused.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        peer = await node.connect()
        own = BrokerCredentials.of(broker.image)
        assert own is not None
        assert (await log_in(peer, BROKER_MECHANISM, own.user, own.password)).error_code == 0
        assert (await peer.ask(request, 12, FetchResponse)).error_code == 0
        # The brokers' name by another mechanism is nobody's.
        thief = await node.connect()
        stolen = await log_in(thief, "SCRAM-SHA-256", own.user, own.password)
        assert stolen.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED

    run(main, **SETTINGS)


def test_a_listener_that_asks_nobody_says_so() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        assert (await shake(client, "PLAIN")).error_code == ErrorCode.ILLEGAL_SASL_STATE
        answer = await exchange(client, PLAIN_TOKEN)
        assert answer.error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert await is_served(client)

    run(main)


def test_a_broker_goes_on_where_its_peer_asks_nobody_and_a_client_does_not() -> None:
    """While authentication is being turned on, broker by broker."""

    async def main(node: NodeUnderTest) -> None:
        from pegel import Scram256

        assert node.node.addresses.client is not None
        network, clock, address = RealNetwork(), RealClock(), node.node.addresses.client
        credentials = BrokerCredentials(BROKER_USER, "00" * 32)
        connection = await Connection.open(network, clock, *address, credentials=credentials)
        assert await connection.request(MetadataRequest(topics=[]))
        connection.close()
        with pytest.raises(AuthenticationError, match="asks for no credentials"):
            await Connection.open(network, clock, *address, credentials=Scram256("a", "b"))

    run(main)


def test_a_log_in_that_is_not_answered_ends_within_the_time_out_and_leaves_nothing() -> None:
    async def main(node: NodeUnderTest) -> None:
        from pegel import Plain, RequestTimeoutError

        listener = node.node.listener
        assert listener is not None
        assert listener.door is not None
        assert node.node.addresses.client is not None
        forever = asyncio.Event()

        async def hang(check: object) -> bool:
            return await forever.wait()

        listener.door.fits = hang  # type: ignore[method-assign]
        host, port = node.node.addresses.client
        network, clock = RealNetwork(), RealClock()
        credentials = Plain("alice", "a secret")
        with pytest.raises(RequestTimeoutError, match=f"{host}:{port} did not answer"):
            await Connection.open(network, clock, host, port, credentials=credentials, timeout=0.1)
        opening = asyncio.create_task(
            Connection.open(network, clock, host, port, credentials=credentials)
        )
        while listener.connections < 1:
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        async with asyncio.timeout(20):
            while listener.connections:
                await asyncio.sleep(0.001)

    run(main, **SETTINGS)
