"""The users of a cluster: the first ones, those that change, and what a request may do to them."""

from __future__ import annotations

import asyncio

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
    ScramCredentialUpsertion,
)
from pegel.scram import MAX_SALT_BYTES
from pegel_broker.config import NodeConfigError
from pegel_broker.users import MAX_FIRST_USERS, parse_users
from pegel_controller.control.credentials import MAX_CHANGES
from pegel_controller.rpc.credential_messages import AlterCredentialsRequest, CredentialChange
from tests.broker.network.test_sasl import MECHANISMS, SETTINGS, is_served, log_in
from tests.support.node import NodeUnderTest, run, running_node


def test_a_user_who_is_deleted_is_served_until_the_connection_ends() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        await log_in(client, "PLAIN")
        deleted = tuple(CredentialChange("alice", mechanism) for mechanism in (1, 2))
        assert node.node.channel is not None
        await node.node.channel.call("alter_credentials", AlterCredentialsRequest(deleted), 10.0)
        assert await is_served(client)
        for mechanism in MECHANISMS:
            late = await node.connect()
            answer = await log_in(late, mechanism)
            assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED

    run(main, **SETTINGS)


def test_changes_of_users_have_limits_that_are_kept_before_the_controller() -> None:
    """One request of 9,900 users, and one with a salt of 50 MB, deposed the controller."""

    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        await log_in(client, "PLAIN")
        assert node.node.channel is not None
        call = node.node.channel.call
        sent: list[AlterCredentialsRequest] = []

        async def watched(method: str, request: object, *more: float, **options: bool) -> object:
            if isinstance(request, AlterCredentialsRequest):  # heartbeats go this way, too
                sent.append(request)
            return await call(method, request, *more, **options)

        node.node.channel.call = watched  # type: ignore[method-assign, assignment]

        async def alter(count: int, salt: bytes) -> list[AlterUserScramCredentialsResult]:
            wanted = [
                ScramCredentialUpsertion(
                    name=f"u{i}", mechanism=1, iterations=4096, salt=salt, salted_password=b"p" * 32
                )
                for i in range(count)
            ]
            request = AlterUserScramCredentialsRequest(upsertions=wanted)
            return (await client.ask(request, 0, AlterUserScramCredentialsResponse)).results

        refused = await alter(MAX_CHANGES + 1, b"s" * 32)
        assert {r.error_code for r in refused} == {ErrorCode.INVALID_REQUEST}
        assert len(refused) == MAX_CHANGES + 1
        assert "More than 100 changes" in (refused[0].error_message or "")
        assert not sent
        (refused_salt,) = await alter(1, b"s" * 1_000_000)
        assert refused_salt.error_code == ErrorCode.UNACCEPTABLE_CREDENTIAL
        assert "Salt is too long" in (refused_salt.error_message or "")
        assert len(sent[0].changes[0].salt) == MAX_SALT_BYTES + 1
        assert not any(r.error_code for r in await alter(MAX_CHANGES, b"s" * MAX_SALT_BYTES))

    run(main, **SETTINGS)


def test_the_users_of_a_file_are_those_of_a_new_cluster_only() -> None:
    async def main(node: NodeUnderTest) -> None:
        broker = node.node.broker
        assert broker is not None
        assert set(broker.image.credentials) == {"alice", "bob"}
        assert len(broker.image.inter_broker_secret) == 32
        assert "secret" not in repr(broker.image.credentials)

    run(main, **SETTINGS)


def test_a_file_of_users_has_a_limit() -> None:
    lines = [f"u{i}:hidden" for i in range(MAX_FIRST_USERS)]
    assert len(parse_users("\n".join(lines), "file")) == MAX_FIRST_USERS
    with pytest.raises(NodeConfigError, match="line 1001: more than 1000 first users") as raised:
        parse_users("\n".join([*lines, "u:hidden"]), "file")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("users", "why"),
    [
        ("", "names no user"),
        ("alice", "line 1: not user:password"),
        ("alice:", "line 1: not user:password"),
        ("a:hidden\n\na:hidden", "line 3: this user is there already"),
        ("# first\na:b\n__broker:hidden", "users, line 3: user '__broker': Names that begin"),
        ("a:\ufb01sh-hidden", "line 1: the password has characters that not every client"),
        ("\ufb01sh:hidden", "line 1: the name has characters that not every client"),
        ("a:hidden\x00", "line 1: the password has characters"),
    ],
)
def test_a_file_of_users_that_makes_no_sense_ends_the_node(users: str, why: str) -> None:
    async def body() -> None:
        async with running_node(users=users):
            pass

    async def main() -> None:
        from pegel_broker.node import NodeError

        task = asyncio.ensure_future(body())
        with pytest.raises((NodeError, TimeoutError)) as raised:
            await task
        assert why in str(raised.value)
        assert "hidden" not in str(raised.value)

    asyncio.run(main())
