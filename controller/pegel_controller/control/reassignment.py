"""Reassignment of replicas (KIP-455): plan, advance, cancel.

A move is a chain of records, each of which stands in the metadata log before the next is made:

1. *reassigned*: the new replicas are added to the old ones, and begin to follow the leader;
2. *caught up*, once for each of them: its leader asks for it to join the ISR (AlterPartition);
3. where the leader itself leaves: it resigns, and one of the target is elected;
4. *moved*: all of the target are in sync, and the others go.

Nothing else is remembered. A new active controller finds in the image how far each move has come
and calls ``advance``, so it goes on wherever the last one stopped.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pegel.protocol.errors import ErrorCode
from pegel_controller.control.handover import Handovers
from pegel_controller.control.partitions import change_to, last_holders, needed_in_sync
from pegel_controller.control.tip import PartitionKey, Tip
from pegel_controller.control.topics import TopicError
from pegel_controller.metadata.image import NO_LEADER, PartitionState
from pegel_controller.metadata.records import PartitionChangeRecord, Record
from pegel_controller.rpc.reassignment_messages import (
    AlterReassignmentsRequest,
    AlterReassignmentsResponse,
    ReassignmentResult,
)

STARTED, COMPLETED, CANCELLED = "reassigned", "moved", "reassignment cancelled"
ELECT_UNCLEANLY = "order an unclean election, then cancel"


def alter(
    tip: Tip,
    handovers: Handovers,
    key: PartitionKey,
    target: tuple[int, ...] | None,
    *,
    allow_replication_factor_change: bool = True,
    reason: str = STARTED,
) -> list[Record]:
    """Begin, change or (target None) cancel the move of one partition; applied to the tip.

    Raises:
        TopicError: the plan is refused; the message says what would be possible.
    """
    old = tip.partition(key)
    if target is None:
        if not old.reassigning:
            code = ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
            raise TopicError(code, code.message)
        change = _cancel(tip, key, old)
    else:
        check_target(tip, old, target)
        if not allow_replication_factor_change and len(target) != old.replication_factor:
            message = (
                f"The replication factor is changed from {old.replication_factor} to {len(target)}"
            )
            raise TopicError(ErrorCode.INVALID_REPLICATION_FACTOR, message)
        if target == old.target and (old.reassigning or target == old.replicas):
            return []
        if target == old.original:
            change = _cancel(tip, key, old)
        else:
            change = _start(key, old, target, reason)
    tip.apply([change])
    return [change, *advance(tip, handovers, key)]


def alter_all(
    tip: Tip, handovers: Handovers, request: AlterReassignmentsRequest
) -> tuple[list[Record], AlterReassignmentsResponse]:
    """Each partition by itself: what is refused does not hold up the others."""
    records: list[Record] = []
    results = []
    times = Counter((p.topic, p.partition) for p in request.partitions)
    for p in request.partitions:
        code, message = 0, None
        try:
            if tip.image.partition(p.topic, p.partition) is None:
                code, message = (
                    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                    (f"There is no partition {p.topic}-{p.partition}."),
                )
            elif times[p.topic, p.partition] > 1:
                code, message = ErrorCode.INVALID_REQUEST, "The partition is named more than once."
            else:
                key = (tip.image.topics_by_name[p.topic].topic_id, p.partition)
                records += alter(
                    tip, handovers, key, p.replicas,
                    allow_replication_factor_change=request.allow_replication_factor_change,
                )  # fmt: skip
        except TopicError as error:
            code, message = error.code, error.message
        results.append(ReassignmentResult(p.topic, p.partition, code, message))
    return records, AlterReassignmentsResponse(tuple(results))


def check_target(tip: Tip, old: PartitionState, target: Sequence[int]) -> None:
    """Whether a partition may move to ``target``. Raises `TopicError`."""
    brokers = tip.image.brokers
    message = ""
    if not target:
        message = "The manual partition assignment includes an empty replica list."
    elif len(set(target)) != len(target):
        twice = next(r for r in target if target.count(r) > 1)
        message = f"The manual partition assignment includes the broker {twice} more than once."
    elif unknown := [r for r in target if r not in brokers]:
        message = (
            f"The manual partition assignment includes broker {unknown[0]}, but no such broker is "
            f"registered; registered are {_names(brokers)}."
        )
    elif dead := [r for r in target if r not in old.replicas and not brokers[r].eligible]:
        live = [i for i, b in brokers.items() if b.eligible and i not in old.replicas]
        able = f"live brokers without a replica are {_names(live)}" if live else (
            "no live broker is without a replica"
        )  # fmt: skip
        state = "fenced" if brokers[dead[0]].fenced else "shutting down"
        message = f"Broker {dead[0]} is {state} and cannot take a new replica; {able}."
    if message:
        raise TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)


def _names(brokers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(brokers)))


def _start(
    key: PartitionKey, old: PartitionState, target: tuple[int, ...], reason: str
) -> PartitionChangeRecord:
    original = old.original or old.replicas
    leaving = tuple(r for r in old.replicas if r not in target)
    adding = tuple(r for r in target if r not in original)
    if not leaving and not adding:
        original = ()  # only another order
    new = replace(
        old, replicas=target + leaving, adding=adding, removing=leaving, original=original,
        reason=reason,
    )  # fmt: skip
    return change_to(*key, old, new)


def _cancel(tip: Tip, key: PartitionKey, old: PartitionState) -> PartitionChangeRecord:
    if not set(old.original) & set(last_holders(old)):
        name = tip.image.topics_by_id[key[0]].name
        message = (
            f"Unable to revert partition assignment for {name}:{key[1]} because it would require "
            f"an unclean leader election: {_why_not(old)}."
        )
        raise TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
    if old.leader == NO_LEADER or old.leader in old.original:
        return _settle(tip, key, old, old.original, CANCELLED)
    # The live leader leaves: it must resign before another is elected.
    leaving = tuple(r for r in old.replicas if r not in old.original)
    new = replace(
        old, replicas=old.original + leaving, adding=(), removing=leaving, reason=CANCELLED
    )
    return change_to(*key, old, new)


def _why_not(old: PartitionState) -> str:
    """Why a move cannot be cancelled now, and what is possible."""
    wait = f"cancel when one of {_names(old.original)} has caught up"
    if old.isr:
        return f"in sync are only {_names(old.isr)}; {wait}"
    holders = last_holders(old)
    if not holders:
        return f"nobody is known to hold what was acknowledged; {ELECT_UNCLEANLY}"
    return (
        f"what was acknowledged is known to be only on {_names(holders)}, which cannot lead now; "
        f"bring that back and {wait}, or give it up: {ELECT_UNCLEANLY}"
    )


def advance(tip: Tip, handovers: Handovers, key: PartitionKey) -> list[Record]:
    """The next step of a move, if it can be made now; applied to the tip."""
    old = tip.partition(key)
    if not old.reassigning or old.leader == NO_LEADER:
        return []
    target, in_sync = old.target, set(old.isr)
    cancelled = target == old.original
    if not (set(target) <= in_sync or (cancelled and in_sync & set(target))):
        return []
    if old.leader in old.removing:
        handovers.ask(key, old.leader_epoch)
        return []
    change = _settle(tip, key, old, target, CANCELLED if cancelled else COMPLETED)
    tip.apply([change])
    return [change]


def advance_all(tip: Tip, handovers: Handovers) -> list[Record]:
    """`advance` for every move under way; applied to the tip."""
    return [record for key in list(tip.moving) for record in advance(tip, handovers, key)]


def _settle(
    tip: Tip, key: PartitionKey, old: PartitionState, replicas: tuple[int, ...], reason: str
) -> PartitionChangeRecord:
    """The record that ends a move: ``replicas`` are left, in sync as far as they are."""
    isr = tuple(r for r in replicas if r in old.isr)
    min_isr, _ = tip.policy(key[0])
    enough = len(isr) >= needed_in_sync(min_isr, len(replicas))
    new = replace(
        old, replicas=replicas, adding=(), removing=(), original=(), isr=isr,
        elr=() if enough else tuple(r for r in old.elr if r in replicas),
        last_known_elr=tuple(r for r in old.last_known_elr if r in replicas), reason=reason,
    )  # fmt: skip
    return change_to(*key, old, new)
