"""Credentials of SCRAM (RFC 5802, RFC 7677) as Kafka keeps them (KIP-84, KIP-554).

A broker keeps what proves that somebody knows the password: a salt, a number of iterations and two
keys. The conversation itself is the library's (`scramp`).
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from enum import IntEnum
from typing import NamedTuple

MIN_ITERATIONS = 4096
MAX_ITERATIONS = 16_384
MIN_SALT_BYTES = 12
MAX_SALT_BYTES = 255
# Of the salts that are made here.
SALT_BYTES = 32
# Names of users that begin so are not given to people.
RESERVED_PREFIX = "__"


class Mechanism(IntEnum):
    """Numbers as on the wire (KIP-554)."""

    SCRAM_SHA_256 = 1
    SCRAM_SHA_512 = 2

    @property
    def sasl_name(self) -> str:
        return self.name.replace("_", "-")

    @property
    def hash_name(self) -> str:
        return "sha256" if self is Mechanism.SCRAM_SHA_256 else "sha512"

    @classmethod
    def of(cls, sasl_name: str) -> Mechanism:
        """``"SCRAM-SHA-256"``. Raises ValueError."""
        for mechanism in cls:
            if mechanism.sasl_name == sasl_name:
                return mechanism
        raise ValueError(f"{sasl_name!r} is neither SCRAM-SHA-256 nor SCRAM-SHA-512")


class Keys(NamedTuple):
    stored: bytes
    server: bytes


def is_plain(text: str) -> bool:
    """Whether every client sends ``text`` alike: SASLprep changes the rest, and not every client
    applies it (RFC 4013).
    """
    return text.isprintable() and text != "" and unicodedata.normalize("NFKC", text) == text


def salt_password(mechanism: Mechanism, password: str, salt: bytes, iterations: int) -> bytes:
    """The expensive step, milliseconds: not for an event loop, often."""
    return hashlib.pbkdf2_hmac(mechanism.hash_name, password.encode(), salt, iterations)


def derive_keys(mechanism: Mechanism, salted_password: bytes) -> Keys:
    """What a broker keeps, from the salted password."""
    client = hmac.digest(salted_password, b"Client Key", mechanism.hash_name)
    server = hmac.digest(salted_password, b"Server Key", mechanism.hash_name)
    return Keys(hashlib.new(mechanism.hash_name, client).digest(), server)
