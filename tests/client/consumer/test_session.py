"""Fetch sessions: what is sent, what is left out, what is forgotten (KIP-227)."""

from __future__ import annotations

import uuid

from pegel.consumer.session import FetchSession, Wanted
from pegel.types import TopicPartition

A, B = TopicPartition("a", 0), TopicPartition("b", 3)
ID = uuid.UUID(int=1)


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
