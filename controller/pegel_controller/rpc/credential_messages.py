"""Bodies of the RPC that changes who may log in (KIP-554); the rules of `rpc.messages` hold."""

from dataclasses import dataclass, field

from pegel_controller.metadata.wire import Wire


@dataclass(frozen=True, slots=True)
class CredentialChange(Wire):
    """One credential of one user, set or (without iterations) deleted."""

    user: str
    mechanism: int
    iterations: int = 0
    salt: bytes = b""
    stored_key: bytes = field(default=b"", repr=False)
    server_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class AlterCredentialsRequest(Wire):
    """`first_users`: these changes are dropped where the cluster has users already.

    `inter_broker_secret` is kept where there is none yet, and dropped otherwise.
    """

    changes: tuple[CredentialChange, ...] = ()
    first_users: bool = False
    inter_broker_secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class CredentialResult(Wire):
    user: str
    error: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True)
class AlterCredentialsResponse(Wire):
    """One result for each user that was named."""

    results: tuple[CredentialResult, ...] = ()
    error: int = 0
    message: str = ""
