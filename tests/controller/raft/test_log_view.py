import pytest

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.log_view import Entry, EntryKind, LogView


def entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(first + i, t, EntryKind.COMMAND, b"%d" % t) for i, t in enumerate(terms)]


def log(*terms: int) -> LogView:
    view = LogView()
    view.append(entries(1, *terms))
    return view


def test_a_delayed_shorter_message_truncates_nothing() -> None:
    view = log(1, 1, 2)
    assert view.merge(entries(1, 1)) == (None, ())
    assert view.last_index == 3


def test_merge_truncates_from_the_first_mismatch() -> None:
    view = log(1, 1, 1)
    assert view.merge(entries(2, 1, 3)) == (3, entries(3, 3))
    assert [view.term_at(i) for i in range(1, 5)] == [1, 1, 3, None]


def test_a_committed_entry_is_never_truncated() -> None:
    view = log(1, 1)
    view.commit_to(2)
    view.commit_to(1)
    assert view.commit_index == 2
    with pytest.raises(RaftError, match="committed"):
        view.merge(entries(2, 2))


def test_up_to_date_compares_term_before_length() -> None:
    view = log(1, 2)
    assert view.is_up_to_date(1, 3)
    assert view.is_up_to_date(2, 2)
    assert not view.is_up_to_date(1, 2)
    assert not view.is_up_to_date(9, 1)


def test_conflict_hint_skips_a_whole_term() -> None:
    assert log(1, 2, 2, 2).conflict_hint(4) == (2, 2)
    assert log(1, 2).conflict_hint(9) == (0, 3)


def test_compaction_keeps_the_boundary_term() -> None:
    view = log(1, 2, 3)
    view.commit_to(2)
    view.compact(2)
    assert (view.first_index, view.last_index, view.last_term) == (3, 3, 3)
    assert (view.term_at(1), view.term_at(2), view.term_at(3)) == (None, 2, 3)
    assert view.merge(entries(1, 1, 2, 3)) == (None, ())


def test_slice_is_bounded_but_never_empty() -> None:
    view = log(1, 1, 1)
    assert len(view.slice(1, 3, bytes_max=2)) == 2
    assert len(view.slice(1, 3, bytes_max=0)) == 1
