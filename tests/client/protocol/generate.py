"""Seeded values for any declared message, made from its declaration."""

from __future__ import annotations

import random
import uuid
from typing import Any

from pegel.protocol.messages import REQUESTS, RESPONSES
from pegel.protocol.schema import Field, Message, StructType

_INTEGER_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_LETTERS = "abcXYZ-_.09äß水🌊"


def all_messages() -> list[type[Message]]:
    return [registry[key] for key in REQUESTS for registry in (REQUESTS, RESPONSES)]


def versions_of(cls: type[Message]) -> range:
    return range(cls.versions[0], cls.versions[1] + 1)


def make(cls: StructType, version: int, rng: random.Random) -> Any:
    """An instance whose fields are random where ``version`` carries them, else default."""
    values = {
        field.name: _value(field, version, rng) for field in cls.fields if field.in_version(version)
    }
    return cls(**values)


def _value(field: Field, version: int, rng: random.Random) -> Any:
    if field.nullable_in(version) and rng.random() < 0.25:
        return None
    # A tagged field at its default is not sent: that is a case of its own.
    if field.tag is not None and rng.random() < 0.3:
        return _default(field)
    if field.is_array:
        return [_one(field, version, rng) for _ in range(rng.choice((0, 1, 2, 3)))]
    return _one(field, version, rng)


def _default(field: Field) -> Any:
    if field.default == ():
        assert field.is_array or field.element is not None
        return [] if field.is_array else field.element()  # type: ignore[misc]
    return field.default


def _one(field: Field, version: int, rng: random.Random) -> Any:
    kind, name = field.kind, field.name
    if kind == "struct":
        assert field.element is not None
        return make(field.element, version, rng)
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "string":
        # Now and then longer than a one-byte varint can say.
        length = rng.choice((0, 1, 5, 20, 126, 127, 200))
        return "".join(rng.choice(_LETTERS) for _ in range(length))
    if kind == "bytes":
        return rng.randbytes(rng.choice((0, 1, 127, 300)))
    if kind == "records":
        return memoryview(rng.randbytes(rng.choice((0, 61, 1023, 1024, 5000))))
    if kind == "uuid":
        return uuid.UUID(int=rng.choice((0, rng.getrandbits(128))))
    if kind == "float64":
        return rng.uniform(-1e9, 1e9)
    if kind == "uint16":
        return rng.choice((0, 1, 65535))
    # The oracle turns these into its own error, duration and date types.
    if name == "error_code" or name.endswith("error_code"):
        return rng.randrange(134)
    if name.endswith(("_ms", "timestamp")) and kind in {"int32", "int64"}:
        return rng.choice((1, 1000, 86_400_123))
    bits = _INTEGER_BITS[kind]
    return rng.choice((0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), rng.randrange(100)))
