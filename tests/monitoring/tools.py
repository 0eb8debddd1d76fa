"""The real Prometheus, Alertmanager and promtool, where this machine has them.

``make check-monitoring`` sets ``PEGEL_FETCH_MONITORING_TOOLS``, which lets them be fetched
(``grafana.programs``).
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from grafana import programs

ROOT = programs.ROOT
_fetch = cache(programs.fetch)


def tool(name: str) -> str:
    """The path of ``prometheus``, ``promtool`` or ``alertmanager``; skips where it is missing."""
    found = programs.find(name)
    if found is None and os.environ.get("PEGEL_FETCH_MONITORING_TOOLS"):
        problem = _fetch()
        found = programs.find(name)
        if found is None:
            pytest.fail(f"{name} could not be fetched: {problem}")
    if found is None:
        pytest.skip(f"{name} is not installed: make check-monitoring fetches Debian's package")
    return found
