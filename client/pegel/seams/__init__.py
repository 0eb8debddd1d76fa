"""The three seams through which the world comes in: clock, network, disk.

Everything above them is the same code in production and in simulation. Nothing
else in the packages opens a file or a socket, or reads a clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from pegel.seams.clock import Clock
from pegel.seams.disk import Disk, DiskQueue
from pegel.seams.network import Network

__all__ = ["Clock", "Disk", "DiskQueue", "Network", "World"]


@dataclass(frozen=True, slots=True)
class World:
    """What one node sees of the world outside of its own memory.

    ``new_disk_queue(name)`` makes a FIFO worker for blocking disk calls; a node makes one for
    each log directory and one for its Raft log, so that one slow device holds up only itself.
    """

    clock: Clock
    network: Network
    disk: Disk
    new_disk_queue: Callable[[str], DiskQueue]
    random: random.Random
