"""Fetch sessions: what is sent, what is left out, what is forgotten (KIP-227)."""

from __future__ import annotations

import uuid

import pytest

from pegel.consumer import session as module
from pegel.consumer.session import FetchSession, Wanted
from pegel.types import TopicPartition

A, B = TopicPartition("a", 0), TopicPartition("b", 3)
ID = uuid.UUID(int=1)
_OTHER = uuid.UUID(int=2)


def _want(offset: int, topic_id: uuid.UUID = ID) -> Wanted:
    return Wanted(topic_id, offset, 0, 1000)


def test_the_first_request_names_all_and_later_ones_what_changed() -> None:
    session = FetchSession()
    topics, forgotten = session.plan({A: _want(0), B: _want(5)})
    assert (session.session_id, session.epoch) == (0, 0)
    assert [t.topic for t in topics] == ["a", "b"]
    assert forgotten == []
    session.accept(77)
    assert (session.session_id, session.epoch) == (77, 1)
    topics, forgotten = session.plan({A: _want(0), B: _want(6)})
    assert [(t.topic, t.partitions[0].fetch_offset) for t in topics] == [("b", 6)]
    session.accept(77)
    assert session.epoch == 2
    topics, forgotten = session.plan({A: _want(0)})
    assert topics == []
    assert [(t.topic, t.partitions) for t in forgotten] == [("b", [3])]


def test_a_topic_created_again_is_forgotten_under_its_old_id() -> None:
    session = FetchSession()
    session.plan({A: _want(9)})
    session.accept(1)
    new = uuid.UUID(int=2)
    topics, forgotten = session.plan({A: _want(0, new)})
    assert [t.topic_id for t in topics] == [new]
    assert [t.topic_id for t in forgotten] == [ID]
    session.accept(1)
    assert session.plan({A: _want(0, new)}) == ([], [])


def test_without_a_session_all_is_sent_each_time_and_a_lost_one_begins_anew() -> None:
    session = FetchSession()
    session.plan({A: _want(0)})
    session.accept(0)
    assert session.epoch == 0
    assert len(session.plan({A: _want(0)})[0]) == 1
    session.accept(5)
    session.reset(keep_id=True)
    assert (session.session_id, session.epoch) == (5, 0)
    assert len(session.plan({A: _want(0)})[0]) == 1
    session.reset(keep_id=False)
    assert session.session_id == 0


def test_epochs_of_a_session_wrap_to_one() -> None:
    session = FetchSession()
    session.plan({A: _want(0)})
    session.accept(5)
    session.epoch = 0x7FFFFFFF
    session.accept(5)
    assert session.epoch == 1


def test_more_than_one_request_can_name_takes_several_and_nobody_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(module, "_FORGOTTEN_AT_ONCE", 2)
    every = [TopicPartition("t", n) for n in range(8)]
    session = FetchSession()
    held: dict[int, tuple[uuid.UUID, int]] = {}  # as the broker's: it forgets first

    def ask(wanted: dict[TopicPartition, Wanted]) -> int:
        if session.epoch == 0:
            held.clear()
        topics, forgotten = session.plan(wanted)
        for gone in forgotten:
            for number in gone.partitions:
                assert held.pop(number)[0] == gone.topic_id
        for topic in topics:
            for p in topic.partitions:
                assert held.get(p.partition, (topic.topic_id,))[0] == topic.topic_id
                held[p.partition] = topic.topic_id, p.fetch_offset
        session.accept(7)
        named = sum(len(t.partitions) for t in topics)
        assert named <= 3
        assert sum(len(t.partitions) for t in forgotten) <= 2
        current = {tp for tp, w in wanted.items() if held.get(tp.partition) == w[:2]}
        assert set(wanted) - current == set(session.behind)
        return named

    wanted = dict.fromkeys(every, _want(0))
    assert [ask(wanted) for _ in range(4)] == [3, 3, 2, 0]
    for round_ in range(1, 4):  # all of them move on with each request
        wanted = dict.fromkeys(every, _want(round_))
        ask(wanted)
    assert min(offset for _, offset in held.values()) > 0
    wanted = dict.fromkeys(every[:3], _want(0, _OTHER))  # created again, with less partitions
    for _ in range(5):
        ask(wanted)
    assert held == dict.fromkeys(range(3), (_OTHER, 0))


def test_without_a_session_very_many_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    session = FetchSession()
    wanted = {TopicPartition("t", n): _want(0) for n in range(5)}
    asked = []
    for _ in range(5):
        topics, _ = session.plan(wanted)
        asked += [p.partition for t in topics for p in t.partitions]
        session.accept(0)
    assert asked == [0, 1, 2, 3, 4] * 3
