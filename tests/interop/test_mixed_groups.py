"""One group of everybody's consumers, ours among them: members come, go, crash and come back.

Every member says what it read and what it committed, so the whole of it can be judged: no record
is skipped, and none is read again that was committed before.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from pegel import Client
from pegel.sync.consumer import Consumer
from pegel.testing import LocalCluster
from tests.interop.members import HEARTBEAT_MS, SESSION_MS
from tests.support.kafka_jars import CLASSPATH, MISSING

pytestmark = [pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(170)]
PARTITIONS = 6
# Another member's clock is read in milliseconds.
SLACK_MS = 5.0


@dataclass
class Member:
    """A consumer process and what it said."""

    name: str
    process: subprocess.Popen[str]
    reads: list[tuple[float, int, list[int]]] = field(default_factory=list)
    commits: list[tuple[float, int, int]] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError):
                self.other.append(line)

    def _take(self, said: dict[str, object]) -> None:
        if said.get("name") is not None:  # Kafka's own verifiable consumer
            at = float(said["timestamp"])  # type: ignore[arg-type]
            for p in said.get("partitions") or []:  # type: ignore[attr-defined]
                if said["name"] == "records_consumed":
                    offsets = list(range(p["minOffset"], p["maxOffset"] + 1))
                    self.reads.append((at, p["partition"], offsets))
            if said["name"] == "offsets_committed" and said["success"]:
                for o in said["offsets"]:  # type: ignore[attr-defined]
                    self.commits.append((at, o["partition"], o["offset"]))
            return
        at = float(said["at"])  # type: ignore[arg-type]
        for partition, offsets in said.get("read", {}).items():  # type: ignore[attr-defined]
            self.reads.append((at, int(partition), offsets))
        for partition, offset in said.get("committed", {}).items():  # type: ignore[attr-defined]
            self.commits.append((at, int(partition), offset))
        if "refused" in said:
            self.other.append(str(said))

    @property
    def count(self) -> int:
        return sum(len(offsets) for _, _, offsets in self.reads)

    def crash(self) -> None:
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) in {0, 143}, "".join(self.other[-20:])


class Party:
    """The group, and the records that it is fed with."""

    def __init__(self, bootstrap: str, client: Client) -> None:
        self.bootstrap, self.client = bootstrap, client
        self.topic, self.group = (f"mixed-{uuid.uuid4().hex[:10]}" for _ in range(2))
        client.create_topic(self.topic, partitions=PARTITIONS, replication=3)
        self.members: list[Member] = []
        self.sent = 0
        self._stop = threading.Event()
        self._feeder = threading.Thread(target=self._feed)
        self._feeder.start()

    def _feed(self) -> None:
        while not self._stop.is_set():
            for partition in range(PARTITIONS):
                self.client.send_many(self.topic, [b"x"] * 5, partition=partition)
            self.sent += 5
            self._stop.wait(0.05)

    def join(self, library: str, instance: str | None = None) -> Member:
        command = [sys.executable, "-m", "tests.interop.members", library, self.bootstrap,
                   self.topic, self.group, *([instance] if instance else [])]  # fmt: skip
        if library == "java":
            command = [
                "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", CLASSPATH,
                "org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", self.bootstrap,
                "--topic", self.topic, "--group-id", self.group, "--reset-policy", "earliest",
                "--session-timeout", str(2 * SESSION_MS),  # its heartbeats come every three seconds
            ]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        member = Member(library, process)
        self.members.append(member)
        return member

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            said = [(m.name, m.count, m.process.poll(), m.other[-5:]) for m in self.members]
            assert time.monotonic() < deadline, f"{said}, {self.missing()}"
            time.sleep(0.02)

    def all_read_more(self, *members: Member) -> None:
        before = [m.count for m in members]
        self.until(lambda: all(m.count > b for m, b in zip(members, before, strict=True)))

    def read(self) -> set[tuple[int, int]]:
        return {(p, o) for m in self.members for _, p, offsets in m.reads for o in offsets}

    def missing(self) -> str:
        everything = {(p, o) for p in range(PARTITIONS) for o in range(self.sent)}
        left = sorted(everything - self.read())
        group = self.client.admin.describe_group(self.group)
        owners = [(m.client_id, m.instance_id, [p for _, p in m.partitions]) for m in group.members]
        ends = {p: max((o for q, o in left if q == p), default=None) for p in range(PARTITIONS)}
        starts = {p: min((o for q, o in left if q == p), default=None) for p in range(PARTITIONS)}
        return (
            f"{len(left)} of {len(everything)} not read, {starts} to {ends}; {group.state} {owners}"
        )

    def judge(self) -> None:
        """Stop feeding, wait for the rest to be read, and look at all that was said."""
        self._stop.set()
        self._feeder.join()
        expected = {(p, o) for p in range(PARTITIONS) for o in range(self.sent)}
        self.until(lambda: self.read() >= expected)
        for m in self.members:
            if m.process.poll() is None:
                m.leave()
        commits = [(at, p, offset, m.name) for m in self.members for at, p, offset in m.commits]
        for m in self.members:
            for at, partition, offsets in m.reads:
                for when, where, offset, who in commits:
                    if where == partition and when < at - SLACK_MS:
                        assert offsets[0] >= offset, (
                            f"{m.name} read {partition}:{offsets[0]} although {who} had committed "
                            f"{offset} {at - when:.0f} ms before"
                        )

    def close(self) -> None:
        self._stop.set()
        self._feeder.join()
        for m in self.members:
            if m.process.poll() is None:
                m.crash()
            assert m.process.stdout is not None
            m.process.stdout.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {
        "group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1000",
        "offsets.topic.num.partitions": "4",
    }  # fmt: skip
    with LocalCluster(brokers=3, settings=settings) as cluster:
        yield cluster


@pytest.fixture
def party(cluster: LocalCluster) -> Iterator[Party]:
    with Client(cluster.bootstrap) as client:
        party = Party(cluster.bootstrap, client)
        try:
            yield party
        finally:
            party.close()


def _play(party: Party, others: list[str]) -> None:
    """Join one after another, crash one, let one leave, restart a static one."""
    ours = party.join("pegel", instance="ours")
    party.all_read_more(ours)
    joined = [party.join(library) for library in others]
    party.all_read_more(ours, *joined)
    described = party.client.admin.describe_group(party.group)
    assert described.assignor == "range"
    assert len(described.members) == 1 + len(joined)

    joined[0].crash()
    party.all_read_more(ours, *joined[1:])
    generation_before = len(party.client.admin.describe_group(party.group).members)
    joined[-1].leave()
    party.all_read_more(ours, *joined[1:-1])

    ours.crash()  # and back before its session is over: nobody else notices
    again = party.join("pegel", instance="ours")
    party.all_read_more(again)
    late = party.join(others[0])
    party.all_read_more(again, late)
    assert generation_before >= 2
    party.judge()


def test_python_clients_in_one_group(party: Party) -> None:
    _play(party, ["confluent", "kafka-python", "aiokafka"])


@pytest.mark.java
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no java here")
@pytest.mark.skipif(not CLASSPATH, reason=MISSING)
def test_kafkas_java_consumer_among_them(party: Party) -> None:
    _play(party, ["java", "confluent", "java"])


def test_ours_share_by_every_assignor_with_librdkafka(cluster: LocalCluster) -> None:
    """librdkafka speaks all but ``sticky``; whoever leads, each record goes to one of them."""
    from confluent_kafka import Consumer as Confluent

    for name in ("range", "roundrobin", "cooperative-sticky"):
        with Client(cluster.bootstrap) as client:
            topic = f"assignor-{uuid.uuid4().hex[:10]}"
            client.create_topic(topic, partitions=4, replication=1)
            theirs = Confluent({
                "bootstrap.servers": cluster.bootstrap, "group.id": topic,
                "partition.assignment.strategy": name, "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": HEARTBEAT_MS, "auto.offset.reset": "earliest",
            })  # fmt: skip
            theirs.subscribe([topic])
            with client.consumer(
                topic, group=topic, assignors=[name], heartbeat_interval=HEARTBEAT_MS / 1000,
                offset_reset="earliest", max_wait=0.05,
            ) as ours:  # fmt: skip
                try:
                    _both_have_two(ours, theirs)
                finally:
                    theirs.close()


def _both_have_two(ours: Consumer, theirs: object) -> None:
    deadline = time.monotonic() + 60
    while True:
        theirs.poll(0.05)  # type: ignore[attr-defined]
        ours.next_batch(timeout=0.05)
        shares = [{p.partition for p in ours.assignment},
                  {p.partition for p in theirs.assignment()}]  # type: ignore[attr-defined] # fmt: skip
        if [len(s) for s in shares] == [2, 2] and not shares[0] & shares[1]:
            return
        assert time.monotonic() < deadline, shares
