"""Moving the leadership of a live leader: it stops first, then another one is elected.

A live leader holds a lease. Electing another one at once would let both accept writes with acks=1
until the old one has heard of it. So the controller asks (in the heartbeat's response), the leader
refuses writes from then on and resigns, and only then the election is made.
"""

from collections.abc import Iterable
from dataclasses import replace

from pegel_controller.control.partitions import change_to, next_partition
from pegel_controller.control.tip import PartitionKey, Tip
from pegel_controller.metadata.image import NO_LEADER, PartitionState
from pegel_controller.metadata.records import Record
from pegel_controller.rpc import messages as m

# In one heartbeat's response; the next one asks for more.
HAND_OVERS_PER_HEARTBEAT_MAX = 1_000


class Handovers:
    """Partitions whose leader was asked to resign, with the leader epoch it was asked in.

    Soft state: a new active controller begins without, and a leader that resigned meanwhile
    says so again until its epoch is over.
    """

    def __init__(self) -> None:
        self._asked: dict[PartitionKey, int] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def clear(self) -> None:
        self._asked.clear()

    def ask(self, key: PartitionKey, leader_epoch: int) -> None:
        self._asked[key] = leader_epoch

    def of(self, tip: Tip, broker: int) -> tuple[tuple[PartitionKey, int], ...]:
        """What `broker` is to hand over; forgets what is settled by now."""
        found: list[tuple[PartitionKey, int]] = []
        for key, epoch in list(self._asked.items()):
            state = _state(tip, key)
            if state is None or state.leader_epoch != epoch or state.leader == NO_LEADER:
                del self._asked[key]
            elif state.leader == broker and len(found) < HAND_OVERS_PER_HEARTBEAT_MAX:
                found.append((key, epoch))
        return tuple(found)

    def resigned(
        self, tip: Tip, broker: int, partitions: Iterable[tuple[PartitionKey, int]]
    ) -> list[Record]:
        """Elections in place of a leader that accepts no writes any more; applied to the tip.

        Where the preferred replica is no longer fit the old leader gets a new epoch: it may not
        serve in the one it resigned from.
        """
        records: list[Record] = []
        for key, epoch in partitions:
            self._asked.pop(key, None)
            old = _state(tip, key)
            if old is None or old.leader != broker or old.leader_epoch != epoch:
                continue
            min_isr, _ = tip.policy(key[0])
            change = next_partition(
                *key, old, old.isr, tip.eligible_for(key),
                min_isr=min_isr, prefer=_successor(tip, key, old), reason=_why(old),
            )  # fmt: skip
            if change is None or change.leader == broker:
                again = replace(old, reason="preferred is gone again")
                change = change_to(*key, old, again, resigned=True)
            tip.apply([change])
            records.append(change)
        return records


def _state(tip: Tip, key: PartitionKey) -> PartitionState | None:
    topic = tip.image.topics_by_id.get(key[0])
    return None if topic is None else topic.partitions[key[1]]


def _successor(tip: Tip, key: PartitionKey, old: PartitionState) -> int:
    """The first replica that stays, and could lead now."""
    eligible = tip.eligible_for(key)
    fit = (r for r in old.target if r in old.isr and eligible(r))
    return next(fit, old.preferred_leader)


def _why(old: PartitionState) -> str:
    return "the leader moves away" if old.leader in old.removing else "preferred"


def wire(found: Iterable[tuple[PartitionKey, int]]) -> tuple[m.HandOver, ...]:
    return tuple((topic_id, number, epoch) for (topic_id, number), epoch in found)
