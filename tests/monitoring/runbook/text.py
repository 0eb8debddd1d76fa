"""What ``docs/runbook.md`` tells an operator to run and to read, taken from the text itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from grafana.boards import BOARDS
from grafana.panels import Panel
from tests.monitoring.tools import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"
PARTS = ("Means", "Look", "Do")
# A span of code that begins so is to be run; other spans name a setting, a file, a word of the log.
PROGRAMS = frozenset((
    "cat", "cp", "curl", "df", "du", "grep", "iostat", "jq", "kill", "ls", "mv", "pegel", "prlimit",
    "rm", "ss", "tail", "truncate",
))  # fmt: skip
_SPAN = re.compile(r"`([^`]+)`|^\$ (.+?)(?:\s{2,}#.*)?$", re.MULTILINE)
_QUERY = re.compile(r"(?:[\w ,()]+\()?(?:\w+:)?(?:pegel|process)_\w+")
_PANEL = re.compile(r"panel\s+\*([^*]+)\*\s+of\s+dashboard\s+\*([^*]+)\*")


@dataclass(frozen=True)
class Section:
    """One alert's. ``look`` and ``do`` are commands, queries and panels, as they are written."""

    alert: str
    parts: dict[str, str]
    look: tuple[str, ...]
    do: tuple[str, ...]


def is_command(item: str) -> bool:
    return item.split(maxsplit=1)[0] in PROGRAMS


def items(text: str) -> Iterator[str]:
    """What a text says to run (commands), to ask Prometheus (metrics), and to look at (panels)."""
    for found in _SPAN.finditer(text.replace("```", "")):
        item = " ".join((found[1] or found[2]).split())
        if is_command(item) or _QUERY.match(item):
            yield item
    for found in _PANEL.finditer(text):
        yield f"panel {' '.join(found[1].split())} of {found[2]}"


def head() -> tuple[str, ...]:
    """The commands before the first alert."""
    text = RUNBOOK.read_text().split("\n## ")[0]
    return tuple(items("\n".join(line for line in text.splitlines() if line.startswith("$ "))))


def sections() -> dict[str, Section]:
    """By alert, in the order of the text."""
    text = re.split(r"^## (Pegel\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    return {
        alert: _section(alert, body.split("\n## ")[0])
        for alert, body in zip(text[::2], text[1::2], strict=True)
    }


def _section(alert: str, body: str) -> Section:
    split = re.split(r"^\*\*(\w+)\.\*\*", body, flags=re.MULTILINE)[1:]
    parts = dict(zip(split[::2], split[1::2], strict=True))
    assert tuple(parts) == PARTS, f"{alert}: {tuple(parts)}"
    return Section(
        alert, parts,
        tuple(dict.fromkeys(items(parts["Look"]))), tuple(dict.fromkeys(items(parts["Do"]))),
    )  # fmt: skip


def panel_queries(item: str) -> list[str]:
    """The expressions of "panel P of D". Raises LookupError where there is none."""
    found = re.fullmatch(r"panel (.+) of (.+)", item)
    assert found, item
    title, board = found.groups()
    for one in BOARDS:
        for panel in one.panels:
            if one.title.endswith(board) and isinstance(panel, Panel) and panel.title == title:
                return [query.expr for query in panel.queries]
    raise LookupError(f"no {item}")
