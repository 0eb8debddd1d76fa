"""What the Raft runner needs from its owner, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class RaftTransport(Protocol):
    """Carries opaque payloads between controllers; losing one is allowed, altering one is not."""

    def send(self, peer_id: int, payload: bytes) -> None:
        """Best effort, never blocks or raises; ordered per peer while connected."""
        ...


class RaftStateMachine(Protocol):
    """The replicated state. Called on the event loop, never re-entrantly, in log order."""

    def apply(self, index: int, term: int, data: bytes) -> None:
        """Apply one committed entry; Raft's own entries (no-op, membership) are not passed."""
        ...

    def snapshot(self) -> bytes:
        """The whole state as of the last applied index."""
        ...

    def restore(self, index: int, term: int, data: bytes) -> None:
        """Replace the state by a snapshot taken at ``index``."""
        ...

    def on_leader_change(self, leader_id: int | None, term: int, is_leader: bool) -> None:
        """``is_leader`` is true only once an entry of this node's own term has been applied."""
        ...


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """A moment's view of one node, for metrics and people."""

    node_id: int
    role: str
    term: int
    leader_id: int | None
    commit_index: int
    applied_index: int
    last_index: int
    snapshot_index: int
    voters: tuple[int, ...]
    learners: tuple[int, ...]
