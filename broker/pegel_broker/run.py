"""Runs one node in this process until a signal: the outermost shell around ``Node``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from pegel.seams import World
from pegel.seams.clock import RealClock
from pegel.seams.disk import RealDisk, ThreadDiskQueue
from pegel.seams.network import RealNetwork
from pegel_broker.config import NodeConfig
from pegel_broker.node import Node, NodeError

_log = logging.getLogger("pegel.node")


def real_world() -> World:
    """The operating system's clock, network and disk; for the running loop."""
    return World(RealClock(), RealNetwork(), RealDisk(), ThreadDiskQueue, random.SystemRandom())


async def _serve(config: NodeConfig, on_ready: Callable[[Node], None], lifeline: int | None) -> int:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[bool] = loop.create_future()
    asked = 0
    node = Node(real_world(), config)

    def on_signal() -> None:
        nonlocal asked
        asked += 1
        node.hurried = True
        if not stop.done():
            stop.set_result(True)
        elif asked > 1:
            os._exit(1)  # asked twice: do not wait for anybody

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if lifeline is not None:
        # The parent's death closes the other end: a cluster must not outlive its command.
        def on_lifeline() -> None:
            loop.remove_reader(lifeline)
            node.hurried = True
            if not stop.done():
                stop.set_result(True)

        loop.add_reader(lifeline, on_lifeline)
    starting = asyncio.ensure_future(node.start())
    ready = asyncio.ensure_future(_started(node, starting))
    await asyncio.wait(  # type: ignore[type-var]
        {ready, stop, node.failed}, return_when=asyncio.FIRST_COMPLETED
    )
    if ready.done() and not stop.done() and not node.failed.done():
        await ready  # raises what start raised
        gc.collect()
        gc.freeze()  # what is here stays: the collector need not look at it again
        gc.set_threshold(*GC_THRESHOLDS)
        on_ready(node)
        await asyncio.wait({stop, node.failed}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
    for task in (ready, starting):
        if not task.done():
            task.cancel()
    await asyncio.gather(ready, starting, return_exceptions=True)
    await node.stop(controlled=not node.failed.done())
    if node.failed.done():
        raise node.failed.result()
    return 0


# Objects between collections of the youngest, and how many of those to one of the older. A topic of
# a thousand partitions makes some 100,000 objects that stay; by Python's own measure each such
# burst has the whole heap looked through several times, on the event loop.
GC_THRESHOLDS = (10_000, 20, 50)


async def _started(node: Node, starting: asyncio.Future[None]) -> None:
    await starting
    await node.ready.wait()


def make_private(directory: Path) -> None:
    """Take what is there from everybody else: it may be older than this rule, or a copy.

    Where that is not allowed it is logged, and the node goes on.
    """
    if not directory.exists():
        return
    try:
        directory.chmod(0o700)
        for path in directory.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
    except OSError as error:
        _log.warning(
            "others may read the secrets in %s: its rights cannot be changed (%s); give it to the "
            "user of this process", directory, error.strerror,
        )  # fmt: skip


def run_node(
    config: NodeConfig,
    on_ready: Callable[[Node], None] = lambda node: None,
    lifeline: int | None = None,
) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Errors are logged as one line."""
    import uvloop

    os.umask(0o077)  # records, and in the metadata log what proves who is a user or a broker
    make_private(Path(config.data_dir) / "raft")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, on_ready, lifeline))
    except NodeError as error:
        _log.critical("%s", error)
        return 1
