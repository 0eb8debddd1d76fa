"""The declarations, and the page that is derived from them."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from grafana.document import document
from pegel_broker.cli import server
from pegel_broker.metrics import declared as d

ROOT = Path(__file__).resolve().parents[3]


def test_every_label_is_bounded() -> None:
    used = {label for metric in d.BROKER for label in metric.labels}
    assert used == set(d.LABELS)


def test_base_units_and_no_forbidden_label() -> None:
    for metric in d.BROKER:
        assert not {"client_id", "address", "peer"} & set(metric.labels), metric.name
        assert not {"group", "partition"} <= set(metric.labels), metric.name
        assert not metric.name.endswith(("_ms", "_kb", "_mb", "_percent", "_minutes")), metric.name


def test_the_document_is_what_the_declarations_say() -> None:
    """``python -m grafana.document > docs/metrics.md`` writes it anew."""
    assert (ROOT / "docs" / "metrics.md").read_text() == document()


def test_the_command_line_lists_every_metric() -> None:
    output = CliRunner().invoke(server, ["--list-metrics"]).output
    for metric in d.BROKER:
        assert metric.name in output
