"""Points in time as people write them, and durations as people read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_time(text: str, now: datetime, hint: str) -> int:
    """A point in time as milliseconds since the epoch.

    Raises:
        click.BadParameter: it is none; ``hint`` names the option.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if ago is not None:
        then = now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        return int(then.timestamp() * 1000)
    if text.isdigit() and len(text) > 8:
        return int(text)
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time; write 10m, 2h, 2026-11-23T20:05 or milliseconds since 1970",
            param_hint=hint,
        ) from None
    return int(then.timestamp() * 1000)


def show_seconds(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 m 20 s``, ``5 h 1 m``, ``2 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"),
                                     (60, "m", 1, "s")):  # fmt: skip
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {small}"
    return f"{whole} s"
