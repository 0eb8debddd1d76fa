"""Apache Kafka's own Java tools, against a cluster and against the files that it wrote.

They need ``java``, and ``PEGEL_KAFKA_CLASSPATH`` (see ``tests/support/kafka_jars.py``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pegel.testing import LocalCluster
from tests.interop.drivers.confluent import Confluent
from tests.interop.drivers.interface import Pair
from tests.interop.drivers.kafka_python import KafkaPython
from tests.support.kafka_jars import CLASSPATH, MISSING

JAVA = shutil.which("java")
TIMEOUT_S = 45.0

pytestmark = [
    pytest.mark.interop,
    pytest.mark.java,
    pytest.mark.process,
    pytest.mark.timeout(120),
    pytest.mark.skipif(JAVA is None, reason="there is no java here"),
    pytest.mark.skipif(not CLASSPATH, reason=MISSING),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=3) as cluster:
        yield cluster


@pytest.fixture
def topic() -> str:
    return f"java-{uuid.uuid4().hex[:10]}"


def tool(name: str, *arguments: str, lines: str = "") -> str:
    """What the tool of this class prints; a failure fails the test with all that it said."""
    assert JAVA is not None
    done = subprocess.run(
        # These live for a second: a JVM that does not compile starts quicker.
        [JAVA, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", CLASSPATH,
         f"org.apache.kafka.tools.{name}", *arguments],
        input=lines, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{name} {arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def topics(cluster: LocalCluster, *arguments: str) -> str:
    return tool("TopicCommand", "--bootstrap-server", cluster.bootstrap, *arguments)


def consume(cluster: LocalCluster, topic: str, partition: int, count: int) -> list[str]:
    printed = tool(
        "consumer.ConsoleConsumer", "--bootstrap-server", cluster.bootstrap, "--topic", topic,
        "--partition", str(partition), "--offset", "earliest", "--max-messages", str(count),
        "--timeout-ms", "20000", "--isolation-level", "read_committed",
    )  # fmt: skip
    return printed.splitlines()


def test_topics_are_made_grown_and_deleted(cluster: LocalCluster, topic: str) -> None:
    topics(cluster, "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "3",
           "--config", "retention.ms=3600000")  # fmt: skip
    described = topics(cluster, "--describe", "--topic", topic)
    assert re.search(r"PartitionCount: 2\s+ReplicationFactor: 3\s", described)
    assert "retention.ms=3600000" in described
    for partition in (0, 1):
        row = rf"Partition: {partition}\s+Leader: [123]\s+Replicas: \d,\d,\d\s+Isr: \d,\d,\d\s"
        assert re.search(row, described), described
    topics(cluster, "--alter", "--topic", topic, "--partitions", "4")
    assert "PartitionCount: 4" in topics(cluster, "--describe", "--topic", topic)
    topics(cluster, "--delete", "--topic", topic)
    assert topic not in topics(cluster, "--list").split()


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_what_the_java_producer_writes_is_read(
    cluster: LocalCluster, topic: str, codec: str
) -> None:
    client = Confluent(cluster.bootstrap)
    client.create_topic(topic, 1, 3)
    values = [f"line {i} " + "x" * (i % 50) for i in range(2000)]
    # One of them waits for each line, which by default lingers for a second.
    how = ("--batch-size", "8192") if codec != "none" else ("--sync", "--timeout", "0")
    tool(
        "ConsoleProducer", "--bootstrap-server", cluster.bootstrap, "--topic", topic,
        "--compression-codec", codec, *how, lines="".join(f"{value}\n" for value in values),
    )  # fmt: skip
    received = client.consume(topic, 0, 0, len(values))
    assert [(r.value or b"").decode() for r in received] == values


def test_the_java_consumer_reads_all_codecs(cluster: LocalCluster, topic: str) -> None:
    client = Confluent(cluster.bootstrap)
    client.create_topic(topic, 1, 3)
    values: list[str] = []
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        more = [f"{codec} {i} " + "y" * 100 for i in range(500)]
        client.produce(topic, 0, [(None, v.encode()) for v in more], compression=codec)
        values += more
    assert consume(cluster, topic, 0, len(values)) == values


def _in_small_batches(start: int, end: int) -> Iterator[Pair]:
    # Half compressible, so that every client finds compressing worth while.
    for i in range(start, end):
        yield b"key-%d" % i, os.urandom(40) * 2
        if i % 20 == 0:
            time.sleep(0.002)  # longer than the producer lingers


@pytest.fixture(scope="module")
def partition_directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One partition's directories on three nodes: many segments, cleanly stopped."""
    data_dir = tmp_path_factory.mktemp("dump")
    config = {"segment.bytes": "65536", "index.interval.bytes": "1024"}
    with LocalCluster(brokers=3, data_dir=data_dir) as cluster:
        client = KafkaPython(cluster.bootstrap)  # its batches are small from the first on
        client.create_topic("dumped", 1, 3, config)
        for i, codec in enumerate((None, "gzip", "snappy", "lz4", "zstd")):
            client.produce(
                "dumped", 0,
                _in_small_batches(700 * i, 700 * (i + 1)),
                idempotent=i % 2 == 0, compression=codec,
            )  # fmt: skip
    found = sorted(data_dir.rglob("dumped-0"))
    assert len(found) == 3
    return found


def _files(directory: Path, suffix: str) -> str:
    files = sorted(directory.glob(f"*{suffix}"))
    assert files, f"no {suffix} in {sorted(directory.iterdir())}"
    return ",".join(map(str, files))


def test_the_log_dump_tool_reads_the_segments(partition_directories: list[Path]) -> None:
    logs = _files(partition_directories[0], ".log")
    assert logs.count(",") >= 3
    dump = tool("DumpLogSegments", "--files", logs, "--deep-iteration")
    offsets = [int(n) for n in re.findall(r"^\| offset: (\d+) ", dump, re.MULTILINE)]
    assert offsets == list(range(3500))
    assert "isvalid: false" not in dump
    codecs = set(re.findall(r"compresscodec: (\w+)", dump))
    assert codecs == {"none", "gzip", "snappy", "lz4", "zstd"}
    assert "Found" not in dump


def test_the_replicas_segments_are_the_leaders(partition_directories: list[Path]) -> None:
    contents = [
        b"".join(path.read_bytes() for path in sorted(directory.glob("*.log")))
        for directory in partition_directories
    ]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("node", [0, 1, 2])
def test_the_log_dump_tool_verifies_the_indexes(
    partition_directories: list[Path], node: int
) -> None:
    directory = partition_directories[node]
    indexes = _files(directory, ".index") + "," + _files(directory, ".timeindex")
    checked = tool("DumpLogSegments", "--files", indexes, "--index-sanity-check")
    assert checked.count("passed sanity check") == indexes.count(",") + 1, checked
    assert sum(path.stat().st_size // 8 for path in directory.glob("*.index")) > 20
    verified = tool("DumpLogSegments", "--files", indexes, "--verify-index-only")
    for complaint in ("Mismatches", "mismatch", "out of order", "Missing", "Index"):
        assert complaint not in verified, verified


def test_the_log_dump_tool_reads_the_producer_snapshots(partition_directories: list[Path]) -> None:
    dump = tool("DumpLogSegments", "--files", _files(partition_directories[0], ".snapshot"))
    assert re.search(r"producerId: \d+ producerEpoch: 0 .*lastSequence: \d+", dump), dump


def groups(cluster: LocalCluster, *arguments: str) -> str:
    return tool(
        "consumer.group.ConsumerGroupCommand", "--bootstrap-server", cluster.bootstrap, *arguments
    )


def test_groups_are_described_reset_and_deleted(cluster: LocalCluster, topic: str) -> None:
    topics(cluster, "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "3")
    Confluent(cluster.bootstrap).produce(topic, 0, [(None, b"%d" % n) for n in range(20)])
    tool(
        "consumer.ConsoleConsumer", "--bootstrap-server", cluster.bootstrap, "--topic", topic,
        "--group", topic, "--from-beginning", "--max-messages", "20", "--timeout-ms", "20000",
    )  # fmt: skip
    described = groups(cluster, "--describe", "--group", topic)
    assert re.search(rf"{topic}\s+{topic}\s+0\s+20\s+20\s+0\s", described), described
    assert re.search(rf"{topic}\s+Empty", groups(cluster, "--list", "--state"))
    reset = ("--reset-offsets", "--to-offset", "5", "--topic", topic, "--execute")
    assert re.search(rf"{topic}\s+0\s+5", groups(cluster, "--group", topic, *reset))
    deleted = groups(cluster, "--group", topic, "--delete-offsets", "--topic", topic)
    assert "Successful" in deleted
    assert "successful" in groups(cluster, "--delete", "--group", topic)


def test_the_internal_topic_is_read_by_kafkas_own_decoder(
    cluster: LocalCluster, topic: str
) -> None:
    topics(cluster, "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "3")
    Confluent(cluster.bootstrap).produce(topic, 0, [(None, b"%d" % n) for n in range(20)])
    tool(
        "consumer.ConsoleConsumer", "--bootstrap-server", cluster.bootstrap, "--topic", topic,
        "--group", topic, "--from-beginning", "--max-messages", "20", "--timeout-ms", "20000",
    )  # fmt: skip
    files = [p for p in cluster.data_dir.glob("node-1/log/__consumer_offsets-*/*.log")
             if topic.encode() in p.read_bytes()]  # fmt: skip
    (file,) = files
    dumped = tool("DumpLogSegments", "--files", str(file), "--offsets-decoder", "--print-data-log")
    assert '"protocolType":"consumer","generation":1,"protocol":"range"' in dumped
    assert f'"group":"{topic}","topic":"{topic}","partition":0' in dumped
    assert '"version":"4","data":{"offset":20' in dumped
