"""Apache Kafka on this machine, to measure beside: KRaft, one JVM for each node, loopback only.

Needs ``java`` (17 or newer) and, the first time, ``mvn``, which brings the jars from Maven Central
into a cache folder.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pegel.errors import PegelError
from pegel.testing import ClusterError
from pegel_bench.load.asking import Asker

VERSION = "4.3.0"
DEFAULT_HEAP = "1g"
READY_TIMEOUT = 120.0
STOP_TIMEOUT = 20.0
_ARTIFACTS = {
    "org.apache.kafka:kafka_2.13": VERSION,
    "org.apache.kafka:kafka-tools": VERSION,
    "org.apache.logging.log4j:log4j-core": "2.24.3",
    "org.apache.logging.log4j:log4j-slf4j-impl": "2.24.3",
    "org.apache.logging.log4j:log4j-1.2-api": "2.24.3",
}
_QUIET = """<Configuration status="ERROR"><Appenders><Console name="out"/></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""


def missing_tools() -> list[str]:
    """What has to be installed first; empty where everything is at hand."""
    needed = ["java"] if (_cache() / ".complete").exists() else ["java", "mvn"]
    return [tool for tool in needed if shutil.which(tool) is None]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pegel-bench" / f"kafka-{VERSION}"


def classpath() -> str:
    """Where the jars are; brings them through Maven the first time.

    Raises:
        ClusterError: Maven could not.
    """
    folder = _cache()
    if not (folder / ".complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        dependencies = "".join(
            "<dependency><groupId>{}</groupId><artifactId>{}</artifactId>"
            "<version>{}</version></dependency>".format(*name.split(":"), version)
            for name, version in _ARTIFACTS.items()
        )
        with tempfile.TemporaryDirectory() as build:
            Path(build, "pom.xml").write_text(
                '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0'
                "</modelVersion><groupId>pegel</groupId><artifactId>bench</artifactId>"
                f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
            )
            done = subprocess.run(
                ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"],
                cwd=build, capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
            raise ClusterError(f"mvn could not bring Apache Kafka's jars; it said: {said[0]}")
        (folder / ".complete").touch()
    return f"{folder}/*"


@dataclass(slots=True)
class KafkaNode:
    """One JVM, broker and controller."""

    node_id: int
    client: str
    properties: Path
    process: subprocess.Popen[bytes]
    paused: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class KafkaCluster:
    """``LocalCluster`` of Apache Kafka: the same calls, as far as a benchmark needs them."""

    def __init__(
        self,
        brokers: int = 3,
        settings: Mapping[str, str] | None = None,
        heap: str = DEFAULT_HEAP,
    ) -> None:
        self.bootstrap = ""
        self.ready_seconds = 0.0
        self.nodes: dict[int, KafkaNode] = {}
        self._count, self._settings, self._heap = brokers, dict(settings or {}), heap
        self.data_dir = Path(tempfile.mkdtemp(prefix="pegel-bench-kafka-"))

    def start(self) -> None:
        """Format the storage, start every node, wait until each knows all the others.

        ``ready_seconds`` counts from the start of the first node, not from the formatting.

        Raises:
            ClusterError: tools are missing, or a node ends or does not get ready.
        """
        missing = missing_tools()
        if missing:
            raise ClusterError(f"Apache Kafka needs {' and '.join(missing)}: install that first")
        self._classpath = classpath()
        (self.data_dir / "log4j2.xml").write_text(_QUIET)
        ports = _free_ports(2 * self._count)
        clients, controllers = ports[: self._count], ports[self._count :]
        files = [self._configure(i, clients, controllers) for i in range(self._count)]
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in clients)
        started = time.monotonic()
        for i, properties in enumerate(files):
            address = f"127.0.0.1:{clients[i]}"
            process = self._spawn(i + 1, properties)
            self.nodes[i + 1] = KafkaNode(i + 1, address, properties, process)
        try:
            self._wait_ready(started)
        except BaseException:
            self.stop()
            raise
        self.ready_seconds = time.monotonic() - started

    def _configure(self, i: int, clients: list[int], controllers: list[int]) -> Path:
        folder = self.data_dir / f"node-{i + 1}"
        replicas = min(3, self._count)
        voters = ",".join(f"{n + 1}@127.0.0.1:{port}" for n, port in enumerate(controllers))
        settings = {
            "node.id": i + 1,
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CLIENT://127.0.0.1:{clients[i]},CONTROLLER://127.0.0.1:{controllers[i]}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{clients[i]}",
            "inter.broker.listener.name": "CLIENT",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": folder,
            "default.replication.factor": replicas,
            "offsets.topic.replication.factor": replicas,
            "group.initial.rebalance.delay.ms": 0,
            **self._settings,
        }
        properties = self.data_dir / f"node-{i + 1}.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        cluster_id = base64.urlsafe_b64encode(uuid.UUID(int=1).bytes).decode().rstrip("=")
        done = subprocess.run(
            [
                *self._java("128m"), "kafka.tools.StorageTool", "format",
                "-t", cluster_id, "-c", str(properties),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
            raise ClusterError(f"Apache Kafka could not format its storage; it said: {said[-1]}")
        return properties

    def _java(self, heap: str) -> list[str]:
        # The collector and its settings are those of Kafka's own start script.
        return [
            "java", f"-Xms{heap}", f"-Xmx{heap}", "-server", "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.xml'}", "-cp", self._classpath,
        ]  # fmt: skip

    def _spawn(self, node_id: int, properties: Path) -> subprocess.Popen[bytes]:
        with (self.data_dir / f"node-{node_id}.out").open("ab") as out:
            return subprocess.Popen(
                [*self._java(self._heap), "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def _wait_ready(self, started: float) -> None:
        while True:
            for node in self.nodes.values():
                if not node.alive:
                    log = (self.data_dir / f"node-{node.node_id}.out").read_text().strip()
                    said = log.splitlines()[-1:] or ["nothing"]
                    raise ClusterError(f"Apache Kafka's node {node.node_id} ended: {said[0]}")
            if all(self._knows_all(node) for node in self.nodes.values()):
                return
            if time.monotonic() - started > READY_TIMEOUT:
                raise ClusterError(f"Apache Kafka was not ready after {READY_TIMEOUT:g} s")
            time.sleep(0.02)

    def _knows_all(self, node: KafkaNode) -> bool:
        asker = Asker(node.client, timeout=1.0)
        try:
            return asker.broker_count() >= self._count
        except (OSError, PegelError):
            return False
        finally:
            asker.close()

    def kill(self, node_id: int) -> None:
        """SIGKILL."""
        self.nodes[node_id].process.kill()
        self.nodes[node_id].process.wait()

    def terminate(self, node_id: int, timeout: float = STOP_TIMEOUT) -> None:
        """SIGTERM, and wait until it has ended."""
        self.nodes[node_id].process.terminate()
        self.nodes[node_id].process.wait(timeout)

    def pause(self, node_id: int) -> None:
        """SIGSTOP."""
        self.nodes[node_id].process.send_signal(signal.SIGSTOP)
        self.nodes[node_id].paused = True

    def resume(self, node_id: int) -> None:
        """SIGCONT."""
        self.nodes[node_id].process.send_signal(signal.SIGCONT)
        self.nodes[node_id].paused = False

    def restart(self, node_id: int) -> None:
        """Start a node that has ended again, and wait until it serves. Raises ClusterError."""
        node = self.nodes[node_id]
        node.process = self._spawn(node_id, node.properties)
        self._wait_ready(time.monotonic())

    def stop(self) -> None:
        """End every process and remove the data. Safe to call twice."""
        for node in self.nodes.values():
            with contextlib.suppress(OSError):
                if node.paused:
                    self.resume(node.node_id)
                node.process.terminate()
        for node in self.nodes.values():
            try:
                node.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()
        self.nodes.clear()
        shutil.rmtree(self.data_dir, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; Kafka cannot be told to choose its own, since voters are named."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
