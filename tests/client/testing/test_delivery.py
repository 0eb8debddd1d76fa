"""The delivery oracle on histories that are known to be good or bad."""

from __future__ import annotations

import pytest

from pegel.testing.delivery import History, Sent, judge

PLACE = ("t", 0)


def _history(*values: bytes, acknowledged: bool = True) -> History:
    """Each value sent once, acknowledged where it stands, read by one consumer, and still there."""
    history = History()
    for offset, value in enumerate(values):
        history.send(
            Sent(value, "p", PLACE, offset, acknowledged=acknowledged,
                 offset=offset if acknowledged else None)
        )  # fmt: skip
    history.reads["c", PLACE].append(list(enumerate(values)))
    history.final[PLACE] = list(enumerate(values))
    return history


def _kinds(history: History) -> set[str]:
    return set(judge(history).findings)


def test_a_good_history_has_no_findings() -> None:
    verdict = judge(_history(b"a", b"b", b"c"))
    assert verdict.lines == []
    assert (verdict.sent, verdict.acknowledged, verdict.read) == (3, 3, 3)


def test_a_log_that_nobody_can_read_is_left_out_and_no_other() -> None:
    history = _history(b"a", b"b")
    other = ("t", 1)
    history.send(Sent(b"x", "p", other, 0, acknowledged=True, offset=0))
    history.send(Sent(b"y", "p", other, 1, acknowledged=True))
    history.reads["c", other].append([(0, b"x")])
    assert _kinds(history) == {"lost", "read and gone"}
    history.leave_out([other])
    assert _kinds(history) == set()
    history.final[PLACE].pop()
    assert _kinds(history) == {"lost", "read and gone"}


def test_what_was_not_acknowledged_may_be_there_or_not() -> None:
    history = _history(b"a", b"b", acknowledged=False)
    history.reads.clear()
    history.final[PLACE].pop()
    assert _kinds(history) == set()


def test_an_acknowledged_record_that_is_gone_is_lost() -> None:
    history = _history(b"a", b"b")
    history.reads.clear()
    history.final[PLACE].pop()
    assert _kinds(history) == {"lost"}


def test_an_acknowledged_record_whose_place_holds_another_is_lost() -> None:
    history = _history(b"a", b"b")
    history.reads.clear()
    history.send(Sent(b"x", "q", PLACE, 0))
    history.final[PLACE][1] = (1, b"x")
    assert _kinds(history) == {"lost"}


def test_an_acknowledged_record_at_another_offset_has_moved() -> None:
    history = _history(b"a", b"b")
    history.reads.clear()
    history.send(Sent(b"x", "q", PLACE, 0))
    history.final[PLACE] = [(0, b"a"), (1, b"x"), (2, b"b")]
    assert _kinds(history) == {"moved"}


def test_acknowledged_without_an_offset_and_nowhere_is_lost() -> None:
    history = _history(b"a")
    history.send(Sent(b"d", "p", PLACE, 1, acknowledged=True, offset=-1))
    assert _kinds(history) == {"lost"}


def test_a_value_that_is_there_twice_is_doubled() -> None:
    history = _history(b"a", b"b")
    history.final[PLACE].append((2, b"a"))
    assert "doubled" in _kinds(history)


def test_a_later_value_before_an_earlier_one_is_reordered() -> None:
    history = _history(b"a", b"b", acknowledged=False)
    history.reads.clear()
    history.final[PLACE] = [(0, b"b"), (1, b"a")]
    assert _kinds(history) == {"reordered"}


def test_a_value_that_nobody_sent_is_a_phantom() -> None:
    history = _history(b"a")
    history.final[PLACE].append((1, b"?"))
    assert _kinds(history) == {"phantom"}
    history = _history(b"a")
    history.reads["c", PLACE][0].append((1, b"?"))
    assert "phantom" in _kinds(history)


def test_a_value_in_another_partition_than_it_was_sent_to_is_a_phantom() -> None:
    history = _history(b"a")
    history.final["t", 1] = [(0, b"a")]
    assert _kinds(history) == {"phantom"}


def test_an_offset_with_two_values() -> None:
    history = _history(b"a", b"b")
    history.reads["d", PLACE].append([(0, b"b")])
    assert "two values" in _kinds(history)


def test_what_was_read_and_is_gone() -> None:
    history = _history(b"a", b"b", acknowledged=False)
    history.final[PLACE].pop()
    assert _kinds(history) == {"read and gone"}


def test_offsets_that_are_left_out_or_come_again() -> None:
    history = _history(b"a", b"b", b"c")
    history.reads["c", PLACE][0].pop(1)
    assert _kinds(history) == {"skipped"}
    history = _history(b"a", b"b", b"c")
    history.reads["c", PLACE][0].append((0, b"a"))
    assert _kinds(history) == {"went back"}
    history = _history(b"a", b"b", b"c")
    del history.final[PLACE][1]
    assert "hole" in _kinds(history)


def test_a_new_consumer_may_begin_anew() -> None:
    history = _history(b"a", b"b")
    history.reads["c", PLACE].append([(0, b"a")])
    assert _kinds(history) == set()


def test_acks_1_may_lose_but_not_what_was_read() -> None:
    history = History()
    history.send(Sent(b"a", "p", PLACE, 0, durable=False, once=False, acknowledged=True, offset=0))
    history.final[PLACE] = []
    assert _kinds(history) == set()
    history.reads["c", PLACE].append([(0, b"a")])
    assert _kinds(history) == {"read and gone"}


def test_nothing_is_asked_of_a_deleted_topic_nor_of_what_retention_took() -> None:
    history = _history(b"a", b"b")
    history.final[PLACE] = [(1, b"b")]
    history.log_starts[PLACE] = 1
    assert _kinds(history) == set()
    history = _history(b"a", b"b")
    history.final[PLACE] = []
    history.given_up.add("t")
    assert _kinds(history) == set()


def test_a_group_leaves_nothing_out_and_keeps_its_commits() -> None:
    history = _history(b"a", b"b", b"c")
    history.group_reads[PLACE] = {0, 1}
    history.group_commits[PLACE] = history.group_final[PLACE] = 2
    assert _kinds(history) == set()
    history.group_reads[PLACE].discard(0)
    assert _kinds(history) == {"left out"}
    history.group_reads[PLACE] = {0, 1, 2}
    history.group_commits[PLACE] = 3
    assert _kinds(history) == {"commit undone"}


def test_values_are_unique() -> None:
    history = _history(b"a")
    with pytest.raises(AssertionError, match="unique"):
        history.send(Sent(b"a", "p", PLACE, 7))
