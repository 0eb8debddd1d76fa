"""Which error codes a response carries, by a function compiled once for each kind of response."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pegel.protocol.schema import Message, StructType

Counter = Callable[[Message, dict[int, int]], None]


def count_errors(message: Message, into: dict[int, int]) -> None:
    """Add each error code in ``message`` that is not 0, once for each place where it stands."""
    counter(type(message))(message, into)


@cache
def counter(cls: StructType) -> Counter:
    """The function that counts for one class of responses."""
    lines = ["def count(m0, into):"]
    body = _lines(cls, "m0", 1)
    scope: dict[str, Counter] = {}
    exec("\n".join(lines + (body or [" pass"])), scope)
    return scope["count"]


def _lines(cls: StructType, variable: str, depth: int) -> list[str]:
    """Statements that look at every ``error_code`` at and below ``variable``."""
    pad = " " * depth
    lines: list[str] = []
    for field in cls.fields:
        where = f"{variable}.{field.name}"
        if field.name == "error_code" and not field.is_array:
            lines.append(f"{pad}if {where}: into[{where}] = into.get({where}, 0) + 1")
        elif field.kind == "struct" and field.is_array:
            assert field.element is not None
            inner = _lines(field.element, f"m{depth}", depth + 1)
            if inner:
                lines.append(f"{pad}for m{depth} in {where} or ():")
                lines += inner
    return lines
