"""A log that failed: its broker lives, and may neither lead that partition nor be in its ISR."""

from pegel.protocol.errors import ErrorCode
from pegel_controller.control.elections import FAILURE_LENGTH_MAX
from pegel_controller.metadata.history import History
from pegel_controller.metadata.snapshot import decode_snapshot, encode_snapshot
from tests.controller.control.harness import Harness


def three(**configs: str) -> Harness:
    h = Harness()
    h.start(1, 2, 3)
    assert not h.create("t", 2, **configs).error
    return h


def test_a_leader_whose_log_failed_leads_no_more_and_is_not_in_sync() -> None:
    h = three()
    first, second, third = h.partition().replicas
    other = h.partition(number=1)
    h.fail_logs(first, 0)
    assert (h.partition().leader, h.partition().isr) == (second, (second, third))
    assert h.partition().reason == "log directory failed"
    assert h.partition(number=1) == other, "its other log is as good as ever"
    h.elect_preferred()
    assert h.partition().leader == second


def test_it_does_not_join_the_isr_again_before_it_registers_anew() -> None:
    h = three()
    first, second, third = h.partition().replicas
    h.fail_logs(third, 0)
    assert h.alter((first, second, third)) == ErrorCode.INELIGIBLE_REPLICA
    h.kill(third)
    h.start(third)
    assert not h.alter((first, second, third))


def test_the_last_known_replica_is_not_elected_while_its_log_is_offline() -> None:
    h = Harness()
    h.start(1)
    assert not h.create("t", 1, 1).error
    h.fail_logs(1, 0)
    assert h.partition().leader == -1
    h.start(2)  # elections are tried again
    h.elect_preferred()
    h.heartbeat(1, wants_fence=True)
    h.heartbeat(1)
    assert h.partition().leader == -1
    h.kill(1)
    h.start(1)
    assert h.partition().leader == 1, "a new life of its broker: the log may be whole again"
    h.fail_logs(1, 0)
    assert h.partition().leader == -1, "it is not"


def test_an_unclean_election_passes_a_failed_log_by() -> None:
    h = three(unclean_leader_election_enable="true")
    first, second, third = h.partition().replicas
    h.alter((first,))
    h.fail_logs(second, 0)
    h.kill(first)
    assert h.partition().leader == third


def test_the_list_is_taken_as_a_whole_and_repeating_it_changes_nothing() -> None:
    h = three()
    broker = h.partition().leader
    assert h.fail_logs(broker, 0) != []
    assert h.fail_logs(broker, 0) == []
    assert h.fail_logs(broker, 0, 1) != []
    topic_id = h.image.topics_by_name["t"].topic_id
    assert h.image.brokers[broker].offline_replicas == ((topic_id, 0), (topic_id, 1))
    assert decode_snapshot(encode_snapshot(h.image)).brokers == h.image.brokers
    h.fail_logs(broker, 1, 77)  # the replica of partition 0 was moved away; there is no 77
    assert h.image.brokers[broker].offline_replicas == ((topic_id, 1),)


def test_the_history_names_the_replica_and_what_is_wrong_with_it() -> None:
    """One damaged file was "log directory failed", without a word of which and where."""
    h = three()
    first, second, _ = h.partition().replicas
    history, before = History(), h.image
    told = h.fail_logs(first, 0, why="/data/t-0/0.log: damaged at byte 61: " + "x" * 1_000)
    assert h.partition().reason == "replica failed"
    history.append(before, told, 9)
    found, _ = history.after(0, topic="t", partition=0)
    failed, change = found
    assert (failed.kind, failed.broker, failed.topic, failed.partition) == (
        "replica failed", first, "t", 0,
    )  # fmt: skip
    assert failed.detail.startswith("/data/t-0/0.log: damaged at byte 61")
    assert len(failed.detail) == FAILURE_LENGTH_MAX
    assert (change.kind, change.detail) == ("partition changed", failed.detail)
    assert history.after(0, topic="t", partition=1)[0] == (), "it is of one partition alone"
    before = h.image
    history.append(before, h.fail_logs(second, 0), 10)
    assert [e.kind for e in history.events[2:]] == ["log directory failed", "partition changed"]
