"""The classic protocol, scenario by scenario."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from pegel_broker.group.member import Caller
from pegel_broker.group.options import (
    MAX_MEMBER_METADATA_BYTES,
    NEW_MEMBER_JOIN_TIMEOUT,
    GroupOptions,
)
from pegel_broker.group.records import STRING_MAX_BYTES, is_too_long
from pegel_broker.group.requests import new_member_id
from tests.broker.group.harness import GROUP, NO_DELAY, Call, Coordinator, subscription


def test_a_lone_member_leads_and_gets_its_share() -> None:
    c = Coordinator()
    (joined,) = c.stable(1)
    assert (joined.generation_id, joined.protocol_name) == (1, "range")
    assert joined.leader == joined.member_id
    assert joined.member_id.startswith("client-")
    assert c.heartbeat(joined.member_id, 1) == ErrorCode.NONE


def test_a_member_id_is_required_first_and_is_forgotten_when_unused() -> None:
    c = Coordinator()
    call = c.ask_join()
    assert call.answer.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert call.answer.member_id
    c.advance(10.001)
    assert GROUP not in c.shard.groups
    again = c.ask_join(call.answer.member_id)
    assert again.answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_clients_of_before_version_4_join_at_once() -> None:
    c = Coordinator()
    assert c.ask_join(version=3).answer.error_code == 0
    assert c.ask_join("gone", version=3).answer.protocol_name == ""
    assert c.ask_join("gone", version=7).answer.protocol_name is None


def test_only_the_leader_hears_of_all_members() -> None:
    c = Coordinator()
    joined = c.stable(3)
    leader, *others = sorted(joined, key=lambda j: j.member_id != j.leader)
    assert {m.member_id for m in leader.members} == {j.member_id for j in joined}
    assert [m.metadata for m in leader.members] == [subscription("topic")] * 3
    assert all(j.members == [] for j in others)


def test_an_empty_group_waits_for_more_members() -> None:
    c = Coordinator(GroupOptions(initial_rebalance_delay=3.0))
    first = c.join()
    c.advance(2.9)
    second = c.join()
    assert first.answer is None
    c.advance(3.0)
    assert first.answer is None  # the second put it off
    c.advance(3.0)
    assert first.answer.generation_id == second.answer.generation_id == 1
    assert c.counters.rebalances == 1


def test_the_wait_for_more_members_ends_with_the_rebalance_timeout() -> None:
    c = Coordinator(GroupOptions(initial_rebalance_delay=3.0))
    first = c.join(rebalance_ms=7_000)
    for _ in range(8):
        c.advance(0.99)
        c.join(rebalance_ms=7_000)
    assert first.answer is not None
    assert c.now < 8


def test_members_that_do_not_rejoin_in_time_are_left_behind() -> None:
    c = Coordinator()
    (one,) = c.stable(1, session_ms=60_000)
    waiting = c.join(session_ms=60_000)
    assert c.heartbeat(one.member_id, 1) == ErrorCode.REBALANCE_IN_PROGRESS
    c.advance(30.001)
    assert waiting.answer.generation_id == 2
    assert waiting.answer.leader == waiting.answer.member_id
    assert c.heartbeat(one.member_id, 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert c.counters.evicted == 1


def test_a_silent_member_is_expired_and_the_others_share_anew() -> None:
    c = Coordinator()
    one, two = c.stable(2)
    c.advance(6)
    assert c.heartbeat(one.member_id, 2) == ErrorCode.NONE
    c.advance(4.001)
    assert c.heartbeat(one.member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    assert c.heartbeat(two.member_id, 2) == ErrorCode.UNKNOWN_MEMBER_ID
    (alone,) = c.settle([c.join(one.member_id)])
    assert alone.generation_id == 3
    assert c.counters.heartbeat_expirations == 1


def test_members_that_wait_for_an_answer_need_not_send_heartbeats() -> None:
    c = Coordinator()
    (one,) = c.stable(1, session_ms=60_000)
    late = c.join(session_ms=6_000)
    c.advance(20)
    assert late.answer is None
    again = c.join(one.member_id, session_ms=60_000)
    c.settle([late, again])


def test_a_new_member_is_given_up_when_its_rebalance_never_ends() -> None:
    c = Coordinator()
    (one,) = c.stable(1, session_ms=1_000_000, rebalance_ms=1_000_000)
    late = c.join(session_ms=6_000)
    c.advance(NEW_MEMBER_JOIN_TIMEOUT + 1)
    assert late.answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert c.heartbeat(one.member_id, 1) == ErrorCode.REBALANCE_IN_PROGRESS


def test_whoever_leaves_is_gone_at_once() -> None:
    c = Coordinator()
    one, two = c.stable(2)
    assert c.leave(two.member_id, "nobody") == [ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID]
    assert c.heartbeat(one.member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    c.settle([c.join(one.member_id)])
    assert c.leave(one.member_id) == [ErrorCode.NONE]
    assert c.state == "Empty"


def test_who_got_an_id_and_leaves_before_joining_disturbs_nobody() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    call = c.ask_join()
    assert c.leave(call.answer.member_id) == [ErrorCode.NONE]
    assert c.state == "Stable"
    assert c.heartbeat(one.member_id, 1) == ErrorCode.NONE


def test_a_rebalance_waits_for_those_who_were_given_an_id() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    pending = c.ask_join()
    again = c.join(one.member_id)  # the leader asks for a rebalance
    assert again.answer is None
    newcomer = c.ask_join(pending.answer.member_id)
    c.settle([again, newcomer])


def test_the_leaders_rejoin_rebalances_a_followers_does_not() -> None:
    c = Coordinator()
    joined = c.stable(2)
    leader, other = sorted(joined, key=lambda j: j.member_id != j.leader)
    assert c.join(other.member_id).answer.generation_id == 2
    assert c.state == "Stable"
    assert c.join(leader.member_id).answer is None
    assert c.state == "PreparingRebalance"


def test_a_follower_with_a_changed_subscription_rebalances() -> None:
    c = Coordinator()
    joined = c.stable(2)
    other = next(j for j in joined if j.member_id != j.leader)
    assert c.join(other.member_id, protocols={"range": subscription("more")}).answer is None
    assert c.state == "PreparingRebalance"


def test_the_protocol_is_the_one_that_most_members_prefer() -> None:
    c = Coordinator()
    first = {"range": b"r1", "sticky": b"s1"}
    calls = [c.join(protocols=first)]
    for protocols in ({"sticky": b"s2", "range": b"r2"}, {"sticky": b"s3", "range": b"r3"}):
        joined = [call.answer for call in calls]
        calls = [c.join(protocols=protocols)]
        calls += [
            c.join(j.member_id, protocols=first if i == len(joined) - 1 else protocols)
            for i, j in enumerate(joined)
        ]
    assert {call.answer.protocol_name for call in calls} == {"sticky"}


def test_a_member_without_a_common_protocol_is_refused() -> None:
    c = Coordinator()
    c.stable(1)
    for more in (
        {"protocols": {"other": b""}},
        {"protocols": {}},
        {"protocol_type": "connect"},
        {"protocol_type": ""},
    ):
        refused = c.join(**more)
        assert refused.answer.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert c.state == "Stable"


def test_syncs_wait_for_the_leader_and_for_its_record() -> None:
    c = Coordinator()
    joined = c.stable(2)
    leader, other = (call.answer for call in c.rejoin(joined))
    c.hold = True
    follower_sync = c.sync(other)
    leader_sync = c.sync(leader, {leader.member_id: b"a", other.member_id: b"b"})
    assert (follower_sync.answer, leader_sync.answer, c.state) == (
        None, None, "CompletingRebalance",
    )  # fmt: skip
    c.commit()
    assert (follower_sync.answer.assignment, leader_sync.answer.assignment) == (b"b", b"a")
    assert c.sync(other).answer.assignment == b"b"  # asked again


def test_an_assignment_that_is_not_committed_is_nobodys() -> None:
    c = Coordinator()
    c.hold = True
    call = c.join()
    sync = c.sync(call.answer, {call.answer.member_id: b"mine"})
    c.refuse(ErrorCode.NOT_COORDINATOR)
    assert sync.answer.error_code == ErrorCode.NOT_COORDINATOR
    assert c.state == "PreparingRebalance"
    c.hold = False
    c.settle([c.join(call.answer.member_id)])


def test_a_rebalance_while_the_assignment_is_written_discards_it() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    again = c.join(one.member_id)
    c.hold = True
    sync = c.sync(again.answer, {one.member_id: b"old"})
    newcomer = c.join()
    assert sync.answer.error_code == ErrorCode.REBALANCE_IN_PROGRESS
    c.commit()
    assert c.state == "PreparingRebalance"
    c.hold = False
    c.settle([newcomer, c.join(one.member_id)])


def test_a_member_that_never_syncs_is_left_behind() -> None:
    c = Coordinator()
    joined = c.stable(2, session_ms=60_000)
    leader, other = (call.answer for call in c.rejoin(joined, session_ms=60_000))
    assert c.sync(leader, {leader.member_id: b"a"}).answer.assignment == b"a"
    c.advance(30.001)
    assert c.heartbeat(other.member_id, other.generation_id) == ErrorCode.UNKNOWN_MEMBER_ID
    assert c.state == "PreparingRebalance"


def test_requests_of_another_generation_or_protocol_are_refused() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    assert c.heartbeat(one.member_id, 7) == ErrorCode.ILLEGAL_GENERATION
    assert c.sync(one, generation=0).answer.error_code == ErrorCode.ILLEGAL_GENERATION
    one.protocol_name = "sticky"
    assert c.sync(one).answer.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert c.heartbeat("nobody", 1) == ErrorCode.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize("session_ms", [5_999, 1_800_001, -1])
def test_the_session_timeout_has_bounds(session_ms: int) -> None:
    answer = Coordinator().ask_join(session_ms=session_ms).answer
    assert answer.error_code == ErrorCode.INVALID_SESSION_TIMEOUT


def test_a_group_needs_an_id() -> None:
    assert Coordinator().ask_join(group="").answer.error_code == ErrorCode.INVALID_GROUP_ID


def test_what_no_record_can_hold_is_refused() -> None:
    """The encoder of the record failed, and the connection was closed without a word."""
    longest, longer = "ü" * (STRING_MAX_BYTES // 2), "ü" * (STRING_MAX_BYTES // 2 + 1)
    c = Coordinator()
    assert c.ask_join(group=longer).answer.error_code == ErrorCode.INVALID_GROUP_ID
    assert c.commit_offset(1, group=longer).answer == (ErrorCode.INVALID_GROUP_ID,)
    assert c.commit_offset(1, group=longest).answer == (ErrorCode.NONE,)
    for asked in (
        c.ask_join(instance=longer), c.ask_join(protocol_type=longer),
        c.ask_join(protocols={longer: b""}),
    ):  # fmt: skip
        assert asked.answer.error_code == ErrorCode.INVALID_REQUEST
    for id_of_client in (longest, "x"):
        assert not is_too_long(new_member_id(Random(1), id_of_client))


def test_a_protocol_named_twice_counts_once() -> None:
    c = Coordinator()
    request = JoinGroupRequest(
        group_id=GROUP, session_timeout_ms=10_000, protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=m) for m in (b"1", b"2")],
    )  # fmt: skip
    call = Call()
    c.perform(c.shard.join(c.moment, request, Caller("c", "/h", 3), call))
    assert [m.metadata for m in call.answer.members] == [b"1"]
    assert c.join().answer is None


# -- limits


def test_a_group_has_a_largest_size() -> None:
    c = Coordinator(replace(NO_DELAY, max_size=2))
    one, two = c.stable(2)
    for _ in range(3):
        assert c.join().answer.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert c.heartbeat(one.member_id, 2) == ErrorCode.NONE
    c.leave(two.member_id)
    c.settle([c.join(), c.join(one.member_id)])


def test_ids_given_out_are_bounded_too() -> None:
    c = Coordinator(replace(NO_DELAY, max_size=3))
    errors = [c.ask_join().answer.error_code for _ in range(5)]
    assert errors.count(ErrorCode.MEMBER_ID_REQUIRED) == 3
    assert errors.count(ErrorCode.GROUP_MAX_SIZE_REACHED) == 2


def test_there_is_a_largest_number_of_groups() -> None:
    c = Coordinator(replace(NO_DELAY, max_groups=2))
    for name in ("a", "b"):
        assert c.join(group=name).answer.error_code == 0
    assert c.join(group="c").answer.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    refused = c.commit_offset(1, group="d").answer
    assert refused == (ErrorCode.INVALID_COMMIT_OFFSET_SIZE,)


def test_what_members_say_of_themselves_is_bounded() -> None:
    c = Coordinator()
    big = {"range": bytes(MAX_MEMBER_METADATA_BYTES + 1)}
    assert c.join(protocols=big).answer.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    full = {"range": bytes(MAX_MEMBER_METADATA_BYTES)}
    calls = [c.join(protocols=full) for _ in range(33)]
    refused = [x for x in calls if x.answer is not None and x.answer.error_code]
    assert [x.answer.error_code for x in refused] == [ErrorCode.GROUP_MAX_SIZE_REACHED]


# -- static members


def test_a_static_member_comes_back_without_a_rebalance() -> None:
    c = Coordinator()
    (first,) = c.settle([c.join(instance="i")])
    assert first.member_id.startswith("i-")
    second = c.join(instance="i").answer
    assert second.member_id != first.member_id
    assert (second.generation_id, second.skip_assignment) == (1, True)
    assert second.leader == second.member_id
    assert c.sync(second, instance="i").answer.assignment == f"share of {first.member_id}".encode()
    assert c.heartbeat(first.member_id, 1, "i") == ErrorCode.FENCED_INSTANCE_ID
    assert c.counters.rebalances == 1


def test_an_older_static_leader_is_not_told_to_assign() -> None:
    c = Coordinator()
    (first,) = c.settle([c.join(instance="i", version=8)])
    second = c.join(instance="i", version=8).answer
    assert (second.leader, second.members) == (first.member_id, [])


def test_a_static_members_place_survives_its_coordinator() -> None:
    c = Coordinator()
    (first,) = c.settle([c.join(instance="i")])
    second = c.join(instance="i").answer
    c = c.fail_over()
    assert c.heartbeat(second.member_id, 1, "i") == ErrorCode.NONE
    assert c.heartbeat(first.member_id, 1, "i") == ErrorCode.FENCED_INSTANCE_ID


def test_a_static_member_that_is_silent_is_expired_in_the_end() -> None:
    c = Coordinator()
    c.settle([c.join(instance="i")])
    c.advance(9.9)
    assert c.state == "Stable"
    c.advance(0.2)
    assert c.state == "Empty"


def test_a_static_member_does_not_leave_by_staying_away_from_a_rebalance() -> None:
    c = Coordinator()
    (static,) = c.settle([c.join(instance="i", session_ms=600_000)])
    other = c.join()
    c.advance(30.001)
    assert other.answer.generation_id == 2
    assert {m.member_id for m in other.answer.members} == {
        static.member_id, other.answer.member_id,
    }  # fmt: skip


def test_an_admin_removes_a_static_member_by_its_instance_id() -> None:
    c = Coordinator()
    (first,) = c.settle([c.join(instance="i")])
    assert c.leave(("other", "i")) == [ErrorCode.FENCED_INSTANCE_ID]
    assert c.leave(("", "j")) == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert c.leave(("", "i")) == [ErrorCode.NONE]
    assert c.heartbeat(first.member_id, 1, "i") == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_static_rejoin_that_cannot_be_recorded_ends_in_a_rebalance() -> None:
    c = Coordinator()
    c.settle([c.join(instance="i")])
    c.hold = True
    second = c.join(instance="i")
    assert second.answer is None
    c.refuse()
    assert second.answer.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert c.state == "PreparingRebalance"


def test_of_two_processes_with_one_instance_id_the_later_wins() -> None:
    c = Coordinator()
    first = c.join(instance="i")
    waiting = c.join(instance="i", session_ms=20_000)
    calls = [first, waiting]
    assert calls[0].answer.error_code == 0  # alone in the first generation
    third = c.join(instance="i")
    assert waiting.answer is not None
    assert third.answer is not None
    assert c.heartbeat(waiting.answer.member_id, 1, "i") == ErrorCode.FENCED_INSTANCE_ID


# -- another coordinator


def test_a_new_coordinator_knows_the_stable_generation() -> None:
    c = Coordinator()
    joined = c.stable(3)
    c = c.fail_over()
    for j in joined:
        assert c.heartbeat(j.member_id, 3) == ErrorCode.NONE
        assert c.sync(j).answer.assignment == f"share of {j.member_id}".encode()
    assert c.counters.groups_by_state["Stable"] == 1


def test_who_waits_when_the_coordinator_moves_is_told() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    waiting = c.join()
    c = c.fail_over()
    assert waiting.answer.error_code == ErrorCode.NOT_COORDINATOR
    assert c.heartbeat(one.member_id, 1) == ErrorCode.NONE
    newcomer = c.ask_join(waiting.answer.member_id)
    assert newcomer.answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_members_are_silent_for_a_session_before_a_new_coordinator_expires_them() -> None:
    c = Coordinator()
    (one,) = c.stable(1)
    c.advance(9)
    c = c.fail_over()
    c.advance(9.9)
    assert c.heartbeat(one.member_id, 1) == ErrorCode.NONE
    c.advance(10.1)
    assert c.state == "Empty"
