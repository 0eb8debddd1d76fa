"""The limits and times of consumer groups, by the broker's configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Beyond these no client gets by accident; they bound what one broker keeps in memory.
MAX_MEMBER_METADATA_BYTES = 1 << 20
MAX_GROUP_METADATA_BYTES = 32 << 20
# A new member that waits for others to join is given up after this (seconds), as in Kafka.
NEW_MEMBER_JOIN_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """Times in seconds unless the name says ms. Defaults are Kafka's where Kafka has one."""

    initial_rebalance_delay: float = 3.0
    new_member_timeout: float = NEW_MEMBER_JOIN_TIMEOUT
    session_timeout_min_ms: int = 6_000
    session_timeout_max_ms: int = 1_800_000
    max_size: int = 10_000
    max_groups: int = 100_000
    offset_metadata_max_bytes: int = 4_096
    offsets_retention_ms: int = 7 * 24 * 60 * 60_000
    offsets_retention_check_interval: float = 600.0

    @classmethod
    def from_numbers(cls, number: Callable[[str], int]) -> GroupOptions:
        """From the values of the broker keys of the same names."""
        return cls(
            initial_rebalance_delay=number("group.initial.rebalance.delay.ms") / 1000,
            session_timeout_min_ms=number("group.min.session.timeout.ms"),
            session_timeout_max_ms=number("group.max.session.timeout.ms"),
            max_size=number("group.max.size"),
            max_groups=number("group.max.groups"),
            offset_metadata_max_bytes=number("offset.metadata.max.bytes"),
            offsets_retention_ms=number("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval=number("offsets.retention.check.interval.ms") / 1000,
        )
