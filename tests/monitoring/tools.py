"""The real Prometheus, Alertmanager and promtool, where this machine has them.

They are looked for on ``PATH``, in the directory that ``PEGEL_MONITORING_TOOLS`` names, and in
``.tools/monitoring`` of the checkout. ``make check-monitoring`` sets
``PEGEL_FETCH_MONITORING_TOOLS``, which lets them be fetched as Debian packages: unpacked there,
nothing is installed or started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / ".tools" / "monitoring"
PACKAGES = ("prometheus", "prometheus-alertmanager")
_NAMES = {"alertmanager": ("alertmanager", "prometheus-alertmanager")}


def _directories() -> list[Path]:
    named = os.environ.get("PEGEL_MONITORING_TOOLS")
    return [*([Path(named)] if named else []), FETCHED / "usr" / "bin"]


def _find(name: str) -> str | None:
    for candidate in _NAMES.get(name, (name,)):
        found = shutil.which(candidate)
        if found:
            return found
        for directory in _directories():
            if (directory / candidate).is_file():
                return str(directory / candidate)
    return None


@cache
def _fetch() -> str:
    """Unpack Debian's packages into ``.tools``; what went wrong, or nothing."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "this is no Debian"
    FETCHED.mkdir(parents=True, exist_ok=True)
    for command in (["apt-get", "download", *PACKAGES],):
        done = subprocess.run(command, cwd=FETCHED, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}"
    for package in sorted(FETCHED.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(FETCHED)], check=True)
        package.unlink()
    return ""


def tool(name: str) -> str:
    """The path of ``prometheus``, ``promtool`` or ``alertmanager``; skips where it is missing."""
    found = _find(name)
    if found is None and os.environ.get("PEGEL_FETCH_MONITORING_TOOLS"):
        problem = _fetch()
        found = _find(name)
        if found is None:
            pytest.fail(f"{name} could not be fetched: {problem}")
    if found is None:
        pytest.skip(f"{name} is not installed: make check-monitoring fetches Debian's package")
    return found
