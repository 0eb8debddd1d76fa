"""Where the programs are that this folder configures: Prometheus, Alertmanager, Grafana.

They are looked for on ``PATH``, in the directory that ``PEGEL_MONITORING_TOOLS`` names, and in
``.tools/monitoring`` of the checkout, where ``fetch`` unpacks Debian's packages: nothing is
installed, nothing is started, and no rights are needed for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FETCHED = ROOT / ".tools" / "monitoring"
PACKAGES = ("prometheus", "prometheus-alertmanager")
# Other names of the same program.
_NAMES = {
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),
    "grafana": ("grafana", "grafana-server"),
}


def find(name: str) -> str | None:
    """The path of ``prometheus``, ``promtool``, ``alertmanager`` or ``grafana``."""
    named = os.environ.get("PEGEL_MONITORING_TOOLS")
    directories = [*([Path(named)] if named else []), FETCHED / "usr" / "bin"]
    for candidate in _NAMES.get(name, (name,)):
        found = shutil.which(candidate)
        if found:
            return found
        for directory in directories:
            if (directory / candidate).is_file():
                return str(directory / candidate)
    return None


def fetch() -> str:
    """Unpack Debian's packages into ``.tools``; what went wrong, or nothing."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "this is no Debian: install Prometheus and put it on PATH"
    FETCHED.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["apt-get", "download", *PACKAGES], cwd=FETCHED, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return f"apt-get download {' '.join(PACKAGES)}: {said[-1] if said else 'it failed'}"
    for package in sorted(FETCHED.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(FETCHED)], check=True)
        package.unlink()
    return ""
