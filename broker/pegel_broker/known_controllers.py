"""The file that names controllers which joined or left since a node was configured.

Without it a node that was away for long might find none of those that vote now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pegel.seams.disk import Disk

FILE = "controllers.json"


def read_controllers(disk: Disk, data_dir: str) -> dict[int, tuple[str, int] | None]:
    """By node id; None: it has left. A file that makes no sense says nothing."""
    path = f"{data_dir}/{FILE}"
    if not disk.exists(path):
        return {}
    try:
        saved = json.loads(disk.read_file(path))
        return {
            int(i): None if address is None else (str(address[0]), int(address[1]))
            for i, address in saved.items()
        }
    except (ValueError, TypeError, AttributeError, IndexError):
        return {}


def write_controllers(
    disk: Disk, data_dir: str, controllers: Mapping[int, tuple[str, int] | None]
) -> None:
    """Replace the file. Raises OSError."""
    document = json.dumps({str(i): address for i, address in controllers.items()})
    disk.write_file(f"{data_dir}/{FILE}", document.encode())
