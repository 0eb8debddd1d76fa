"""The README's recipes, each run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.suite.conftest import System

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

README = Path(__file__).resolve().parents[3] / "README.md"
SECTION = README.read_text().split("## The Python client\n")[1].split("\n## ")[0]
RECIPES = re.findall(r"^\*\*(\d+)\..*?^```python\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)


def test_there_are_ten_short_ones() -> None:
    assert [int(number) for number, _ in RECIPES] == list(range(1, 11))
    assert all(len(code.splitlines()) <= 20 for _, code in RECIPES)
    assert all("localhost:9092" in code for _, code in RECIPES)


def test_each_does_what_it_says(system: System) -> None:
    """In order: the first makes the topic that the others use."""
    for number, code in RECIPES:
        done = subprocess.run(
            [sys.executable, "-c", code.replace("localhost:9092", system.bootstrap)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"recipe {number}:\n{done.stderr}"
        assert not done.stderr, f"recipe {number} complains:\n{done.stderr}"
        if number == "3":
            assert done.stdout == "10000\n"
        if number == "10":
            assert "UNKNOWN_TOPIC_OR_PARTITION True" in done.stdout
