"""Elections, ISR and ELR (KIP-966), and the one place where changes of a partition are made.

Whatever is to change, elections, moves, resignations or configurations, `change_to` makes the
record: it keeps the epochs, and refuses what would break a partition.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from pegel_controller.metadata.image import NO_LEADER, PartitionState
from pegel_controller.metadata.records import PartitionChangeRecord

# Characters of what is said of the cause of a change; it is kept in the history.
DETAIL_LENGTH_MAX = 200

Eligible = Callable[[int], bool]


def change_to(
    topic_id: UUID,
    number: int,
    old: PartitionState,
    new: PartitionState,
    *,
    resigned: bool = False,
) -> PartitionChangeRecord:
    """The record that makes `new` of `old`; both epochs of `new` are set here.

    Leader epoch grows by one at a leader change, or where the leader `resigned` and leads on;
    partition epoch at each change.

    Raises:
        AssertionError: `new` breaks an invariant, or forgets who holds what was acknowledged.
    """
    assert new.leader == NO_LEADER or new.leader in new.isr
    assert not set(new.isr) & set(new.elr)
    assert set(new.isr) <= set(new.replicas)
    assert set(new.elr) <= set(new.replicas)
    assert last_holders(new) or not last_holders(old), "nobody could ever be elected safely again"
    moved = (new.replicas, new.adding, new.removing, new.original)
    if moved == (old.replicas, old.adding, old.removing, old.original):
        moved = ((), (), (), ())
    replicas, adding, removing, original = moved
    return PartitionChangeRecord(
        topic_id, number, new.isr, new.elr, new.last_known_elr, new.leader,
        old.leader_epoch + (new.leader != old.leader or resigned), old.partition_epoch + 1,
        new.leader_recovery_state, new.reason,
        replicas=replicas, adding=adding, removing=removing, original=original,
    )  # fmt: skip


def last_holders(state: PartitionState) -> tuple[int, ...]:
    """Replicas that hold all that was acknowledged, or the last one known to have held it.

    Empty only in metadata of versions that could forget them: such a partition stays offline
    until an unclean election is ordered or allowed.
    """
    return state.isr or state.elr or state.last_known_elr


def needed_in_sync(min_isr: int, replication_factor: int) -> int:
    """How many in sync may acknowledge acks=all; then nobody outside of the ISR is eligible."""
    return min(min_isr, replication_factor)


def next_partition(
    topic_id: UUID,
    number: int,
    old: PartitionState,
    isr: tuple[int, ...],
    eligible: Eligible,
    *,
    min_isr: int,
    unclean: bool = False,
    ranking: Sequence[int] = (),
    lost: int = NO_LEADER,
    emptied: bool = False,
    prefer: int = NO_LEADER,
    reason: str = "",
    recovery_state: int | None = None,
) -> PartitionChangeRecord | None:
    """The change that follows from the ISR becoming `isr`; None if nothing changes.

    `lost`: a replica whose page cache is gone; it leaves the ELR too. `emptied`: so is its disk.
    `prefer`: ordered leader, used if it is in the ISR. The leader is kept when it may be.
    `ranking`: the order in which replicas are elected uncleanly, where log ends are known.
    """
    trusted = tuple(
        r for r in old.replicas if r != lost and (r in old.isr or r in old.elr or r in isr)
    )
    recovery = old.leader_recovery_state if recovery_state is None else recovery_state
    known = _last_known(old, trusted, lost, emptied)
    leader, unsafe = _elect(old, isr, trusted, known, eligible, unclean, ranking, prefer)
    if leader != NO_LEADER and leader not in isr:
        isr = (leader,)
    if unsafe:
        # Other replicas' data no longer counts: they follow the new leader's history.
        elr: tuple[int, ...] = ()
        known, recovery = (), 1
    elif len(isr) >= needed_in_sync(min_isr, old.replication_factor):
        elr = known = ()
    else:
        elr = tuple(r for r in trusted if r not in isr)
    new = replace(
        old, isr=isr, elr=elr, last_known_elr=known, leader=leader, leader_recovery_state=recovery
    )
    if new == old:
        return None
    return change_to(topic_id, number, old, replace(new, reason=reason))


def _last_known(
    old: PartitionState, trusted: tuple[int, ...], lost: int, emptied: bool
) -> tuple[int, ...]:
    """Who held all that was acknowledged when it lost its page cache, the last of them first.

    A disk may have kept it, flushed or by luck: where nobody is trusted any more, log ends are
    compared once the first of them is back (`recovery`). One with an empty disk has nothing, and
    remains only where nobody else does.
    """
    known = [r for r in old.last_known_elr if r not in trusted and r != lost]
    was_known = lost in old.isr or lost in old.elr or lost in old.last_known_elr
    if was_known and not (emptied and (trusted or known)):
        known.insert(0, lost)
    return tuple(known)


def _elect(
    old: PartitionState,
    isr: tuple[int, ...],
    trusted: tuple[int, ...],
    known: tuple[int, ...],
    eligible: Eligible,
    unclean: bool,
    ranking: Sequence[int],
    prefer: int,
) -> tuple[int, bool]:
    """(leader, whether acknowledged data may be missing there)."""
    if prefer in isr and eligible(prefer):
        return prefer, False
    if old.leader in isr and eligible(old.leader):
        return old.leader, False
    for replica in old.replicas:
        if replica in isr and eligible(replica):
            return replica, False
    for replica in trusted:
        if eligible(replica):
            return replica, False
    if not trusted and known == old.replicas and len(known) == 1 and eligible(known[0]):
        return known[0], True  # nobody else has a log to compare it with
    if unclean:
        # One that is being added may hold nothing yet.
        by_metadata = sorted(old.replicas, key=lambda r: (r not in known[:1], r in old.adding))
        for replica in ranking or by_metadata:
            if eligible(replica):
                return replica, True
    return NO_LEADER, False
