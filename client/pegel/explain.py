"""Why a partition is as it is, in words: from its state and the history of the cluster.

Pure: everything that is known comes in as arguments, and times go out as milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pegel.admin.events import (
    BROKER_FENCED,
    BROKER_REGISTERED,
    PARTITION_CHANGED,
    REPLICA_FAILED,
    TOPIC_CREATED,
    ClusterEvent,
)
from pegel.admin.types import PartitionDescription

# What the controller's words for a cause mean. A word that is missing here is shown as it is.
CAUSES: Mapping[str, str] = {
    "killed": "its process was gone: the connection broke and its port refused",
    "hung": "it was silent for longer than the session timeout",
    "restarted": "it came back as a new process",
    "shutdown": "it was shut down in order",
    "unregistered": "it was removed from the cluster",
    "disk stalled": "its disk did not answer, so it could acknowledge nothing",
    "page cache lost": "its host was restarted, so that what it held cannot be trusted",
    "log directory failed": "its log directory failed",
    "replica failed": "its files are damaged",
    "too slow": "it fell behind",
    "caught up": "it has caught up",
    "preferred": "the first replica of the list leads where it can",
    "preferred is gone again": "the first replica of the list was to lead and is gone again",
    "returned": "a replica that may lead came back",
    "fewer are enough": "min.insync.replicas was lowered, so that who left may no longer lead",
    "more are needed": "min.insync.replicas was raised",
    "ordered unclean": "an operator ordered an unclean election",
    "log ends compared": "all who held everything lost their page cache, and the best log leads",
    "unclean allowed": "an operator allowed unclean elections (unclean.leader.election.enable)",
    "reassigned": "its replicas are being moved",
    "replaced": "a replica's broker is gone for good, and another is built in its place",
    "moved": "the move of its replicas is done",
    "the leader moves away": "the leader before was to hold no replica any more",
    "reassignment cancelled": "the move of its replicas was cancelled",
}
# What to do, in one line; docs/runbook.md says it step by step (PegelLogCorruption).
LAST_REPLICA_DAMAGED = (
    "stop the broker and restore that file from a backup, or cut it at the damage and lose what "
    "follows (docs/runbook.md, PegelLogCorruption)"
)
# Causes that are the same word for the broker and for the partitions that follow from it.
_OF_A_BROKER = {"killed", "hung", "restarted", "shutdown", "unregistered", "page cache lost"}
_PAST = {
    "killed": "was killed", "hung": "hung", "restarted": "restarted", "shutdown": "was shut down",
    "unregistered": "was removed", "page cache lost": "lost its page cache",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a partition can do now, and what the next failures would take away.

    ``failures_to_no_writes`` counts in-sync replicas that may fail before acks=all is refused (0:
    it is refused now), ``failures_to_offline`` those before nobody can lead.
    """

    leader: int
    next_leader: int
    min_insync_replicas: int
    missing: tuple[int, ...]
    failures_to_no_writes: int
    failures_to_offline: int
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """``why`` says who leads and since when it does, ``timeline`` how it came to that."""

    topic: str
    partition: int
    why: str
    leader_since_ms: int
    outlook: Outlook
    timeline: tuple[tuple[int, str], ...]


def failed_replicas(history: Iterable[ClusterEvent]) -> dict[tuple[str, int], dict[int, str]]:
    """By partition and broker: what is wrong with replicas whose files are damaged.

    A broker that registers anew looks at its files anew, and says again what it finds.
    """
    found: dict[tuple[str, int], dict[int, str]] = {}
    for event in history:
        if event.kind == REPLICA_FAILED:
            found.setdefault((event.topic, event.partition), {})[event.broker] = event.detail
        elif event.kind == BROKER_REGISTERED:
            for of_partition in found.values():
                of_partition.pop(event.broker, None)
    return found


def explain_partition(
    topic: str,
    partition: PartitionDescription,
    min_insync_replicas: int,
    live: Collection[int],
    eligible: Sequence[int],
    history: Iterable[ClusterEvent],
) -> Explanation:
    """Put one partition into words.

    Args:
        live: brokers that are not fenced. eligible: its eligible leader replicas (KIP-966).
        history: events of the partition and of brokers, oldest first.
    """
    events = list(history)
    own = [e for e in events if e.topic == topic and e.partition in {-1, partition.partition}]
    elected = next(
        (e for e in reversed(own) if e.kind == PARTITION_CHANGED and e.old_leader != e.leader), None
    )
    holders = {*partition.replicas, *(b for e in own for b in (*e.isr, *e.old_isr))}
    timeline = tuple(
        (e.at_ms, describe_event(e))
        for e in events
        if e in own or (e.broker in holders and e.kind != "config changed")
    )
    failed = failed_replicas(events).get((topic, partition.partition), {})
    return Explanation(
        topic, partition.partition, _why(topic, partition, elected, own, failed),
        -1 if elected is None else elected.at_ms,
        outlook(partition, min_insync_replicas, live, eligible, events, failed), timeline,
    )  # fmt: skip


def _why(
    topic: str,
    p: PartitionDescription,
    elected: ClusterEvent | None,
    own: Sequence[ClusterEvent],
    failed: Mapping[int, str],
) -> str:
    name = f"{topic}-{p.partition}"
    if p.leader < 0 and failed:
        told = "; ".join(f"that on broker {b} is damaged: {why}" for b, why in failed.items())
        return f"nobody leads {name}: no replica of it can be used; {told}"
    if p.leader < 0:
        last = own[-1] if own else None
        if last is not None and last.reason == "page cache lost" and last.detail:
            return (
                f"nobody leads {name}: all who held everything lost their page cache; {last.detail}"
            )
        cause = "" if elected is None else f", since {_cause_of(elected)}"
        return f"nobody leads {name}{cause}; no replica that holds all acknowledged data is alive"
    leads = f"broker {p.leader} leads {name} in epoch {p.leader_epoch}"
    if elected is None:
        made = any(e.kind == TOPIC_CREATED for e in own)
        since = "since the topic was created" if made else "for as long as the history goes back"
        first = ", as the first replica of its list" if p.replicas[:1] == (p.leader,) else ""
        return f"{leads}: it has led {since}{first}"
    if elected.reason == "log ends compared":
        return f"{leads}: {CAUSES[elected.reason]} ({elected.detail})"
    if elected.reason in {"preferred", "moved", "ordered unclean", "unclean allowed"}:
        return f"{leads}: {CAUSES[elected.reason]}"
    listed = ", ".join(map(str, p.replicas))
    return (
        f"{leads}, because {_cause_of(elected)}; "
        f"of the replicas {listed} it was the first one alive and in sync"
    )


def _cause_of(event: ClusterEvent) -> str:
    if event.reason in _OF_A_BROKER and event.old_leader >= 0:
        return f"broker {event.old_leader}, the leader before, {_PAST[event.reason]}"
    return CAUSES.get(event.reason, event.reason or "of an unknown cause")


def outlook(
    p: PartitionDescription,
    min_insync_replicas: int,
    live: Collection[int],
    eligible: Sequence[int] = (),
    history: Iterable[ClusterEvent] = (),
    failed: Mapping[int, str] | None = None,
) -> Outlook:
    """What works now, what is missing for full strength, and what the next failure would do."""
    needed = min(min_insync_replicas, len(p.replicas))
    failed = failed or {}
    usable = [r for r in p.replicas if r in live and r not in failed]
    in_sync = [r for r in usable if r in p.isr]
    standby = [r for r in eligible if r in usable and r not in in_sync]
    spare = max(0, len(in_sync) - needed + 1) if p.leader >= 0 else 0
    to_offline = len(in_sync) + len(standby) if p.leader >= 0 else 0
    followers = [r for r in in_sync if r != p.leader]
    next_leader = (followers or standby or [-1])[0]
    missing = tuple(r for r in p.replicas if r not in p.isr or r in failed)
    sentences = (
        [_missing(missing, live, list(history), failed)]
        if missing
        else ["every replica is in sync"]
    )
    if p.leader < 0 and failed:
        sentences.append(f"nothing can be written or read: {LAST_REPLICA_DAMAGED}")
    elif p.leader < 0:
        sentences.append("nothing can be written or read until one of them is back")
    elif spare == 0:
        sentences.append(
            f"writes with acks=all are refused: {_count(len(in_sync), 'replica')} in sync, "
            f"min.insync.replicas is {needed}; reading goes on"
        )
    else:
        sentences.append(_next_failure(spare, to_offline, needed, next_leader))
    return Outlook(
        p.leader, next_leader, needed, missing, spare, to_offline, tuple(sentences)
    )  # fmt: skip


def _missing(
    missing: Sequence[int],
    live: Collection[int],
    history: Sequence[ClusterEvent],
    failed: Mapping[int, str],
) -> str:
    told = []
    for broker in missing:
        if broker in failed:
            told.append(f"{broker} (alive, but its files are damaged: {failed[broker]})")
            continue
        if broker in live:
            told.append(f"{broker} (alive, and catching up or too slow)")
            continue
        fenced = next(
            (e for e in reversed(history) if e.kind == BROKER_FENCED and e.broker == broker), None
        )
        told.append(f"{broker} ({_PAST.get(fenced.reason, fenced.reason) if fenced else 'down'})")
    return f"missing for full strength: {', '.join(told)}"


def _next_failure(spare: int, to_offline: int, needed: int, next_leader: int) -> str:
    if to_offline == 1:
        return "one more failure takes it offline"
    heir = f"broker {next_leader} would lead next" if next_leader >= 0 else "nobody could follow"
    if spare == 1:
        return f"one more failure stops writes with acks=all (it takes {needed} in sync); {heir}"
    return f"writes go on through {_count(spare - 1, 'more failure')}; {heir}"


def describe_event(e: ClusterEvent) -> str:
    """One event as one line of words, without its time."""
    cause = CAUSES.get(e.reason, e.reason)
    if e.kind == PARTITION_CHANGED:
        return f"{e.topic}-{e.partition}: {_change(e)}"
    if e.kind == REPLICA_FAILED:
        return f"{e.topic}-{e.partition}: the replica on broker {e.broker} is damaged: {e.detail}"
    if e.broker >= 0:
        what = e.kind.removeprefix("broker ")
        verb = "was " if what in {"fenced", "unfenced", "registered", "unregistered"} else "is "
        told = f"broker {e.broker} {verb}{what}" if e.kind.startswith("broker ") else (
            f"broker {e.broker}: {e.kind}"
        )  # fmt: skip
        more = e.detail or cause
        return f"{told} ({more})" if more else told
    return f"{e.topic or 'cluster'}: {e.kind}" + (f" ({e.detail})" if e.detail else "")


def _change(e: ClusterEvent) -> str:
    told = []
    if e.leader != e.old_leader:
        if e.leader < 0:
            told.append(f"nobody leads any more, epoch {e.leader_epoch}")
        elif e.old_leader < 0:
            told.append(f"broker {e.leader} leads, epoch {e.leader_epoch}")
        else:
            told.append(
                f"broker {e.leader} leads instead of {e.old_leader}, epoch {e.leader_epoch}"
            )
    left = [r for r in e.old_isr if r not in e.isr]
    joined = [r for r in e.isr if r not in e.old_isr]
    if left:
        told.append(f"{_numbers(left)} left the in-sync replicas")
    if joined:
        told.append(f"{_numbers(joined)} joined the in-sync replicas")
    if e.reason in {"reassigned", "replaced", "moved", "reassignment cancelled"}:
        told.append(f"replicas are now {_numbers(e.replicas)}")
    if not told:
        told.append(f"epoch {e.leader_epoch}")
    cause = CAUSES.get(e.reason, e.reason)
    if e.detail:
        cause = f"{cause}: {e.detail}" if cause else e.detail
    after = f"; in sync: {_numbers(e.isr) or 'nobody'}"
    if e.eligible_leader_replicas:
        after += f", may lead too: {_numbers(e.eligible_leader_replicas)}"
    return ", ".join(told) + (f" ({cause})" if cause else "") + after


def _numbers(brokers: Iterable[int]) -> str:
    return ", ".join(map(str, brokers))


def _count(number: int, what: str) -> str:
    words = {0: "no", 1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
    return f"{words.get(number, number)} {what}{'' if number == 1 else 's'}"
