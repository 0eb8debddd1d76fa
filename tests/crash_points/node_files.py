"""Crash points of what a node keeps beside its logs: which boot of its host it last ran in, the
controllers that joined since it was configured, and the layout of a local cluster.

A boot id that is not the present one, whatever it is, counts as a lost page cache. The controller
goes by what it was told itself, so a file that is gone costs no trust.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import click

from pegel_broker.known_controllers import FILE as CONTROLLERS
from pegel_broker.known_controllers import read_controllers, write_controllers
from pegel_broker.layout import FILE as LAYOUT
from pegel_broker.layout import load, plan
from pegel_broker.node import BOOT_ID_FILE, BOOT_ID_PATH, Node
from tests.crash_points.tally import POINTS, Tally, require
from tests.support.memory_disk import MemoryDisk

DIRECTORY = "/node"
_BOOT = b"0b7f6f3e-5a1c-4c6e-9d64-3a1f0c2b8e11"
_NEXT_BOOT = b"c2a9d1f4-77e0-4b35-8f02-96d0ab54e7c3"


def _damaged(name: str, whole: bytes) -> Iterator[tuple[int, bytes]]:
    """``whole`` cut at each byte, then with each bit turned."""
    for point in range(9 * len(whole)):
        if not POINTS.wanted(f"{name} at {point}"):
            continue
        data = bytearray(whole)
        if point < len(whole):
            del data[point:]
        else:
            bit = point - len(whole)
            data[bit // 8] ^= 1 << bit % 8
        yield point, bytes(data)


def boot_id_damaged() -> Tally:
    """The host went down, or did not: the page cache counts as lost, and the true boot is told."""
    tally = Tally("boot-id, each byte cut and each bit turned")
    for now in (_BOOT, _NEXT_BOOT):
        for point, data in _damaged(f"{BOOT_ID_FILE} in {now.decode()}", _BOOT):
            disk = MemoryDisk()
            for path, content in ((BOOT_ID_PATH, now), (f"{DIRECTORY}/{BOOT_ID_FILE}", data)):
                disk.make_directories(path.rpartition("/")[0])
                disk.write_file(path, content)
            node = SimpleNamespace(
                world=SimpleNamespace(disk=disk), config=SimpleNamespace(data_dir=DIRECTORY)
            )
            found = Node._boot_id(cast(Node, node))
            require(found == (now.decode(), True), f"{BOOT_ID_FILE} at {point}: {found}")
            tally.take("page cache not trusted")
    return tally


def controllers_damaged() -> Tally:
    """What makes no sense says nothing; the configuration names controllers as well."""
    tally = Tally(f"{CONTROLLERS}, each byte cut and each bit turned")
    disk = MemoryDisk()
    disk.make_directories(DIRECTORY)
    write_controllers(disk, DIRECTORY, {4: ("127.0.0.1", 9093), 2: None})
    path = f"{DIRECTORY}/{CONTROLLERS}"
    whole = bytes(disk.files[path].data)
    for point, data in _damaged(CONTROLLERS, whole):
        disk.write_file(path, data)
        found = read_controllers(disk, DIRECTORY)
        cut = len(data) < len(whole)
        require(not (cut and found), f"{CONTROLLERS} cut at {point}: {found}")
        tally.take("says something else" if found else "says nothing")
    return tally


def layout_damaged() -> Tally:
    """A layout that cannot be read is refused with its name, and left as it is."""
    tally = Tally(f"{LAYOUT}, each byte cut and each bit turned")
    with tempfile.TemporaryDirectory(prefix="pegel-crash-points-") as directory:
        whole_layout = plan(Path(directory), 2, None, None, None)
        file = Path(directory, LAYOUT)
        whole = file.read_bytes()
        for point, data in _damaged(LAYOUT, whole):
            file.write_bytes(data)
            try:
                found = load(Path(directory))
            except click.ClickException as error:
                require(str(file) in error.message, f"{LAYOUT} at {point}: {error.message}")
                tally.take("refused")
            else:
                cut = len(data) < len(whole)
                require(not cut or found == whole_layout, f"{LAYOUT} cut at {point}: {found}")
                tally.take("another layout" if found != whole_layout else "whole")
            require(file.read_bytes() == data, f"{LAYOUT} at {point}: it is written to")
    return tally
