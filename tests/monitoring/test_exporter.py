"""``pegel exporter`` over a cluster: right by itself, and series by series as kafka_exporter."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

import pegel
from pegel.testing import LocalCluster
from pegel.types import TopicPartition
from tests.monitoring.stack import Stack, free_port
from tests.monitoring.tools import tool

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

PUBLIC = "github.com/danielqsj/kafka_exporter@v1.9.0"
# What kafka_exporter does not have: how late a group is.
OURS = {
    "kafka_consumergroup_lag_seconds", "kafka_consumergroup_lag_seconds_max",
    "kafka_consumergroup_catch_up_seconds",
}  # fmt: skip
Series = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {"group.initial.rebalance.delay.ms": "100", "offsets.topic.num.partitions": "4"}
    with LocalCluster(brokers=3, settings=settings) as started:
        asyncio.run(_fill(started.bootstrap))
        yield started


async def _fill(bootstrap: str) -> None:
    """Two topics; one group that is behind on two of four partitions, one that has read all."""
    async with pegel.AsyncClient(bootstrap) as client:
        await client.create_topic("orders", partitions=4, replication=3)
        await client.create_topic("empty", partitions=2, replication=2)
        for partition in range(3):
            await client.send_many("orders", [b"x" * 50] * 300, partition=partition)
        some = [("orders", 0), ("orders", 1)]
        async with client.consumer(partitions=some, group="billing", commit="manual") as consumer:
            await consumer.commit(
                {TopicPartition("orders", 0): 100, TopicPartition("orders", 1): 0}
            )
        async with client.consumer("orders", group="audit", offset_reset="earliest") as consumer:
            left = 900
            while left:
                batch = await consumer.next_batch(timeout=20)
                assert batch is not None
                left -= len(batch.offsets)


@contextmanager
def serving(*command: str, port: int) -> Iterator[str]:
    """A program that serves ``/metrics`` at ``port``."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        Stack.until(lambda: bool(_read(url)), f"{command[0]} serves")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _read(url: str) -> Series:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    return {
        (s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for family in read_text(text)
        for s in family.samples
        if s.name.startswith(("kafka_", "pegel_"))
    }


def _exporter(bootstrap: str, port: int, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "pegel", "exporter", "-b", bootstrap,
        "--listen", f"127.0.0.1:{port}", "--interval", "0.5", *more,
    ]  # fmt: skip


def test_the_figures_are_those_of_the_cluster(cluster: LocalCluster) -> None:
    port = free_port()
    with serving(*_exporter(cluster.bootstrap, port), port=port) as url:
        Stack.until(
            lambda: ("kafka_consumergroup_members", "consumergroup=billing") in _read(url), "looked"
        )
        found = _read(url)

    def of(name: str, *labels: str) -> float:
        return found[(name, *labels)]

    billing = ("consumergroup=billing", "topic=orders")
    assert found["kafka_brokers",] == 3
    assert of("kafka_topic_partitions", "topic=orders") == 4
    assert of("kafka_topic_partition_current_offset", "partition=0", "topic=orders") == 300
    assert of("kafka_topic_partition_in_sync_replica", "partition=0", "topic=orders") == 3
    assert of("kafka_consumergroup_lag", billing[0], "partition=0", billing[1]) == 200
    assert of("kafka_consumergroup_lag", billing[0], "partition=1", billing[1]) == 300
    assert of("kafka_consumergroup_lag_sum", *billing) == 500
    assert of("kafka_consumergroup_lag_sum", "consumergroup=audit", "topic=orders") == 0
    # As old as the records are: they were written seconds ago.
    assert 0 < of("kafka_consumergroup_lag_seconds_max", *billing) < 120
    assert of("kafka_consumergroup_lag_seconds_max", "consumergroup=audit", "topic=orders") == 0
    assert found["pegel_exporter_refresh_errors_total",] == 0


def test_promtool_finds_nothing_to_say(cluster: LocalCluster) -> None:
    port = free_port()
    with serving(*_exporter(cluster.bootstrap, port), port=port) as url:
        Stack.until(lambda: ("kafka_topic_partitions", "topic=orders") in _read(url), "looked")
        with urllib.request.urlopen(url, timeout=10) as answer:
            page = answer.read()
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=page, capture_output=True,
                          check=False)  # fmt: skip
    # These two are named by kafka_exporter, and have to be called so.
    said = {line for line in (done.stdout + done.stderr).decode().splitlines() if line.strip()}
    why = 'non-histogram and non-summary metrics should not have "_sum" suffix'
    assert said <= {f"kafka_consumergroup_{name}_sum {why}" for name in ("current_offset", "lag")}


def test_brokers_tell_the_same_lag(cluster: LocalCluster) -> None:
    def told() -> Series:
        pages = [_read(f"http://{node.http}/metrics") for node in cluster.nodes.values()]
        return {key: value for page in pages for key, value in page.items()}

    key = ("pegel_group_lag_records", "group=billing", "topic=orders")
    Stack.until(lambda: key in told(), "the coordinator has looked")
    found = told()
    assert found[key] == 500
    assert found["pegel_group_lag_records", "group=audit", "topic=orders"] == 0
    assert 0 < found["pegel_group_lag_seconds", "group=billing", "topic=orders"] < 120
    assert found["pegel_group_lag_seconds", "group=audit", "topic=orders"] == 0


def test_only_what_was_asked_for_is_shown(cluster: LocalCluster) -> None:
    port = free_port()
    options = ("--topics", "orders", "--groups", "audit")
    with serving(*_exporter(cluster.bootstrap, port, *options), port=port) as url:
        Stack.until(lambda: ("kafka_topic_partitions", "topic=orders") in _read(url), "looked")
        labels = {label for key in _read(url) for label in key[1:]}
    assert {label for label in labels if label.startswith("topic=")} == {"topic=orders"}
    assert {x for x in labels if x.startswith("consumergroup=")} == {"consumergroup=audit"}


def test_a_cluster_that_is_gone_is_an_error_not_old_figures() -> None:
    port = free_port()
    nobody = f"127.0.0.1:{free_port()}"
    command = [*_exporter(nobody, port), "--timeout", "0.5"]
    with serving(*command, port=port) as url:
        Stack.until(lambda: _read(url)["pegel_exporter_refresh_errors_total",] > 0, "it fails")
        assert _read(url)["kafka_brokers",] == 0


def _public(directory: Path) -> str:
    """The public exporter. Skips where it is missing and nobody asked for it, or there is no go;
    fails where it was asked for and go cannot build it."""
    found = os.environ.get("PEGEL_KAFKA_EXPORTER") or shutil.which("kafka_exporter")
    if found:
        return found
    if not os.environ.get("PEGEL_FETCH_MONITORING_TOOLS"):
        pytest.skip("kafka_exporter is not installed: make check-monitoring builds it (needs go)")
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    built = subprocess.run(
        ["go", "install", PUBLIC], env={**os.environ, "GOBIN": str(directory)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        why = built.stderr.strip().splitlines()[-1].strip()
        pytest.fail(  # whoever asked for it must not take this for a comparison
            f"go install {PUBLIC}: {why}; run go build in a checkout of its repository and name "
            "the program in PEGEL_KAFKA_EXPORTER"
        )
    return str(directory / "kafka_exporter")


def test_kafka_exporter_says_the_same(cluster: LocalCluster, tmp_path: Path) -> None:
    """Nothing is written meanwhile, so every series must be equal, and none be missing."""
    program = _public(tmp_path)
    theirs_port, ours_port = free_port(), free_port()
    theirs_command = [
        program, *(f"--kafka.server={b}" for b in cluster.bootstrap.split(",")),
        f"--web.listen-address=127.0.0.1:{theirs_port}",
    ]  # fmt: skip
    with (
        serving(*theirs_command, port=theirs_port) as theirs_url,
        serving(*_exporter(cluster.bootstrap, ours_port), port=ours_port) as ours_url,
    ):
        # Preferred leaders are still being restored when a cluster is seconds old.
        deadline = time.monotonic() + 30
        while True:
            theirs, ours = _kafka_series(theirs_url), _kafka_series(ours_url)
            different = {
                key: (theirs.get(key), ours.get(key))
                for key in theirs.keys() | {key for key in ours if key[0] not in OURS}
                if theirs.get(key) != ours.get(key)
            }
            if not different or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert not different
        assert len(theirs) > 60
        assert {key[0] for key in theirs} == {key[0] for key in ours} - OURS


def _kafka_series(url: str) -> Series:
    found = _read(url).items()
    return {k: v for k, v in found if k[0].startswith("kafka_") and "exporter" not in k[0]}
