"""What the group coordinator of one node has done and holds, for metrics."""

from __future__ import annotations

from pegel.metrics import Histogram

# A rebalance takes as long as its slowest member needs to hear of it: a heartbeat interval or two.
REBALANCE_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class GroupCounters:
    """Totals since the start, and the number of groups now in each state; read at any time."""

    __slots__ = (
        "evicted", "expired_offsets", "groups_by_state", "heartbeat_expirations", "offset_commits",
        "offset_deletions", "rebalance_duration", "rebalances",
    )  # fmt: skip

    def __init__(self) -> None:
        self.groups_by_state = {
            "Empty": 0, "PreparingRebalance": 0, "CompletingRebalance": 0, "Stable": 0, "Dead": 0,
        }  # fmt: skip
        # Rebalances begun.
        self.rebalances = 0
        # From the first change of membership to the assignment that is committed; seconds.
        self.rebalance_duration = Histogram(REBALANCE_SECONDS)
        # Partitions whose offset was committed.
        self.offset_commits = 0
        self.offset_deletions = 0
        self.expired_offsets = 0
        # Members lost because they were silent, and because they did not rejoin or sync in time.
        self.heartbeat_expirations = 0
        self.evicted = 0

    def created(self, state: str) -> None:
        self.groups_by_state[state] += 1

    def forgotten(self, state: str) -> None:
        self.groups_by_state[state] -= 1

    def move(self, old: str, new: str) -> None:
        self.groups_by_state[old] -= 1
        self.groups_by_state[new] += 1
