"""One ``pegel up`` to a directory: claimed before anything in it is written."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pegel.seams.disk import Lock, LockedError, RealDisk

FILE = "up.lock"
NODE_LOCKS = "node-*/node.lock"
# The nodes of a `pegel up` that was killed end by themselves, but not at once.
NODES_WAIT = 3.0


def claim(directory: Path) -> Lock:
    """Keep others out until the lock is closed; its file holds this process's id.

    Raises:
        click.ClickException: another `pegel up`, or a node by itself, runs there.
    """
    try:
        lock = RealDisk().lock(str(directory / FILE))
    except LockedError as error:
        raise click.ClickException(
            f"another `pegel up` (pid {error.holder}) runs the cluster in {directory}: stop that "
            f"first (Ctrl-C there, or kill {error.holder}). A single node that ended is started "
            f"again with `pegel server --config {directory}/node-N/server.properties`"
        ) from None
    deadline = time.monotonic() + NODES_WAIT
    while running := [path for path in sorted(directory.glob(NODE_LOCKS)) if _is_held(path)]:
        if time.monotonic() > deadline:
            names = ", ".join(path.parent.name for path in running)
            raise click.ClickException(
                f"{names} in {directory} already runs, without a `pegel up`: stop it first"
            )
        time.sleep(0.05)
    return lock


def _is_held(path: Path) -> bool:
    try:
        RealDisk().lock(str(path)).close()
    except LockedError:
        return True
    return False
