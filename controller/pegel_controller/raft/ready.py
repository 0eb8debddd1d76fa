"""What the pure Raft core asks its shell to do, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.log_view import Entry
from pegel_controller.raft.messages import Message


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a crash beside the log."""

    term: int = 0
    vote: int | None = None
    commit_index: int = 0


@dataclass(frozen=True, slots=True)
class Membership:
    """The servers of one configuration, sorted; learners follow and do not vote."""

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()

    def encode(self) -> bytes:
        return bytes(msgpack.packb([self.voters, self.learners]))

    @classmethod
    def decode(cls, data: bytes) -> Membership:
        """Raises RaftError where ``data`` is no membership."""
        try:
            voters, learners = msgpack.unpackb(data)[:2]
            return cls(tuple(map(int, voters)), tuple(map(int, learners)))
        except Exception as error:  # msgpack raises many unrelated types on bad input
            raise RaftError(f"a membership does not decode: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine's bytes as of ``index``, and the membership in force there."""

    index: int
    term: int
    membership: Membership
    data: bytes

    def encode(self) -> bytes:
        """The form that travels in chunks; index and term travel beside it."""
        return bytes(msgpack.packb([self.membership.encode(), self.data]))

    @classmethod
    def decode(cls, index: int, term: int, payload: bytes) -> Snapshot:
        """Raises RaftError where ``payload`` is no snapshot."""
        try:
            membership, data = msgpack.unpackb(payload)[:2]
        except Exception as error:
            raise RaftError(f"snapshot {index} does not decode: {error!r}") from error
        if not isinstance(data, bytes) or not isinstance(membership, bytes):
            raise RaftError(f"snapshot {index} does not hold bytes")
        return cls(index, term, Membership.decode(membership), data)


@dataclass(frozen=True, slots=True)
class Envelope:
    to: int
    message: Message


@dataclass(frozen=True, slots=True)
class ReadResult:
    """``token`` of a ``read_index`` call; apply up to ``index`` first. None: leadership lost."""

    token: int
    index: int | None


@dataclass(frozen=True, slots=True)
class Ready:
    """One batch of effects. Handle every Ready completely, strictly in the order taken.

    1. ``messages`` may leave at once, before any sync: a leader's appends and snapshot chunks
       (its term is already durable, and it counts itself only up to ``on_persisted``).
    2. Make durable, in this order: ``snapshot`` (then drop log entries up to its index);
       ``truncate_from`` (drop that index and all behind); ``entries``; ``hard_state``. One sync
       may cover them. Without ``must_sync`` only the commit index changed: no sync is needed.
    3. Only then send ``messages_after_sync`` (votes, vote requests, append responses) and call
       ``on_persisted(last entry's index, its term)``. They wait for the syncs of all earlier
       Readys too. Nothing may be sent after a failed sync: the node must stop.
    4. Restore ``snapshot``; apply ``committed`` in order; call ``on_applied(index)``.
    5. Resolve ``reads`` once their index is applied.
    """

    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    truncate_from: int | None = None
    entries: tuple[Entry, ...] = ()
    messages: tuple[Envelope, ...] = ()
    messages_after_sync: tuple[Envelope, ...] = ()
    committed: tuple[Entry, ...] = ()
    reads: tuple[ReadResult, ...] = ()
    must_sync: bool = False
