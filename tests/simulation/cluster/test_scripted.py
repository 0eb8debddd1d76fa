"""Scripted histories: bugs that seeds have found, each as a short story that cannot rot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pegel_broker.replication.partition import Leader
from tests.simulation.cluster.checks import Checker, Observer, unhealthy
from tests.simulation.cluster.cluster import Cluster, Shape


class Story:
    """A cluster of three with the topic "t" (one partition, RF 3, min ISR 2) and one client."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.checker = Checker(cluster)
        self.loop, self.client, _ = cluster.client("client")

    def pass_time(self, seconds: float) -> None:
        end = self.cluster.now + seconds
        while self.cluster.now < end:
            self.cluster.scheduler.run_until(min(end, self.cluster.now + 0.005))
            self.checker.look()

    def until_healthy(self) -> None:
        end = self.cluster.now + 30.0
        while (why := unhealthy(self.cluster)) is not None:
            assert self.cluster.now < end, why
            self.pass_time(0.02)

    def write(self, *values: bytes) -> None:
        async def send() -> None:
            await self.client.send_many("t", list(values), partition=0)

        self.cluster.complete(self.loop, send(), 30.0)

    @property
    def leader(self) -> int:
        state = self.cluster.image().partition("t", 0)
        assert state is not None
        return state.leader


@contextmanager
def story(seed: int = 1, shape: Shape | None = None) -> Iterator[Story]:
    cluster = Cluster(seed, shape or Shape())
    with Observer(cluster).installed():
        for machine in cluster.nodes.values():
            machine.start()
        told = Story(cluster)
        told.until_healthy()

        async def make() -> None:
            await told.client.create_topic(
                "t", partitions=1, replication=3, config={"min.insync.replicas": 2}
            )

        cluster.complete(told.loop, make(), 10.0)
        yield told
        assert not cluster.violations
        assert not cluster.problems()
        cluster.close()


def test_a_restarted_leader_that_lost_its_end_does_not_lead_before_it_has_registered() -> None:
    """It would give its old epoch a new start, and be truncated there later (seed 186)."""
    with story() as told:
        told.write(*(b"%d" % n for n in range(20)))
        machine = told.cluster.nodes[told.leader]
        machine.power_off()
        machine.start()
        for _ in range(300):
            told.pass_time(0.005)
            node = machine.node
            if node is not None and node.replicas is not None and node.session is not None:
                leads = [h for h in node.replicas.all_hosted() if isinstance(h.core.state, Leader)]
                assert not leads or node.session.broker_epoch >= 0
        told.until_healthy()


def test_a_node_whose_disk_is_full_ends_and_comes_back() -> None:
    """Closing the Raft log wrote once more, and the node never came to its end (seed 14)."""
    with story() as told:
        machine = told.cluster.nodes[told.cluster.active_controller() or 1]
        life = machine.loop
        machine.disk.fill(0)
        told.write(b"without it")
        told.pass_time(0.5)
        machine.disk.free()
        told.until_healthy()
        assert machine.loop is not life


def test_a_node_whose_disk_is_full_blames_it_and_not_its_port() -> None:
    """ "cannot listen on n2:9093: No space left on device; choose another port" (seed 3512)."""
    with story() as told:
        machine = told.cluster.nodes[1]
        said: list[str] = []
        machine._on_event = said.append
        machine.disk.fill(0)
        machine.kill()
        machine.start()
        told.pass_time(0.2)
        assert "No space left on device" in said[-1]
        assert "/data/raft" in said[-1]
        assert "port" not in said[-1]
        machine.disk.free()
        told.until_healthy()


def test_a_controller_without_a_quorum_is_not_asked_hundreds_of_times() -> None:
    """It takes itself for active until its election time-out, and refuses (seed 0)."""
    with story(shape=Shape(nodes=4)) as told:
        active = told.cluster.active_controller()
        others = [n for n in (1, 2, 3) if n != active]
        for n in others:
            told.cluster.nodes[n].down = 1
            told.cluster.nodes[n].kill()
        before = told.cluster.network.made
        told.pass_time(1.5)
        assert told.cluster.network.made - before < 200  # it was 1,200
        for n in others:
            told.cluster.nodes[n].release()
        told.until_healthy()


def test_a_controller_whose_disk_hangs_gives_way() -> None:
    """Its heartbeats need no disk, so it led for ever and decided nothing (seed 5017)."""
    with story() as told:
        old = told.cluster.active_controller()
        assert old is not None
        machine = told.cluster.nodes[old]
        machine.disk.slow = 1e9

        # A decision that its disk never confirms; its client gives up.
        task = told.loop.start(
            told.client.create_topic("u", partitions=1, replication=1, timeout=1.0)
        )
        told.pass_time(5.0)
        assert task.exception() is not None
        assert told.cluster.active_controller() not in {None, old}
        machine.kill()
        machine.disk.slow = 0.0
        machine.start()
        told.until_healthy()


def test_a_leader_whose_disk_hangs_for_good_leaves_its_partitions_to_others() -> None:
    """It kept its session and its leaderships, and acknowledged nothing any more (seed 5017)."""
    with story() as told:
        told.write(b"before")
        old = told.leader
        machine = told.cluster.nodes[old]
        machine.disk.slow = 1e9
        told.write(b"while it hangs")  # the client retries until somebody else leads
        assert told.leader not in {-1, old}
        machine.kill()
        machine.disk.slow = 0.0
        machine.start()
        told.until_healthy()


def test_a_damaged_replica_is_not_elected_and_cuts_nobody() -> None:
    """Its report was sent before it had registered, and lost; elected, it was followed to offset 0
    by all the others (seed 180)."""
    with story() as told:
        told.write(*(b"%d" % n for n in range(20)))
        told.pass_time(1.0)
        state = told.cluster.image().partition("t", 0)
        assert state is not None
        leader, damaged, other = (told.leader, *(n for n in state.replicas if n != told.leader))
        nodes = told.cluster.nodes
        disk = nodes[damaged].disk
        nodes[other].down = nodes[damaged].down = 1
        nodes[other].stop()
        told.pass_time(1.0)
        nodes[damaged].stop()  # it leaves for the ELR: the only one who could lead for the leader
        told.pass_time(1.0)
        disk.files["/data/log/t-0/leader-epoch-checkpoint"].data[:] = b"\0"
        disk.may_be_damaged = True
        nodes[damaged].release()
        told.pass_time(3.0)
        nodes[leader].down = 1
        nodes[leader].kill()
        nodes[other].release()
        told.pass_time(5.0)
        assert told.leader != damaged
        nodes[leader].release()
        told.until_healthy()
        assert told.leader in {leader, other}
        nodes[damaged].replace_log_disk()
        nodes[damaged].start()
        told.until_healthy()


def test_a_loss_of_power_is_not_hidden_by_a_life_that_never_registered() -> None:
    """It found the page cache gone, was stopped before any controller had heard of it, and its mark
    of a clean end vouched for what was lost: the next life stayed electable (seed 10459)."""
    with story() as told:
        told.write(*(b"%d" % n for n in range(20)))
        cluster, nodes = told.cluster, told.cluster.nodes
        leader, lost, other = (told.leader, *(n for n in nodes if n != told.leader))
        nodes[other].down = 1
        nodes[other].kill()
        told.pass_time(3.0)
        told.write(*(b"%d" % n for n in range(20, 40)))
        nodes[lost].down = 1
        nodes[lost].power_off()
        ways = [(nodes[leader].name, nodes[lost].name), (nodes[lost].name, nodes[leader].name)]
        for way in ways:
            cluster.network.cut(*way)
        nodes[lost].release()
        told.pass_time(1.0)
        nodes[lost].down = 1
        nodes[lost].stop()
        told.pass_time(1.0)
        assert not nodes[lost].running
        for way in ways:
            cluster.network.mend(*way)
        nodes[lost].release()
        told.pass_time(5.0)
        nodes[other].release()
        told.until_healthy()


def _lose_power(told: Story, node: int, *, kept: bool) -> None:
    """It stays down; its disk has kept what was written to the topic, or nothing."""
    machine = told.cluster.nodes[node]
    for path, file in machine.disk.files.items():
        if path.startswith("/data/log/t-0/") and path.endswith(".log"):
            file.data[:] = file.data if kept else b""
            file.durable = bytes(file.data)
    machine.down = 1
    machine.power_off()


def _ends(told: Story) -> set[int]:
    return {h.log.log_end_offset for _, h in told.cluster.hosted() if h.core.topic == "t"}


@pytest.mark.parametrize("keeper", [1, 2, 3])
def test_after_a_loss_of_power_of_all_the_best_log_leads(keeper: int) -> None:
    """The last known leader did, whatever its disk had kept (seed 301180)."""
    with story() as told:
        told.write(*(b"%d" % n for n in range(20)))
        for n in told.cluster.nodes:
            _lose_power(told, n, kept=n == keeper)
        for machine in told.cluster.nodes.values():
            machine.release()
        told.until_healthy()
        assert _ends(told) == {20}


def test_who_left_cleanly_before_a_loss_of_power_is_waited_for() -> None:
    """Nobody remembers it: two were enough without it (seed 400437)."""
    with story(shape=Shape(nodes=5)) as told:
        told.write(*(b"%d" % n for n in range(20)))
        nodes = told.cluster.nodes
        state = told.cluster.image().partition("t", 0)
        assert state is not None
        clean, *others = state.replicas
        nodes[clean].down = 1
        nodes[clean].stop()
        told.pass_time(2.0)
        for n in others:
            _lose_power(told, n, kept=False)
        told.pass_time(3.0)
        for n in others:
            nodes[n].release()
        told.pass_time(5.0)
        assert told.leader == -1
        nodes[clean].release()
        told.until_healthy()
        assert _ends(told) == {20}
