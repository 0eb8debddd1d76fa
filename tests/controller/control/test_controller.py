"""Scenarios, one per rule, and a randomised model run."""

import time
from dataclasses import replace

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_controller.control.tip import Tip
from pegel_controller.metadata.image import RESOURCE_BROKER, MetadataImage
from pegel_controller.metadata.snapshot import decode_snapshot, encode_snapshot
from pegel_controller.rpc import messages as m
from tests.controller.control.harness import Harness


def three(**configs: str) -> Harness:
    h = Harness()
    h.start(1, 2, 3)
    assert not h.create("t", **configs).error
    return h


def test_killed_leader_is_replaced_by_a_member_of_the_isr() -> None:
    h = three()
    old = h.partition()
    h.kill(old.leader)
    new = h.partition()
    assert new.leader in old.isr
    assert new.leader_epoch == old.leader_epoch + 1
    assert new.reason == "killed"


def test_isr_below_minimum_keeps_the_leavers_eligible() -> None:
    h = three(min_insync_replicas="2")
    first, second, third = h.partition().replicas
    h.kill(first)
    assert h.partition().elr == ()
    h.kill(second)
    assert h.partition().elr == (second,)
    h.kill(third)
    assert h.partition().leader == -1
    assert set(h.partition().elr) == {second, third}
    h.start(second)
    assert h.partition().leader == second
    assert h.partition().elr == (third,)


@pytest.mark.parametrize("of_all_topics", [False, True])
def test_a_lower_minimum_ends_the_eligibility_of_those_that_left(of_all_topics: bool) -> None:
    """From then on the leader alone may commit: who left may lack what is acknowledged."""
    h = Harness()
    h.start(1, 2, 3)
    h.configure("min.insync.replicas", "2")
    assert not h.create("t").error
    assert not h.create("other", min_insync_replicas="2").error
    leader, second, third = h.partition().replicas
    for topic in ("t", "other"):
        first = h.partition(topic).leader
        assert not h.alter((first,), topic)
        assert len(h.partition(topic).elr) == 2
    if of_all_topics:
        h.configure("min.insync.replicas", "1")
    else:
        h.configure("min.insync.replicas", "1", "t")
    assert h.partition().elr == ()
    assert len(h.partition("other").elr) == 2, "its minimum is as it was"
    h.kill(leader)
    assert h.partition().leader == -1, "neither has all that was acknowledged"
    assert {second, third} & set(h.partition().elr) == set()


@pytest.mark.parametrize("of_all_topics", [False, True])
def test_unclean_elections_that_become_allowed_happen_at_once(of_all_topics: bool) -> None:
    """Whoever lives leads the partitions that are offline, and those alone."""
    h = three()
    assert not h.create("safe", unclean_leader_election_enable="false").error
    assert not h.create("led").error
    for topic in ("t", "safe"):
        while h.partition(topic).leader != 1:
            h.elect_away(0, topic)
        assert not h.alter((1,), topic)
    h.kill(1)
    before = h.partition()
    led = h.partition("led")
    assert [before.leader, h.partition("safe").leader] == [-1, -1]
    assert led.leader != -1
    h.configure("unclean.leader.election.enable", "true", "" if of_all_topics else "t")
    new = h.partition()
    assert new.leader == next(b for b in new.replicas if b != 1)
    assert (new.isr, new.elr, new.leader_recovery_state) == ((new.leader,), (), 1)
    assert new.leader_epoch == before.leader_epoch + 1
    assert h.partition("safe").leader == -1, "its own setting forbids it"
    assert h.partition("led") == led
    h.configure("unclean.leader.election.enable", "false", "" if of_all_topics else "t")
    assert h.partition() == new, "what is done stays"


def test_forbidding_unclean_elections_elects_nobody() -> None:
    h = three()
    leader = h.partition().leader
    assert not h.alter((leader,))
    h.kill(leader)
    h.configure("unclean.leader.election.enable", "false", "t")
    h.configure("retention.ms", "1000", "t")
    assert h.partition().leader == -1


def test_lost_page_cache_leaves_isr_and_elr() -> None:
    h = three(min_insync_replicas="2")
    first, second, third = h.partition().replicas
    for broker in (first, second, third):
        h.kill(broker)
    h.start(second, boot="another")
    assert h.partition().leader == -1
    h.start(third)
    assert h.partition().leader == third


def test_last_known_leader_leads_when_every_page_cache_was_lost() -> None:
    h = three()
    for broker in h.partition().replicas:
        h.kill(broker)
    last = h.partition().elr[0]
    h.start(1, 2, 3, boot="another")
    for broker in (1, 2, 3):
        assert h.partition().leader == -1
        h.answer(broker, 9 + (broker == last))
    assert h.partition().leader == last
    assert h.partition().leader_recovery_state == 1


def test_alter_partition_compares_and_sets() -> None:
    h = three()
    leader, other, third = h.partition().replicas
    assert h.alter((leader, other)) == 0
    assert h.partition().isr == (leader, other)
    stale = h.partition().partition_epoch - 1
    assert h.alter((leader,), partition_epoch=stale) == ErrorCode.INVALID_UPDATE_VERSION
    assert h.alter((other,), sender=other) == ErrorCode.INVALID_REQUEST
    h.kill(third)
    assert h.alter((leader, other, third)) == ErrorCode.INELIGIBLE_REPLICA
    h.kill(leader)
    assert h.alter((other,), leader_epoch=0) == ErrorCode.FENCED_LEADER_EPOCH


def test_a_hung_broker_is_fenced_when_its_session_ends() -> None:
    h = three()
    leader = h.partition().leader
    h.now = 1.5
    for broker in (1, 2, 3):
        if broker != leader:
            h.heartbeat(broker)
    h.now = 2.1
    h.commit(h.controller.tick(h.now))
    assert h.image.brokers[leader].fenced
    assert h.heartbeat(leader).fenced is False


def test_no_lease_before_the_broker_knows_whom_its_fence_made_leader() -> None:
    h = three()
    leader = h.partition().leader
    for broker in (1, 2, 3):
        if broker != leader:
            h.now = 1.9
            h.heartbeat(broker)
    h.now = 2.0
    fence = h.controller.tick(h.now)  # proposed; it is committed below
    assert h.controller.tip.image.brokers[leader].fenced
    # The hung broker wakes up: it has applied all that is committed, and not the fence.
    request = m.HeartbeatRequest(leader, h.epochs[leader], h.index)
    early = h.controller.heartbeat(h.now, request)
    assert (early.records, early.response.fenced, early.response.lease_ms) == ((), True, 0)
    h.commit(fence)
    assert h.partition().leader != leader
    behind = h.controller.heartbeat(h.now, request)
    assert (behind.records, behind.response.lease_ms) == ((), 0)
    assert h.heartbeat(leader).lease_ms > 0  # asks at the fence's index


def test_no_lease_for_a_fence_that_was_asked_for_and_is_not_committed() -> None:
    h = three()
    leader = h.partition().leader
    request = m.HeartbeatRequest(leader, h.epochs[leader], h.index)
    asked = h.controller.heartbeat(h.now, replace(request, wants_fence=True))
    assert h.controller.heartbeat(h.now, request).response.lease_ms == 0
    h.commit(asked)
    assert h.controller.heartbeat(h.now, request).response.lease_ms == 0
    assert h.heartbeat(leader).lease_ms > 0


def test_a_wish_to_be_fenced_that_comes_late_is_not_granted() -> None:
    """It hung in a connection that was given up; the broker has another lease by now."""
    h = three()
    leader = h.partition().leader
    wish = m.HeartbeatRequest(leader, h.epochs[leader], h.index, wants_fence=True)
    assert h.heartbeat(leader, wants_fence=True).fenced
    assert h.heartbeat(leader).lease_ms > 0
    assert not h.commit(h.controller.heartbeat(h.now, wish)).response.fenced
    assert not h.image.brokers[leader].fenced
    assert h.heartbeat(leader, wants_fence=True).fenced  # one that is sent now


def test_controlled_shutdown_moves_leaders_first() -> None:
    h = three()
    leader = h.partition().leader
    assert not h.heartbeat(leader, wants_shutdown=True).should_shut_down
    assert h.partition().leader not in (-1, leader)
    assert not h.heartbeat(leader, wants_shutdown=True).should_shut_down
    for broker in (1, 2, 3):
        if broker != leader:
            h.heartbeat(broker)
    assert h.heartbeat(leader, wants_shutdown=True).should_shut_down
    assert h.image.brokers[leader].fenced


def test_live_incarnation_is_not_replaced() -> None:
    h = three()
    assert h.register(1).error == ErrorCode.DUPLICATE_BROKER_REGISTRATION
    h.kill(1)
    assert h.register(1).error == 0


def test_take_over_drops_the_speculative_tip_and_grants_grace() -> None:
    h = three()
    request = m.CreateTopicsRequest((m.CreatableTopic("ghost", 1, 1),))
    h.controller.create_topics(h.now, request)
    h.controller.on_leadership_lost()
    h.controller.on_leadership(10.0, h.image)
    assert "ghost" not in h.controller.tip.image.topics_by_name
    assert not h.controller.tick(11.3).records
    assert h.controller.tick(11.5).records


@pytest.mark.parametrize(
    ("name", "count", "factor", "code"),
    [
        ("a b", 1, 1, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("t", 1, 1, ErrorCode.TOPIC_ALREADY_EXISTS),
        ("n", 0, 1, ErrorCode.INVALID_PARTITIONS),
        ("n", 1, 4, ErrorCode.INVALID_REPLICATION_FACTOR),
        ("n", 10_001, 1, ErrorCode.POLICY_VIOLATION),
    ],
)
def test_refused_topics(name: str, count: int, factor: int, code: int) -> None:
    result = three().create(name, count, factor)
    assert result.error == code
    assert result.message


def test_unknown_topic_config() -> None:
    result = three().create("n", 1, 1, no_such="1")
    assert (result.error, result.message) == (40, "Unknown topic config name: no.such")


def test_big_create_and_failure_are_quick() -> None:
    h = Harness()
    h.start(1, 2, 3)
    request = m.CreateTopicsRequest((m.CreatableTopic("big", 10_000, 3),))
    begin = time.process_time()
    h.commit(h.controller.create_topics(0.0, request))
    created = time.process_time()
    h.controller.on_broker_connection_lost(0.0, 1)
    h.controller.on_probe_result(0.0, 1, True)
    assert created - begin < 2
    assert time.process_time() - created < 1


def test_preferred_leader_comes_back() -> None:
    h = three()
    first = h.partition().leader
    h.kill(first)
    h.start(first)
    ask = m.ElectLeadersRequest(0, (("t", 0),))
    result = h.controller.elect_leaders(0.0, ask).response.partitions[0]
    assert result.error == ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
    assert h.alter(h.partition().replicas) == 0
    old = h.partition().leader
    response = h.commit(h.controller.elect_leaders(0.0, ask)).response
    assert response.partitions[0].error == 0
    # A live leader holds a lease: it must stop before another one may start.
    assert response.awaited == (("t", 0),)
    assert h.partition().leader == old
    assert not h.heartbeat(first).hand_over
    asked = h.heartbeat(old).hand_over
    assert [(number, epoch) for _, number, epoch in asked] == [(0, h.partition().leader_epoch)]
    h.resign(old, asked)
    assert h.partition().leader == first
    assert not h.heartbeat(old).hand_over
    again = h.controller.elect_leaders(0.0, ask).response.partitions[0]
    assert again.error == ErrorCode.ELECTION_NOT_NEEDED


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_balancing_can_be_switched_off(enabled: str) -> None:
    h = three()
    h.controller.tip.static = {"auto.leader.rebalance.enable": enabled}
    first = h.partition().leader
    h.kill(first)
    h.start(first)
    assert h.alter(h.partition().replicas) == 0
    old = h.partition().leader
    h.now = h.controller.options.balance_interval
    for broker in (1, 2, 3):
        h.heartbeat(broker)
    h.commit(h.controller.tick(h.now))
    assert bool(h.heartbeat(old).hand_over) is (enabled == "true")


def _to_hand_over(h: Harness) -> tuple[int, int, tuple]:
    first = h.partition().leader
    h.kill(first)
    h.start(first)
    assert h.alter(h.partition().replicas) == 0
    old = h.partition().leader
    h.commit(h.controller.elect_leaders(0.0, m.ElectLeadersRequest(0, (("t", 0),))))
    return first, old, h.heartbeat(old).hand_over


def test_a_leader_that_resigned_for_nobody_gets_a_new_epoch() -> None:
    h = three()
    first, old, asked = _to_hand_over(h)
    h.kill(first)
    epoch = h.partition().leader_epoch
    h.resign(old, asked)
    assert (h.partition().leader, h.partition().leader_epoch) == (old, epoch + 1)


def test_a_resignation_counts_once_and_only_from_the_leader() -> None:
    h = three()
    first, old, asked = _to_hand_over(h)
    third = next(b for b in (1, 2, 3) if b not in (first, old))
    h.resign(third, asked)
    assert h.partition().leader == old
    h.resign(old, asked)
    state = h.partition()
    h.resign(old, asked)
    assert h.partition() == state
    assert state.leader == first


def test_a_new_controller_takes_the_resignation_that_an_older_one_asked_for() -> None:
    h = three()
    first, old, asked = _to_hand_over(h)
    h.controller.on_leadership_lost()
    h.controller.on_leadership(h.now, h.image)
    assert not h.heartbeat(old).hand_over
    h.resign(old, asked)
    assert h.partition().leader == first


@pytest.mark.parametrize("seed", range(30))
def test_random_histories_keep_the_invariants(seed: int) -> None:
    h = Harness(seed)
    h.start(1, 2, 3, 4)
    for step in range(150):
        broker = h.random.randint(1, 4)
        h.now += h.random.choice((0.0, 0.1, 0.5))
        live = not h.image.brokers[broker].fenced
        match h.random.randrange(7):
            case 0 if live and broker in h.controller.brokers.sessions:
                h.kill(broker)
            case 1:
                h.register(broker, boot=h.random.choice(("boot", f"boot{step}")))
            case 2 | 3:
                h.heartbeat(broker, wants_shutdown=h.random.random() < 0.05)
            case 4:
                minimum = str(h.random.randint(1, 3))
                h.create(f"t{h.random.randint(0, 9)}", 2, 3, min_insync_replicas=minimum)
            case 5:
                h.commit(h.controller.tick(h.now))
            case _:
                shake(h)
        if step % 50 == 0:
            assert decode_snapshot(encode_snapshot(h.image)) == h.image


def test_topics_come_and_go_in_one_piece_and_each_of_them_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By name and by id; applied one by one, thousands of them held the controller for seconds."""
    h = Harness()
    h.start(1)
    applied = []
    apply = Tip.apply
    monkeypatch.setattr(Tip, "apply", lambda tip, made: applied.append(made) or apply(tip, made))
    wanted = [m.CreatableTopic(name, 1, 1) for name in ("a", "b", "c", "c", "a.b", "a_b")]
    creation = m.CreateTopicsRequest(tuple(wanted), False, 1000)
    answer = h.commit(h.controller.create_topics(h.now, creation)).response
    twice, collides = ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_TOPIC_EXCEPTION
    assert [t.error for t in answer.topics] == [0, 0, twice, twice, 0, collides]
    h.create("c", 1, 1)
    h.delete("a.b")
    ids = {name: topic.topic_id for name, topic in h.image.topics_by_name.items()}
    assert set(ids) == {"a", "b", "c"}
    assert len(applied) == 3
    applied.clear()
    request = m.DeleteTopicsRequest((
        m.DeletableTopic("a"), m.DeletableTopic(None, ids["a"]), m.DeletableTopic("b"),
        m.DeletableTopic("b"), m.DeletableTopic("nobody"), m.DeletableTopic(None, ids["c"]),
    ))  # fmt: skip
    answer = h.commit(h.controller.delete_topics(h.now, request)).response
    unknown, unknown_id = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID
    assert [t.error for t in answer.topics] == [0, unknown_id, 0, unknown, unknown, 0]
    assert not h.image.topics_by_name
    assert not h.controller.tip.partitions_of(1)
    assert len(applied) == 1


def shake(h: Harness) -> None:
    for name, topic in sorted(h.image.topics_by_name.items()):
        leader = h.partition(name).leader
        if h.random.random() < 0.1:
            request = m.DeleteTopicsRequest((m.DeletableTopic(name),))
            h.commit(h.controller.delete_topics(h.now, request))
        elif leader != -1:
            others = [x for x in topic.partitions[0].replicas if x != leader]
            h.alter([leader, *h.random.sample(others, h.random.randint(0, 2))], name)


def test_every_rpc_body_round_trips() -> None:
    samples = [
        m.CreateTopicsRequest((m.CreatableTopic("a", -1, -1, ((0, (1, 2)),), (("k", None),)),)),
        m.MetadataFetchResponse(entries=(m.MetadataEntry(1, 2, b"x"),)),
        *[response() for _, response in m.METHODS.values()],
    ]
    for sample in samples:
        wire = sample.to_wire()
        assert type(sample).from_wire(wire) == sample
        assert type(sample).from_wire([*wire, "newer"]) == sample
    with pytest.raises(ValueError, match="expected int"):
        m.HeartbeatRequest.from_wire(["1", 2, 3])
    assert MetadataImage() == decode_snapshot(encode_snapshot(MetadataImage()))


def test_the_minimum_is_the_same_for_all_brokers() -> None:
    """A leader with a lower one than the controller knows would commit what the ELR lacks."""
    h = three()
    for name, mode, value in (("1", 0, "1"), ("", 1, None)):
        change = m.ConfigOperation("min.insync.replicas", mode, value)
        request = m.AlterConfigsRequest((m.ConfigResource(RESOURCE_BROKER, name, (change,)),))
        result = h.commit(h.controller.alter_configs(h.now, request))
        assert result.response.resources[0].error == ErrorCode.INVALID_CONFIG, (name, mode)
    change = m.ConfigOperation("compression.type", 0, "gzip")
    request = m.AlterConfigsRequest((m.ConfigResource(RESOURCE_BROKER, "", (change,)),), full=True)
    result = h.commit(h.controller.alter_configs(h.now, request))
    assert result.response.resources[0].error == ErrorCode.INVALID_CONFIG


def test_what_an_earlier_life_of_a_broker_says_does_not_count() -> None:
    """Neither its own requests, nor what a leader saw it fetch (KIP-903)."""
    h = three()
    leader, other, _third = h.partition().replicas
    before = h.epochs[other]
    h.kill(other)
    h.start(other)
    item = m.AlterPartitionItem(
        h.image.topics_by_name["t"].topic_id, 0, h.partition().leader_epoch,
        h.partition().partition_epoch,
        (m.IsrMember(leader, h.epochs[leader]), m.IsrMember(other, before)),
    )  # fmt: skip
    request = m.AlterPartitionRequest(leader, h.epochs[leader], (item,))
    response = h.commit(h.controller.alter_partition(h.now, request)).response
    assert response.partitions[0].error == ErrorCode.INELIGIBLE_REPLICA
    late = m.HeartbeatRequest(other, before, h.index, wants_shutdown=True)
    answer = h.commit(h.controller.heartbeat(h.now, late)).response
    assert answer.error == ErrorCode.STALE_BROKER_EPOCH
    assert not h.image.brokers[other].shutting_down
