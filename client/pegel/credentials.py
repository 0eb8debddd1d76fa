"""Who a client says it is, and how it proves it (SASL)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password; use one of the mechanisms below. The password is never printed.

    Raises:
        ValueError: either is empty, or holds a character that cannot be sent.
    """

    user: str
    password: str = field(repr=False)

    # As the protocol names it.
    mechanism: ClassVar[str] = ""
    # The SCRAM variant that it speaks; "" for a password that is sent as it is.
    scram: ClassVar[str] = ""
    # Go on without where the broker does not ask for credentials.
    optional: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.mechanism:
            raise TypeError("use Plain, Scram256 or Scram512")
        for name, value in (("user", self.user), ("password", self.password)):
            if not value or "\0" in value:
                raise ValueError(f"the {name} is empty, or holds a NUL character")


class Plain(Credentials):
    """SASL/PLAIN: the password goes over the network as it is."""

    __slots__ = ()
    mechanism = "PLAIN"


class Scram256(Credentials):
    """SASL/SCRAM-SHA-256: proves the password without sending it, and has the broker prove that
    it knows it as well."""

    __slots__ = ()
    mechanism = scram = "SCRAM-SHA-256"


class Scram512(Credentials):
    """SASL/SCRAM-SHA-512; otherwise as ``Scram256``."""

    __slots__ = ()
    mechanism = scram = "SCRAM-SHA-512"


MECHANISMS: tuple[type[Credentials], ...] = (Scram512, Scram256, Plain)
