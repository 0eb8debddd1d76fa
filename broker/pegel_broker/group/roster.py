"""Who is in a group, and what the members have in common."""

from __future__ import annotations

from collections import Counter

from pegel.protocol.errors import ErrorCode
from pegel_broker.group.member import CONSUMER_PROTOCOL_TYPE, Member, subscribed_topics


class Roster:
    """``members`` by id, in the order in which they joined.

    Invariant: ``static_ids`` names for each instance id the one member that holds it (KIP-345), and
    all members have at least one protocol in common.
    """

    __slots__ = ("_votes", "members", "metadata_bytes", "protocol_type", "static_ids")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.static_ids: dict[str, str] = {}
        self.protocol_type: str | None = None
        # What the members say of themselves, in all.
        self.metadata_bytes = 0
        # How many members support a protocol.
        self._votes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.members)

    def add(self, member: Member) -> None:
        assert member.member_id not in self.members
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self.static_ids[member.instance_id] = member.member_id
        self._count(member, 1)

    def remove(self, member: Member) -> None:
        del self.members[member.member_id]
        self._count(member, -1)
        if member.instance_id is not None:
            del self.static_ids[member.instance_id]

    def rename(self, member: Member, member_id: str) -> None:
        """Give the place of a static member to another id."""
        assert member.instance_id is not None
        old_id = member.member_id
        self.members = {
            (member_id if key == old_id else key): value for key, value in self.members.items()
        }
        member.member_id = member_id
        self.static_ids[member.instance_id] = member_id

    def update(self, member: Member, protocols: tuple[tuple[str, bytes], ...]) -> None:
        self._count(member, -1)
        member.protocols = protocols
        self._count(member, 1)

    def _count(self, member: Member, sign: int) -> None:
        for name, _ in member.protocols:
            self._votes[name] += sign
            if not self._votes[name]:
                del self._votes[name]
        self.metadata_bytes += sign * member.size

    # -- questions

    @property
    def rebalance_timeout(self) -> float:
        """The longest that a member allows, in seconds."""
        return max((m.rebalance_timeout_ms for m in self.members.values()), default=0) / 1000

    def check(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """Whether it is a member, and the one that its instance id belongs to now."""
        if instance_id is not None:
            current = self.static_ids.get(instance_id)
            if current is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if current != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        if member_id not in self.members:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE

    def supports(self, protocol_type: str, names: list[str]) -> bool:
        """Whether a member with these protocols has one in common with all others."""
        if not protocol_type or not names:
            return False
        if not self.members:
            return True
        size = len(self.members)
        return protocol_type == self.protocol_type and any(self._votes[n] == size for n in names)

    def select_protocol(self) -> str:
        """The protocol that most members prefer among those that all support."""
        size = len(self.members)
        common = {name for name, votes in self._votes.items() if votes == size}
        assert common, "members without a common protocol"
        votes = Counter(member.vote(common) for member in self.members.values())
        return max(sorted(votes), key=votes.__getitem__)

    def subscription(self, protocol: str | None) -> set[str] | None:
        """Topics that the members of a consumer group subscribe to; None where it cannot say."""
        if self.protocol_type != CONSUMER_PROTOCOL_TYPE or not self.members:
            return None
        return subscribed_topics(
            [m.metadata(protocol) or m.protocols[0][1] for m in self.members.values()]
        )
