"""What happens to disks: they fail, fill up, become slow, hang.

A small tmpfs fills up; an ext4 of its own, in a file, is frozen and thawed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pegel_bench.chaos.scene import Scene, fault

_PRLIMIT = "" if sys.platform == "linux" else "needs Linux (prlimit)"


def _limit(pid: int, size: int) -> None:
    """No file of the process grows beyond ``size`` bytes: writes fail with EFBIG."""
    if sys.platform == "linux":
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def _disk_fails(scene: Scene, node_id: int, text: str) -> None:
    """The node gives up by itself; it is started again with a disk that works."""
    scene.now(text)
    _limit(scene.cluster.nodes[node_id].pid, 0)
    scene.wait(1, 4)
    if scene.cluster.is_running(node_id):
        scene.cluster.kill(node_id)
    scene.cluster.restart(node_id)


@fault(_PRLIMIT)
def disk_fails_at_leader(scene: Scene) -> None:
    """Every write to the leader's disk fails from now on."""
    leader = scene.leader()
    _disk_fails(scene, leader, f"the disk of leader {leader} fails")


@fault(_PRLIMIT)
def disk_fails_at_follower(scene: Scene) -> None:
    """Every write to a follower's disk fails from now on."""
    follower = scene.follower()
    _disk_fails(scene, follower, f"the disk of follower {follower} fails")


_ROOT = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None
_MOUNT = "" if _ROOT else "needs to be root on Linux (a small tmpfs)"
_FREEZE = (
    ""
    if _ROOT and all(shutil.which(tool) for tool in ("mkfs.ext4", "fsfreeze", "losetup"))
    else "needs to be root on Linux, with mkfs.ext4, losetup and fsfreeze"
)
ROOM = 4 * 1024 * 1024
# What an ext4 with a journal needs at least, and room for what is written meanwhile.
ROOM_EXT4 = 64 * 1024 * 1024


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _mount_tmpfs(size: int, where: Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", f"size={size + ROOM}", "tmpfs", str(where))


def _mount_ext4(size: int, where: Path) -> None:
    image = where.with_name("log.img")
    with image.open("wb") as file:
        file.truncate(size + ROOM_EXT4)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    _run("mount", "-o", "loop", str(image), str(where))
    (where / "lost+found").rmdir()


@contextlib.contextmanager
def _disk_of_its_own(
    scene: Scene, node_id: int, mount: Callable[[int, Path], None]
) -> Iterator[Path]:
    """The node runs with its log on a file system of its own; then with what it was on before."""
    cluster = scene.cluster
    log = cluster.nodes[node_id].data_dir / "log"
    aside = log.with_name("log.aside")
    cluster.terminate(node_id)
    log.rename(aside)
    log.mkdir()
    size = sum(p.stat().st_size for p in aside.rglob("*") if p.is_file()) * 2
    mount(size, log)
    try:
        shutil.copytree(aside, log, dirs_exist_ok=True)
        cluster.restart(node_id)
        yield log
    finally:
        if cluster.is_running(node_id):
            cluster.terminate(node_id)
        shutil.rmtree(aside)
        shutil.copytree(log, aside)
        _run("umount", str(log))
        log.with_name("log.img").unlink(missing_ok=True)
        log.rmdir()
        aside.rename(log)
    cluster.restart(node_id)


@fault(_MOUNT)
def disk_full(scene: Scene) -> None:
    """A node whose log is on a small disk that fills up; then there is room again."""
    node_id = scene.random.choice(sorted(scene.cluster.nodes))
    with _disk_of_its_own(scene, node_id, _mount_tmpfs) as log:
        scene.now(f"the disk of node {node_id} is full")
        filler = log / "filler"
        _fill(filler)
        scene.wait(1, 4)
        filler.unlink()
        if not scene.cluster.is_running(node_id):
            scene.cluster.restart(node_id)
        scene.wait(0.5, 1)


def _fill(path: Path) -> None:
    """Until not a byte fits."""
    with path.open("wb", buffering=0) as file:
        for chunk in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(chunk))


@contextlib.contextmanager
def _frozen(log: Path) -> Iterator[None]:
    """Every write waits until the end of this, as every process that writes does."""
    _run("fsfreeze", "--freeze", str(log))
    try:
        yield
    finally:
        _run("fsfreeze", "--unfreeze", str(log))


def _lead(scene: Scene, node_id: int) -> None:
    """Give the node time to lead again: a disk that nobody waits for shows little."""
    deadline = time.monotonic() + scene.between(0, 8)
    while time.monotonic() < deadline and scene.leader() != node_id:
        time.sleep(0.1)


@fault(_FREEZE)
def disk_slow(scene: Scene) -> None:
    """A node's writes take from 50 to 400 ms each, for some seconds."""
    node_id = scene.random.choice(sorted(scene.cluster.nodes))
    with _disk_of_its_own(scene, node_id, _mount_ext4) as log:
        _lead(scene, node_id)
        scene.now(f"the disk of node {node_id} is slow")
        until = time.monotonic() + scene.between(2, 6)
        while time.monotonic() < until:
            with _frozen(log):
                scene.wait(0.05, 0.4)
            scene.wait(0.005, 0.05)


@fault(_FREEZE)
def disk_hangs(scene: Scene) -> None:
    """No write of a node is answered for some seconds; then all are."""
    node_id = scene.random.choice(sorted(scene.cluster.nodes))
    with _disk_of_its_own(scene, node_id, _mount_ext4) as log:
        _lead(scene, node_id)
        seconds = scene.between(1, 14)
        scene.now(f"the disk of node {node_id} hangs for {seconds:.1f} s")
        with _frozen(log):
            time.sleep(seconds)
        scene.wait(0.5, 1)
