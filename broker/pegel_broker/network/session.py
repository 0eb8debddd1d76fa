"""Who is at the other end of a connection, where the listener asks for that (SASL).

A session belongs to one connection: handshake, tokens, and from then on a user. With
``connections.max.reauth.ms`` it ends, unless the client proves itself anew on the same connection
(KIP-368). That of another broker does not: nobody can take its secret away, and replication would
be cut for nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pegel.logs import Event
from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.sasl_authenticate import SaslAuthenticateResponse
from pegel.protocol.messages.sasl_handshake import SaslHandshakeResponse
from pegel_broker.handlers.context import CloseConnectionError
from pegel_broker.network.sasl import (
    BROKER_MECHANISM,
    BROKER_USER,
    MAX_TOKEN_BYTES,
    AuthenticationFailedError,
    Conversation,
    PasswordCheck,
    Users,
    converse,
)

_log = logging.getLogger("pegel.broker")

# The largest frame of somebody who has not logged in (Kafka's sasl.server.max.receive.size).
UNKNOWN_FRAME_BYTES = 512 * 1024
# Seconds from the connection to the end of the log-in.
LOGIN_TIMEOUT = 30.0
# Passwords that are hashed at a time, each for milliseconds of a thread.
CHECKS_AT_A_TIME = 2
_LOGGED_NAME_LENGTH = 64
_BEFORE_LOGIN = {ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE}


@dataclass(slots=True)
class LoginCounters:
    """Totals since the start, for metrics."""

    successful: int = 0
    failed: int = 0


class Doorkeeper:
    """What the sessions of one listener share. Times in seconds; ``lifetime`` 0: for ever."""

    def __init__(
        self,
        users: Users,
        mechanisms: Sequence[str],
        now: Callable[[], float],
        *,
        failure_delay: float = 0.1,
        lifetime: float = 0.0,
    ) -> None:
        self.users = users
        self.mechanisms = tuple(mechanisms)
        self.now = now
        self.failure_delay = failure_delay
        self.lifetime = lifetime
        self.counters = LoginCounters()
        self._checks = asyncio.Semaphore(CHECKS_AT_A_TIME)

    async def fits(self, check: PasswordCheck) -> bool:
        await self._checks.acquire()
        # A client that hangs up ends the wait, and not the thread, which is what is counted.
        running = asyncio.get_running_loop().run_in_executor(None, check.run)
        running.add_done_callback(lambda _: self._checks.release())
        return await asyncio.shield(running)


class Session:
    """One connection's log-in."""

    def __init__(self, door: Doorkeeper, peer: str) -> None:
        self.user: str | None = None
        # The client shook hands in version 0: its tokens are frames without a header.
        self.raw = False
        # Refused: the connection is to be closed once that is said.
        self.failed = False
        self._door = door
        self._peer = peer
        self._mechanism = ""
        self._conversation: Conversation | None = None
        self._busy = False
        self._ends = float("inf")

    @property
    def is_broker(self) -> bool:
        return self.user == BROKER_USER

    @property
    def _lifetime(self) -> float:
        """Seconds; 0: for ever."""
        return 0.0 if self.is_broker else self._door.lifetime

    def admit(self, api_key: int, now: float) -> None:
        """Raises CloseConnectionError unless such a request may come now."""
        if self.user is not None and now < self._ends and not self.failed:
            return
        if api_key not in _BEFORE_LOGIN or self.failed or self._busy:
            name = APIS[api_key].name if api_key in APIS else f"API {api_key}"
            why = "after its session ended" if self.user is not None else "before it logged in"
            raise CloseConnectionError(f"it sent {name} {why}")

    def shake(self, mechanism: str, version: int) -> SaslHandshakeResponse:
        """Choose a mechanism."""
        door = self._door
        logged_in = self.user is not None
        if self._conversation is not None or (logged_in and not self._lifetime):
            self.failed = not logged_in
            return SaslHandshakeResponse(
                error_code=ErrorCode.ILLEGAL_SASL_STATE, mechanisms=list(door.mechanisms)
            )
        if mechanism not in (*door.mechanisms, BROKER_MECHANISM) or (
            logged_in and mechanism != self._mechanism
        ):
            self._refused("", mechanism, "no such mechanism here")
            return SaslHandshakeResponse(
                error_code=ErrorCode.UNSUPPORTED_SASL_MECHANISM, mechanisms=list(door.mechanisms)
            )
        self._mechanism = mechanism
        self._conversation = converse(door.users, mechanism)
        self.raw = version == 0
        return SaslHandshakeResponse(mechanisms=list(door.mechanisms))

    async def authenticate(self, token: bytes) -> SaslAuthenticateResponse:
        """The answer to a token that came in a request."""
        try:
            answer = await self.take(token)
        except AuthenticationFailedError as error:
            return SaslAuthenticateResponse(
                error_code=ErrorCode.SASL_AUTHENTICATION_FAILED, error_message=str(error)
            )
        if answer is None:
            self.failed = self.user is None
            return SaslAuthenticateResponse(
                error_code=ErrorCode.ILLEGAL_SASL_STATE,
                error_message="SaslAuthenticate request received without a SaslHandshake"
                if self.failed
                else "SaslAuthenticate request received after successful authentication",
            )
        lifetime = self._lifetime if self._conversation is None else 0.0
        return SaslAuthenticateResponse(auth_bytes=answer, session_lifetime_ms=int(lifetime * 1000))

    async def take(self, token: bytes) -> bytes | None:
        """The answer to a token; None without a handshake.

        Raises:
            AuthenticationFailedError: after a delay; the connection is to be closed.
        """
        conversation = self._conversation
        if conversation is None or self._busy:
            return None
        self._busy = True
        try:
            if len(token) > MAX_TOKEN_BYTES:
                message = f"the token is longer than {MAX_TOKEN_BYTES} bytes"
                raise AuthenticationFailedError(message, "", "a token that is too long")
            answer = conversation.step(token)
            if isinstance(answer, PasswordCheck):
                fits = await self._door.fits(answer)
                answer = conversation.on_checked(answer, fits)  # type: ignore[union-attr]
            if conversation.user is not None:
                self._logged_in(conversation.user)
        except AuthenticationFailedError as error:
            self._refused(error.user, self._mechanism, error.reason)
            await asyncio.sleep(self._door.failure_delay)
            raise
        finally:
            self._busy = False
        return answer

    def _logged_in(self, user: str) -> None:
        if self.user not in (None, user):
            raise AuthenticationFailedError(
                "Cannot change principals during re-authentication", user, "another user"
            )
        self.user = user
        self.raw = False
        self._conversation = None
        door = self._door
        door.counters.successful += 1
        if self._lifetime:
            self._ends = door.now() + self._lifetime

    def _refused(self, user: str, mechanism: str, reason: str) -> None:
        self.failed = True
        self._door.counters.failed += 1
        _log.warning(Event(
            "authentication_failed", peer=self._peer, user=repr(user[:_LOGGED_NAME_LENGTH]),
            mechanism=repr(mechanism[:_LOGGED_NAME_LENGTH]), reason=reason,
        ))  # fmt: skip
