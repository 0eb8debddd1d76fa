"""The history that `pegel explain` tells: derived from committed records, kept by snapshots."""

from pegel_controller.metadata import records as r
from pegel_controller.metadata.history import (
    BROKER_FENCED,
    CONFIG_CHANGED,
    PARTITION_CHANGED,
    TOPIC_CREATED,
    TOPIC_DELETED,
    Event,
    History,
)
from pegel_controller.metadata.image import RESOURCE_TOPIC, MetadataImage
from pegel_controller.metadata.snapshot import decode_snapshot_and_history, encode_snapshot
from pegel_controller.rpc import messages as m
from tests.controller.control.harness import Harness


def _all(h: Harness) -> list[Event]:
    return list(h.controller.history.events)


def _three() -> Harness:
    h = Harness()
    h.start(1, 2, 3)
    assert not h.create("t", count=2).error
    return h


def test_a_killed_leader_is_an_event_of_the_broker_and_one_of_each_partition_that_it_led() -> None:
    h = _three()
    before = [h.partition(number=n) for n in (0, 1)]
    victim = before[0].leader
    known = len(_all(h))
    h.kill(victim)
    fenced, *changes = _all(h)[known:]
    assert (fenced.kind, fenced.broker, fenced.reason) == (BROKER_FENCED, victim, "killed")
    assert [c.partition for c in changes] == [0, 1]
    first = changes[0]
    assert (first.kind, first.topic, first.reason) == (PARTITION_CHANGED, "t", "killed")
    assert (first.old_leader, first.leader) == (victim, h.partition().leader)
    assert (first.old_isr, first.isr) == (before[0].isr, h.partition().isr)
    assert first.leader_epoch == h.partition().leader_epoch
    assert first.index == fenced.index == h.index
    assert [e.sequence for e in _all(h)] == list(range(1, known + 4))


def test_the_leaders_own_words_on_a_replica_that_was_too_slow_are_kept_to_a_limit() -> None:
    h = _three()
    leader, second, _ = h.partition().replicas
    assert not h.alter((leader, second), detail="x" * 10_000)
    event = _all(h)[-1]
    assert (event.reason, event.detail) == ("too slow", "x" * 200)


def test_topics_configurations_and_the_time_of_an_entry() -> None:
    h = _three()
    records = (
        r.EntryTimeRecord(1_700_000_000_000),
        r.ConfigRecord(RESOURCE_TOPIC, "t", "retention.ms", "5"),
        r.ConfigRecord(RESOURCE_TOPIC, "t", "retention.ms", None),
        r.TopicRemovedRecord(h.image.topics_by_name["t"].topic_id),
    )
    h.controller.replay(records, h.index + 1)
    made = [e for e in _all(h) if e.kind == TOPIC_CREATED]
    assert [e.topic for e in made] == ["t"]
    told = [(e.kind, e.topic, e.detail, e.at_ms) for e in _all(h)[-3:]]
    at = 1_700_000_000_000
    assert told == [
        (CONFIG_CHANGED, "t", "retention.ms=5", at),
        (CONFIG_CHANGED, "t", "retention.ms=unset", at),
        (TOPIC_DELETED, "t", "", at),
    ]


def test_what_is_asked_for_one_partition_has_the_brokers_events_with_it() -> None:
    h = _three()
    h.kill(h.partition().leader)
    everything = h.controller.history
    events, last = everything.after(0, topic="t", partition=1)
    assert {e.partition for e in events} <= {-1, 1}
    assert BROKER_FENCED in {e.kind for e in events}
    assert last == everything.next_sequence - 1
    assert everything.after(last) == ((), last)
    first, at = everything.after(0, limit=2)
    assert [e.sequence for e in first] == [1, 2]
    assert everything.after(at, limit=1)[0][0].sequence == 3


def test_the_newest_are_kept_and_a_late_reader_is_told_what_is_gone() -> None:
    history = History(limit=3)
    for index in range(5):
        records = [r.BrokerFencedRecord(index, 1, "hung")]
        history.append(MetadataImage(), records, index)
    assert [e.sequence for e in history.events] == [3, 4, 5]
    assert history.first_sequence == 3
    assert [e.broker for e in history.after(0)[0]] == [2, 3, 4]
    assert [e.broker for e in history.after(4)[0]] == [4]


def test_who_asks_for_what_is_later_than_any_number_can_be_gets_nothing() -> None:
    """Found by `python -m tests.fuzz --target controller --seed 249 --lives 1 --frames 23-38`."""
    history = History((), 1)
    newest = 2**63 - 1
    assert history.after(newest) == ((), newest)
    history = _three().controller.history
    assert history.after(newest) == ((), newest)
    assert history.after(-(2**63), limit=1)[0] == history.events[:1]


def test_a_snapshot_carries_the_history_on() -> None:
    h = _three()
    h.kill(2)
    data = encode_snapshot(h.image, h.controller.history)
    image, history = decode_snapshot_and_history(data)
    assert image == h.image
    assert history.events == tuple(_all(h))
    assert history.next_sequence == h.controller.history.next_sequence
    # Brokers get the image alone, and an older snapshot had nothing else.
    image, history = decode_snapshot_and_history(encode_snapshot(h.image))
    assert (image, history.events, history.next_sequence) == (h.image, (), 1)


def test_events_travel() -> None:
    h = _three()
    response = m.EventsResponse(events=h.controller.history.events, last=7, first=1)
    assert m.EventsResponse.from_wire(response.to_wire()) == response
