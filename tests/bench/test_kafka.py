"""Beside Apache Kafka, where java and its jars are at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pegel_bench.kafka import VERSION, missing_tools

pytestmark = [
    pytest.mark.java,
    pytest.mark.process,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        bool(missing_tools()) or "PEGEL_KAFKA_CLASSPATH" not in os.environ,
        reason="starts Apache Kafka: needs java, mvn and PEGEL_KAFKA_CLASSPATH=maven",
    ),
]


def test_one_command_measures_both_in_turn() -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "pegel", "bench", "throughput", "--compare", "kafka", "--brokers",
            "1", "--kafka-heap", "256m", "--acks", "all", "--partitions", "1", "--seconds", "3",
            "--warm-up", "0", "--first-warm-up", "0", "--rounds", "1", "--batch-bytes", "10000",
            "--json",
        ],
        capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["target"] for row in document["rows"]] == ["pegel", "kafka"]
    assert all(row["ok"] and row["verified"] for row in document["rows"])
    assert document["targets"]["kafka"]["version"].startswith(f"Apache Kafka {VERSION}")
    assert "MB/s" in {ratio["figure"] for ratio in document["ratios"]}
    assert all(float(ratio["median"]) > 0 for ratio in document["ratios"])
