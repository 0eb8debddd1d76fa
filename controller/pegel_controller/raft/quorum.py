"""Majority arithmetic over the voters of one configuration.

Membership changes one server at a time, so that any two quorums of neighbouring configurations
share a voter (Ongaro, 2014, section 4.1); joint configurations are not needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum


class VoteResult(Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def quorum_size(voter_count: int) -> int:
    """The smallest number of voters such that two such groups always overlap."""
    assert voter_count > 0
    return voter_count // 2 + 1


def quorum_index(voters: Collection[int], match_index: Mapping[int, int]) -> int:
    """Highest index that a quorum of ``voters`` holds; a voter without an entry holds none."""
    held = sorted((match_index.get(voter, 0) for voter in voters), reverse=True)
    return held[quorum_size(len(held)) - 1]


def quorum_time(voters: Collection[int], heard_at: Mapping[int, float]) -> float:
    """Latest time since when a quorum of ``voters`` has been heard; -inf where none has."""
    times = sorted((heard_at.get(voter, float("-inf")) for voter in voters), reverse=True)
    return times[quorum_size(len(times)) - 1]


def tally(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """The outcome of an election; votes of nodes that are not voters do not count."""
    needed = quorum_size(len(voters))
    granted = sum(votes.get(voter) is True for voter in voters)
    refused = sum(votes.get(voter) is False for voter in voters)
    if granted >= needed:
        return VoteResult.WON
    # With an even number of voters half of them refusing is already the end.
    return VoteResult.LOST if len(voters) - refused < needed else VoteResult.PENDING
