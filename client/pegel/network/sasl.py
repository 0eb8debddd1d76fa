"""Logging in on a connection (SASL): KIP-43, KIP-84, KIP-152."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pegel.credentials import MECHANISMS, Credentials
from pegel.errors import AuthenticationError, PegelError, to_error_code
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from pegel.protocol.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

if TYPE_CHECKING:
    from pegel.network.connection import Connection

# The first version in which tokens travel in requests, with an error in words (KIP-152).
_HANDSHAKE_VERSION = 1


async def authenticate(connection: Connection, credentials: Credentials) -> None:
    """Log in; the caller bounds the wait. Nothing else may have been asked on the connection.

    Raises:
        AuthenticationError: the broker takes no such credentials, or proves itself an impostor.
        ConnectionFailedError: the connection broke.
        UnsupportedVersionError: the broker is older than Kafka 1.0.
    """
    where = f"{connection.host}:{connection.port}"
    connection.version_for(ApiKey.SASL_AUTHENTICATE)
    answer = await connection.send(
        SaslHandshakeRequest(mechanism=credentials.mechanism), _HANDSHAKE_VERSION
    )
    assert isinstance(answer, SaslHandshakeResponse)
    if answer.error_code == ErrorCode.ILLEGAL_SASL_STATE and credentials.optional:
        return
    if answer.error_code:
        raise _not_offered(where, credentials, answer)
    if credentials.scram:
        await _prove(connection, credentials, where)
        return
    token = f"\0{credentials.user}\0{credentials.password}".encode()
    await _exchange(connection, credentials, where, token)


async def _prove(connection: Connection, credentials: Credentials, where: str) -> None:
    """SCRAM: two tokens there, two back, the last of which proves the broker."""
    from scramp import ScramClient, ScramException

    try:
        client = ScramClient([credentials.scram], credentials.user, credentials.password)
        first = client.get_client_first().encode()
        client.set_server_first(await _exchange(connection, credentials, where, first))
        # Thousands of hashes, as many as the broker says: beside the event loop.
        final = (await asyncio.to_thread(client.get_client_final)).encode()
        client.set_server_final(await _exchange(connection, credentials, where, final))
    except ScramException as error:
        raise AuthenticationError(
            f"{where} and this client do not agree ({_who(credentials)}): {error}; the broker may "
            "not be what it says it is"
        ) from None


async def _exchange(
    connection: Connection, credentials: Credentials, where: str, token: bytes
) -> str:
    answer = await connection.send(SaslAuthenticateRequest(auth_bytes=token))
    assert isinstance(answer, SaslAuthenticateResponse)
    if answer.error_code:
        code = to_error_code(answer.error_code)
        raise AuthenticationError(
            f"{where} refused {_who(credentials)}: {answer.error_message or code.message}; check "
            "the user and the password (somebody who is let in sees users with `pegel users list`)",
            code,
        )
    connection.session_lifetime = max(0, answer.session_lifetime_ms) / 1000
    try:
        return bytes(answer.auth_bytes).decode()
    except UnicodeDecodeError:
        raise AuthenticationError(f"{where} answered {_who(credentials)} with nonsense") from None


def _not_offered(where: str, credentials: Credentials, answer: SaslHandshakeResponse) -> PegelError:
    code = to_error_code(answer.error_code)
    if code == ErrorCode.ILLEGAL_SASL_STATE:
        return AuthenticationError(
            f"{where} asks for no credentials, and was given those of {_who(credentials)}: leave "
            "them out, or name the port that asks for them", code,
        )  # fmt: skip
    offered = ", ".join(answer.mechanisms) or "nothing"
    ours = [kind for kind in MECHANISMS if kind.mechanism in answer.mechanisms]
    advice = f": use pegel.{ours[0].__name__} (--mechanism {ours[0].mechanism})" if ours else ""
    return AuthenticationError(
        f"{where} does not offer {credentials.mechanism}, it offers {offered}{advice}", code
    )


def _who(credentials: Credentials) -> str:
    return f"user {credentials.user!r} ({credentials.mechanism})"
