"""A worker's talk with the command that started it: JSON lines over its standard streams."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

PROGRESS_EVERY = 0.25


class Control:
    """``stopped`` turns true when the parent asks for it, or is gone.

    The parent writes ``go`` and ``stop``; the worker writes one JSON object a line, each with
    an ``event``.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.progress_due = 0.0
        self._input = sys.stdin.fileno()
        self._pending = b""

    def read_spec(self) -> dict[str, Any]:
        """The first line, whole."""
        return json.loads(self._line())  # type: ignore[no-any-return]

    def wait_for_go(self) -> None:
        self.emit("ready")
        if self._line().strip() != b"go":
            self.stopped = True

    def _line(self) -> bytes:
        while b"\n" not in self._pending:
            piece = os.read(self._input, 65536)
            if not piece:
                self.stopped = True
                return b"{}"
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def poll(self) -> bool:
        """Whether to stop; costs one system call, so ask a few times a second."""
        if not self.stopped and select.select([self._input], [], [], 0)[0]:
            self.stopped = True
        return self.stopped

    def due(self, now: float) -> bool:
        """Whether it is time for ``progress`` and ``poll``."""
        return now >= self.progress_due

    def progress(self, phase: str, **figures: object) -> None:
        self.progress_due = time.perf_counter() + PROGRESS_EVERY
        self.emit("progress", phase=phase, **figures)
        self.poll()

    def emit(self, event: str, **fields: object) -> None:
        line = json.dumps({"event": event, **fields}) + "\n"
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            self.stopped = True
