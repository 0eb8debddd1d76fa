"""Raft messages and their msgpack form: an array of the message type and its fields in order.

A newer peer may add trailing fields; they are ignored. Everything else about the form is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import msgpack

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.log_view import Entry, EntryKind

ENTRIES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """``pre_vote`` asks without raising anybody's term (Ongaro, 2014, section 9.6).

    ``transfer`` is set by a candidate that its leader told to take over: only then may a voter
    that hears a leader grant.
    """

    term: int
    last_index: int
    last_term: int
    pre_vote: bool
    transfer: bool


@dataclass(frozen=True, slots=True)
class VoteResponse:
    term: int
    granted: bool
    pre_vote: bool


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Entries behind ``previous_index``; none of them makes it a heartbeat."""

    term: int
    previous_index: int
    previous_term: int
    commit_index: int
    read_sequence: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class AppendResponse:
    """``index``: the last one known to match if ``success``, else the conflict hint's index."""

    term: int
    success: bool
    index: int
    conflict_term: int
    read_sequence: int


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """``data`` of the snapshot at ``index`` from ``offset`` (bytes); ``done`` on the last."""

    term: int
    index: int
    index_term: int
    offset: int
    data: bytes
    done: bool


@dataclass(frozen=True, slots=True)
class SnapshotResponse:
    """``offset`` bytes of the snapshot at ``index`` are here; ``installed`` once it is durable."""

    term: int
    index: int
    offset: int
    installed: bool


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader asks its successor to campaign at once (Ongaro, 2014, section 3.10)."""

    term: int


Message = (
    VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | SnapshotChunk
    | SnapshotResponse
    | TimeoutNow
)

# The position is the type number on the wire: only ever append.
_TYPES: tuple[type[Message], ...] = (
    VoteRequest,
    VoteResponse,
    AppendRequest,
    AppendResponse,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
)
_NUMBERS = {message_type: number for number, message_type in enumerate(_TYPES)}
# Annotations are strings here (PEP 563), which is what the table below is keyed by.
_FIELDS = {t: [(field.name, str(field.type)) for field in fields(t)] for t in _TYPES}
_VALUES = {t: attrgetter("__class__", *(field.name for field in fields(t))) for t in _TYPES}


def encode(message: Message) -> bytes:
    kind, *values = _VALUES[type(message)](message)
    if isinstance(message, AppendRequest):  # its entries are the last field
        values[-1] = [(e.index, e.term, e.kind, e.data) for e in message.entries]
    return bytes(msgpack.packb([_NUMBERS[kind], *values]))


def decode(payload: bytes) -> Message:
    """The message in ``payload``.

    Raises:
        RaftError: the payload is no well-formed message.
    """
    try:
        raw: object = msgpack.unpackb(payload, strict_map_key=True)
    except Exception as error:  # msgpack raises many unrelated types on bad input
        raise RaftError(f"a Raft message does not decode: {error!r}") from error
    if not isinstance(raw, list) or not raw or type(raw[0]) is not int:
        raise RaftError("a Raft message is not an array that starts with its type")
    if not 0 <= raw[0] < len(_TYPES):
        raise RaftError(f"Raft message type {raw[0]} is unknown")
    kind = _TYPES[raw[0]]
    declared = _FIELDS[kind]
    if len(raw) <= len(declared):
        raise RaftError(f"{kind.__name__} has {len(raw) - 1} of {len(declared)} fields")
    values: list[Any] = []
    for (name, annotation), value in zip(declared, raw[1:], strict=False):
        # As ``_check`` does; nearly all are numbers, and no name is needed for them.
        if annotation == "int" and type(value) is int and 0 <= value < 1 << 63:
            values.append(value)
        else:
            values.append(_check(value, annotation, f"{kind.__name__}.{name}"))
    message = kind(*values)
    if isinstance(message, AppendRequest):
        _check_contiguous(message)
    return message


def _check(value: object, annotation: str, where: str) -> object:
    if annotation == "int":
        if type(value) is int and 0 <= value < 1 << 63:
            return value
    elif annotation == "bool":
        if type(value) is bool:
            return value
    elif annotation == "bytes":
        if type(value) is bytes:
            return value
    elif isinstance(value, list) and len(value) <= ENTRIES_MAX:
        return tuple(_entry(item, where) for item in value)
    raise RaftError(f"{where} is not a valid {annotation}")


def _entry(item: object, where: str) -> Entry:
    if not isinstance(item, list) or len(item) < 4:
        raise RaftError(f"{where} holds something that is no entry")
    index, term, kind, data = item[:4]
    _check(index, "int", where)
    _check(term, "int", where)
    _check(data, "bytes", where)
    if type(kind) is not int or kind not in EntryKind.__members__.values():
        raise RaftError(f"{where} holds an entry of unknown kind {kind!r}")
    return Entry(index, term, EntryKind(kind), data)


def _check_contiguous(message: AppendRequest) -> None:
    term = message.previous_term
    for index, entry in enumerate(message.entries, message.previous_index + 1):
        if entry.index != index or not term <= entry.term <= message.term:
            raise RaftError(f"AppendRequest entry {entry.index} does not follow the one before")
        term = entry.term
