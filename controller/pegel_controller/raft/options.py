"""Tunables of Raft, declared once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RaftOptions:
    """Times in seconds, sizes in bytes.

    Raises:
        ValueError: bounds that would make elections unstable or a window empty.
    """

    heartbeat_interval: float = 0.200
    election_timeout_min: float = 0.600
    election_timeout_max: float = 0.900
    peer_lost_delay_min: float = 0.005
    peer_lost_delay_max: float = 0.010
    peer_lost_stagger: float = 0.060
    hurry_retry_min: float = 0.030
    hurry_retry_max: float = 0.090
    disk_stall_max: float = 2.0  # a leader whose sync takes longer steps down
    append_bytes_max: int = 1 << 20
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 8 << 20
    snapshot_chunk_bytes: int = 1 << 20
    snapshot_after_entries: int = 20_000
    snapshot_after_bytes: int = 16 << 20
    segment_bytes: int = 16 << 20
    pending_proposals_max: int = 10_000

    def __post_init__(self) -> None:
        if not 0 < 2 * self.heartbeat_interval <= self.election_timeout_min:
            raise ValueError("election_timeout_min must be at least two heartbeat intervals")
        if not self.election_timeout_min < self.election_timeout_max:
            raise ValueError("election_timeout_max must be above election_timeout_min")
        if not 0 <= self.peer_lost_delay_min <= self.peer_lost_delay_max:
            raise ValueError("peer_lost_delay_max must not be below peer_lost_delay_min")
        if min(self.inflight_messages_max, self.inflight_bytes_max, self.append_bytes_max) < 1:
            raise ValueError("windows and batches must hold at least one message")
