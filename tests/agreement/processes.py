"""Real processes as a driver: ``pegel server`` three times, with proxies between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator

import pegel
from pegel.testing import ProxiedCluster
from tests.agreement.play import PARTITION, Cut, Script, play


class Processes:
    def __init__(self, cluster: ProxiedCluster, client: pegel.AsyncClient) -> None:
        self._cluster = cluster
        self.client = client

    def active_controller(self) -> int:
        return self._cluster.active_controller()

    async def kill(self, node: int) -> None:
        await asyncio.to_thread(self._cluster.kill, node)

    async def restart(self, node: int) -> None:
        await asyncio.to_thread(self._cluster.restart, node)

    def pause(self, node: int) -> None:
        self._cluster.pause(node)

    def resume(self, node: int) -> None:
        self._cluster.resume(node)

    def separate(self, node: int, others: Collection[int]) -> None:
        self._cluster.network.separate([node], others, ["client"])

    def mend(self) -> None:
        self._cluster.network.heal()

    def cuts(self) -> Iterator[Cut]:
        for node in self._cluster.nodes:
            for line in self._cluster.log_of(node).splitlines():
                facts = json.loads(line)
                if facts.get("event") == "truncated" and facts["partition"] == PARTITION:
                    yield Cut(node, facts["epoch"], facts["offset"], facts["before"])

    def segment(self, node: int) -> bytes:
        directory = self._cluster.nodes[node].data_dir
        return (directory / "log" / PARTITION / f"{0:020d}.log").read_bytes()


def on_processes(script: Script) -> list[str]:
    """The transcript of ``script`` on a cluster of processes."""

    async def main(cluster: ProxiedCluster) -> list[str]:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            return await play(Processes(cluster, client), script)

    with ProxiedCluster(brokers=3, settings=script.settings, log_format="json") as cluster:
        return asyncio.run(main(cluster))
