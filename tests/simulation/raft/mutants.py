"""Safeguards of the Raft core, and how a test takes one of them away."""

from __future__ import annotations

import inspect
import textwrap
from types import ModuleType

import pytest

from pegel_controller.raft import election, log_view, node, replication

# name: (module, class or None, function, text taken away, what stands there instead)
MUTANTS: dict[str, tuple[ModuleType, str | None, str, str, str]] = {
    "answers leave before the sync": (
        node, "RaftNode", "ready",
        "result = Ready(",
        "self._now_out, self._sync_out = self._now_out + self._sync_out, []\n    result = Ready(",
    ),
    "two votes in a term": (
        election, None, "on_vote_request", "node.vote in (None, sender)", "True",
    ),
    "votes for a log that lacks entries": (
        log_view, "LogView", "is_up_to_date",
        "(last_term, last_index) >= (self.last_term, self.last_index)", "True",
    ),
    "votes while a leader is heard": (
        election, None, "on_vote_request", "node.hears_leader(now)", "False",
    ),
    "votes at once after a restart": (
        node, "RaftNode", "hears_leader", "now < self._quiet_until", "False",
    ),
    "no check of the quorum": (
        election, None, "on_leader_tick", "< now - node.options.election_timeout_max", "< -1e9",
    ),
    "commits entries of older terms by counting": (
        replication, None, "advance_commit", "and node.log.term_at(index) == node.term", "",
    ),
    "counts what the leader has only in memory": (
        replication, None, "advance_commit", "node.persisted_index", "node.log.last_index",
    ),
    "commits beyond the entries that matched": (
        replication, None, "on_append_request",
        "min(request.commit_index, matched)", "min(request.commit_index, log.last_index)",
    ),
    "appends without a matching predecessor": (
        replication, None, "on_append_request", "log.term_at(previous) != request.previous_term",
        "log.term_at(previous) is None",
    ),
    "truncates without a mismatch": (
        log_view, "LogView", "merge",
        "if known == entry.term:", "if entry.index <= self.commit_index:",
    ),
    "reads without asking a quorum": (
        replication, None, "release_reads", "leader.reads[0].token <= confirmed", "True",
    ),
    "reads confirmed by a round begun before them": (
        node, "RaftNode", "read_index", "leader.sequence + 1", "leader.sequence",
    ),
    "reads at a commit index from before the own term": (
        replication, None, "release_reads", "max(read.index, leader.first_index)", "read.index",
    ),
    "a lease counted from the newest round": (
        replication, None, "lease_start", "_confirmed_sequence(node, leader)", "leader.sequence",
    ),
    "membership changes side by side": (
        node, "RaftNode", "propose_membership",
        "self._memberships[-1][0] > self.log.commit_index", "False",
    ),
    "a membership change before an entry of the own term": (
        node, "RaftNode", "propose_membership",
        "self.log.commit_index < leader.first_index", "False",
    ),
    "a truncated membership stays in force": (
        node, "RaftNode", "on_truncated", "self._memberships[-1][0] >= index", "False",
    ),
    "a lease trusted while handing over": (
        node, "RaftNode", "lease_valid", "or leader.transfer_to is not None", "",
    ),
    "a hand-over given up while its target may still obey": (
        election, None, "on_leader_tick", "if leader.transfer_sent:", "if False:",
    ),
    "acknowledges a match beyond what was compared": (
        replication, None, "on_append_request",
        "node.term, True, matched,", "node.term, True, log.last_index,",
    ),
    "the vote outlives its term": (
        election, None, "become_follower", "node.term, node.vote = term, None", "node.term = term",
    ),
    "obeys a hand-over of an older leader": (
        election, None, "on_timeout_now",
        "message.term == node.term and node.leader_id == sender", "True",
    ),
}  # fmt: skip


def take_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the function anew without the safeguard, for this test."""
    module, owner, function, old, new = MUTANTS[name]
    holder = getattr(module, owner) if owner else module
    source = textwrap.dedent(inspect.getsource(getattr(holder, function)))
    assert source.count(old) == 1, "the safeguard moved: name it again"
    scope: dict[str, object] = {}
    mutated = "from __future__ import annotations\n" + source.replace(old, new)
    exec(compile(mutated, f"<{name}>", "exec"), vars(module) | {"__name__": "mutant"}, scope)
    monkeypatch.setattr(holder, function, scope[function])
