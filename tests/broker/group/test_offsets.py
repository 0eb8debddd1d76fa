"""Committed offsets: who may commit, what is kept, when it ends."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from pegel.protocol.errors import ErrorCode
from tests.broker.group.harness import GROUP, NO_DELAY, Call, Coordinator

DAY_S = 24 * 60 * 60.0
WEEK = replace(NO_DELAY, offsets_retention_ms=7 * 86_400_000)


def ok(call: Call) -> bool:
    return bool(call.answer == (ErrorCode.NONE,))


def test_a_simple_commit_needs_no_members() -> None:
    c = Coordinator()
    assert ok(c.commit_offset(42, metadata="mine"))
    assert c.committed() == 42
    assert c.shard.offset(GROUP, "topic", 0).metadata == "mine"  # type: ignore[union-attr]
    assert c.committed(partition=1) == -1
    assert c.state == "Empty"


def test_a_commit_is_answered_and_seen_once_it_is_committed() -> None:
    c = Coordinator()
    c.hold = True
    call = c.commit_offset(42)
    assert (call.answer, c.committed()) == (None, -1)
    c.commit()
    assert (ok(call), c.committed()) == (True, 42)


def test_a_commit_that_failed_is_not_seen() -> None:
    c = Coordinator()
    c.hold = True
    call = c.commit_offset(42)
    c.refuse()
    assert call.answer == (ErrorCode.COORDINATOR_NOT_AVAILABLE,)
    assert c.committed() == -1


@pytest.mark.parametrize("error", [ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE])
def test_a_commit_that_no_batch_can_hold_says_so(error: ErrorCode) -> None:
    c = Coordinator()
    c.hold = True
    call = c.commit_offset(42)
    c.refuse(error)
    assert call.answer == (ErrorCode.INVALID_COMMIT_OFFSET_SIZE,)


def test_offsets_survive_their_coordinator() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    for offset in (1, 2, 3):
        assert ok(c.commit_offset(offset, member_id=one.member_id, generation=1))
    c = c.fail_over().fail_over()
    assert c.committed() == 3
    assert ok(c.commit_offset(4, member_id=one.member_id, generation=1))


@pytest.mark.parametrize(
    ("who", "error"),
    [
        ({}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id": "other", "generation": 1}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"generation": 1}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"instance": "i", "generation": 1}, ErrorCode.UNKNOWN_MEMBER_ID),
    ],
)
def test_strangers_cannot_commit_while_there_are_members(
    who: dict[str, Any], error: ErrorCode
) -> None:
    c = Coordinator()
    c.stable(1)
    assert c.commit_offset(1, **who).answer == (error,)
    assert c.committed() == -1


def test_a_member_of_an_older_generation_cannot_commit() -> None:
    c = Coordinator()
    one, two = c.stable(2)
    c.leave(two.member_id)
    assert ok(c.commit_offset(5, member_id=one.member_id, generation=2))  # before it rejoins
    c.rejoin([one])
    current = c.commit_offset(6, member_id=one.member_id, generation=3)
    assert current.answer == (ErrorCode.REBALANCE_IN_PROGRESS,)
    old = c.commit_offset(6, member_id=one.member_id, generation=2)
    assert old.answer == (ErrorCode.ILLEGAL_GENERATION,)
    assert c.committed() == 5


def test_a_fenced_static_member_cannot_commit() -> None:
    c = Coordinator()
    (first,) = c.settle([c.join(instance="i")])
    c.join(instance="i")
    call = c.commit_offset(1, member_id=first.member_id, generation=1, instance="i")
    assert call.answer == (ErrorCode.FENCED_INSTANCE_ID,)


def test_a_commit_to_a_group_that_is_gone() -> None:
    c = Coordinator()
    for version, error in ((8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)):
        assert c.commit_offset(1, generation=3, member_id="m", version=version).answer == (error,)
    assert c.commit_offset(1, group="").answer == (ErrorCode.INVALID_GROUP_ID,)


def test_a_commit_is_a_sign_of_life() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    for offset in range(5):
        c.advance(9)
        assert ok(c.commit_offset(offset, member_id=one.member_id, generation=1))
    assert c.heartbeat(one.member_id, 1) == ErrorCode.NONE


def test_metadata_has_a_largest_size() -> None:
    c = Coordinator()
    assert ok(c.commit_offset(1, metadata="x" * 4096))
    call = c.commit_offset(2, metadata="x" * 4097)
    assert call.answer == (ErrorCode.OFFSET_METADATA_TOO_LARGE,)
    assert c.committed() == 1


# -- expiry


def test_offsets_of_a_group_without_members_expire() -> None:
    c = Coordinator(WEEK)
    c.commit_offset(1)
    c.advance(6.9 * DAY_S)
    c.commit_offset(2, partition=1)
    c.advance(0.2 * DAY_S)
    assert (c.committed(0), c.committed(1)) == (-1, 2)
    c.advance(7 * DAY_S)
    assert GROUP not in c.shard.groups
    assert c.fail_over().shard.groups == {}
    assert c.counters.expired_offsets == 2


def test_time_counts_from_the_last_members_end() -> None:
    c = Coordinator(WEEK)
    (one,) = c.stable(1, session_ms=1_000_000)
    c.commit_offset(1, member_id=one.member_id, generation=1)
    for _ in range(1_000):
        c.advance(900)
        c.heartbeat(one.member_id, 1)
    c.leave(one.member_id)
    c.advance(6.9 * DAY_S)
    assert c.committed() == 1
    c.advance(0.2 * DAY_S)
    assert c.committed() == -1


def test_offsets_of_subscribed_topics_stay_others_expire() -> None:
    c = Coordinator(replace(WEEK, offsets_retention_ms=60_000))
    (one,) = c.stable(1, session_ms=1_800_000)
    for topic in ("topic", "left behind"):
        c.commit_offset(1, topic=topic, member_id=one.member_id, generation=1)
    c.advance(1_500)
    assert c.state == "Stable"
    assert (c.committed(), c.committed(topic="left behind")) == (1, -1)


def test_an_offset_may_carry_its_own_time() -> None:
    c = Coordinator(WEEK)
    c.commit_offset(1, expires_in_ms=60_000)
    c = c.fail_over()
    assert c.committed() == 1
    c.advance(601)
    assert c.committed() == -1


def test_a_coordinator_of_nothing_has_no_timer() -> None:
    c = Coordinator()
    assert c.shard.next_deadline() is None
    c.commit_offset(1)
    assert c.shard.next_deadline() is not None
    c.advance(8 * DAY_S)
    assert c.shard.next_deadline() is None


# -- deletion


def delete_group(c: Coordinator, group: str = GROUP) -> Any:
    call = Call()
    c.perform(c.shard.delete_group(group, call))
    return call.answer


def test_only_a_group_without_members_is_deleted() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    c.commit_offset(1, member_id=one.member_id, generation=1)
    assert delete_group(c) == (ErrorCode.NON_EMPTY_GROUP,)
    c.leave(one.member_id)
    assert delete_group(c) == (ErrorCode.NONE,)
    assert delete_group(c) == (ErrorCode.GROUP_ID_NOT_FOUND,)
    assert delete_group(c, "") == (ErrorCode.INVALID_GROUP_ID,)
    assert c.fail_over().shard.groups == {}
    assert sum(c.counters.groups_by_state.values()) == 0


def test_a_group_of_many_offsets_is_deleted_in_several_batches() -> None:
    c = Coordinator()
    for partition in range(2_500):
        c.commit_offset(1, partition=partition)
    c.hold = True
    call = Call()
    c.perform(c.shard.delete_group(GROUP, call))
    assert [len(write.records) for write in c.held] == [1_000, 1_000, 501]
    c.commit()
    assert call.answer == (ErrorCode.NONE,)
    assert c.shard.groups == {}


def test_a_member_that_joins_while_its_group_is_being_deleted_stays() -> None:
    c = Coordinator()
    c.commit_offset(1)
    c.hold = True
    call = Call()
    c.perform(c.shard.delete_group(GROUP, call))
    joined = c.join()
    c.commit()
    c.hold = False
    c.settle([joined])
    assert c.committed() == -1


def delete_offsets(c: Coordinator, *wanted: tuple[str, int]) -> Any:
    call = Call()
    c.perform(c.shard.delete_offsets(GROUP, wanted, call))
    return call.answer


def test_single_offsets_are_deleted_where_nobody_subscribes() -> None:
    c = Coordinator()
    assert delete_offsets(c, ("topic", 0)) == ErrorCode.GROUP_ID_NOT_FOUND
    (one,) = c.stable(1)
    for topic in ("topic", "other"):
        c.commit_offset(1, topic=topic, member_id=one.member_id, generation=1)
    assert delete_offsets(c, ("topic", 0), ("other", 0), ("other", 5)) == (
        ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.NONE, ErrorCode.NONE,
    )  # fmt: skip
    assert (c.committed(), c.committed(topic="other")) == (1, -1)
    c.leave(one.member_id)
    assert delete_offsets(c, ("topic", 0)) == (ErrorCode.NONE,)
    assert c.committed() == -1


def test_offsets_of_other_kinds_of_groups_are_not_deleted_while_they_run() -> None:
    c = Coordinator()
    c.settle([c.join(protocol_type="connect", protocols={"default": b"?"})])
    assert delete_offsets(c, ("topic", 0)) == ErrorCode.NON_EMPTY_GROUP


def test_offsets_of_deleted_topics_go() -> None:
    c = Coordinator()
    for topic in ("kept", "gone"):
        c.commit_offset(1, topic=topic, partition=3)
    kept = uuid.UUID(int=1)
    c.perform(c.shard.forget_offsets(lambda topic: kept if topic == "kept" else None))
    assert (c.committed(3, "kept"), c.committed(3, "gone")) == (1, -1)
    assert c.fail_over().committed(3, "gone") == -1
