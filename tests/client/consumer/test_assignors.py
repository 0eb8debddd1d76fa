"""Who gets which partition: what holds of every assignor, and Kafka's own bytes and order."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegel.consumer.assignors import (
    ASSIGNORS,
    Assignment,
    assign_cooperative_sticky,
    assign_range,
    assign_round_robin,
    assign_sticky,
)
from pegel.consumer.group_protocol import (
    GroupProtocolError,
    MemberSubscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_sticky_data,
    encode_subscription,
)
from pegel.types import TopicPartition

TOPICS = ("a", "b", "c")
Members = dict[str, MemberSubscription]


def _parts(*wanted: tuple[str, int]) -> tuple[TopicPartition, ...]:
    return tuple(TopicPartition(t, p) for t, p in wanted)


def _member(*topics: str, owned: tuple[TopicPartition, ...] = (), generation: int = 1,
            instance_id: str | None = None) -> MemberSubscription:  # fmt: skip
    return MemberSubscription(topics, owned, generation, None, None, instance_id)


counts_strategy = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 7))
topic_sets = st.sets(st.sampled_from(TOPICS), min_size=1).map(lambda s: tuple(sorted(s)))
all_parts = st.sampled_from([TopicPartition(t, p) for t in TOPICS for p in range(8)])


@st.composite
def groups(draw: st.DrawFn) -> tuple[dict[str, int], Members]:
    """Any counts, subscriptions and claims, contradictory ones among them."""
    members: Members = {}
    for i in range(draw(st.integers(1, 6))):
        owned = tuple(sorted(draw(st.sets(all_parts, max_size=6))))
        members[f"m{i}"] = MemberSubscription(
            draw(topic_sets), owned, draw(st.integers(0, 2)), None, None,
            draw(st.sampled_from([None, f"static-{i}"])),
        )  # fmt: skip
    return draw(counts_strategy), members


def _check_complete(counts: dict[str, int], members: Members, result: Assignment) -> None:
    given_out = [tp for partitions in result.values() for tp in partitions]
    assert len(given_out) == len(set(given_out))
    wanted = {t for m in members.values() for t in m.topics}
    assert set(given_out) == {
        TopicPartition(t, p) for t in counts if t in wanted for p in range(counts[t])
    }
    for member, partitions in result.items():
        assert all(tp.topic in members[member].topics for tp in partitions)
    assert set(result) == set(members)


@given(groups())
@pytest.mark.parametrize("name", ["range", "roundrobin", "sticky"])
def test_every_partition_goes_to_one_member_that_wants_it(
    name: str, group: tuple[dict[str, int], Members]
) -> None:
    counts, members = group
    _check_complete(counts, members, ASSIGNORS[name].assign(counts, members))


@given(groups())
def test_sticky_cannot_be_evened_out_by_one_move(group: tuple[dict[str, int], Members]) -> None:
    counts, members = group
    result = assign_sticky(counts, members)
    for giver, partitions in result.items():
        for tp in partitions:
            for taker in members:
                if tp.topic in members[taker].topics:
                    assert len(partitions) <= len(result[taker]) + 1, (giver, taker, tp)


@given(groups())
@settings(max_examples=60)
def test_cooperative_rounds_settle_and_never_give_a_partition_to_two(
    group: tuple[dict[str, int], Members],
) -> None:
    """Each round takes away or gives, never both for one partition; a few rounds settle it."""
    counts, members = group
    owner: dict[TopicPartition, str] = {}
    for name, member in members.items():  # a legal start: nobody owns what another does
        for tp in member.owned:
            if tp.topic in member.topics and tp.partition < counts.get(tp.topic, 0):
                owner.setdefault(tp, name)
    for generation in range(2, 8):
        current = {
            name: MemberSubscription(
                member.topics,
                tuple(sorted(tp for tp, who in owner.items() if who == name)),
                generation,
                None, None, member.instance_id,
            )
            for name, member in members.items()
        }  # fmt: skip
        result = assign_cooperative_sticky(counts, current)
        for name, partitions in result.items():
            for tp in partitions:
                assert owner.get(tp, name) == name, f"{tp} given on before it was given back"
        before = dict(owner)
        owner = {tp: name for name, partitions in result.items() for tp in partitions}
        if owner == before:
            break
    else:
        pytest.fail("it does not settle")
    final: Assignment = {name: [] for name in members}
    for tp, name in owner.items():
        final[name].append(tp)
    _check_complete(counts, members, final)


def test_range_as_kafka_does_it() -> None:
    members = {"m2": _member("a", "b"), "m1": _member("a", "b")}
    assert assign_range({"a": 3, "b": 3}, members) == {
        "m1": list(_parts(("a", 0), ("a", 1), ("b", 0), ("b", 1))),
        "m2": list(_parts(("a", 2), ("b", 2))),
    }


def test_round_robin_as_kafka_does_it() -> None:
    members = {"m1": _member("a"), "m2": _member("a", "b"), "m3": _member("a", "b", "c")}
    assert assign_round_robin({"a": 1, "b": 2, "c": 3}, members) == {
        "m1": list(_parts(("a", 0))),
        "m2": list(_parts(("b", 0))),
        "m3": list(_parts(("b", 1), ("c", 0), ("c", 1), ("c", 2))),
    }


def test_static_members_keep_their_place_whatever_their_member_id() -> None:
    before = {"z": _member("a", instance_id="one"), "b": _member("a", instance_id="two")}
    after = {"b": _member("a", instance_id="two"), "a-new": _member("a", instance_id="one")}
    for assign in (assign_range, assign_round_robin):
        assert assign({"a": 4}, before)["z"] == assign({"a": 4}, after)["a-new"]


def test_sticky_keeps_what_it_can_when_one_joins_and_when_one_leaves() -> None:
    counts = {"a": 12}
    first = assign_sticky(counts, {m: _member("a") for m in "wxyz"})
    stayed = {m: _member("a", owned=tuple(first[m])) for m in "wxy"}
    without = assign_sticky(counts, stayed)
    assert all(set(first[m]) <= set(without[m]) for m in "wxy")
    owned = {m: _member("a", owned=tuple(without[m])) for m in "wxy"}
    again = assign_sticky(counts, {**owned, "v": _member("a")})
    assert all(set(again[m]) <= set(without[m]) for m in "wxy")
    assert [len(p) for p in again.values()] == [3, 3, 3, 3]


def test_the_later_generation_owns_what_two_claim() -> None:
    a0 = _parts(("a", 0), ("a", 1))
    members = {
        "back": _member("a", owned=a0, generation=3),
        "here": _member("a", owned=a0[:1], generation=4),
    }
    result = assign_cooperative_sticky({"a": 2}, members)
    assert result == {"back": [a0[1]], "here": [a0[0]]}


def test_200_members_over_200_partitions_get_one_each() -> None:
    result = assign_cooperative_sticky({"a": 200}, {f"m{i:03}": _member("a") for i in range(200)})
    assert sorted(len(p) for p in result.values()) == [1] * 200


def test_claims_of_the_eager_sticky_assignor_stand_in_its_user_data() -> None:
    old = _parts(("a", 2), ("a", 3))
    members = {
        "m1": MemberSubscription(("a",)),
        "m2": MemberSubscription(("a",), user_data=encode_sticky_data(old, 7)),
    }
    assert assign_sticky({"a": 4}, members)["m2"] == list(old)


def test_bytes_are_kafkas() -> None:
    """Against kafka-python's schemas, which know the older versions."""
    from kafka.protocol.consumer.metadata import (  # type: ignore[import-untyped]
        ConsumerProtocolAssignment,
        ConsumerProtocolSubscription,
    )

    owned = _parts(("a", 0), ("b", 4))
    data = encode_subscription(MemberSubscription(("b", "a"), owned, 5, b"data", "rack-1"))
    theirs = ConsumerProtocolSubscription.decode(data)
    assert list(theirs.topics) == ["a", "b"]
    assert bytes(theirs.user_data) == b"data"
    ours = decode_subscription(data, "static")
    assert ours == MemberSubscription(("a", "b"), owned, 5, b"data", "rack-1", "static")
    assignment = encode_assignment(owned)
    theirs = ConsumerProtocolAssignment.decode(assignment)
    assert [(p.topic, list(p.partitions)) for p in theirs.assigned_partitions] == [
        ("a", [0]), ("b", [4]),
    ]  # fmt: skip
    assert decode_assignment(assignment) == owned
    assert decode_assignment(b"") == ()


def test_subscriptions_of_old_clients_are_read() -> None:
    version_0 = struct.pack(">hih", 0, 1, 1) + b"a" + struct.pack(">i", -1)
    assert decode_subscription(version_0) == MemberSubscription(("a",))
    bare = struct.pack(">hih", 0, 1, 1) + b"a"  # without user data, as some old clients send
    assert decode_subscription(bare) == MemberSubscription(("a",))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_subscription_or_a_clear_error(data: bytes) -> None:
    for decode in (decode_subscription, decode_assignment):
        with contextlib.suppress(GroupProtocolError):
            decode(data)
