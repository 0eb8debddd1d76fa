"""What `pegel explain` and `pegel cluster health` say, sentence by sentence."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from pathlib import Path

import pytest

from pegel.admin.events import ClusterEvent
from pegel.admin.types import (
    BrokerDescription,
    ClusterDescription,
    LogDir,
    PartitionDescription,
    Reassignment,
    TopicDescription,
)
from pegel.cli.explain import clock_time
from pegel.explain import CAUSES, describe_event, explain_partition, failed_replicas, outlook
from pegel.health import Health, find_problems, under_replicated, without_moves, worst
from pegel.types import TopicPartition

CONTROL = Path(__file__).resolve().parents[2] / "controller/pegel_controller/control"


def _partition(leader: int, isr: tuple[int, ...], number: int = 0) -> PartitionDescription:
    return PartitionDescription(number, leader, 5, (1, 2, 3), isr, ())


def _change(
    old: tuple[int, tuple[int, ...]], new: tuple[int, tuple[int, ...]], reason: str, **more: object
) -> ClusterEvent:
    values: dict[str, object] = {
        "sequence": 9, "metadata_index": 9, "at_ms": 1_000, "kind": "partition changed",
        "topic": "t", "partition": 0, "reason": reason, "leader": new[0], "old_leader": old[0],
        "leader_epoch": 5, "isr": new[1], "old_isr": old[1], "replicas": (1, 2, 3),
    }  # fmt: skip
    return ClusterEvent(**{**values, **more})  # type: ignore[arg-type]


KILLED = ClusterEvent(8, 9, 1_000, "broker fenced", broker=1, reason="killed")


def test_a_leader_that_was_killed() -> None:
    elected = _change((1, (1, 2, 3)), (2, (2, 3)), "killed")
    config = ClusterEvent(3, 3, 3, "config changed", broker=2, detail="a=b")
    other = _change((1, (1,)), (2, (2,)), "killed", partition=1)
    found = explain_partition(
        "t", _partition(2, (2, 3)), 2, {2, 3}, (), [config, KILLED, elected, other]
    )
    assert found.why == (
        "broker 2 leads t-0 in epoch 5, because broker 1, the leader before, was killed; "
        "of the replicas 1, 2, 3 it was the first one alive and in sync"
    )
    assert found.leader_since_ms == 1_000
    assert found.outlook.sentences == (
        "missing for full strength: 1 (was killed)",
        (
            "one more failure stops writes with acks=all (it takes 2 in sync); "
            "broker 3 would lead next"
        ),
    )
    assert [text for _, text in found.timeline] == [
        "broker 1 was fenced (its process was gone: the connection broke and its port refused)",
        (
            "t-0: broker 2 leads instead of 1, epoch 5, 1 left the in-sync replicas (its process "
            "was gone: the connection broke and its port refused); in sync: 2, 3"
        ),
    ]


@pytest.mark.parametrize(
    ("made", "since"), [(True, "since the topic was created"),
                        (False, "for as long as the history goes back")]
)  # fmt: skip
def test_a_leader_that_never_changed(made: bool, since: str) -> None:
    history = [ClusterEvent(1, 1, 1, "topic created", topic="t")] if made else []
    found = explain_partition("t", _partition(1, (1, 2, 3)), 2, {1, 2, 3}, (), history)
    assert found.why == (
        f"broker 1 leads t-0 in epoch 5: it has led {since}, as the first replica of its list"
    )
    assert found.outlook.sentences == (
        "every replica is in sync",
        "writes go on through one more failure; broker 2 would lead next",
    )


def test_nobody_leads() -> None:
    lost = _change((3, (3,)), (-1, ()), "hung", eligible_leader_replicas=(2,))
    found = explain_partition("t", _partition(-1, ()), 2, {1}, (2,), [lost])
    assert found.why == (
        "nobody leads t-0, since broker 3, the leader before, hung; "
        "no replica that holds all acknowledged data is alive"
    )
    assert found.outlook.sentences[-1] == (
        "nothing can be written or read until one of them is back"
    )
    assert found.timeline[0][1] == (
        "t-0: nobody leads any more, epoch 5, 3 left the in-sync replicas (it was silent for "
        "longer than the session timeout); in sync: nobody, may lead too: 2"
    )


@pytest.mark.parametrize(
    ("isr", "live", "eligible", "minimum", "expected"),
    [
        # in-sync failures before writes stop, before nobody leads; who would lead next
        ((1, 2, 3), {1, 2, 3}, (), 2, (2, 3, 2)),
        ((1, 2, 3), {1, 2, 3}, (), 1, (3, 3, 2)),
        ((1, 2, 3), {1, 2, 3}, (), 9, (1, 3, 2)),  # as many as there are replicas, as brokers do
        ((1, 3), {1, 2, 3}, (), 2, (1, 2, 3)),
        ((1,), {1}, (), 2, (0, 1, -1)),
        ((1,), {1, 3}, (3,), 2, (0, 2, 3)),
        ((1, 2), {1}, (), 2, (0, 1, -1)),  # 2 is dead; the controller will say so soon
    ],
)
def test_the_outlook_counts_failures(
    isr: tuple[int, ...], live: set[int], eligible: tuple[int, ...], minimum: int,
    expected: tuple[int, int, int],
) -> None:  # fmt: skip
    found = outlook(_partition(1, isr), minimum, live, eligible)
    told = (found.failures_to_no_writes, found.failures_to_offline, found.next_leader)
    assert told == expected
    if expected[0] == 0:
        assert "writes with acks=all are refused" in found.sentences[-1]


def test_a_replica_that_was_too_slow_says_by_how_much() -> None:
    event = _change(
        (1, (1, 2, 3)), (1, (1, 2)), "too slow", detail="3 was 1,204 records and 31.0 s behind"
    )
    assert describe_event(event) == (
        "t-0: 3 left the in-sync replicas "
        "(it fell behind: 3 was 1,204 records and 31.0 s behind); in sync: 1, 2"
    )
    back = _change((1, (1, 2)), (1, (1, 2, 3)), "caught up")
    assert describe_event(back) == (
        "t-0: 3 joined the in-sync replicas (it has caught up); in sync: 1, 2, 3"
    )


def test_moved_replicas_and_a_cause_without_words() -> None:
    moved = _change((1, (1, 2)), (1, (1, 2)), "moved", replicas=(1, 2))
    assert "replicas are now 1, 2 (the move of its replicas is done)" in describe_event(moved)
    strange = _change((1, (1, 2)), (2, (1, 2)), "sunspots")
    assert "(sunspots)" in describe_event(strange)
    config = ClusterEvent(1, 1, 1, "config changed", detail="a=b")
    assert describe_event(config) == "cluster: config changed (a=b)"


def test_every_cause_that_the_controller_gives_has_its_words() -> None:
    given = set()
    for path in CONTROL.glob("*.py"):
        text = path.read_text()
        for match in re.finditer(r"(?:reason=|fence\(|without\()(.*)", text):
            given |= set(re.findall(r'"([a-z ]+)"', match.group(1)))
    assert {"killed", "too slow", "caught up", "shutdown", "preferred"} <= given
    assert given - set(CAUSES) == set()


def test_a_leader_that_was_found_by_the_logs() -> None:
    ends = "broker 1 is not known, broker 2 ends at 41 in epoch 3, broker 3 ends at 0"
    elected = _change((-1, ()), (2, (2,)), "log ends compared", detail=ends)
    found = explain_partition("t", _partition(2, (2,)), 2, {2, 3}, (), [elected])
    words = CAUSES["log ends compared"]
    assert found.why == f"broker 2 leads t-0 in epoch 5: {words} ({ends})"
    assert found.timeline[-1][1] == (
        f"t-0: broker 2 leads, epoch 5, 2 joined the in-sync replicas ({words}: {ends}); in sync: 2"
    )


def test_who_is_needed_where_nobody_can_be_trusted() -> None:
    killed = _change((3, (3,)), (-1, ()), "hung")
    lost = _change(
        (-1, ()), (-1, ()), "page cache lost", detail="log ends are compared once broker 3 is back"
    )
    found = explain_partition("t", _partition(-1, ()), 2, {1, 2}, (), [killed, lost])
    assert found.why == (
        "nobody leads t-0: all who held everything lost their page cache; "
        "log ends are compared once broker 3 is back"
    )
    not_all = _change((-1, ()), (-1, ()), "page cache lost")
    found = explain_partition("t", _partition(-1, ()), 2, {1, 2}, (2,), [killed, not_all])
    assert found.why.endswith("no replica that holds all acknowledged data is alive")


def test_times_have_their_date_where_it_is_not_todays() -> None:
    at = datetime(2026, 3, 4, 5, 6, 7).astimezone()
    at_ms = int(at.timestamp()) * 1000 + 89
    assert clock_time(at_ms, at) == "05:06:07.089"
    assert clock_time(at_ms, datetime(2026, 3, 5).astimezone()) == "2026-03-04 05:06:07.089"
    assert clock_time(-1) == "?"


def _cluster(*fenced: int) -> ClusterDescription:
    brokers = tuple(BrokerDescription(n, "h", 9000 + n, None, n in fenced) for n in (1, 2, 3))
    return ClusterDescription("c", 1, brokers)


def _topic(*partitions: PartitionDescription) -> TopicDescription:
    return TopicDescription("t", uuid.UUID(int=1), False, partitions)


def test_a_healthy_cluster_has_no_problems() -> None:
    problems = find_problems(_cluster(), [_topic(_partition(1, (1, 2, 3)))], {"t": 3})
    assert (problems, worst(problems)) == ([], Health.HEALTHY)


def test_a_move_is_no_problem_and_asks_for_no_more_in_sync_than_before() -> None:
    """One replica by right, two for a time, and a minimum of two that one replica cannot meet."""
    moving = PartitionDescription(0, 1, 5, (2, 1), (1,), ())
    move = Reassignment(TopicPartition("t", 0), (2, 1), (2,), (1,))
    topics = [_topic(moving)]
    assert find_problems(_cluster(), topics, {"t": 2}) != []
    assert find_problems(_cluster(), without_moves(topics, [move]), {"t": 2}) == []
    assert without_moves(topics, []) == topics
    assert under_replicated(topics, []) == {TopicPartition("t", 0)}
    assert under_replicated(topics, [move]) == set()


def test_problems_are_grouped_and_the_worst_come_first() -> None:
    topic = _topic(
        _partition(1, (1, 2), 0), _partition(-1, (), 1), _partition(1, (1,), 2),
        *(_partition(2, (1, 2), n) for n in range(3, 10)),
    )  # fmt: skip
    problems = find_problems(_cluster(3), [topic], {"t": 2})
    told = [(p.health, p.text, p.command) for p in problems]
    assert told == [
        (Health.UNAVAILABLE, "t-1 has no leader: nothing can be written or read",
         "pegel explain t 1"),
        (Health.UNAVAILABLE, ("t-2 has fewer in-sync replicas than min.insync.replicas: "
         "writes with acks=all are refused"), "pegel explain t 2"),
        (Health.DEGRADED, "broker 3 (h:9003) is fenced: it is down, hung or cut off",
         "pegel cluster events --last 20"),
        (Health.DEGRADED, ("each of t-0, t-3, t-4, t-5, t-6 and 3 more is under-replicated, and "
         "one more failure stops writes"), "pegel explain t 0"),
    ]  # fmt: skip
    assert worst(problems) is Health.UNAVAILABLE


def test_a_leader_on_a_fenced_broker_is_no_leader_and_a_failed_directory_is_named() -> None:
    directory = LogDir(2, "/d", "KAFKA_STORAGE_ERROR", 0, 0, ())
    problems = find_problems(_cluster(1), [_topic(_partition(1, (1, 2, 3)))], {"t": 1}, [directory])
    assert "has no leader" in problems[0].text
    assert any("log directory /d of broker 2 is offline" in p.text for p in problems)


DAMAGE = "/d/t-0/0.log: damaged at byte 61: crc"
DAMAGED = ClusterEvent(
    7, 9, 1_000, "replica failed", broker=1, topic="t", partition=0, detail=DAMAGE
)


def test_a_damaged_replica_is_told_with_its_file_and_what_to_do() -> None:
    """It was "alive, and catching up or too slow", and the only one "in sync"."""
    sole = PartitionDescription(0, -1, 5, (1,), (1,), (1,))
    found = explain_partition("t", sole, 1, {1}, (), [DAMAGED])
    assert found.why == (
        f"nobody leads t-0: no replica of it can be used; that on broker 1 is damaged: {DAMAGE}"
    )
    missing, effect = found.outlook.sentences
    assert missing == (f"missing for full strength: 1 (alive, but its files are damaged: {DAMAGE})")
    assert effect.startswith("nothing can be written or read: stop the broker and restore")
    assert found.timeline == ((1_000, f"t-0: the replica on broker 1 is damaged: {DAMAGE}"),)
    assert found.outlook.failures_to_offline == 0
    follower = explain_partition("t", _partition(2, (2, 3)), 2, {1, 2, 3}, (), [DAMAGED])
    assert follower.outlook.sentences[0] == missing


def test_a_broker_that_registers_anew_is_damaged_where_it_says_so_again() -> None:
    again = ClusterEvent(8, 9, 2_000, "broker registered", broker=1)
    assert failed_replicas([DAMAGED, again]) == {("t", 0): {}}
    assert failed_replicas([DAMAGED, again, DAMAGED]) == {("t", 0): {1: DAMAGE}}


def test_health_has_a_line_for_each_damaged_replica_and_counts_the_rest() -> None:
    sole = [PartitionDescription(n, -1, 5, (1,), (1,), (1,)) for n in range(7)]
    failed = {("t", n): {1: DAMAGE} for n in range(7)}
    problems = find_problems(_cluster(), [_topic(*sole)], {"t": 1}, (), failed)
    told = [p.text for p in problems if "damaged" in p.text]
    assert told[0] == f"the replica of t-0 on broker 1 is damaged: {DAMAGE}"
    assert problems[0].command == "pegel explain t 0"
    assert (len(told), told[-1]) == (6, "2 more replicas are damaged")
    whole = _partition(1, (1, 2, 3))
    assert find_problems(_cluster(), [_topic(whole)], {"t": 1}, (), failed) == []
