"""Every expression of every panel, rule and alert, executed by a real Prometheus over a cluster."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from grafana.boards import BOARDS
from grafana.panels import Panel
from pegel.testing import LocalCluster
from tests.monitoring.load import Load
from tests.monitoring.stack import RULES, Stack, free_port

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

_VARIABLES = {
    "$cluster": ".+", "$job": ".+", "$instance": ".+", "$topic": ".+", "$group": ".+",
    "$__rate_interval": "8s",
}  # fmt: skip


def filled_in(expression: str) -> str:
    """A panel's expression as Grafana sends it, with everything selected."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def _panels() -> list[tuple[str, str, str]]:
    """Title, expression and why it may be silent, of the dashboards whose jobs run here."""
    return [
        (f"{board.title}: {panel.title}", filled_in(query.expr), query.silent)
        for board in BOARDS
        if board.job in JOBS
        for panel in board.panels
        if isinstance(panel, Panel)
        for query in panel.queries
    ]


JOBS = {"pegel", "pegel-exporter", "pegel-clients", "pegel-bench"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory: Path = tmp_path_factory.mktemp("prometheus")
    settings = {"group.initial.rebalance.delay.ms": "100", "offsets.topic.num.partitions": "4"}
    with LocalCluster(brokers=3, settings=settings) as cluster:
        exporter_port, bench_port = free_port(), free_port()
        commands = (
            ("exporter", "--listen", f"127.0.0.1:{exporter_port}", "--interval", "0.5"),
            ("bench", "end-to-end", "--rate", "200", "--seconds", "200", "--partitions", "1",
             "--acks", "1", "--prometheus", f"{bench_port}"),
        )  # fmt: skip
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "pegel", *command, "-b", cluster.bootstrap],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for command in commands
        ]  # fmt: skip
        try:
            with Load(cluster.bootstrap) as load:
                targets = {
                    "pegel": [node.http for node in cluster.nodes.values()],
                    "pegel-exporter": [f"127.0.0.1:{exporter_port}"],
                    "pegel-clients": [load.address],
                    "pegel-bench": [f"127.0.0.1:{bench_port}"],
                }
                with Stack(directory, targets, speed=20) as started:
                    started.until(lambda: started.up() == 6, "all targets are scraped")
                    load.run(12.0)
                    yield started
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(30)


def test_every_panel_has_data_or_says_why_not(stack: Stack) -> None:
    silent = []
    for title, expression, why in _panels():
        if not stack.query(expression) and not why:
            silent.append(f"{title}: {expression}")
    assert not silent, "\n".join(silent)


def test_every_rule_can_be_evaluated_and_no_alert_fires(stack: Stack) -> None:
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                stack.query(rule["expr"])
    assert not stack.firing()


def test_alerts_look_at_series_that_exist(stack: Stack) -> None:
    """An alert on a name that nobody has would be silent for ever."""
    names = {
        name
        for path in RULES.glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        for name in re.findall(r"\b(?:pegel|process|kafka)_\w+|\b\w+:pegel_[\w:]+", rule["expr"])
    }
    assert len(names) > 25
    # What has never happened has no series yet.
    missing = {n for n in names if not stack.query(n)} - {"pegel_request_errors_total"}
    missing -= {"cluster:pegel_request_errors:ratio_rate5m"}
    assert not missing


def test_variables_of_the_dashboards_have_values(stack: Stack) -> None:
    for board in BOARDS:
        if board.job in JOBS:
            found = stack.query(board.probe)
            assert found, board.title
            assert {"cluster", "job", "instance"} <= set(found[0]["metric"])
            assert {r["metric"]["job"] for r in found} == {board.job}
