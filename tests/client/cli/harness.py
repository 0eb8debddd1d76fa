"""Runs commands as people do: in processes of their own, against a fake cluster."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine

from tests.support.fake_broker import FakeCluster

Body = Callable[[FakeCluster], Coroutine[None, None, None]]


def run(body: Body, brokers: int = 1) -> None:
    async def main() -> None:
        async with FakeCluster(brokers) as cluster:
            async with asyncio.timeout(60):
                await body(cluster)

    asyncio.run(main())


async def start(cluster: FakeCluster, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pegel", *arguments,
        env={"PEGEL_BOOTSTRAP": cluster.bootstrap, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def pegel(cluster: FakeCluster, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = await start(cluster, *arguments)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
