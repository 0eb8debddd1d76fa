"""How much one request asks for: a broker refuses those with too many elements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

# Partitions, or topics, in one request: with a topic for each partition they are 8,000 elements,
# below the 10,000 that every request to Pegel may have (``MAX_REQUEST_ELEMENTS``).
AT_ONCE = 4_000
# What one names beside it as no longer wanted.
FORGOTTEN_AT_ONCE = 500


def in_portions(things: Iterable[T], size: int | None = None) -> Iterator[list[T]]:
    """``things`` in lists of at most ``size`` (``AT_ONCE``), in their order; none for nothing."""
    rest = iter(things)
    while portion := list(islice(rest, size or AT_ONCE)):
        yield portion
