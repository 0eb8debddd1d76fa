"""Leaders killed, paused and asked to go, under writes that expect to be served.

What is judged is what becomes of the data; ``pegel bench failover`` measures how long it takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.testing import LocalCluster
from pegel.testing.delivery import Sent
from tests.process.harness import (
    Writer,
    assert_nothing_lost,
    create,
    raw,
    receive_produce,
    send_produce,
    until_in_sync,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=3) as cluster:
        yield cluster


def _topic_led_by(cluster: LocalCluster, name: str, leader: int) -> str:
    """A topic whose only partition ``leader`` leads."""
    create(cluster, name, preferred=leader)
    deadline = time.monotonic() + 30
    while cluster.leader_of(name, 0) != leader:  # it may have been started again just now
        assert time.monotonic() < deadline, f"{name} is not led by {leader}"
        time.sleep(0.1)
    return name


@pytest.mark.parametrize("who", ["leader", "leader and active controller"])
def test_a_killed_leader_costs_nothing(cluster: LocalCluster, who: str) -> None:
    active = cluster.active_controller()
    others = [node_id for node_id in cluster.nodes if node_id != active]
    victim = active if "controller" in who else others[0]
    topic = _topic_led_by(cluster, f"kill-{who.replace(' ', '-')}", victim)
    with Writer(cluster, topic) as writer:
        cluster.kill(victim)
        writer.more(100)
        assert cluster.leader_of(topic, 0) != victim
        cluster.restart(victim)
        until_in_sync(cluster, topic)
        writer.more(20)
    assert_nothing_lost(cluster, writer)
    assert cluster.active_controller() in cluster.nodes


def test_a_paused_leader_accepts_nothing_once_it_wakes(cluster: LocalCluster) -> None:
    """Requests that reached it while it slept, and the very first after: all are refused."""
    active = cluster.active_controller()
    victim = next(node_id for node_id in cluster.nodes if node_id != active)
    topic = _topic_led_by(cluster, "pause", victim)
    with Writer(cluster, topic) as writer:
        with raw(cluster.nodes[victim].client) as connection:
            # By all: what it alone acknowledged a moment before it stopped may be lost with it.
            send_produce(connection, topic, b"before", -1)
            before = receive_produce(connection)
            assert before.error_code == 0
            cluster.pause(victim)
            for _ in range(5):
                send_produce(connection, topic, b"while asleep", 1)
            writer.more(100)
            assert cluster.leader_of(topic, 0) != victim
            cluster.resume(victim)
            send_produce(connection, topic, b"after", 1)
            for _ in range(6):
                answer = receive_produce(connection)
                assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        until_in_sync(cluster, topic)
        writer.more(20)
    _expect_too(writer, b"before")
    assert_nothing_lost(cluster, writer)


def _expect_too(writer: Writer, value: bytes) -> None:
    """A value that was acknowledged to somebody else."""
    place = next(iter(writer.history.sent.values())).place
    writer.history.send(Sent(value, "raw", place, 0, acknowledged=True))


def test_a_paused_controller_is_replaced(cluster: LocalCluster) -> None:
    active = cluster.active_controller()
    topic = _topic_led_by(cluster, "pause-controller", active)
    with Writer(cluster, topic) as writer:
        cluster.pause(active)
        writer.more(100)
        assert cluster.active_controller() != active
        cluster.resume(active)
        until_in_sync(cluster, topic)
        writer.more(20)
    assert_nothing_lost(cluster, writer)


def test_a_leader_that_is_asked_to_go_hands_over_first(cluster: LocalCluster) -> None:
    """No request fails for a client that retries, and the process ends by itself."""
    active = cluster.active_controller()
    victim = next(node_id for node_id in cluster.nodes if node_id != active)
    topic = _topic_led_by(cluster, "terminate", victim)
    with Writer(cluster, topic) as writer:
        cluster.terminate(victim)
        writer.more(50)
        assert "leaders moved away" in cluster.log_of(victim)
        cluster.restart(victim)
        until_in_sync(cluster, topic)
    assert_nothing_lost(cluster, writer)


def test_below_min_isr_writes_are_refused_and_reads_go_on(cluster: LocalCluster) -> None:
    """All three are to be in sync: with one gone acks=all is refused, acks=1 is not."""
    topic = "min-isr"
    create(cluster, topic, **{"min.insync.replicas": 3})
    leader = cluster.leader_of(topic, 0)
    other = next(node_id for node_id in cluster.nodes if node_id != leader)
    with Writer(cluster, topic) as writer:
        pass
    cluster.kill(other)
    until_in_sync(cluster, topic, 2)
    with raw(cluster.nodes[leader].client) as connection:
        for acks, error in ((-1, ErrorCode.NOT_ENOUGH_REPLICAS), (1, 0)):
            send_produce(connection, topic, b"acks %d" % acks, acks)
            assert receive_produce(connection).error_code == error
    assert_nothing_lost(cluster, writer)
    cluster.restart(other)
    until_in_sync(cluster, topic)
    _expect_too(writer, b"acks 1")
    assert_nothing_lost(cluster, writer)
