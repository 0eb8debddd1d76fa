"""A local cluster for tests: ``pegel up`` in a process of its own, and signals for its nodes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pegel.credentials import Scram512

READY_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0


class ClusterError(RuntimeError):
    """The cluster, or one of its nodes, did not do what was asked of it."""


@dataclass(slots=True)
class NodeProcess:
    """One node; addresses are host:port. ``process`` is set once it was restarted here."""

    node_id: int
    pid: int
    client: str
    controller: str
    http: str
    data_dir: Path
    alive: bool = True
    paused: bool = False
    process: subprocess.Popen[str] | None = None


class LocalCluster:
    """Real brokers on free ports of this machine; use it with ``with``.

    ::

        with LocalCluster(brokers=3) as cluster:
            producer = Producer({"bootstrap.servers": cluster.bootstrap})
            cluster.kill(cluster.leader_of("orders", 0))

    Args:
        brokers: number of nodes, each broker and controller.
        arbiters: nodes that are controllers only; their ``client`` is empty.
        observers: nodes that are brokers only; their ``controller`` is empty.
        data_dir: kept afterwards; without one a temporary directory that is removed.
        settings: broker settings by Kafka's names, for every node.
        racks: of the nodes, in turn.
        sasl: clients have to log in; ``credentials`` are those of the user who is there.
    """

    def __init__(
        self,
        brokers: int = 3,
        data_dir: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        arbiters: int = 0,
        observers: int = 0,
        racks: Sequence[str] = (),
        sasl: bool = False,
        base_port: int = 0,
        log_level: str = "info",
        log_format: str = "text",
    ) -> None:
        self.bootstrap = ""
        self.ready_seconds = 0.0
        self.nodes: dict[int, NodeProcess] = {}
        self._own_directory = data_dir is None
        self.data_dir = Path(tempfile.mkdtemp(prefix="pegel-") if data_dir is None else data_dir)
        self._arguments = [
            "up", "--json", "--until-eof", "--brokers", str(brokers),
            "--data-dir", str(self.data_dir), "--log-level", log_level, "--log-format", log_format,
        ]  # fmt: skip
        self._log_format = log_format
        if arbiters:
            self._arguments += ["--arbiters", str(arbiters)]
        if observers:
            self._arguments += ["--observers", str(observers)]
        if sasl:
            self._arguments.append("--sasl")
        if racks:
            self._arguments += ["--racks", ",".join(racks)]
        # A directory that holds a cluster knows its ports.
        if not (self.data_dir / "cluster.json").exists() or base_port:
            self._arguments += ["--base-port", str(base_port)]
        for key, value in (settings or {}).items():
            self._arguments += ["--set", f"{key}={value}"]
        self._up: subprocess.Popen[str] | None = None

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until every broker serves.

        Raises:
            ClusterError: with what the cluster said.
        """
        self._up = _spawn(self._arguments)
        ready = _ready_line(self._up)
        self.bootstrap, self.ready_seconds = ready["bootstrap"], ready["ready_seconds"]
        for node in ready["nodes"]:
            self.nodes[node["id"]] = NodeProcess(
                node["id"], node["pid"], node["client"] or "", node["controller"] or "",
                node["http"], self.data_dir / f"node-{node['id']}",
            )  # fmt: skip

    @property
    def credentials(self) -> Scram512:
        """Of the user whom a cluster with ``sasl`` begins with."""
        return Scram512("admin", (self.data_dir / "admin.password").read_text().strip())

    def stop(self, *, keep: bool = False) -> None:
        """End every process; a temporary data directory is removed, unless it is to be kept.

        Safe to call twice.
        """
        for node in self.nodes.values():
            if node.paused and node.alive:
                self.resume(node.node_id)
        processes = [n.process for n in self.nodes.values() if n.process is not None]
        processes += [self._up] if self._up is not None else []
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._up = None
        self.nodes.clear()
        if self._own_directory and not keep:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    # -- single nodes

    def kill(self, node_id: int) -> None:
        """SIGKILL: the process is gone, its page cache stays."""
        self._signal(node_id, signal.SIGKILL)
        self._wait_gone(self.nodes[node_id])

    def terminate(self, node_id: int, timeout: float = STOP_TIMEOUT) -> None:
        """SIGTERM, and wait until it has ended."""
        self._signal(node_id, signal.SIGTERM)
        self._wait_gone(self.nodes[node_id], timeout)

    def pause(self, node_id: int) -> None:
        """SIGSTOP: alive, but it does nothing."""
        self._signal(node_id, signal.SIGSTOP)
        self.nodes[node_id].paused = True

    def resume(self, node_id: int) -> None:
        """SIGCONT after ``pause``."""
        self._signal(node_id, signal.SIGCONT)
        self.nodes[node_id].paused = False

    def is_running(self, node_id: int) -> bool:
        """Whether its process is there, paused or not; a node may end by itself."""
        node = self.nodes[node_id]
        if node.alive and not _is_running(node):
            node.alive = False
        return node.alive

    def kill_all(self) -> None:
        """SIGKILL to every node at once, as when the host goes down."""
        running = [node for node in self.nodes.values() if node.alive]
        for node in running:
            os.kill(node.pid, signal.SIGKILL)
        for node in running:
            self._wait_gone(node)

    def restart(self, *node_ids: int) -> None:
        """Start nodes that were killed or terminated again, on their ports and data.

        Together, where several are named: none of them may be able to serve alone. Waits until
        each serves.

        Raises:
            ClusterError: one is still alive, or does not get ready.
        """
        nodes = [self.nodes[node_id] for node_id in node_ids]
        for node in nodes:
            if node.alive:
                raise ClusterError(f"node {node.node_id} is alive")
            if node.process is not None:
                for stream in (node.process.stdin, node.process.stdout, node.process.stderr):
                    if stream is not None:
                        stream.close()
        for node in nodes:
            node.process = _spawn([
                "server", "--json", "--until-eof",
                "--config", str(node.data_dir / "server.properties"),
                "--log-file", str(node.data_dir / "node.log"), "--log-format", self._log_format,
            ])  # fmt: skip
            # From here on there is a process to be stopped, ready or not.
            node.pid, node.alive, node.paused = node.process.pid, True, False
        for node in nodes:
            assert node.process is not None
            try:
                _ready_line(node.process)
            except ClusterError:
                node.alive = False
                raise

    def log_of(self, node_id: int) -> str:
        """What the node has logged so far, all its lives."""
        return (self.nodes[node_id].data_dir / "node.log").read_text()

    def view(self, node_id: int) -> dict[str, Any]:
        """The node's JSON view of itself. Raises OSError where it does not answer."""
        url = f"http://{self.nodes[node_id].http}/"
        with urllib.request.urlopen(url, timeout=5) as response:
            found: dict[str, Any] = json.load(response)
            return found

    def leader_of(self, topic: str, partition: int, timeout: float = 10.0) -> int:
        """The broker that leads the partition now.

        Raises:
            ClusterError: nobody does, within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            best = (-1, -1)
            for node in self._running():
                with contextlib.suppress(OSError):
                    best = max(best, _leads(self.view(node.node_id), topic, partition))
            if best[1] >= 0:
                return best[1]
            time.sleep(0.01)
        raise ClusterError(f"nobody leads {topic}-{partition}")

    def active_controller(self, timeout: float = 10.0) -> int:
        """The node whose controller is active. Raises ClusterError."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for node in self._running():
                with contextlib.suppress(OSError):
                    if self.view(node.node_id).get("controller", {}).get("active"):
                        return node.node_id
            time.sleep(0.01)
        raise ClusterError("no controller is active")

    def _running(self) -> list[NodeProcess]:
        return [n for n in self.nodes.values() if n.alive and not n.paused]

    def _signal(self, node_id: int, number: signal.Signals) -> None:
        node = self.nodes[node_id]
        if not node.alive:
            raise ClusterError(f"node {node_id} is not running")
        os.kill(node.pid, number)

    def _wait_gone(self, node: NodeProcess, timeout: float = STOP_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while _is_running(node):
            if time.monotonic() > deadline:
                raise ClusterError(f"node {node.node_id} is still there after {timeout:g} s")
            time.sleep(0.001)
        node.alive = False


def _is_running(node: NodeProcess) -> bool:
    if node.process is not None:
        return node.process.poll() is None
    try:
        os.kill(node.pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie that its parent has not collected yet is gone as well
        return Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def _spawn(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pegel", *arguments],
        stdin=subprocess.PIPE,  # its end tells a node that this process is gone
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in a test run is for the tests
    )


def _ready_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    assert process.stderr is not None
    readable, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT)
    line = process.stdout.readline() if readable else ""
    if not line:
        process.kill()
        process.wait()
        said = process.stderr.read().strip() or "nothing"
        raise ClusterError(f"the cluster did not get ready; it said: {said}")
    found: dict[str, Any] = json.loads(line)
    return found


def _leads(view: Mapping[str, Any], topic: str, partition: int) -> tuple[int, int]:
    """Epoch and id of the node, where it leads the partition and is not fenced."""
    broker = view.get("broker", {})
    for entry in broker.get("partitions", []):
        if (
            entry["topic"] == topic
            and entry["partition"] == partition
            and entry["role"] == "leader"
            and not broker["fenced"]
        ):
            return entry["leader_epoch"], view["node_id"]
    return -1, -1
