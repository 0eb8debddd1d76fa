"""What one Raft node counts for operators; nothing of it decides anything."""

from __future__ import annotations

from collections import deque

from pegel.metrics import Histogram
from pegel.metrics.histogram import SHORT_SECONDS
from pegel_controller.raft.ready import HardState


class RaftStats:
    """Times are monotonic seconds. ``_proposed`` is what this leader proposed and not applied."""

    def __init__(self) -> None:
        self.elections = 0
        self.leader_changes = 0
        self.commit = Histogram(SHORT_SECONDS)
        self._stood_in = -1
        self._led_by: tuple[int, int] | None = None
        self._proposed: deque[tuple[int, float]] = deque()

    def on_hard_state(self, state: HardState, node_id: int) -> None:
        """A vote for itself in a new term is a candidacy."""
        if state.vote == node_id and state.term > self._stood_in:
            self._stood_in = state.term
            self.elections += 1

    def on_leader(self, before: int | None, leader_id: int | None, term: int) -> None:
        if before != leader_id:
            self._proposed.clear()  # of a leadership that began or ended
        if leader_id is not None and self._led_by != (leader_id, term):
            self._led_by = (leader_id, term)
            self.leader_changes += 1

    def on_proposed(self, index: int, now: float) -> None:
        self._proposed.append((index, now))

    def on_applied(self, index: int, now: float) -> None:
        proposed = self._proposed
        while proposed and proposed[0][0] <= index:
            self.commit.observe(now - proposed.popleft()[1])
