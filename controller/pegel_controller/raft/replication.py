"""Log replication: the leader's appends and snapshots, the follower's answers, commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pegel.seams.beat import next_beat
from pegel_controller.raft import election
from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.messages import (
    AppendRequest,
    AppendResponse,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
)
from pegel_controller.raft.progress import Progress, ProgressState
from pegel_controller.raft.quorum import quorum_index
from pegel_controller.raft.ready import ReadResult, Snapshot
from pegel_controller.raft.states import Leader

if TYPE_CHECKING:
    from pegel_controller.raft.node import RaftNode

SNAPSHOT_BYTES_MAX = 1 << 30
ROUNDS_MAX = 64


def begin_round(node: RaftNode, leader: Leader, now: float) -> None:
    """A heartbeat to everybody, which also retries what was lost."""
    leader.sequence += 1
    leader.round_sent_at[leader.sequence] = now
    leader.round_sent_at.pop(leader.sequence - ROUNDS_MAX, None)
    leader.round_pending = False
    leader.heartbeat_at = next_beat(now, node.options.heartbeat_interval)
    for peer, progress in leader.progress.items():
        progress.waiting = False
        if progress.state is ProgressState.SNAPSHOT:
            _send_chunk(node, peer, progress)
        _send_append(node, leader, peer, progress, empty=True)
    release_reads(node, leader)


def flush(node: RaftNode, leader: Leader, now: float) -> None:
    """Send every follower what it lacks, as far as its window allows."""
    if leader.round_pending:
        begin_round(node, leader, now)
    for peer, progress in leader.progress.items():
        _flush_peer(node, leader, peer, progress)


def _flush_peer(node: RaftNode, leader: Leader, peer: int, progress: Progress) -> None:
    options = node.options
    if progress.next_index < node.log.first_index and progress.state is not ProgressState.SNAPSHOT:
        _begin_snapshot(node, peer, progress)
    if progress.state is ProgressState.SNAPSHOT:
        if not progress.waiting:
            _send_chunk(node, peer, progress)
        return
    while progress.next_index <= node.log.last_index and not progress.waiting:
        full = len(progress.inflight) >= options.inflight_messages_max
        if full or progress.inflight_bytes >= options.inflight_bytes_max:
            return
        _send_append(node, leader, peer, progress)
    if progress.state is ProgressState.REPLICATE and progress.commit_sent < node.log.commit_index:
        _send_append(node, leader, peer, progress, empty=True)
    elif progress.state is ProgressState.PROBE and not progress.waiting:
        _send_append(node, leader, peer, progress, empty=True)
        progress.waiting = True


def _send_append(
    node: RaftNode, leader: Leader, peer: int, progress: Progress, *, empty: bool = False
) -> None:
    log = node.log
    # During a snapshot a heartbeat may only claim what is known to match.
    snapshotting = progress.state is ProgressState.SNAPSHOT
    previous = progress.match_index if snapshotting else progress.next_index - 1
    previous_term = log.term_at(previous)
    if previous_term is None:
        previous, previous_term = 0, 0  # matches everywhere, promises nothing
        empty = True
    entries = (
        () if empty else log.slice(previous + 1, log.last_index, node.options.append_bytes_max)
    )
    commit = log.commit_index
    node.send_now(
        peer,
        AppendRequest(node.term, previous, previous_term, commit, leader.sequence, tuple(entries)),
    )
    progress.commit_sent = commit
    if entries and progress.state is ProgressState.REPLICATE:
        progress.sent(entries[-1].index, sum(len(entry.data) for entry in entries))
    elif entries:
        progress.waiting = True


def _begin_snapshot(node: RaftNode, peer: int, progress: Progress) -> None:
    assert node.snapshot is not None
    progress.back_off(progress.next_index)
    progress.state = ProgressState.SNAPSHOT
    progress.snapshot_index, progress.snapshot_offset = node.snapshot.index, 0


def _send_chunk(node: RaftNode, peer: int, progress: Progress) -> None:
    snapshot = node.snapshot
    assert snapshot is not None
    if progress.snapshot_index != snapshot.index:  # a newer one replaced it
        progress.snapshot_index, progress.snapshot_offset = snapshot.index, 0
    payload = node.snapshot_payload()
    start = min(progress.snapshot_offset, len(payload))
    data = payload[start : start + node.options.snapshot_chunk_bytes]
    done = start + len(data) == len(payload)
    chunk = SnapshotChunk(node.term, snapshot.index, snapshot.term, start, data, done)
    node.send_now(peer, chunk)
    progress.waiting = True


def on_append_request(node: RaftNode, sender: int, request: AppendRequest, now: float) -> None:
    if not _accept_leader(node, sender, request.term, now):
        node.send_after_sync(sender, AppendResponse(node.term, False, 0, 0, 0))
        return
    log = node.log
    sequence = request.read_sequence
    previous = request.previous_index
    if previous >= log.snapshot_index and log.term_at(previous) != request.previous_term:
        term, index = log.conflict_hint(previous)
        node.send_after_sync(sender, AppendResponse(node.term, False, index, term, sequence))
        return
    truncated, appended = log.merge(request.entries)
    if truncated is not None:
        node.on_truncated(truncated)
    node.on_appended(appended)
    matched = previous + len(request.entries)
    log.commit_to(max(log.commit_index, min(request.commit_index, matched)))
    node.send_after_sync(sender, AppendResponse(node.term, True, matched, 0, sequence))


def _accept_leader(node: RaftNode, sender: int, term: int, now: float) -> bool:
    if term < node.term:
        return False
    if term == node.term and isinstance(node.state, Leader):
        raise RaftError(f"two leaders in term {term}: {node.node_id} and {sender}")
    election.become_follower(node, term, sender, now)
    return True


def on_append_response(node: RaftNode, sender: int, response: AppendResponse, now: float) -> None:
    leader, progress = _progress(node, sender, response.term, now)
    if leader is None or progress is None:
        return
    progress.acknowledged_sequence = max(progress.acknowledged_sequence, response.read_sequence)
    log = node.log
    if response.success:
        # Beyond the log: impossible for a peer that keeps the protocol.
        if response.index > log.last_index:
            raise RaftError(f"node {sender} acknowledges entry {response.index} of no one")
        grew = progress.matched(response.index)
        if progress.match_index == log.last_index:
            progress.caught_up_at = now
        if progress.state is ProgressState.PROBE and response.index >= progress.next_index - 1:
            progress.state, progress.waiting = ProgressState.REPLICATE, False
        if grew:
            advance_commit(node)
    elif progress.state is not ProgressState.SNAPSHOT:
        index = response.index
        while response.conflict_term and log.term_at(index) == response.conflict_term:
            index += 1
        progress.back_off(min(index, log.last_index + 1))
    release_reads(node, leader)
    advance_transfer(node, leader)


def _progress(
    node: RaftNode, sender: int, term: int, now: float
) -> tuple[Leader | None, Progress | None]:
    """The sender's progress if this node leads in ``term``; a newer term ends a leadership."""
    if term > node.term:
        election.follow_term(node, term, now)
    if term != node.term or not isinstance(node.state, Leader):
        return None, None
    progress = node.state.progress.get(sender)
    if progress is not None:
        progress.heard_at = now
    return node.state, progress


def advance_commit(node: RaftNode) -> None:
    leader = node.state
    if not isinstance(leader, Leader):
        return
    held = {peer: progress.match_index for peer, progress in leader.progress.items()}
    held[node.node_id] = node.persisted_index  # not what it has only in memory
    index = quorum_index(node.membership.voters, held)
    # Older terms are committed only along with an entry of the own one (section 5.4.2).
    if index > node.log.commit_index and node.log.term_at(index) == node.term:
        node.log.commit_to(index)
        release_reads(node, leader)


def release_reads(node: RaftNode, leader: Leader) -> None:
    if not leader.reads or node.log.commit_index < leader.first_index:
        return
    confirmed = _confirmed_sequence(node, leader)
    while leader.reads and leader.reads[0].token <= confirmed:
        read = leader.reads.pop(0)
        node.reads.append(ReadResult(read.token, max(read.index, leader.first_index)))


def _confirmed_sequence(node: RaftNode, leader: Leader) -> int:
    seen = {peer: progress.acknowledged_sequence for peer, progress in leader.progress.items()}
    seen[node.node_id] = leader.sequence
    return quorum_index(node.membership.voters, seen)


def lease_start(node: RaftNode, leader: Leader) -> float:
    """When the newest round was sent that a quorum has answered."""
    if len(node.membership.voters) == 1 and node.node_id in node.membership.voters:
        return float("inf")
    return leader.round_sent_at.get(_confirmed_sequence(node, leader), float("-inf"))


def advance_transfer(node: RaftNode, leader: Leader) -> None:
    target = leader.transfer_to
    if target is None or leader.transfer_sent:
        return
    if leader.progress[target].match_index == node.log.last_index:
        leader.transfer_sent = True
        node.send_now(target, TimeoutNow(node.term))


def on_snapshot_chunk(node: RaftNode, sender: int, chunk: SnapshotChunk, now: float) -> None:
    if not _accept_leader(node, sender, chunk.term, now):
        node.send_after_sync(sender, SnapshotResponse(node.term, chunk.index, 0, False))
        return
    key = (chunk.term, chunk.index, chunk.index_term)
    if chunk.index <= node.log.commit_index:
        reply = SnapshotResponse(node.term, chunk.index, 0, True)
        node.send_after_sync(sender, reply)
        return
    if node.incoming_key != key:
        node.incoming_key, node.incoming = key, bytearray()
    if chunk.offset == len(node.incoming):
        if chunk.offset + len(chunk.data) > SNAPSHOT_BYTES_MAX:
            raise RaftError(f"snapshot {chunk.index} is above {SNAPSHOT_BYTES_MAX} bytes")
        node.incoming += chunk.data
        if chunk.done:
            snapshot = Snapshot.decode(chunk.index, chunk.index_term, bytes(node.incoming))
            node.incoming_key, node.incoming = None, bytearray()
            node.install(snapshot)
            node.send_after_sync(sender, SnapshotResponse(node.term, chunk.index, 0, True))
            return
    size = len(node.incoming)
    node.send_after_sync(sender, SnapshotResponse(node.term, chunk.index, size, False))


def on_snapshot_response(
    node: RaftNode, sender: int, response: SnapshotResponse, now: float
) -> None:
    leader, progress = _progress(node, sender, response.term, now)
    if leader is None or progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if response.index != progress.snapshot_index:
        return
    progress.waiting = False
    if response.installed:
        progress.matched(response.index)
        progress.back_off(response.index + 1)
        advance_commit(node)
    else:
        progress.snapshot_offset = response.offset
