"""Elections: campaigns, votes, check-quorum, leadership transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pegel_controller.raft import replication
from pegel_controller.raft.log_view import EntryKind
from pegel_controller.raft.messages import TimeoutNow, VoteRequest, VoteResponse
from pegel_controller.raft.progress import Progress
from pegel_controller.raft.quorum import VoteResult, quorum_time, tally
from pegel_controller.raft.states import Candidate, Follower, Leader, PreCandidate

if TYPE_CHECKING:
    from pegel_controller.raft.node import RaftNode


def election_deadline(node: RaftNode, now: float) -> float:
    options = node.options
    if node.term == 0:  # a new cluster need not wait for a leader that never was
        return now + node.random.uniform(0.02, 0.08)
    if now < node.hurry_until:  # the leader is known to be dead: others find out within moments
        return now + node.random.uniform(options.hurry_retry_min, options.hurry_retry_max)
    return now + node.random.uniform(options.election_timeout_min, options.election_timeout_max)


def become_follower(node: RaftNode, term: int, leader_id: int | None, now: float) -> None:
    """Enter ``term`` (not below the own one). The vote is forgotten only with a new term."""
    assert term >= node.term
    if term > node.term:
        node.term, node.vote = term, None
    if isinstance(node.state, Leader):
        node.fail_reads(node.state)
    heard = float("-inf")
    if leader_id is not None:
        heard, node.hurry_until = now, float("-inf")
    node.state = Follower(election_deadline(node, now), leader_id, heard)


def follow_term(node: RaftNode, term: int, now: float) -> None:
    """An answer names a newer term. It may be late: who hears a leader stays with it.

    In the newer term it would vote while the lease runs that it has acknowledged.
    """
    if not (isinstance(node.state, Follower) and node.hears_leader(now)):
        become_follower(node, term, None, now)


def campaign(node: RaftNode, now: float, *, pre_vote: bool, transfer: bool = False) -> None:
    if node.node_id not in node.membership.voters:
        become_follower(node, node.term, None, now)
        return
    if not pre_vote:
        node.term += 1
        node.vote = node.node_id
    state = (PreCandidate if pre_vote else Candidate)(election_deadline(node, now))
    state.votes[node.node_id] = True
    node.state = state
    request = VoteRequest(
        node.term + pre_vote, node.log.last_index, node.log.last_term, pre_vote, transfer
    )
    for peer in node.membership.voters:
        if peer != node.node_id:
            node.send_after_sync(peer, request)
    _count(node, now)


def _count(node: RaftNode, now: float) -> None:
    state = node.state
    assert isinstance(state, PreCandidate | Candidate)
    match tally(node.membership.voters, state.votes):
        case VoteResult.PENDING:
            return
        case VoteResult.LOST:
            become_follower(node, node.term, None, now)
        case VoteResult.WON if isinstance(state, PreCandidate):
            campaign(node, now, pre_vote=False)
        case VoteResult.WON:
            become_leader(node, now)


def become_leader(node: RaftNode, now: float) -> None:
    assert isinstance(node.state, Candidate)
    first = node.log.last_index + 1
    leader = Leader(first, now, now)
    node.state = leader
    for peer in node.peers():
        leader.progress[peer] = Progress(first, heard_at=now)
    # An entry of the own term, without which nothing older may be committed (section 5.4.2).
    node.append_own(EntryKind.NO_OP, b"")


def on_vote_request(node: RaftNode, sender: int, request: VoteRequest, now: float) -> None:
    if not request.transfer and node.hears_leader(now) and request.term > node.term:
        # A disturber must not raise anybody's term (Ongaro, 2014, section 4.2.3).
        if request.pre_vote:
            node.send_after_sync(sender, VoteResponse(node.term, False, True))
        return
    up_to_date = node.log.is_up_to_date(request.last_index, request.last_term)
    if request.pre_vote:
        granted = request.term > node.term and up_to_date
        term = request.term if granted else node.term
        node.send_after_sync(sender, VoteResponse(term, granted, True))
        return
    if request.term > node.term:
        become_follower(node, request.term, None, now)
    granted = request.term == node.term and node.vote in (None, sender) and up_to_date
    granted = granted and isinstance(node.state, Follower)
    if granted:
        node.vote = sender
        assert isinstance(node.state, Follower)
        node.state.deadline = election_deadline(node, now)
    node.send_after_sync(sender, VoteResponse(node.term, granted, False))


def on_vote_response(node: RaftNode, sender: int, response: VoteResponse, now: float) -> None:
    state = node.state
    if response.term > node.term and not (response.pre_vote and response.granted):
        follow_term(node, response.term, now)
        return
    wanted = PreCandidate if response.pre_vote else Candidate
    expected = node.term + 1 if response.pre_vote and response.granted else node.term
    if not isinstance(state, wanted) or response.term != expected:
        return
    state.votes.setdefault(sender, response.granted)
    _count(node, now)


def on_timeout_now(node: RaftNode, sender: int, message: TimeoutNow, now: float) -> None:
    if message.term == node.term and node.leader_id == sender:
        campaign(node, now, pre_vote=False, transfer=True)


def on_leader_tick(node: RaftNode, leader: Leader, now: float) -> None:
    if now >= leader.transfer_deadline:
        if leader.transfer_sent:
            # The target may obey late, with votes that respect no lease: it may campaign in the
            # next term only, so the leader goes there itself before it trusts its lease again.
            become_follower(node, node.term, None, now)
            campaign(node, now, pre_vote=False, transfer=True)
            return
        leader.transfer_to, leader.transfer_deadline = None, float("inf")
    if now >= leader.heartbeat_at:
        heard = {peer: progress.heard_at for peer, progress in leader.progress.items()}
        heard[node.node_id] = now
        if quorum_time(node.membership.voters, heard) < now - node.options.election_timeout_max:
            become_follower(node, node.term, None, now)
            return
        replication.begin_round(node, leader, now)
