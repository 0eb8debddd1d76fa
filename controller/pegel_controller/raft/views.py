"""What a Raft node can tell about itself and, while it leads, about the others."""

from __future__ import annotations

from dataclasses import dataclass

from pegel_controller.raft.interfaces import RaftStatus
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.states import Leader


@dataclass(frozen=True, slots=True)
class FollowerView:
    """One other server as its leader knows it; times are the leader's monotonic seconds."""

    match_index: int
    heard_at: float
    caught_up_at: float


def status(node: RaftNode) -> RaftStatus:
    log, members = node.log, node.membership
    return RaftStatus(
        node.node_id, node.role, node.term, node.leader_id, log.commit_index,
        node.applied_index, log.last_index, log.snapshot_index, members.voters,
        members.learners,
    )  # fmt: skip


def followers(node: RaftNode | None) -> dict[int, FollowerView]:
    """Empty unless ``node`` leads."""
    if node is None or not isinstance(node.state, Leader):
        return {}
    return {
        peer: FollowerView(p.match_index, p.heard_at, p.caught_up_at)
        for peer, p in list(node.state.progress.items())
    }
