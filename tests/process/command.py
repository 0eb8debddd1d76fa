"""The command line against a cluster of real processes."""

from __future__ import annotations

import subprocess
import sys

from pegel.testing import LocalCluster


def pegel_command(cluster: LocalCluster, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of ``pegel …`` on this cluster."""
    done = subprocess.run(
        [sys.executable, "-m", "pegel", *arguments, "-b", cluster.bootstrap],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
