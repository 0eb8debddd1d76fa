"""One ``pegel up`` to a directory: claimed before anything in it is written."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import click

FILE = "up.lock"
NODE_LOCKS = "node-*/node.lock"
# The nodes of a `pegel up` that was killed end by themselves, but not at once.
NODES_WAIT = 3.0


def claim(directory: Path) -> int:
    """Keep others out until the returned descriptor is closed; it holds this process's id.

    Raises:
        click.ClickException: another `pegel up`, or a node by itself, runs there.
    """
    lock = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if not _lock(lock):
        pid = os.read(lock, 32).decode().strip()
        raise click.ClickException(
            f"another `pegel up` (pid {pid}) runs the cluster in {directory}: stop that first "
            f"(Ctrl-C there, or kill {pid}). A single node that ended is started again with "
            f"`pegel server --config {directory}/node-N/server.properties`"
        )
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    deadline = time.monotonic() + NODES_WAIT
    while running := [path for path in sorted(directory.glob(NODE_LOCKS)) if _is_held(path)]:
        if time.monotonic() > deadline:
            names = ", ".join(path.parent.name for path in running)
            raise click.ClickException(
                f"{names} in {directory} already runs, without a `pegel up`: stop it first"
            )
        time.sleep(0.05)
    return lock


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return not _lock(fd)
    finally:
        os.close(fd)
