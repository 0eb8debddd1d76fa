"""One member of a classic consumer group, as a pure state machine.

The shell (``group``) asks ``next_step`` what to do, does it, and tells how it went; heartbeats and
commits report what a coordinator said about this member. The rules are those of Kafka's own client
(KIP-134, 345, 394, 429, 814):

* with an eager assignor a member gives back everything before it joins;
* with a cooperative one it keeps reading, gives back only what the new assignment takes away, and
  then joins again so that this can be handed on;
* whoever lost its identity (it was taken for dead) has *lost* its partitions: another may read them
  already, so nothing of them may be committed any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from pegel.consumer.assignors import ASSIGNORS, Assignor
from pegel.consumer.group_protocol import (
    NO_GENERATION,
    PROTOCOL_TYPE,
    GroupProtocolError,
    MemberSubscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from pegel.errors import GroupError, PegelError, broker_error, to_error_code
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from pegel.protocol.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from pegel.types import TopicPartition


class Phase(Enum):
    """Where a member stands; the value says what has to happen next."""

    REJOIN = "give back what may not be kept, then join"
    LOST = "tell that everything owned is lost, then join"
    JOIN = "send JoinGroup"
    BALANCE = "share out the partitions: it leads this generation"
    SYNC = "send SyncGroup"
    REVOKE = "give back what the new assignment takes away"
    TAKE = "take over what the new assignment brings"
    STABLE = "nothing: read, and send heartbeats"
    FAILED = "nothing more: the group refuses this member for good"


_LEGAL = {
    Phase.REJOIN: {Phase.JOIN, Phase.LOST, Phase.FAILED},
    Phase.LOST: {Phase.JOIN, Phase.FAILED},
    Phase.JOIN: {Phase.JOIN, Phase.BALANCE, Phase.SYNC, Phase.LOST, Phase.FAILED},
    Phase.BALANCE: {Phase.SYNC, Phase.LOST, Phase.FAILED},
    Phase.SYNC: {Phase.REVOKE, Phase.TAKE, Phase.REJOIN, Phase.LOST, Phase.FAILED},
    Phase.REVOKE: {Phase.TAKE, Phase.LOST, Phase.FAILED},
    Phase.TAKE: {Phase.STABLE, Phase.REJOIN, Phase.LOST, Phase.FAILED},
    Phase.STABLE: {Phase.REJOIN, Phase.LOST, Phase.FAILED},
    Phase.FAILED: set(),
}
# Phases in which the member belongs to a generation.
_IN_GENERATION = {Phase.BALANCE, Phase.SYNC, Phase.REVOKE, Phase.TAKE, Phase.STABLE}


@dataclass(frozen=True, slots=True)
class Revoke:
    """Stop reading these and commit what was read; ``lost``: another may read them already."""

    partitions: tuple[TopicPartition, ...]
    lost: bool


@dataclass(frozen=True, slots=True)
class Join:
    request: JoinGroupRequest


@dataclass(frozen=True, slots=True)
class Balance:
    """Tell how many partitions each of these topics has (0: there is no such topic)."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    request: SyncGroupRequest


@dataclass(frozen=True, slots=True)
class Take:
    """Begin to read ``added``; ``everything`` is what the member owns now."""

    added: tuple[TopicPartition, ...]
    everything: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until something is reported."""


@dataclass(frozen=True, slots=True)
class Fail:
    error: PegelError


Step = Revoke | Join | Balance | Sync | Take | Wait | Fail


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """What a member tells the group; times in milliseconds as on the wire."""

    group: str
    topics: tuple[str, ...]
    assignors: tuple[str, ...]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    instance_id: str | None = None
    rack: str | None = None


@dataclass(slots=True)
class Counts:
    """What a member has been through, for people who look at it."""

    joins: int = 0
    generations: int = 0
    lost: int = 0
    reasons: list[str] = field(default_factory=list)


class Membership:
    """The state of one member.

    Attributes:
        phase: changed by ``_go`` alone.
        member_id: given by the coordinator, "" before.
        generation: of the identity, ``NO_GENERATION`` while there is none.
        owned: the partitions that this member may read.
        is_leader: it shared out the partitions of this generation.
    """

    _MAX_REASONS = 20

    def __init__(self, options: GroupOptions) -> None:
        unknown = [name for name in options.assignors if name not in ASSIGNORS]
        if unknown or not options.assignors:
            raise ValueError(f"assignors are {', '.join(ASSIGNORS)}, not {unknown or 'none'}")
        self.options = options
        self._assignors: list[Assignor] = [ASSIGNORS[name] for name in options.assignors]
        # Members must agree on when to give back; one eager assignor makes all of it eager.
        self.cooperative = all(a.cooperative for a in self._assignors)
        self.phase = Phase.REJOIN
        self.member_id = ""
        self.generation = NO_GENERATION
        self.protocol: str | None = None
        self.owned: tuple[TopicPartition, ...] = ()
        self.is_leader = False
        self.counts = Counts()
        self._owned_generation = NO_GENERATION
        # What an eager sticky assignor goes by, although it was all given back before joining.
        self._last: tuple[TopicPartition, ...] = ()
        self._target: tuple[TopicPartition, ...] = ()
        self._members: dict[str, MemberSubscription] = {}
        self._shares: dict[str, list[TopicPartition]] = {}
        self._again = ""
        self._reason = "the member is new"
        self._error: PegelError | None = None

    # What to do

    def next_step(self) -> Step:
        """What the shell has to do now; its outcome is reported by an ``on_…`` method."""
        match self.phase:
            case Phase.REJOIN:
                return Revoke(self._may_not_keep(), lost=False)
            case Phase.LOST:
                return Revoke(self.owned, lost=True)
            case Phase.JOIN:
                return Join(self._join_request())
            case Phase.BALANCE:
                topics = {t for member in self._members.values() for t in member.topics}
                return Balance(tuple(sorted(topics)))
            case Phase.SYNC:
                return Sync(self._sync_request())
            case Phase.REVOKE:
                return Revoke(_without(self.owned, self._target), lost=False)
            case Phase.TAKE:
                return Take(_without(self._target, self.owned), self._target)
            case Phase.STABLE:
                return Wait()
            case Phase.FAILED:
                assert self._error is not None
                return Fail(self._error)

    @property
    def failure(self) -> PegelError | None:
        """Why the group refuses this member for good."""
        return self._error if self.phase is Phase.FAILED else None

    @property
    def gives_back(self) -> bool:
        """Whether the next step is to give back partitions that are being read."""
        match self.phase:
            case Phase.REJOIN:
                return bool(self._may_not_keep())
            case Phase.LOST:
                return bool(self.owned)
            case _:
                return self.phase is Phase.REVOKE

    @property
    def beats(self) -> bool:
        """Whether heartbeats are to be sent: a waiting JoinGroup keeps a member alive by itself."""
        return self.generation != NO_GENERATION and (
            self.phase in _IN_GENERATION or self.phase is Phase.REJOIN
        )

    # How it went

    def on_revoked(self, step: Revoke) -> None:
        """The partitions of the step are not read any more."""
        self.owned = _without(self.owned, step.partitions)
        if self.phase is Phase.LOST:
            if step.lost:  # else it was lost while something was given back
                self.counts.lost += 1
                self._owned_generation = NO_GENERATION
                self._go(Phase.JOIN)
        elif self.phase is Phase.REJOIN:
            self._go(Phase.JOIN)
        elif self.phase is Phase.REVOKE:
            # What was given back goes to others only in another round.
            self._again = "partitions were given back"
            self._go(Phase.TAKE)

    def on_join(self, response: JoinGroupResponse) -> None:
        """The answer to JoinGroup. Errors of finding the coordinator are the shell's."""
        if self.phase is not Phase.JOIN:
            return
        code = to_error_code(response.error_code)
        if code is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
            return
        self.counts.joins += 1
        self.counts.reasons = [*self.counts.reasons[-self._MAX_REASONS + 1 :], self._reason]
        if code is ErrorCode.REBALANCE_IN_PROGRESS:
            return
        if code is not ErrorCode.NONE:
            self._on_refused(code)
            return
        self.member_id, self.generation = response.member_id, response.generation_id
        self.protocol = response.protocol_name
        self.is_leader = response.leader == response.member_id
        self.counts.generations += 1
        self._members, self._shares, self._again = {}, {}, ""
        if not self.is_leader or response.skip_assignment:
            self._go(Phase.SYNC)
            return
        try:
            self._members = {
                m.member_id: decode_subscription(bytes(m.metadata), m.group_instance_id)
                for m in response.members
            }
        except GroupProtocolError as error:
            self._fail(GroupError(f"group {self.options.group!r}: a member's subscription: {error}",
                                  ErrorCode.INCONSISTENT_GROUP_PROTOCOL))  # fmt: skip
            return
        self._go(Phase.BALANCE)

    def on_counts(self, counts: Mapping[str, int]) -> None:
        """Partitions of each topic, as asked for by ``Balance``."""
        if self.phase is not Phase.BALANCE:
            return
        assignor = ASSIGNORS.get(self.protocol or "")
        if assignor is None:
            self._fail(GroupError(f"group {self.options.group!r} uses the assignor "
                                  f"{self.protocol!r}, which is not known here"))  # fmt: skip
            return
        known = {topic: count for topic, count in counts.items() if count > 0}
        self._shares = assignor.assign(known, self._members)
        self._go(Phase.SYNC)

    def on_sync(self, response: SyncGroupResponse) -> None:
        """The answer to SyncGroup: the new assignment."""
        if self.phase is not Phase.SYNC:
            return
        code = to_error_code(response.error_code)
        if code is ErrorCode.REBALANCE_IN_PROGRESS:
            self._rejoin("the group was rebalanced again")
            return
        if code is not ErrorCode.NONE:
            self._on_refused(code)
            return
        try:
            self._target = tuple(sorted(decode_assignment(bytes(response.assignment))))
        except GroupProtocolError as error:
            self._fail(GroupError(f"group {self.options.group!r}: the assignment: {error}",
                                  ErrorCode.INCONSISTENT_GROUP_PROTOCOL))  # fmt: skip
            return
        self._go(Phase.REVOKE if _without(self.owned, self._target) else Phase.TAKE)

    def on_taken(self, step: Take) -> None:
        """The partitions of the step are read from now on."""
        self.owned = self._last = step.everything
        if self.phase is not Phase.TAKE:
            return  # lost meanwhile: what was just taken is lost too
        self._owned_generation = self.generation
        if self._again:
            self._rejoin(self._again)
        else:
            self._go(Phase.STABLE)

    def on_member_error(self, generation: int, code: ErrorCode) -> None:
        """A heartbeat or commit of ``generation`` was refused."""
        if generation != self.generation or not self.beats:
            return
        if code is ErrorCode.REBALANCE_IN_PROGRESS:
            self.request_rejoin("the group rebalances")
        else:
            self._on_refused(code)

    def on_left(self, reason: str) -> None:
        """This member left by itself, because its reader did not come back in time."""
        if self.phase is not Phase.FAILED:
            self._reset(forget_id=True)
            self._reason = reason
            self._go_lost()

    def request_rejoin(self, reason: str) -> None:
        """Join again as soon as that is possible; reading goes on until then."""
        if self.phase is Phase.STABLE:
            self._rejoin(reason)
        elif self.phase in _IN_GENERATION:
            self._again = reason

    # Inside

    def _go(self, phase: Phase) -> None:
        assert phase in _LEGAL[self.phase], f"{self.phase} -> {phase}"
        self.phase = phase

    def _go_lost(self) -> None:
        if self.phase is not Phase.LOST:
            self._go(Phase.LOST)

    def _rejoin(self, reason: str) -> None:
        self._reason, self._again = reason, ""
        self._go(Phase.REJOIN)

    def _fail(self, error: PegelError) -> None:
        self._error = error
        self._go(Phase.FAILED)

    def _reset(self, *, forget_id: bool) -> None:
        if forget_id:
            self.member_id = ""
        self.generation = NO_GENERATION
        self._again = ""

    def _on_refused(self, code: ErrorCode) -> None:
        group = self.options.group
        if code in {ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION}:
            self._reset(forget_id=code is ErrorCode.UNKNOWN_MEMBER_ID)
            self._reason = f"the coordinator answered {code.name}"
            self._go_lost()
        elif code is ErrorCode.FENCED_INSTANCE_ID:
            self._fail(GroupError(
                f"group {group!r}: another consumer with instance_id "
                f"{self.options.instance_id!r} took the place of this one; give each its own", code
            ))  # fmt: skip
        elif code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL:
            self._fail(GroupError(
                f"group {group!r}: its members share none of the assignors "
                f"{', '.join(self.options.assignors)}; give assignors=(…) one that they use", code
            ))  # fmt: skip
        else:
            self._fail(broker_error(code, f"group {group!r}"))

    def _may_not_keep(self) -> tuple[TopicPartition, ...]:
        if not self.cooperative:
            return self.owned
        return tuple(tp for tp in self.owned if tp.topic not in self.options.topics)

    def _join_request(self) -> JoinGroupRequest:
        options = self.options
        protocols: list[JoinGroupRequestProtocol] = []
        for assignor in self._assignors:
            subscription = MemberSubscription(
                options.topics,
                self.owned,
                self._owned_generation,
                assignor.user_data(self._last, self._owned_generation),
                options.rack,
            )
            protocols.append(
                JoinGroupRequestProtocol(
                    name=assignor.name, metadata=encode_subscription(subscription)
                )
            )
        return JoinGroupRequest(
            group_id=options.group,
            session_timeout_ms=options.session_timeout_ms,
            rebalance_timeout_ms=options.rebalance_timeout_ms,
            member_id=self.member_id,
            group_instance_id=options.instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocols=protocols,
            reason=self._reason,
        )

    def _sync_request(self) -> SyncGroupRequest:
        return SyncGroupRequest(
            group_id=self.options.group,
            generation_id=self.generation,
            member_id=self.member_id,
            group_instance_id=self.options.instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocol_name=self.protocol,
            assignments=[
                SyncGroupRequestAssignment(member_id=m, assignment=encode_assignment(share))
                for m, share in self._shares.items()
            ],
        )


def _without(
    partitions: Sequence[TopicPartition], others: Iterable[TopicPartition]
) -> tuple[TopicPartition, ...]:
    left_out = set(others)
    return tuple(tp for tp in partitions if tp not in left_out)
