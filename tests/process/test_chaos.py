"""``pegel chaos`` for real: a few rounds, and a look at whether it would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def test_two_rounds_lose_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pegel", "chaos", "--rounds", "2", "--seed", "11", "--faults",
         "kill-leader,cut-off-from-all,terminate-leader", "--json", "--html",
         str(tmp_path / "page.html")],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["ok"]
    assert len(found["rounds"]) == 2
    for one in found["rounds"]:
        assert one["findings"] == []
        assert one["sent"] == one["acknowledged"] + sum(one["gave_up"].values()) > 100
        assert one["read"] > 0
        assert one["elections"], "the leader failed, and nobody was elected"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
