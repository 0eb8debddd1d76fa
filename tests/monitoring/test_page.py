"""The metrics page of real nodes: complete, well formed, and right about what was done."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

import pegel
from grafana.document import document, fixed, growing
from pegel.metrics.http import MAX_CONNECTIONS
from pegel.testing import LocalCluster
from pegel_broker.metrics import declared as d
from tests.monitoring.tools import tool

pytestmark = pytest.mark.process

RECORDS = 500


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=3) as started:
        asyncio.run(_load(started.bootstrap))
        yield started


async def _load(bootstrap: str) -> None:
    async with pegel.AsyncClient(bootstrap) as client:
        await client.create_topic("orders", partitions=3, replication=3)
        await client.send_many("orders", [b"x" * 100] * RECORDS)


def get(cluster: LocalCluster, node_id: int, path: str, accept: str = "") -> str:
    url = f"http://{cluster.nodes[node_id].http}{path}"
    request = urllib.request.Request(url, headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(response.read().decode())


def values(cluster: LocalCluster, name: str) -> dict[str, float]:
    """The sum over the nodes, by labels."""
    found: dict[str, float] = {}
    for node_id in cluster.nodes:
        for family in read_text(get(cluster, node_id, "/metrics")):
            for sample in family.samples:
                if sample.name == name:
                    labels = ",".join(v for _, v in sorted(sample.labels.items()))
                    found[labels] = found.get(labels, 0) + sample.value
    return found


def test_every_declared_metric_is_on_the_page_and_no_other(cluster: LocalCluster) -> None:
    declared = {metric.name for metric in d.BROKER}
    seen: set[str] = set()
    for node_id in cluster.nodes:
        page = get(cluster, node_id, "/metrics")
        seen |= set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    assert declared <= seen, sorted(declared - seen)
    others = {name for name in seen - declared if not name.startswith(("process_", "python_"))}
    assert not others


def test_no_node_shows_more_series_than_the_document_allows(cluster: LocalCluster) -> None:
    """By what it hosts: so many for each replica, topic, API, error, and so many for itself."""
    each = {what.split()[0]: count for what, count, _ in growing()}
    for node_id in cluster.nodes:
        page = get(cluster, node_id, "/metrics")
        samples = [
            s for family in read_text(page) for s in family.samples if s.name.startswith("pegel_")
        ]
        found = {
            "replica": {(s.labels["topic"], s.labels["partition"]) for s in samples
                        if "partition" in s.labels},
            "topic": {s.labels["topic"] for s in samples if "topic" in s.labels},
            "API": {s.labels["api"] for s in samples if "api" in s.labels},
            "error": {(s.labels["api"], s.labels["error"]) for s in samples if "error" in s.labels},
        }  # fmt: skip
        assert len(found["replica"]) == 3
        allowed = fixed() + sum(each[what] * len(those) for what, those in found.items())
        assert 200 < len(samples) <= allowed


def test_both_formats_hold_the_same_families(cluster: LocalCluster) -> None:
    text = {f.name for f in read_text(get(cluster, 1, "/metrics"))}
    accept = "application/openmetrics-text;version=1.0.0"
    openmetrics = {f.name for f in read_openmetrics(get(cluster, 1, "/metrics", accept))}
    assert text == openmetrics


def test_promtool_finds_nothing_to_say(cluster: LocalCluster) -> None:
    page = get(cluster, 1, "/metrics")
    # ``process_`` and ``python_`` are the client library's.
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=page, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_figures_are_those_of_what_was_done(cluster: LocalCluster) -> None:
    assert values(cluster, "pegel_topic_received_records_total")["orders"] == RECORDS
    received = values(cluster, "pegel_topic_received_bytes_total")["orders"]
    assert received > 100 * RECORDS * 0.01  # compressed or not
    assert values(cluster, "pegel_replication_received_bytes_total")[""] == 2 * received
    assert values(cluster, "pegel_replication_sent_bytes_total")[""] == 2 * received
    ends = values(cluster, "pegel_partition_log_end_offset")
    assert sum(ends.values()) == 3 * RECORDS
    assert values(cluster, "pegel_controller_active")[""] == 1
    assert values(cluster, "pegel_leader_partitions")[""] == 3
    assert values(cluster, "pegel_requests_total")["Produce"] >= 1
    phases = values(cluster, "pegel_request_phase_seconds_total")
    total = sum(v for k, v in phases.items() if k.startswith("Produce,"))
    taken = values(cluster, "pegel_request_duration_seconds_sum")["Produce"]
    assert total == pytest.approx(taken, rel=1e-6)


def test_every_listener_is_counted(cluster: LocalCluster) -> None:
    for name in (
        "connections", "connections_opened_total", "network_receive_bytes_total",
        "network_transmit_bytes_total",
    ):  # fmt: skip
        found = values(cluster, f"pegel_{name}")
        assert set(found) == {"client", "controller", "http"}
        assert min(found["client"], found["controller"]) > 0, name


def test_what_the_client_library_adds_is_in_the_document(cluster: LocalCluster) -> None:
    page = get(cluster, 1, "/metrics")
    added = set(re.findall(r"^# TYPE ((?:process|python)_\S+)", page, re.MULTILINE))
    assert added
    assert added == set(re.findall(r"^\| `((?:process|python)_\w+)`", document(), re.MULTILINE))


def test_errors_are_counted_by_their_names(cluster: LocalCluster) -> None:
    async def again() -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            with pytest.raises(pegel.PegelError):
                await client.create_topic("orders", partitions=1, replication=1)

    asyncio.run(again())
    found = values(cluster, "pegel_request_errors_total")
    assert found["CreateTopics,TOPIC_ALREADY_EXISTS"] == 1


def test_the_views(cluster: LocalCluster) -> None:
    assert json.loads(get(cluster, 1, "/healthz")) == {"status": "ok"}
    assert json.loads(get(cluster, 1, "/readyz")) == {"ready": True}
    node: dict[str, Any] = json.loads(get(cluster, 1, "/v1/node"))
    assert len(node["broker"]["partitions"]) == 3
    assert node["log_directories"][0]["offline"] is None
    listed = json.loads(get(cluster, 1, "/v1/partitions?topic=orders"))["partitions"]
    assert [p["partition"] for p in listed] == [0, 1, 2]
    assert json.loads(get(cluster, 1, "/v1/partitions?topic=none"))["partitions"] == []
    assert json.loads(get(cluster, 1, "/v1/groups"))["groups"] == []
    quorum = json.loads(get(cluster, 1, "/v1/quorum"))
    assert quorum["voters"] == [1, 2, 3]
    assert [b["fenced"] for b in quorum["brokers"]] == [False] * 3
    with pytest.raises(urllib.error.HTTPError):
        get(cluster, 1, "/v1/nothing")


def test_scrapers_that_hang_or_lie_do_not_touch_the_data_path(cluster: LocalCluster) -> None:
    """On every node more connections than are allowed: half of a request, an answer that nobody
    reads, bytes that are no request. Writes go on, and so do health checks once they are gone."""
    held = []
    for node in cluster.nodes.values():
        host, _, port = node.http.rpartition(":")
        for number in range(2 * MAX_CONNECTIONS):
            connection = socket.create_connection((host, int(port)), 5)
            connection.sendall(
                (b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 20,
                 b"\x16\x03\x01" * 500)[number % 3]
            )  # fmt: skip
            held.append(connection)

    async def write() -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            for _ in range(20):
                await client.send_many("orders", [b"y"] * 20, timeout=20)

    try:
        asyncio.run(write())
    finally:
        for connection in held:
            connection.close()
    for node_id in cluster.nodes:
        assert json.loads(get(cluster, node_id, "/healthz")) == {"status": "ok"}
    assert values(cluster, "pegel_connections_refused_total")["http"] > 0
