"""Log lines: the same facts as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pegel.logs import Event, set_up_logging


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _logged(log_format: str, message: object, *arguments: object, error: bool = False) -> str:
    stream = io.StringIO()
    set_up_logging("info", stream, log_format, 3)
    try:
        raise RuntimeError("oh no")
    except RuntimeError as raised:
        logging.getLogger("pegel.test").warning(
            message, *arguments, exc_info=raised if error else None
        )
    return stream.getvalue()


def test_an_event_as_text_names_its_node_last() -> None:
    line = _logged("text", Event("elected", partition="orders-0", epoch=3, leader=2))
    assert line.endswith("pegel.test elected partition=orders-0 epoch=3 leader=2 node=3\n")
    assert line[10] == "T"


def test_an_event_as_json_has_its_facts_as_keys() -> None:
    line = json.loads(_logged("json", Event("elected", partition="orders-0", isr=[1, 2])))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning", "logger": "pegel.test", "node": 3, "event": "elected",
        "partition": "orders-0", "isr": [1, 2],
    }  # fmt: skip


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_ordinary_lines_and_exceptions_stay_what_they_are(log_format: str) -> None:
    output = _logged(log_format, "a %s of %d", "text", 7, error=True)
    if log_format == "json":
        (line,) = output.splitlines()  # one line, whatever it holds
        found = json.loads(line)
        assert found["message"] == "a text of 7"
        assert "RuntimeError: oh no" in found["exception"]
    else:
        assert "a text of 7\nTraceback" in output
