"""What the demo sends: every line of every module of the running Python's standard library."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file: ``key`` is its path below the library's root, ``lines`` keep no line ends."""

    key: bytes
    lines: list[bytes]


def standard_library(limit_lines: int | None = None) -> Iterator[SourceFile]:
    """The files in a stable order, without ``site-packages``; stops after ``limit_lines``.

    An empty file has no line, so it is not yielded: there would be nothing to send.
    """
    root = Path(sysconfig.get_path("stdlib"))
    left = limit_lines
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if "site-packages" in relative.parts or not path.is_file():
            continue
        # Split at newlines alone: ``splitlines`` would also split at a form feed.
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
        if lines == [b""]:
            continue
        if left is not None:
            lines = lines[:left]
            left -= len(lines)
        if lines:
            yield SourceFile(relative.as_posix().encode(), lines)
        if left == 0:
            return
