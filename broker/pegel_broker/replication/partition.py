"""One partition's replica as a pure state machine: leader, follower, or neither.

Inputs are method calls that carry ``now``; outputs are returned. The shell (``manager``) owns the
log, sends what ``wanted_isr`` asks for, and wakes whoever waits for the high watermark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.high_watermark import next_high_watermark
from pegel_broker.replication.isr import ReplicaProgress
from pegel_controller.metadata.image import PartitionState


@dataclass(slots=True)
class Leader:
    """Invariant: ``isr`` is what the controller committed last; ``proposed`` is in flight."""

    epoch: int
    partition_epoch: int
    epoch_start_offset: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    followers: dict[int, ReplicaProgress] = field(default_factory=dict)
    # The ISR asked of the controller, until its answer or the metadata says what became of it.
    proposed: tuple[int, ...] | None = None
    # What the partition is to have by right: a move adds replicas for a time (KIP-455).
    replication_factor: int = 0
    # What the metadata told last. An answer may be ahead of them: this leader does not know yet
    # what came before it, as another minimum or replication factor.
    told_partition_epoch: int = -1
    # Another replica is to lead: no writes in this epoch any more, whatever the lease says.
    resigned: bool = False

    @property
    def maximal_isr(self) -> tuple[int, ...]:
        """Committed members and those whose joining may already be committed."""
        if self.proposed is None:
            return self.isr
        return tuple(sorted({*self.isr, *self.proposed}))


@dataclass(slots=True)
class Follower:
    leader_id: int
    epoch: int


@dataclass(slots=True)
class Idle:
    """No replica of an elected leader: nobody leads, or this broker holds none."""

    epoch: int = -1


State = Leader | Follower | Idle


class Partition:
    """The replica of ``topic``-``partition`` on broker ``node_id``.

    ``may_be_in_sync(broker_id, broker_epoch)``: whether the metadata says that a broker lives and
    is not on its way out (KIP-841), in the life in which it last fetched (KIP-903), and that its
    log has not failed.
    """

    __slots__ = ("_may_be_in_sync", "high_watermark", "node_id", "partition", "state", "topic")

    def __init__(
        self, topic: str, partition: int, node_id: int, may_be_in_sync: Callable[[int, int], bool]
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.node_id = node_id
        self.high_watermark = 0
        self.state: State = Idle()
        self._may_be_in_sync = may_be_in_sync

    # -- transitions

    def update(
        self, now: float, metadata: PartitionState, log_end_offset: int, high_watermark: int
    ) -> bool:
        """Take the committed metadata; whether the role or the leader epoch changed.

        ``log_end_offset`` and ``high_watermark`` are the log's, for a leadership that begins.
        """
        state, epoch = self.state, metadata.leader_epoch
        if epoch < state.epoch:
            return False  # an older image: a newer answer of the controller came first
        if metadata.leader == self.node_id:
            if isinstance(state, Leader) and state.epoch == epoch:
                told = metadata.partition_epoch
                state.told_partition_epoch = max(state.told_partition_epoch, told)
                if told > state.partition_epoch:
                    self._commit_isr(now, state, metadata.isr, told)
                state.replicas = metadata.replicas
                state.replication_factor = metadata.replication_factor
                self._track_followers(now, state)
                return False
            self.high_watermark = max(self.high_watermark, high_watermark)
            leader = Leader(
                epoch, metadata.partition_epoch, log_end_offset, metadata.replicas, metadata.isr,
                replication_factor=metadata.replication_factor,
                told_partition_epoch=metadata.partition_epoch,
            )  # fmt: skip
            self._track_followers(now, leader)
            self.state = leader
            return True
        self.high_watermark = max(self.high_watermark, high_watermark)
        if metadata.leader >= 0 and self.node_id in metadata.replicas:
            if isinstance(state, Follower) and state.epoch == epoch:
                return False
            self.state = Follower(metadata.leader, epoch)
            return True
        changed = not isinstance(state, Idle) or state.epoch != epoch
        self.state = Idle(epoch)
        return changed

    def _track_followers(self, now: float, leader: Leader) -> None:
        others = [replica for replica in leader.replicas if replica != self.node_id]
        known = leader.followers
        # A replica gets its full time to catch up with a new leader.
        leader.followers = {r: known.get(r) or ReplicaProgress(caught_up_at=now) for r in others}

    def _commit_isr(
        self, now: float, leader: Leader, isr: tuple[int, ...], partition_epoch: int
    ) -> None:
        leader.isr, leader.partition_epoch, leader.proposed = isr, partition_epoch, None
        for replica in isr:
            progress = leader.followers.get(replica)
            if progress is not None and progress.log_end_offset < 0:
                progress.caught_up_at = max(progress.caught_up_at, now)

    # -- as a leader

    def check_leader(self, current_leader_epoch: int = -1) -> ErrorCode:
        """Whether this replica leads in the epoch that the caller knows (KIP-320)."""
        error = self._check_epoch(current_leader_epoch)
        if error is ErrorCode.NONE and not isinstance(self.state, Leader):
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        return error

    def check_replica(self, current_leader_epoch: int = -1) -> ErrorCode:
        """As ``check_leader``, for readers that a follower may serve (KIP-392)."""
        error = self._check_epoch(current_leader_epoch)
        if error is ErrorCode.NONE and isinstance(self.state, Idle):
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        return error

    def _check_epoch(self, epoch: int) -> ErrorCode:
        if epoch < 0 or epoch == self.state.epoch:
            return ErrorCode.NONE
        if epoch < self.state.epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.UNKNOWN_LEADER_EPOCH

    def check_in_sync(self, min_insync_replicas: int) -> ErrorCode:
        """Whether acks=all may be promised: before an append, and again when it is done."""
        state = self.state
        if not isinstance(state, Leader):
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        if len(state.isr) < min(min_insync_replicas, state.replication_factor):
            return ErrorCode.NOT_ENOUGH_REPLICAS
        return ErrorCode.NONE

    def on_fetch(
        self,
        now: float,
        replica: int,
        broker_epoch: int,
        offset: int,
        log_start_offset: int,
        leader_end: int,
    ) -> ErrorCode:
        """A follower asks for ``offset``: it holds, stably, all that is before.

        UNKNOWN_LEADER_EPOCH where the replica is none of this partition's: the metadata of one
        side is behind.
        """
        state = self.state
        if not isinstance(state, Leader):
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        progress = state.followers.get(replica)
        if progress is None:
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        progress.on_fetch(now, offset, log_start_offset, broker_epoch, leader_end)
        return ErrorCode.NONE

    def on_append(self, now: float, end_before: int) -> None:
        """The log has grown: until this moment, who had all of it was caught up.

        A follower with nothing to fetch need not ask for the partition again and again to say so.
        """
        state = self.state
        if isinstance(state, Leader):
            for progress in state.followers.values():
                if progress.log_end_offset == end_before:
                    progress.caught_up_at = max(progress.caught_up_at, now)

    def advance(self, stable_offset: int, min_insync_replicas: int) -> bool:
        """Move the high watermark as far as it may go; whether it moved.

        It stands still while fewer than ``min.insync.replicas`` are in sync: only then may the
        replicas that left last be elected again without loss (KIP-966).
        """
        state = self.state
        if not isinstance(state, Leader):
            return False
        if len(state.isr) < min(min_insync_replicas, state.replication_factor):
            return False
        ends = [
            state.followers[replica].log_end_offset
            for replica in state.maximal_isr
            if replica in state.followers
        ]
        following = next_high_watermark(self.high_watermark, stable_offset, ends)
        moved = following > self.high_watermark
        self.high_watermark = following
        return moved

    def on_truncated(self, log_end_offset: int, *, restarted: bool) -> None:
        """The log was cut for an earlier leader, perhaps since this replica was elected."""
        end = log_end_offset
        self.high_watermark = end if restarted else min(self.high_watermark, end)
        if isinstance(self.state, Leader):
            self.state.epoch_start_offset = min(self.state.epoch_start_offset, end)

    @property
    def is_settled(self) -> bool:
        """Whether the high watermark is known to cover all that earlier leaders made readable."""
        state = self.state
        return isinstance(state, Leader) and self.high_watermark >= state.epoch_start_offset

    # -- the ISR

    def wanted_isr(self, now: float, leader_end: int, lag_max: float) -> tuple[int, ...] | None:
        """The ISR to ask the controller for.

        None where it is right, a request is in flight, or the metadata have not come to where the
        last answer was: who leaves may be eligible by a minimum that this leader does not know.
        """
        state = self.state
        if not isinstance(state, Leader) or state.proposed is not None:
            return None
        if state.told_partition_epoch < state.partition_epoch:
            return None
        wanted = {self.node_id}
        for replica, progress in state.followers.items():
            if replica in state.isr:
                if not progress.lags(now, leader_end, lag_max):
                    wanted.add(replica)
            elif self._may_join(state, replica, progress) and not progress.lags(
                now, leader_end, lag_max
            ):
                wanted.add(replica)
        if wanted == set(state.isr):
            return None
        return tuple(replica for replica in state.replicas if replica in wanted)

    def lag_of(self, now: float, leader_end: int, isr: tuple[int, ...]) -> str:
        """For people: how far behind those are who are to leave for ``isr``."""
        state = self.state
        assert isinstance(state, Leader)
        told = []
        for replica in state.isr:
            progress = state.followers.get(replica)
            if replica not in isr and progress is not None:
                records = leader_end - max(progress.log_end_offset, 0)
                seconds = now - progress.caught_up_at
                told.append(f"{replica} was {records:,} records and {seconds:.1f} s behind")
        return ", ".join(told)

    def _may_join(self, state: Leader, replica: int, progress: ReplicaProgress) -> bool:
        return progress.may_join(
            self.high_watermark, state.epoch_start_offset
        ) and self._may_be_in_sync(replica, progress.broker_epoch)

    @property
    def has_follower_outside(self) -> bool:
        """Whether a replica is not in the ISR, so that a fetch of it may let it join."""
        state = self.state
        return isinstance(state, Leader) and len(state.isr) < len(state.replicas)

    def next_lag_deadline(self, leader_end: int, lag_max: float) -> float | None:
        """When an in-sync follower that is behind now will have lagged for too long."""
        state = self.state
        if not isinstance(state, Leader):
            return None
        behind = [
            progress.caught_up_at + lag_max
            for replica, progress in state.followers.items()
            if replica in state.isr and progress.log_end_offset < leader_end
        ]
        return min(behind, default=None)

    def propose(self, isr: tuple[int, ...]) -> list[tuple[int, int]]:
        """Note that ``isr`` is being asked for; its members with their broker epochs (KIP-903)."""
        state = self.state
        assert isinstance(state, Leader)
        assert state.proposed is None
        assert self.node_id in isr
        state.proposed = isr
        return [(r, state.followers[r].broker_epoch if r in state.followers else -1) for r in isr]

    def on_isr_accepted(
        self, now: float, leader_epoch: int, partition_epoch: int, isr: tuple[int, ...]
    ) -> None:
        """The controller's answer: the ISR as it is now.

        The metadata may have told the same before, and another change be in flight since.
        """
        state = self.state
        if not isinstance(state, Leader) or state.epoch != leader_epoch:
            return
        known = state.partition_epoch
        if partition_epoch > known or (partition_epoch == known and isr == state.proposed):
            self._commit_isr(now, state, isr, partition_epoch)

    def on_isr_refused(self, leader_epoch: int, *, definite: bool) -> None:
        """The request failed.

        ``definite``: it was certainly not done. Otherwise the proposal must go on counting until
        the metadata tells: forgetting it could let the high watermark pass a new member.
        """
        state = self.state
        if isinstance(state, Leader) and state.epoch == leader_epoch and definite:
            state.proposed = None
