"""Unclean recovery (KIP-966): who leads where nobody is trusted to hold what was acknowledged.

Where ISR and ELR are empty, all that the metadata know is who held everything when it lost its
page cache. Whether its disk kept it they cannot know, and others may hold it as well: whoever left
while enough were in sync is remembered by nobody. So every live replica is asked, in the answers
to its heartbeats, how far its log goes, and the best log is elected: that with the newest leader
epoch in its last record, and of those the longest. (As Raft elects, §5.4.1: the leader of an epoch
began with all that was committed before, and logs that end in one epoch are prefixes of its log.)

Who is waited for, in this order:

- the *first* of the last known, for ever: it was the last to hold everything;
- every other replica, up to `timeout` seconds from when the first could lead. It costs a partition
  no more than that where a disk never returns. One that lives and whose log has failed has no end,
  and is not waited for.

Ends are soft state: each is of one life of its broker and of one leader epoch, in which nobody
leads and no log changes. A new active controller asks again, and waits anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pegel_controller.control.partitions import DETAIL_LENGTH_MAX, next_partition
from pegel_controller.control.tip import PartitionKey, Tip
from pegel_controller.metadata.image import PartitionState
from pegel_controller.metadata.records import PartitionChangeRecord, Record
from pegel_controller.rpc.recovery_messages import ReportLogEndsRequest, Wanted

# In one heartbeat's response; the next one asks for more.
ENDS_PER_HEARTBEAT_MAX = 1_000

End = tuple[int, int]  # leader epoch of the last record, log end offset: the larger, the better

_Seen = tuple[object, object]  # topics and brokers of an image


@dataclass(slots=True)
class _Round:
    """What was answered about one partition, in one leader epoch of it."""

    leader_epoch: int
    # By replica: the broker epoch in which it said so, and the end.
    ends: dict[int, tuple[int, End]] = field(default_factory=dict)
    # Since when the first of the last known may lead; None: it may not.
    since: float | None = None


class Recoveries:
    """Every partition that nobody leads, and what live replicas said of their logs."""

    def __init__(self, timeout: float) -> None:
        """`timeout`: seconds to wait for replicas other than the first of the last known."""
        self.timeout = timeout
        self._rounds: dict[PartitionKey, _Round] = {}
        # What each broker is yet to tell, and the metadata that were looked through for that, and
        # by `advance`: while those are as they were, no partition is looked at again.
        self._to_ask: dict[int, dict[PartitionKey, None]] = {}
        self._asked: dict[int, _Seen] = {}
        self._advanced: _Seen | None = None

    def clear(self) -> None:
        self._rounds.clear()
        self._to_ask.clear()
        self._asked.clear()
        self._advanced = None

    def wanted(self, tip: Tip, broker: int) -> tuple[Wanted, ...]:
        """The partitions that `broker` is to tell the log ends of."""
        if not tip.leaderless:
            self.clear()
            return ()
        if not tip.eligible(broker):
            return ()  # one that waits to be unfenced asks every few milliseconds
        queue = self._to_ask.setdefault(broker, {})
        if len(queue) < ENDS_PER_HEARTBEAT_MAX and not _is_seen(self._asked.get(broker), tip):
            self._asked[broker] = _seen(tip)
            queue.update((k, None) for k in tip.leaderless if broker in tip.partition(k).replicas)
        found: list[Wanted] = []
        for key in list(queue):
            if not self._may_tell(tip, key, broker):
                del queue[key]
                continue
            found.append((*key, tip.partition(key).leader_epoch))
            if len(found) == ENDS_PER_HEARTBEAT_MAX:
                break
        return tuple(found)

    def _may_tell(self, tip: Tip, key: PartitionKey, broker: int) -> bool:
        """Whether a broker that lives holds such a replica, and has not told its end yet."""
        return (
            key in tip.leaderless
            and broker in tip.partition(key).replicas
            and tip.eligible_for(key)(broker)
            and broker not in self.ends(tip, key)
        )

    def take(self, now: float, tip: Tip, request: ReportLogEndsRequest) -> list[Record]:
        """What a broker answers, and the elections that it decides; applied to the tip."""
        told: dict[PartitionKey, None] = {}
        for end in request.ends:
            key = (end.topic_id, end.partition)
            if key not in tip.leaderless:
                continue  # it was elected meanwhile, or is deleted
            state = tip.partition(key)
            if end.leader_epoch == state.leader_epoch and request.broker_id in state.replicas:
                answer = (request.broker_epoch, (end.last_epoch, end.end_offset))
                self._round(key, state).ends[request.broker_id] = answer
                told[key] = None
        return self._decide(now, tip, list(told))

    def advance(self, now: float, tip: Tip) -> list[Record]:
        """Elect where the wait is over; applied to the tip."""
        if _is_seen(self._advanced, tip):
            waiting = [key for key, round_ in self._rounds.items() if round_.since is not None]
            return self._decide(now, tip, waiting)
        self._advanced = _seen(tip)
        for key in [key for key in self._rounds if key not in tip.leaderless]:
            del self._rounds[key]
        return self._decide(now, tip, list(tip.leaderless))

    def ends(self, tip: Tip, key: PartitionKey) -> dict[int, End]:
        """By replica that may lead now: where its log ends, if it has said so in this life."""
        state, round_ = tip.partition(key), self._rounds.get(key)
        if round_ is None or round_.leader_epoch != state.leader_epoch:
            return {}
        eligible, brokers = tip.eligible_for(key), tip.image.brokers
        return {
            replica: end
            for replica, (epoch, end) in round_.ends.items()
            if replica in state.replicas
            and eligible(replica)
            and brokers[replica].broker_epoch == epoch
        }

    def ranking(self, tip: Tip, key: PartitionKey) -> tuple[int, ...]:
        """All replicas: the best known end first, then those without; else as they are listed."""
        state, ends = tip.partition(key), self.ends(tip, key)

        def rank(replica: int) -> tuple[int, ...]:
            if replica in ends:
                epoch, offset = ends[replica]
                return 0, -epoch, -offset
            return 1, replica not in state.last_known_elr[:1], replica in state.adding

        return tuple(sorted(state.replicas, key=rank))

    def _round(self, key: PartitionKey, state: PartitionState) -> _Round:
        round_ = self._rounds.get(key)
        if round_ is None or round_.leader_epoch != state.leader_epoch:
            round_ = self._rounds[key] = _Round(state.leader_epoch)
        return round_

    def _decide(self, now: float, tip: Tip, keys: list[PartitionKey]) -> list[Record]:
        changes: list[Record] = []
        for key in keys:
            change = self._elect(now, tip, key)
            if change is not None:
                changes.append(change)
        tip.apply(changes)
        return changes

    def _elect(self, now: float, tip: Tip, key: PartitionKey) -> PartitionChangeRecord | None:
        state = tip.partition(key)
        if state.isr or state.elr or not state.last_known_elr:
            return None
        first, eligible = state.last_known_elr[0], tip.eligible_for(key)
        round_ = self._round(key, state)
        if not eligible(first):
            round_.since = None
            return None
        if round_.since is None:
            round_.since = now
        ends = self.ends(tip, key)
        late = [r for r in state.replicas if r not in ends and _may_have_an_end(tip, key, r)]
        if late and now < round_.since + self.timeout:
            return None
        ranking = self.ranking(tip, key)
        if first not in ends:
            # It lives and does not answer: of an older version, or its disk hangs. It was the last
            # to hold everything.
            ranking = (first, *ranking)
        min_isr, _ = tip.policy(key[0])
        change = next_partition(
            *key, state, state.isr, eligible, min_isr=min_isr, unclean=True, ranking=ranking,
            reason="log ends compared",
        )  # fmt: skip
        assert change is not None
        return replace(change, detail=_told(state, ends))


def _seen(tip: Tip) -> _Seen:
    return tip.image.topics_by_id, tip.image.brokers


def _is_seen(before: _Seen | None, tip: Tip) -> bool:
    """Whether nothing has changed since: an image shares what did not."""
    return before is not None and all(a is b for a, b in zip(before, _seen(tip), strict=True))


def _may_have_an_end(tip: Tip, key: PartitionKey, replica: int) -> bool:
    """Whether it may yet tell one: not if it lives and its log there has failed, nor if its broker
    was removed from the cluster."""
    broker = tip.image.brokers.get(replica)
    return broker is not None and (broker.fenced or key not in broker.offline_replicas)


def _told(state: PartitionState, ends: Mapping[int, End]) -> str:
    """For people: what was compared."""
    told = []
    for replica in state.replicas:
        epoch, offset = ends.get(replica, (-1, -1))
        where = "is not known" if offset < 0 else f"ends at {offset}"
        told.append(f"broker {replica} {where}" + (f" in epoch {epoch}" if epoch >= 0 else ""))
    return ", ".join(told)[:DETAIL_LENGTH_MAX]
