"""What is coordinated, and by the partitions of which internal topic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoordinatorKind:
    """``key_type`` as FindCoordinator sends it; the others are names of broker settings."""

    key_type: int
    topic: str
    partitions_setting: str
    replication_setting: str
    segment_bytes_setting: str


GROUPS = CoordinatorKind(
    0, "__consumer_offsets", "offsets.topic.num.partitions", "offsets.topic.replication.factor",
    "offsets.topic.segment.bytes",
)  # fmt: skip
KINDS = {kind.key_type: kind for kind in (GROUPS,)}
BY_TOPIC = {kind.topic: kind for kind in KINDS.values()}
