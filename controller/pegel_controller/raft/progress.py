"""What a leader knows about one follower."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum


class ProgressState(Enum):
    PROBE = "probe"  # the match is unknown: one append at a time
    REPLICATE = "replicate"  # it matched: appends are pipelined
    SNAPSHOT = "snapshot"  # it is behind the log's start: chunks, one at a time


@dataclass(slots=True)
class Progress:
    """Invariant: ``match_index < next_index``; ``match_index`` never falls within a term."""

    next_index: int
    match_index: int = 0
    state: ProgressState = ProgressState.PROBE
    waiting: bool = False  # a probe or a chunk is out; heartbeats retry it
    heard_at: float = float("-inf")  # when its last message arrived
    caught_up_at: float = float("-inf")  # when it last was known to have all that its leader has
    acknowledged_sequence: int = 0  # newest round (read_sequence) it has answered
    commit_sent: int = 0
    snapshot_index: int = 0
    snapshot_offset: int = 0
    inflight: deque[tuple[int, int]] = field(default_factory=deque)  # last index, bytes
    inflight_bytes: int = 0

    def sent(self, last_index: int, size: int) -> None:
        self.inflight.append((last_index, size))
        self.inflight_bytes += size
        self.next_index = last_index + 1

    def matched(self, index: int) -> bool:
        """Take an acknowledgement; whether the match grew."""
        while self.inflight and self.inflight[0][0] <= index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        grew = index > self.match_index
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, self.match_index + 1)
        return grew

    def back_off(self, next_index: int) -> None:
        self.state = ProgressState.PROBE
        self.waiting = False
        self.inflight.clear()
        self.inflight_bytes = 0
        self.next_index = max(self.match_index + 1, next_index)
