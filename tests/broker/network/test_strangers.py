"""What somebody may cost a broker who has not logged in: bytes, time, hashes, places."""

from __future__ import annotations

import asyncio
import gc
import struct
import threading
import time

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.sasl_authenticate import SaslAuthenticateRequest
from pegel_broker.network import listener as listener_module
from pegel_broker.network.listener import ClientListener
from pegel_broker.network.sasl import BROKER_MECHANISM, BrokerCredentials, PasswordCheck
from pegel_broker.network.session import CHECKS_AT_A_TIME, UNKNOWN_FRAME_BYTES
from tests.broker.network.test_sasl import SETTINGS, exchange, is_served, log_in, shake
from tests.support.node import NodeUnderTest, run


def test_a_large_frame_of_a_stranger_is_not_taken() -> None:
    async def main(node: NodeUnderTest) -> None:
        stranger = await node.connect()
        await stranger.write(struct.pack(">i", UNKNOWN_FRAME_BYTES + 1))
        assert await stranger.is_closed()
        user = await node.connect()
        await log_in(user, "SCRAM-SHA-256")
        await user.write(struct.pack(">i", UNKNOWN_FRAME_BYTES + 1))
        body = struct.pack(">hhih", 3, 9, 1, -1) + b"\0"
        await user.write(body + b"\0" * (UNKNOWN_FRAME_BYTES + 1 - len(body)))
        assert len(await user.frame())

    run(main, **SETTINGS)


def test_who_does_not_log_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "SWEEP_INTERVAL", 0.01)
    monkeypatch.setattr(listener_module, "LOGIN_TIMEOUT", 0.2)

    async def main(node: NodeUnderTest) -> None:
        user, silent = await node.connect(), await node.connect()
        await log_in(user, "PLAIN")
        await shake(silent, "PLAIN")
        assert await silent.is_closed()
        assert await is_served(user)

    run(main, **SETTINGS)


def test_many_passwords_at_a_time_do_not_hold_the_event_loop() -> None:
    """Each is hashed for milliseconds: on threads, a few at a time."""

    async def main(node: NodeUnderTest) -> None:
        clients = [await node.connect() for _ in range(30)]
        for client in clients:
            await shake(client, "PLAIN")
        loop, longest = asyncio.get_running_loop(), 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.thread_time()
                await asyncio.sleep(0)
                longest = max(longest, time.thread_time() - before)

        watching = loop.create_task(watch())
        answers = await asyncio.gather(*(exchange(c, b"\0alice\0wrong") for c in clients))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert {a.error_code for a in answers} == {ErrorCode.SASL_AUTHENTICATION_FAILED}
        # Thirty checks of the event loop's own would take it far more than a tenth of a second.
        assert longest < 0.05

    gc.collect()
    run(main, **SETTINGS)


def test_passwords_of_clients_that_hang_up_count_until_they_are_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = threading.Event()
    begun: list[str] = []

    def slow(check: PasswordCheck) -> bool:
        begun.append(check.user)
        ends.wait(20)
        return False

    monkeypatch.setattr(PasswordCheck, "run", slow)

    async def main(node: NodeUnderTest) -> None:
        listener = node.node.listener
        assert listener is not None
        for _ in range(10):
            client = await node.connect()
            await shake(client, "PLAIN")
            await client.send(SaslAuthenticateRequest(auth_bytes=b"\0alice\0wrong"), 2)
            await is_taken(listener)
            client.close()
            while listener.connections:
                await asyncio.sleep(0)
        await asyncio.to_thread(int)  # the pool has room for others
        assert len(begun) == CHECKS_AT_A_TIME
        ends.set()
        late = await node.connect()
        answer = await log_in(late, "PLAIN", password="wrong")
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert len(begun) == CHECKS_AT_A_TIME + 1

    async def is_taken(listener: ClientListener) -> None:
        """The token is in the broker's hands: its connection waits for an answer."""
        while not any(connection.in_flight for connection in listener._connections):
            await asyncio.sleep(0)

    try:
        run(main, **SETTINGS)
    finally:
        ends.set()


def test_places_that_strangers_fill_are_had_by_who_logs_in() -> None:
    """Those who have logged in, brokers as well, keep theirs; whoever waits longest gives way."""

    async def main(node: NodeUnderTest) -> None:
        listener = node.node.listener
        assert listener is not None
        listener._max_connections = 4
        user = await node.connect()
        assert (await log_in(user, "PLAIN")).error_code == 0
        silent = [await node.connect() for _ in range(8)]
        for client in silent[:5]:
            assert await client.is_closed()
        assert listener.connections == 4
        broker = await node.connect()
        assert node.node.broker is not None
        own = BrokerCredentials.of(node.node.broker.image)
        assert own is not None
        assert (await log_in(broker, BROKER_MECHANISM, own.user, own.password)).error_code == 0
        assert await silent[5].is_closed()
        others = [await node.connect() for _ in range(2)]
        for client in others:
            assert (await log_in(client, "SCRAM-SHA-256")).error_code == 0
        assert await silent[7].is_closed()
        # All places are taken by who is known: now it is the newcomer that goes.
        assert await (await node.connect()).is_closed()
        assert listener.counters.refused == 1
        for client in (user, broker, *others):
            assert await is_served(client)
        user.close()
        while listener.connections == 4:
            await asyncio.sleep(0)
        assert (await log_in(await node.connect(), "PLAIN")).error_code == 0
        assert listener.counters.accepted - listener.counters.closed == listener.connections == 4

    run(main, **SETTINGS)
