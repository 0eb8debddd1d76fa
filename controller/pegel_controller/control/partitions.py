"""Elections, ISR and ELR: the one place that decides a partition's next state (KIP-966)."""

from collections.abc import Callable
from uuid import UUID

from pegel_controller.metadata.image import NO_LEADER, PartitionState
from pegel_controller.metadata.records import PartitionChangeRecord

Eligible = Callable[[int], bool]


def next_partition(
    topic_id: UUID,
    number: int,
    old: PartitionState,
    isr: tuple[int, ...],
    eligible: Eligible,
    *,
    min_isr: int,
    unclean: bool = False,
    lost: int = NO_LEADER,
    prefer: int = NO_LEADER,
    reason: str = "",
    recovery_state: int | None = None,
) -> PartitionChangeRecord | None:
    """The change that follows from the ISR becoming `isr`; None if nothing changes.

    `lost`: a replica whose page cache is gone; it leaves the ELR too. `prefer`:
    ordered leader, used if it is in the ISR. The leader is kept when it may be.
    Leader epoch grows by one at a leader change, partition epoch at each change.
    """
    trusted = tuple(
        r for r in old.replicas if r != lost and (r in old.isr or r in old.elr or r in isr)
    )
    recovery = old.leader_recovery_state if recovery_state is None else recovery_state
    leader, unsafe = _elect(old, isr, trusted, eligible, unclean, prefer)
    if leader != NO_LEADER and leader not in isr:
        isr = (leader,)
    if unsafe:
        # Other replicas' data no longer counts: they follow the new leader's history.
        elr: tuple[int, ...] = ()
        recovery = 1
    elif len(isr) >= min(min_isr, old.replication_factor):
        elr = ()
    else:
        elr = tuple(r for r in trusted if r not in isr)
    last_known: tuple[int, ...] = ()
    if not isr and not elr:
        last_known = old.last_known_elr
        if not last_known:
            last = old.leader if old.leader != NO_LEADER else (*old.isr, *old.elr)[-1]
            last_known = (last,)
    new = (isr, elr, last_known, leader, recovery)
    if new == (old.isr, old.elr, old.last_known_elr, old.leader, old.leader_recovery_state):
        return None
    assert leader == NO_LEADER or leader in isr
    assert not set(isr) & set(elr)
    assert set(isr) <= set(old.replicas)
    epoch = old.leader_epoch + (leader != old.leader)
    part_epoch = old.partition_epoch + 1
    return PartitionChangeRecord(
        topic_id, number, isr, elr, last_known, leader, epoch, part_epoch, recovery, reason
    )


def _elect(
    old: PartitionState,
    isr: tuple[int, ...],
    trusted: tuple[int, ...],
    eligible: Eligible,
    unclean: bool,
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
    if not trusted and old.last_known_elr and eligible(old.last_known_elr[0]):
        return old.last_known_elr[0], True
    if unclean:
        for replica in old.replicas:
            if eligible(replica):
                return replica, True
    return NO_LEADER, False
