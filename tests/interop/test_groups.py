"""Other people's consumers in one group, each in a process that joins, leaves, crashes, comes back.

No record is skipped, and what was committed before a member got a partition it does not read again.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from pegel.testing import LocalCluster
from tests.interop.member import LIBRARIES, SESSION_MS
from tests.support.kafka_jars import CLASSPATH

pytestmark = [pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120)]

PATIENCE = 45.0
PARTITIONS = 6
JAVA = shutil.which("java") if CLASSPATH else None
_JAVA_LINE = re.compile(r"Partition:(\d+)\tOffset:(\d+)")


class Member:
    """A process, and what it has told so far."""

    def __init__(self, command: list[str]) -> None:
        self.events: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self.events.append(json.loads(line))
            elif found := _JAVA_LINE.match(line):
                partition, offset = map(int, found.groups())
                self.events.append(
                    {"at": time.time(), "event": "read", "partition": partition, "offset": offset}
                )

    def told(self, event: str) -> list[dict[str, Any]]:
        return [e for e in list(self.events) if e["event"] == event]

    @property
    def assigned(self) -> set[int]:
        told = self.told("assigned")
        return set(told[-1]["partitions"]) if told else set()

    def reads_since(self, at: float) -> set[int]:
        return {e["partition"] for e in self.told("read") if e["at"] > at}

    def end(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join(PATIENCE)


class Scene:
    """A cluster with a topic that is written to all the time, and a group that reads it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.topic = f"t-{uuid.uuid4().hex[:8]}"
        self.group = f"g-{uuid.uuid4().hex[:8]}"
        self.members: list[Member] = []
        self.sent = [0] * PARTITIONS
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._write)
        new = NewTopic(self.topic, PARTITIONS, 3)
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.create_topics([new])[self.topic].result(PATIENCE)
        self._writer.start()

    def _write(self) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True})
        while not self._stop.wait(0.05):
            for partition in range(PARTITIONS):
                producer.produce(self.topic, b"%d" % self.sent[partition], partition=partition)
                self.sent[partition] += 1
        assert producer.flush(PATIENCE) == 0

    def join(self, library: str, instance: str | None = None) -> Member:
        if library == "java":
            assert JAVA is not None
            command = [
                JAVA, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", CLASSPATH,
                "org.apache.kafka.tools.consumer.ConsoleConsumer",
                "--bootstrap-server", self.bootstrap, "--topic", self.topic, "--group", self.group,
                "--from-beginning", "--formatter-property", "print.partition=true",
                "--formatter-property", "print.offset=true",
                "--consumer-property", f"session.timeout.ms={SESSION_MS}",
                "--consumer-property", "heartbeat.interval.ms=500",
            ]  # fmt: skip
        else:
            command = [
                sys.executable, "-m", "tests.interop.member",
                library, self.bootstrap, self.group, self.topic,
                *([] if instance is None else [instance]),
            ]  # fmt: skip
        member = Member(command)
        self.members.append(member)
        return member

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {[m.assigned for m in self.members]}"
            time.sleep(0.05)

    def all_is_read(self, readers: list[Member]) -> None:
        """Wait until these read every partition between them, each at least one."""
        now = time.time()
        self.wait(
            "everything is read",
            lambda: (
                all(m.reads_since(now) for m in readers)
                and set().union(*(m.reads_since(now) for m in readers)) == set(range(PARTITIONS))
            ),
        )

    def read(self) -> list[set[int]]:
        found: list[set[int]] = [set() for _ in range(PARTITIONS)]
        for member in self.members:
            for event in member.told("read"):
                found[event["partition"]].add(event["offset"])
        return found

    def finish(self) -> None:
        self._stop.set()
        self._writer.join(PATIENCE)

    def check(self) -> None:
        """Everything written was read, and nothing again that was committed before."""
        self.finish()
        whole = [set(range(count)) for count in self.sent]
        self.wait("all records are read", lambda: self.read() == whole)
        for member in self.members:
            self._check_repeats(member)

    def _check_repeats(self, member: Member) -> None:
        floor = dict.fromkeys(range(PARTITIONS), 0)
        for event in list(member.events):
            if event["event"] == "assigned":
                for partition in event["partitions"]:
                    floor[partition] = self._committed(partition, event["at"])
            elif event["event"] == "read":
                assert event["offset"] >= floor[event["partition"]], event

    def _committed(self, partition: int, before: float) -> int:
        offsets = [
            event["offset"]
            for member in self.members
            for event in member.told("committed")
            if event["partition"] == partition and event["at"] < before
        ]
        return max(offsets, default=0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=3) as cluster:
        yield cluster


@pytest.fixture
def scene(cluster: LocalCluster) -> Iterator[Scene]:
    scene = Scene(cluster.bootstrap)
    try:
        yield scene
    finally:
        scene.finish()
        for member in scene.members:
            member.end(signal.SIGKILL)


def test_all_of_them_share_one_group_through_joins_leaves_and_crashes(scene: Scene) -> None:
    libraries = [*LIBRARIES, *(["java"] if JAVA else [])]
    members = {library: scene.join(library) for library in libraries}
    scene.all_is_read(list(members.values()))
    members.pop("kafka_python").end(signal.SIGTERM)
    scene.all_is_read(list(members.values()))
    members.pop("aiokafka").end(signal.SIGKILL)
    scene.all_is_read(list(members.values()))
    for library in ("aiokafka", "kafka_python"):
        members[library] = scene.join(library)
    scene.all_is_read(list(members.values()))
    scene.check()


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_static_member_that_was_killed_comes_back_to_its_place(
    scene: Scene, library: str
) -> None:
    members = [scene.join(library, f"instance-{n}") for n in range(2)]
    scene.wait("both have a share", lambda: all(len(m.assigned) == 3 for m in members))
    scene.all_is_read(members)
    stays, dies = members
    rebalances, share = len(stays.told("assigned")), dies.assigned
    dies.end(signal.SIGKILL)
    again = scene.join(library, "instance-1")
    scene.wait("it has its place again", lambda: again.assigned == share)
    scene.all_is_read([stays, again])
    assert len(stays.told("assigned")) == rebalances
    scene.check()
