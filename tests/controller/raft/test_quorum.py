import pytest

from pegel_controller.raft.quorum import VoteResult, quorum_index, quorum_size, quorum_time, tally


@pytest.mark.parametrize(("voters", "size"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_quorums_overlap(voters: int, size: int) -> None:
    assert quorum_size(voters) == size
    assert 2 * size > voters


def test_quorum_index_ignores_nodes_that_do_not_vote() -> None:
    assert quorum_index((1, 2, 3), {1: 9, 2: 5, 3: 2, 4: 100}) == 5
    assert quorum_index((1, 2, 3, 4), {1: 9, 2: 5, 3: 2}) == 2


def test_quorum_time_is_minus_infinity_until_a_quorum_was_heard() -> None:
    assert quorum_time((1, 2, 3), {1: 4.0}) == float("-inf")
    assert quorum_time((1, 2, 3), {1: 4.0, 3: 2.0}) == 2.0


def test_tally() -> None:
    assert tally((1, 2, 3), {1: True, 9: True}) is VoteResult.PENDING
    assert tally((1, 2, 3), {1: True, 3: True}) is VoteResult.WON
    assert tally((1, 2, 3), {1: True, 2: False, 3: False}) is VoteResult.LOST
    assert tally((1, 2), {1: True, 2: False}) is VoteResult.LOST
