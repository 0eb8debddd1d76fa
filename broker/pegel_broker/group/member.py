"""A member of a group of the classic protocol, and what its protocol metadata says."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pegel_broker.coordinator.effects import Handle
from pegel_broker.group.records import MemberMetadata

CONSUMER_PROTOCOL_TYPE = "consumer"
_TOPICS = struct.Struct(">hi")


class Caller(NamedTuple):
    """Who sends a request, and the version that its answer has to be written in."""

    client_id: str
    host: str
    version: int


class Waiting(NamedTuple):
    """An answer that is owed."""

    handle: Handle
    version: int


@dataclass(slots=True)
class Member:
    """Invariant: at most one of ``joining`` and ``syncing`` is set."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    # Names in order of preference, with what the member tells the leader under each.
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes = b""
    joining: Waiting | None = None
    syncing: Waiting | None = None
    # Joined for the first time and not yet part of a generation.
    is_new: bool = False

    def metadata(self, protocol: str | None) -> bytes:
        """What it said under ``protocol``, else nothing."""
        return next((data for name, data in self.protocols if name == protocol), b"")

    @property
    def size(self) -> int:
        return sum(len(data) for _, data in self.protocols)

    def vote(self, candidates: set[str]) -> str:
        """Its favourite among protocols that all members support."""
        return next(name for name, _ in self.protocols if name in candidates)

    def record(self, protocol: str | None, assignment: bytes) -> MemberMetadata:
        return MemberMetadata(
            member_id=self.member_id,
            group_instance_id=self.instance_id,
            client_id=self.client_id,
            client_host=self.client_host,
            rebalance_timeout=self.rebalance_timeout_ms,
            session_timeout=self.session_timeout_ms,
            subscription=self.metadata(protocol),
            assignment=assignment,
        )

    @classmethod
    def from_record(cls, record: MemberMetadata, protocol: str | None) -> Member:
        return cls(
            record.member_id,
            record.group_instance_id,
            record.client_id,
            record.client_host,
            record.session_timeout,
            # Version 0 of the record has none.
            record.rebalance_timeout or record.session_timeout,
            ((protocol or "", bytes(record.subscription)),),
            bytes(record.assignment),
        )


def subscribed_topics(subscriptions: Sequence[bytes]) -> set[str] | None:
    """The topics in consumers' subscriptions (``ConsumerProtocol``); None if any is not one."""
    topics: set[str] = set()
    for data in subscriptions:
        try:
            _, count = _TOPICS.unpack_from(data)
            position = 6
            if not 0 <= count <= len(data):
                return None
            for _ in range(count):
                end = position + 2 + int.from_bytes(data[position : position + 2], "big")
                if end > len(data):
                    return None
                topics.add(data[position + 2 : end].decode())
                position = end
        except (struct.error, UnicodeDecodeError):
            return None
    return topics
