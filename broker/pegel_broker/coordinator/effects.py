"""What a coordinator's state machine takes and gives: moments, records, writes, replies.

The contract with the runtime: a request becomes ``Effects``. Replies leave at once. The records of
a write go to the partition log in one batch; when the high watermark has passed it they are
replayed, then ``on_committed`` is called with that write. Where that fails ``on_failed`` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pegel.protocol.errors import ErrorCode

# Who waits for an answer, as the caller knows it: a future in production, anything in a test.
Handle = object


class Moment(NamedTuple):
    """``seconds`` decide (monotonic); ``wall_ms`` is what is stored and shown."""

    seconds: float
    wall_ms: int


class Record(NamedTuple):
    """One record of an internal topic; a value of None is a tombstone."""

    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Write:
    """Records that are committed together, or not at all; ``context`` is the state machine's."""

    records: Sequence[Record]
    context: object = None


@dataclass(slots=True)
class Effects:
    """In the order in which they were decided."""

    replies: list[tuple[Handle, object]] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)

    def reply(self, handle: Handle, answer: object) -> None:
        self.replies.append((handle, answer))

    def write(self, records: Sequence[Record], context: object = None) -> None:
        self.writes.append(Write(records, context))


class StateMachine(Protocol):
    """Everything that one partition of an internal topic coordinates. Pure.

    Promises (assignments, committed offsets) change in ``replay`` alone. What is merely under way
    (who waits, until when) may change with a request: a new coordinator starts without it.
    """

    def replay(self, record: Record) -> None:
        """Take a committed record, in the order of the log.

        Raises:
            ValueError: the record cannot be read.
        """
        ...

    def on_loaded(self, now: Moment) -> Effects:
        """The whole log was replayed: this node coordinates from now on."""
        ...

    def on_committed(self, now: Moment, write: Write) -> Effects:
        """The records of ``write`` were committed and replayed."""
        ...

    def on_failed(self, now: Moment, write: Write, error: ErrorCode) -> Effects:
        """``write`` was refused, or not committed in time (then it may still be, later)."""
        ...

    def next_deadline(self) -> float | None:
        """When ``on_time`` is to be called, in seconds; it may be too early, never too late."""
        ...

    def on_time(self, now: Moment) -> Effects: ...

    def on_unload(self) -> Effects:
        """Another node coordinates: whoever waits here is told so."""
        ...
