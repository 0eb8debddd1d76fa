"""A local cluster whose nodes reach each other, and are reached, through proxies only."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping, Sequence

from pegel.testing.cluster import LocalCluster, NodeProcess
from pegel.testing.network import HOST, FaultyNetwork, free_ports


class ProxiedCluster(LocalCluster):
    """As ``LocalCluster``, with ``network`` to cut it.

    ::

        with ProxiedCluster(brokers=3) as cluster:
            leader = cluster.leader_of("orders", 0)
            cluster.network.separate([leader], [n for n in cluster.nodes if n != leader])
            ...
            cluster.network.heal()

    Clients come through the proxies as well and are ``OUTSIDE`` in the rules. The nodes' http
    listeners are reached directly: they tell what a node that is cut off believes.
    """

    def __init__(
        self,
        brokers: int = 3,
        data_dir: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        racks: Sequence[str] = (),
        log_format: str = "text",
    ) -> None:
        super().__init__(brokers, data_dir, settings, log_format=log_format)
        self.network = FaultyNetwork()
        self._racks = racks
        self._settings = dict(settings or {})
        self._count = brokers

    def start(self) -> None:
        """Start every node as a process of its own; wait until each serves.

        Raises:
            ClusterError: with what a node said.
        """
        began = time.monotonic()
        ids = range(1, self._count + 1)
        ports = iter(free_ports(self._count * 4 + self._count * (self._count - 1)))
        real = {i: (next(ports), next(ports), next(ports)) for i in ids}  # client, controller, http
        advertised = {i: next(ports) for i in ids}
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        for i in ids:
            self.network.door(advertised[i], i, "client", (HOST, real[i][0]))
            controllers = {i: real[i][1]}
            for other in ids:
                if other != i:
                    controllers[other] = next(ports)
                    to = (HOST, real[other][1])
                    self.network.door(controllers[other], other, "controller", to, source=i)
            directory = self.data_dir / f"node-{i}"
            directory.mkdir(parents=True, exist_ok=True)
            lines = {
                "node.id": i, "process.roles": "broker,controller", "data.dir": directory,
                "listeners": f"{HOST}:{real[i][0]}",
                "advertised.listeners": f"{HOST}:{advertised[i]}",
                "controllers": ",".join(f"{n}@{HOST}:{p}" for n, p in sorted(controllers.items())),
                "http.listener": f"{HOST}:{real[i][2]}", "cluster.id": cluster_id,
                **({"broker.rack": self._racks[i - 1]} if self._racks else {}),
                **self._settings,
            }  # fmt: skip
            text = "".join(f"{key}={value}\n" for key, value in lines.items())
            (directory / "server.properties").write_text(text)
            self.nodes[i] = NodeProcess(
                i, -1, f"{HOST}:{advertised[i]}", f"{HOST}:{real[i][1]}", f"{HOST}:{real[i][2]}",
                directory, alive=False,
            )  # fmt: skip
        self.bootstrap = ",".join(node.client for node in self.nodes.values())
        try:
            super().restart(*ids)
        except BaseException:
            self.stop()
            raise
        self.ready_seconds = time.monotonic() - began

    def stop(self, *, keep: bool = False) -> None:
        """As ``LocalCluster.stop``; the proxies end as well."""
        if self.network.closed:
            return
        self.network.heal()
        super().stop(keep=keep)
        self.network.close()

    def kill(self, node_id: int) -> None:
        self.network.refuse(node_id)
        super().kill(node_id)

    def kill_all(self) -> None:
        for node_id in self.nodes:
            self.network.refuse(node_id)
        super().kill_all()

    def terminate(self, node_id: int, timeout: float = 15.0) -> None:
        super().terminate(node_id, timeout)
        self.network.refuse(node_id)

    def restart(self, *node_ids: int) -> None:
        for node_id in node_ids:
            self.network.admit(node_id)
        super().restart(*node_ids)
