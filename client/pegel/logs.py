"""Log lines for people and for machines: an event with its facts, as text or as one JSON object.

Facts have the same names everywhere, so that a change of leader can be followed through the logs of
all nodes by ``grep partition=orders-0``: ``node`` (whose log it is), ``partition`` (topic-number),
``epoch`` (of the leader), ``broker``, ``leader``, ``isr``, ``reason``.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TextIO

TEXT = "text"
JSON = "json"
FORMATS = (TEXT, JSON)

_TEXT_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s %(message)s"


class Event:
    """What happened, to be given to a logger in place of a text.

    ::

        _log.info(Event("elected", partition="orders-0", epoch=3, leader=2))
    """

    __slots__ = ("fields", "name")

    def __init__(self, name: str, /, **fields: object) -> None:
        self.name = name
        self.fields = fields

    def __str__(self) -> str:
        return self.name + "".join(f" {key}={value}" for key, value in self.fields.items())


class _TextFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def __init__(self, node_id: int | None) -> None:
        super().__init__(_TEXT_FORMAT, "%Y-%m-%dT%H:%M:%S")
        self._suffix = "" if node_id is None else f" node={node_id}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        line = super().formatMessage(record)
        return line + self._suffix if isinstance(record.msg, Event) else line


class _JsonFormatter(logging.Formatter):
    def __init__(self, node_id: int | None) -> None:
        super().__init__()
        self._node_id = node_id

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if self._node_id is not None:
            line["node"] = self._node_id
        if isinstance(record.msg, Event):
            line |= {"event": record.msg.name, **record.msg.fields}
        else:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging(
    level: str, stream: TextIO | str, log_format: str = TEXT, node_id: int | None = None
) -> None:
    """Log lines in UTC, to a stream or to the file of that name; replaces what was set up."""
    assert log_format in FORMATS
    handler: logging.Handler = (
        logging.FileHandler(stream) if isinstance(stream, str) else logging.StreamHandler(stream)
    )
    formatter = _JsonFormatter if log_format == JSON else _TextFormatter
    handler.setFormatter(formatter(node_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
