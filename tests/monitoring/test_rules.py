"""Rules and alerts: what promtool says of them, and a section of the runbook for each."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import click
import yaml

from pegel.cli.main import pegel
from tests.monitoring.stack import RULES, quicker
from tests.monitoring.tools import ROOT, tool

PROMETHEUS = ROOT / "grafana" / "prometheus"


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _promtool(*arguments: str) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments], capture_output=True, text=True, check=False, cwd=PROMETHEUS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_rules_and_configuration() -> None:
    _promtool("check", "rules", *(str(path) for path in sorted(RULES.glob("*.yml"))))
    _promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_every_alert_is_silent_fires_and_clears_in_promtools_tests() -> None:
    path = PROMETHEUS / "tests" / "alerts.yml"
    tested = [test["name"] for test in yaml.safe_load(path.read_text())["tests"]]
    assert tested == [alert["alert"] for alert in _alerts()]
    _promtool("test", "rules", str(path))


def test_the_alerts_are_those_of_an_operator() -> None:
    alerts = _alerts()
    assert len({alert["alert"] for alert in alerts}) == len(alerts) == 28
    for alert in alerts:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}


def test_every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = re.split(r"^## (Pegel\w+)$", text, flags=re.MULTILINE)[1:]
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    names = [alert["alert"] for alert in _alerts()]
    assert list(found) == names
    for name, body in found.items():
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in body, f"{name} lacks {part}"
    for alert in _alerts():
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_the_runbook_names_alerts_metrics_and_settings_that_exist() -> None:
    from pegel.exporter.declared import EXPORTER
    from pegel.metrics.clients import CLIENTS
    from pegel_broker.metrics.declared import BROKER

    text = (ROOT / "docs" / "runbook.md").read_text()
    known = {metric.name for catalogue in (BROKER, EXPORTER, CLIENTS) for metric in catalogue}
    assert set(re.findall(r"(?<!:)\bpegel_\w+", text)) <= known
    mentioned = set(re.findall(r"\bPegel[A-Z]\w+", text))
    assert mentioned <= {alert["alert"] for alert in _alerts()}


def test_the_commands_of_the_runbook_exist_with_their_options() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    found = re.findall(r"^\$ (pegel [^#\n]+)|`(pegel [^`]+)`", text, re.MULTILINE)
    commands = {(one or other).strip() for one, other in found}
    assert len(commands) > 8
    for command in sorted(commands):
        context = click.Context(pegel)
        resolved: click.Command = pegel
        rest = command.split()[1:]
        while isinstance(resolved, click.Group):
            child = resolved.get_command(context, rest[0])
            assert child is not None, command
            resolved, rest = child, rest[1:]
        options = {name for parameter in resolved.params for name in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= options, command


def test_quicker_rules_keep_their_expressions() -> None:
    text = "expr: rate(x[5m]) > 0.1 and y offset 10m > 3\n    for: 1m\n    interval: 15s"
    made = quicker(text, 20)
    assert made == "expr: rate(x[15s]) > 0.1 and y offset 30s > 3\n    for: 3s\n    interval: 1s"
