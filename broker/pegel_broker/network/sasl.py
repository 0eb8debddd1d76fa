"""The SASL conversations of a broker: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 (KIP-43, KIP-84).

All mechanisms are checked against the same SCRAM credentials, which are metadata: a password itself
is nowhere kept. Pure: tokens in, tokens out. What takes milliseconds is handed back as a
``PasswordCheck`` for the shell to run beside the event loop.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from pegel.credentials import Credentials
from pegel.scram import (
    MIN_ITERATIONS,
    RESERVED_PREFIX,
    SALT_BYTES,
    Mechanism,
    derive_keys,
    salt_password,
)
from pegel_controller.metadata.image import MetadataImage, ScramCredential

PLAIN = "PLAIN"
# What brokers prove to each other with: SCRAM-SHA-256 by another name, for one user alone.
BROKER_MECHANISM = "PEGEL-BROKER"
BROKER_USER = f"{RESERVED_PREFIX}broker"
# The longest of ours is below 1 KiB: whom nobody knows may not have us look at more.
MAX_TOKEN_BYTES = 4096


class AuthenticationFailedError(Exception):
    """The text is for the client; ``user`` and ``reason`` are for the log."""

    def __init__(self, message: str, user: str, reason: str) -> None:
        super().__init__(message)
        self.user = user
        self.reason = reason


class BrokerCredentials(Credentials):
    """How a broker logs in at another one, which may not ask for it (yet)."""

    __slots__ = ()
    mechanism = BROKER_MECHANISM
    scram = "SCRAM-SHA-256"
    optional = True

    @classmethod
    def of(cls, image: MetadataImage) -> BrokerCredentials | None:
        """None where this cluster has no secret: nobody has turned authentication on."""
        secret = image.inter_broker_secret
        return cls(BROKER_USER, secret.hex()) if secret else None


class Users:
    """Who may log in, as the metadata say now.

    An unknown user gets a credential that nothing satisfies, always the same, and of the shape that
    users have unless somebody chose otherwise, so that an answer does not tell who exists.
    """

    def __init__(self, image: Callable[[], MetadataImage]) -> None:
        self._image = image
        self._broker: tuple[bytes, ScramCredential] | None = None

    def find(self, user: str, mechanism: Mechanism) -> ScramCredential:
        own = self._image().credentials.get(user, {})
        return own.get(mechanism) or self._nobody(user, mechanism)

    def any_of(self, user: str) -> ScramCredential:
        """For a password in the clear, which any credential can check."""
        own = self._image().credentials.get(user, {})
        if not own:
            return self._nobody(user, max(Mechanism))
        return own[max(own)]

    def broker(self) -> ScramCredential | None:
        """What another broker has to prove; None without a secret."""
        secret = self._image().inter_broker_secret
        if not secret:
            return None
        if self._broker is None or self._broker[0] != secret:
            mechanism = Mechanism.SCRAM_SHA_256
            salt = sha256(b"salt" + secret).digest()
            keys = derive_keys(
                mechanism, salt_password(mechanism, secret.hex(), salt, MIN_ITERATIONS)
            )
            made = ScramCredential(mechanism, MIN_ITERATIONS, salt, keys.stored, keys.server)
            self._broker = (secret, made)
        return self._broker[1]

    def _nobody(self, user: str, mechanism: Mechanism) -> ScramCredential:
        def made_up(purpose: bytes) -> bytes:
            secret = self._image().inter_broker_secret
            return hmac.digest(secret, purpose + user.encode(), mechanism.hash_name)

        salt = made_up(b"salt")[:SALT_BYTES]
        return ScramCredential(
            mechanism, MIN_ITERATIONS, salt, made_up(b"stored"), made_up(b"server")
        )


@dataclass(frozen=True, slots=True)
class PasswordCheck:
    """A password in the clear and what it is to fit. ``run`` takes milliseconds, on any thread."""

    user: str
    password: str = field(repr=False)
    credential: ScramCredential

    def run(self) -> bool:
        kept = self.credential
        mechanism = Mechanism(kept.mechanism)
        salted = salt_password(mechanism, self.password, kept.salt, kept.iterations)
        return hmac.compare_digest(derive_keys(mechanism, salted).stored, kept.stored_key)


class PlainConversation:
    """RFC 4616: one token, ``[authzid] NUL user NUL password``."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self.user: str | None = None

    def step(self, token: bytes) -> PasswordCheck:
        """Raises AuthenticationFailedError."""
        try:
            authorization, user, password = token.decode().split("\0")
        except ValueError:  # not UTF-8 is one, too
            raise AuthenticationFailedError(
                "Invalid SASL/PLAIN response: expected 3 tokens", "", "no PLAIN token"
            ) from None
        if not user or not password:
            raise AuthenticationFailedError(
                "Authentication failed: username or password not specified", user, "nothing given"
            )
        if authorization not in ("", user):
            raise AuthenticationFailedError(
                "Authentication failed: Client requested an authorization id that is different "
                "from username", user, "another authorization id",
            )  # fmt: skip
        return PasswordCheck(user, password, self._users.any_of(user))

    def on_checked(self, check: PasswordCheck, fits: bool) -> bytes:
        """Raises AuthenticationFailedError."""
        if not fits:
            raise AuthenticationFailedError(
                "Authentication failed: Invalid username or password", check.user,
                "unknown user or wrong password",
            )  # fmt: skip
        self.user = check.user
        return b""


class ScramConversation:
    """RFC 5802: two tokens; the password does not leave the client."""

    def __init__(self, users: Users, name: str) -> None:
        from scramp import ScramMechanism

        self._users = users
        self._name = name
        self._mechanism = (
            Mechanism.SCRAM_SHA_256 if name == BROKER_MECHANISM else Mechanism.of(name)
        )
        self._server = ScramMechanism(self._mechanism.sasl_name).make_server(self._find)
        self._who = ""
        self._began = False
        self.user: str | None = None

    def _find(self, user: str) -> tuple[bytes, bytes, bytes, int] | None:
        self._who = user
        kept: ScramCredential | None
        if self._name == BROKER_MECHANISM:
            kept = self._users.broker() if user == BROKER_USER else None
        else:
            kept = self._users.find(user, self._mechanism)
        if kept is None:
            return None
        return kept.salt, kept.stored_key, kept.server_key, kept.iterations

    def step(self, token: bytes) -> bytes:
        """Raises AuthenticationFailedError."""
        from scramp import ScramException

        try:
            text = token.decode()
            if not self._began:
                self._began = True
                self._server.set_client_first(text)
                return str(self._server.get_server_first()).encode()
            self._server.set_client_final(text)
            answer = str(self._server.get_server_final()).encode()
        except (ScramException, ValueError) as error:
            reason = "unknown user or wrong password" if self._who else f"no SCRAM token: {error}"
            raise AuthenticationFailedError(
                "Authentication failed during authentication due to invalid credentials with SASL "
                f"mechanism {self._name}", self._who, reason,
            ) from None  # fmt: skip
        self.user = self._who
        return answer


Conversation = PlainConversation | ScramConversation


def converse(users: Users, mechanism: str) -> Conversation:
    return PlainConversation(users) if mechanism == PLAIN else ScramConversation(users, mechanism)
