"""AlterPartition (compare-and-set), ElectLeaders, balance, failed directories."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat

from pegel.protocol.errors import ErrorCode
from pegel_controller.config import BROKER_CONFIGS, broker_value, topic_value
from pegel_controller.control import reassignment
from pegel_controller.control.configs import MIN_ISR, UNCLEAN
from pegel_controller.control.handover import Handovers
from pegel_controller.control.partitions import (
    DETAIL_LENGTH_MAX,
    change_to,
    needed_in_sync,
    next_partition,
)
from pegel_controller.control.recovery import Recoveries
from pegel_controller.control.tip import Tip
from pegel_controller.metadata.image import NO_LEADER, MetadataImage, PartitionState
from pegel_controller.metadata.records import (
    BrokerOfflineDirsRecord,
    ConfigRecord,
    PartitionChangeRecord,
    Record,
)
from pegel_controller.rpc import messages as m

# Characters of what a broker says of a replica that failed: a path, a position, what is wrong.
FAILURE_LENGTH_MAX = 500


def alter_partitions(
    tip: Tip, request: m.AlterPartitionRequest, handovers: Handovers
) -> tuple[list[Record], list[m.AlterPartitionResult]]:
    """One result per item, in order; applies accepted changes to the tip."""
    records: list[Record] = []
    results = []
    for item in request.partitions:
        topic = tip.image.topics_by_id.get(item.topic_id)
        if topic is None or not 0 <= item.partition < len(topic.partitions):
            code = (
                ErrorCode.UNKNOWN_TOPIC_ID
                if topic is None
                else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            )
            results.append(m.AlterPartitionResult(item.topic_id, item.partition, code))
            continue
        key = (item.topic_id, item.partition)
        old = tip.partition(key)
        error = _check(tip, request.broker_id, item, old)
        if error:
            results.append(m.AlterPartitionResult(item.topic_id, item.partition, error))
            continue
        wanted = {member.broker_id for member in item.new_isr}
        isr = tuple(x for x in old.replicas if x in wanted)
        min_isr, unclean = tip.policy(item.topic_id)
        change = next_partition(
            *key, old, isr, tip.eligible_for(key), min_isr=min_isr, unclean=unclean,
            reason="too slow" if len(isr) < len(old.isr) else "caught up",
            recovery_state=item.leader_recovery_state,
        )  # fmt: skip
        if change is not None:
            change = replace(change, detail=item.detail[:DETAIL_LENGTH_MAX])
            tip.apply([change])
            records += [change, *reassignment.advance(tip, handovers, key)]
        new = tip.partition(key)
        error = 0 if new.leader == request.broker_id else ErrorCode.NEW_LEADER_ELECTED
        results.append(
            m.AlterPartitionResult(
                item.topic_id, item.partition, error, new.leader, new.leader_epoch,
                new.isr, new.leader_recovery_state, new.partition_epoch,
            )
        )  # fmt: skip
    return records, results


def _check(tip: Tip, broker_id: int, item: m.AlterPartitionItem, old: PartitionState) -> int:
    """Kafka's order of checks; KIP-841 and KIP-903 for the members."""
    if item.leader_epoch > old.leader_epoch or item.partition_epoch > old.partition_epoch:
        return ErrorCode.NOT_CONTROLLER
    if item.leader_epoch < old.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    if broker_id != old.leader:
        return ErrorCode.INVALID_REQUEST
    if item.partition_epoch < old.partition_epoch:
        return ErrorCode.INVALID_UPDATE_VERSION
    members = [member.broker_id for member in item.new_isr]
    if broker_id not in members or len(set(members)) != len(members):
        return ErrorCode.INVALID_REQUEST
    if not set(members) <= set(old.replicas) or item.leader_recovery_state not in (0, 1):
        return ErrorCode.INVALID_REQUEST
    if item.leader_recovery_state == 1 and (len(members) > 1 or old.leader_recovery_state == 0):
        return ErrorCode.INVALID_REQUEST
    for member in item.new_isr:
        broker = tip.image.brokers.get(member.broker_id)
        if broker is None or not broker.eligible_for((item.topic_id, item.partition)):
            return ErrorCode.INELIGIBLE_REPLICA
        if member.broker_epoch not in (-1, broker.broker_epoch):
            return ErrorCode.INELIGIBLE_REPLICA
    return 0


def elect_leaders(
    tip: Tip, request: m.ElectLeadersRequest, handovers: Handovers, recoveries: Recoveries
) -> tuple[list[Record], m.ElectLeadersResponse]:
    """Preferred (0) or unclean (1); with partitions None only changes are reported, as Kafka.

    A live leader is asked to hand over; the response names those as awaited. An unclean election
    is made at once, of the best log end that is known by then.
    """
    if request.election_type not in (0, 1):
        message = f"Unknown election type {request.election_type}."
        return [], m.ElectLeadersResponse((), ErrorCode.INVALID_REQUEST, message)
    every = request.partitions is None
    wanted = request.partitions or ()
    if every:
        wanted = tuple(
            (name, n)
            for name, topic in sorted(tip.image.topics_by_name.items())
            for n in range(len(topic.partitions))
        )
    records: list[Record] = []
    results = []
    awaited: list[tuple[str, int]] = []
    for name, number in wanted:
        change, code, why = _elect_one(tip, name, number, request.election_type, recoveries)
        if change is not None:
            old = tip.image.topics_by_name[name].partitions[number]
            if old.leader == NO_LEADER:
                tip.apply([change])
                records.append(change)
            else:
                handovers.ask((change.topic_id, number), old.leader_epoch)
                awaited.append((name, number))
        if not (every and code == ErrorCode.ELECTION_NOT_NEEDED):
            results.append(m.ElectLeaderResult(name, number, code, why))
    return records, m.ElectLeadersResponse(tuple(results), awaited=tuple(awaited))


def _elect_one(
    tip: Tip, name: str, number: int, election_type: int, recoveries: Recoveries
) -> tuple[PartitionChangeRecord | None, int, str | None]:
    old = tip.image.partition(name, number)
    if old is None:
        code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return None, code, f"No such partition as {name}-{number}"
    topic_id = tip.image.topics_by_name[name].topic_id
    min_isr, unclean = tip.policy(topic_id)
    preferred = old.preferred_leader
    if old.leader == preferred or (election_type == 1 and old.leader != -1):
        code = ErrorCode.ELECTION_NOT_NEEDED
        return None, code, "Leader election not needed for topic partition."
    eligible = tip.eligible_for((topic_id, number))
    if election_type == 0 and not (preferred in old.isr and eligible(preferred)):
        code = ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
        return None, code, "The preferred leader was not available."
    change = next_partition(
        topic_id, number, old, old.isr, eligible, min_isr=min_isr,
        unclean=unclean or election_type == 1, ranking=recoveries.ranking(tip, (topic_id, number)),
        prefer=preferred if election_type == 0 else -1,
        reason="preferred" if election_type == 0 else "ordered unclean",
    )  # fmt: skip
    if change is None or change.leader == -1:
        code = ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
        return None, code, "Eligible topic partition leaders are not available."
    return change, 0, None


def adopt_minimum(tip: Tip, before: MetadataImage, configs: Sequence[Record]) -> list[Record]:
    """What another min.insync.replicas means for partitions; `before`: without these configs.

    *More are needed*: the partition epoch grows, so that an ISR change of a leader that has not
    applied the raise is refused. It would go on alone by the old minimum, and those that left
    would be eligible by the new one. *Fewer are enough* for the ISR as it is: the ELR is emptied,
    as its leader goes on without those that left, who may lack what is acknowledged (KIP-966).
    In the same entry: no broker knows one without the other. Applied to the tip.
    """
    changes: list[Record] = []
    topics = tip.image.topics_by_name
    for name in _topics_with(MIN_ISR, tip, configs):
        topic_id = topics[name].topic_id
        old_min, new_min = (
            topic_value(image, name, MIN_ISR, tip.static) for image in (before, tip.image)
        )
        assert isinstance(old_min, int)
        assert isinstance(new_min, int)
        for number, old in enumerate(topics[name].partitions):
            factor = old.replication_factor
            needed = needed_in_sync(new_min, factor)
            if old.leader != NO_LEADER and needed > needed_in_sync(old_min, factor):
                new = replace(old, reason="more are needed")
            elif (old.elr or old.last_known_elr) and len(old.isr) >= needed:
                new = replace(old, elr=(), last_known_elr=(), reason="fewer are enough")
            else:
                continue
            changes.append(change_to(topic_id, number, old, new))
    tip.apply(changes)
    return changes


def elect_where_allowed(
    tip: Tip, configs: Sequence[Record], recoveries: Recoveries
) -> list[Record]:
    """Elect the best of those who live wherever these new configs allow it and nobody leads.

    Kafka waits for its next round (unclean.leader.election.interval.ms, five minutes); who turns
    this on for a partition that is offline has waited long enough. Applied to the tip.
    """
    changes: list[Record] = []
    topics = tip.image.topics_by_name
    for name in _topics_with(UNCLEAN, tip, configs):
        topic_id = topics[name].topic_id
        min_isr, unclean = tip.policy(topic_id)
        for number, old in enumerate(topics[name].partitions if unclean else ()):
            if old.leader == NO_LEADER:
                change = next_partition(
                    topic_id, number, old, old.isr, tip.eligible,
                    min_isr=min_isr, unclean=True, reason="unclean allowed",
                    ranking=recoveries.ranking(tip, (topic_id, number)),
                )  # fmt: skip
                if change is not None:
                    changes.append(change)
    tip.apply(changes)
    return changes


def _topics_with(key: str, tip: Tip, configs: Sequence[Record]) -> list[str]:
    """Topics that a change of this key may concern: its own, or that of all brokers."""
    names = {c.resource_name for c in configs if isinstance(c, ConfigRecord) and c.key == key}
    topics = tip.image.topics_by_name
    return sorted(topics if "" in names else names & topics.keys())


def balances(tip: Tip) -> bool:
    """Whether preferred leaders are to get their partitions back by themselves."""
    key = BROKER_CONFIGS["auto.leader.rebalance.enable"]
    return broker_value(tip.image, key, tip.static) is True


def balance(tip: Tip, limit: int, handovers: Handovers) -> None:
    """Ask leaders to hand over to preferred replicas that could lead, at most `limit` a turn."""
    asked = 0
    for topic_id, topic in tip.image.topics_by_id.items():
        for number, old in enumerate(topic.partitions):
            preferred = old.preferred_leader
            if old.leader in (preferred, NO_LEADER) or preferred not in old.isr:
                continue
            if tip.eligible_for((topic_id, number))(preferred):
                handovers.ask((topic_id, number), old.leader_epoch)
                asked += 1
                if asked >= limit:
                    return


def offline_replicas(tip: Tip, request: m.UpdateOfflineReplicasRequest) -> list[Record]:
    """Take a broker's list of failed replicas; each new one leaves ISR and ELR.

    The list holds until the broker registers anew: what is on it may neither lead nor join an
    ISR, not even as the last one that was in sync. Applied to the tip.
    """
    broker_id, topics = request.broker_id, tip.image.topics_by_id
    known = tip.image.brokers[broker_id]
    told = dict(zip(request.partitions, chain(request.reasons, repeat("")), strict=False))
    reasons = {
        (topic_id, number): told[topic_id, number][:FAILURE_LENGTH_MAX]
        for topic_id, number in sorted(told)
        if topic_id in topics and 0 <= number < len(topics[topic_id].partitions)
    }
    failed = tuple(reasons)
    dirs = request.offline_log_dirs
    if (failed, dirs) == (known.offline_replicas, known.offline_log_dirs):
        return []
    records: list[Record] = [
        BrokerOfflineDirsRecord(
            broker_id, request.broker_epoch, dirs, failed, tuple(reasons.values())
        )
    ]
    tip.apply(records)
    changes: list[Record] = []
    for key in failed:
        old = tip.partition(key)
        if broker_id not in (*old.isr, *old.elr, old.leader):
            continue
        min_isr, unclean = tip.policy(key[0])
        isr = tuple(x for x in old.isr if x != broker_id)
        change = next_partition(
            *key, old, isr, tip.eligible_for(key),
            min_isr=min_isr, unclean=unclean, lost=broker_id,
            reason="replica failed" if reasons[key] else "log directory failed",
        )  # fmt: skip
        if change is not None:
            changes.append(replace(change, detail=reasons[key]))
    tip.apply(changes)
    return records + changes
