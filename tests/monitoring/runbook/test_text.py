"""Every section of the runbook is tried, and tries run what it says, to the letter."""

from __future__ import annotations

import pytest

from tests.monitoring.runbook import (  # noqa: F401 (they say what they try)
    test_brokers,
    test_clients,
    test_controllers,
    test_damage,
    test_disks,
    test_replicas,
)
from tests.monitoring.runbook.text import panel_queries, sections
from tests.monitoring.runbook.trial import untried


def test_every_alert_is_tried_with_all_that_its_section_says() -> None:
    assert not untried()


def test_a_command_that_is_not_tried_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sections()
    some = found["PegelBrokerDown"]
    monkeypatch.setattr(
        "tests.monitoring.runbook.trial.sections",
        lambda: found | {"PegelBrokerDown": type(some)("PegelBrokerDown", {}, some.look, ())},
    )
    assert list(untried()) == ["PegelBrokerDown: Do"]


def test_panels_that_the_runbook_names_exist() -> None:
    panels = [
        item
        for section in sections().values()
        for item in (*section.look, *section.do)
        if item.startswith("panel ")
    ]
    assert panels
    for panel in panels:
        assert panel_queries(panel)
