"""A group of eight consumes while its coordinator is killed: real processes, librdkafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pegel.testing import LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.interop, pytest.mark.timeout(120)]

PATIENCE = 40.0
MEMBERS = 8
GROUP, TOPIC = "workers", "work"
MOVING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._TRANSPORT,
}


def librdkafka(bootstrap: str, **more: object) -> dict[str, object]:
    # Its lines about brokers that are gone belong to the test, not to its output.
    return {"bootstrap.servers": bootstrap, "log_level": 0, **more}


class Writer(threading.Thread):
    """Numbered records to every partition in turn, until told to stop."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(name="writer")
        self.sent = [0] * MEMBERS
        self._producer = Producer(librdkafka(bootstrap, **{"enable.idempotence": True}))
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(0.05):
            for partition in range(MEMBERS):
                self._producer.produce(TOPIC, b"%d" % self.sent[partition], partition=partition)
                self.sent[partition] += 1
        assert self._producer.flush(PATIENCE) == 0

    def finish(self) -> None:
        self._stop_now.set()
        self.join(PATIENCE)


class Member(threading.Thread):
    """Consumes, and commits each record that it has taken; counts its assignments."""

    def __init__(self, bootstrap: str, number: int) -> None:
        super().__init__(name=f"member-{number}")
        self.taken: dict[int, list[int]] = {}
        self.committed: dict[int, int] = {}
        self.assignments = 0
        self.assigned: set[int] = set()
        self.failures: list[str] = []
        self._consumer = Consumer(
            librdkafka(bootstrap, **{
                "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                "partition.assignment.strategy": "range", "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 500,
            })
        )  # fmt: skip
        self._stop_now = threading.Event()

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assignments += 1
        self.assigned = {p.partition for p in partitions}

    def run(self) -> None:
        self._consumer.subscribe([TOPIC], on_assign=self._on_assign)
        while not self._stop_now.is_set():
            record = self._consumer.poll(0.1)
            if record is None or record.error() is not None:
                continue
            self.taken.setdefault(record.partition(), []).append(record.offset())
            self._commit(record)
        self._consumer.close()

    def _commit(self, record: object) -> None:
        try:
            (done,) = self._consumer.commit(message=record, asynchronous=False)
        except KafkaException as error:
            self.failures.append(str(error))  # the next commit covers it
        else:
            self.committed[done.partition] = done.offset

    def finish(self) -> None:
        self._stop_now.set()
        self.join(PATIENCE)


def wait(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def coordinator(bootstrap: str) -> int:
    """The broker that answers for the group; -1 while it moves.

    Asked by a new client each time: librdkafka's admin keeps a coordinator in mind that is gone.
    """
    admin = AdminClient(librdkafka(bootstrap))
    try:
        described = admin.describe_consumer_groups([GROUP])[GROUP].result(PATIENCE)
    except KafkaException as error:
        if error.args[0].code() not in MOVING:
            raise
        return -1
    return int(described.coordinator.id)


def test_the_coordinator_is_killed_while_a_group_of_eight_consumes() -> None:
    with LocalCluster(brokers=3) as cluster:
        admin = AdminClient(librdkafka(cluster.bootstrap))
        topic = NewTopic(TOPIC, MEMBERS, 3, config={"min.insync.replicas": "2"})
        admin.create_topics([topic])[TOPIC].result(PATIENCE)
        writer = Writer(cluster.bootstrap)
        members = [Member(cluster.bootstrap, n) for n in range(MEMBERS)]
        for thread in (writer, *members):
            thread.start()
        try:
            _kill_and_check(cluster, writer, members)
        finally:
            writer.finish()
            for member in members:
                member.finish()
        for partition in range(MEMBERS):
            assert _taken(members, partition) >= set(range(max(_taken(members, partition))))


def _taken(members: list[Member], partition: int) -> set[int]:
    return {offset for m in members for offset in m.taken.get(partition, [])}


def _went_on(writer: Writer, members: list[Member]) -> Callable[[], bool]:
    """Whether records that are yet to be written have been taken, in every partition."""
    targets = [sent + 20 for sent in writer.sent]
    return lambda: all(
        max(_taken(members, p), default=-1) >= target for p, target in enumerate(targets)
    )


def _kill_and_check(cluster: LocalCluster, writer: Writer, members: list[Member]) -> None:
    wait("each has a partition", lambda: all(len(m.assigned) == 1 for m in members))
    wait("each has committed", lambda: all(m.assigned <= m.committed.keys() for m in members))
    assignments = [m.assignments for m in members]
    before = {p: m.committed[p] for m in members for p in m.assigned}
    assert len(before) == MEMBERS
    killed = coordinator(cluster.bootstrap)
    cluster.kill(killed)
    wait("work goes on", _went_on(writer, members))
    wait("another coordinates", lambda: coordinator(cluster.bootstrap) not in {killed, -1})
    reader = Consumer(librdkafka(cluster.bootstrap, **{"group.id": GROUP}))
    wanted = [TopicPartition(TOPIC, p) for p in range(MEMBERS)]
    for found in reader.committed(wanted, PATIENCE):
        assert found.offset >= before[found.partition], "a committed offset is gone"
    reader.close()
    # The new coordinator knows the generation: nobody has to join again for its sake.
    assert [m.assignments for m in members] == assignments
    cluster.restart(killed)
    wait("it coordinates again", lambda: coordinator(cluster.bootstrap) == killed)
    wait("work goes on after its return", _went_on(writer, members))
    assert [m.assignments for m in members] == assignments
