"""``pegel up``: a local cluster, one real process for each node."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from pegel.seams.disk import Lock
from pegel_broker.claim import claim
from pegel_broker.layout import ADMIN, PASSWORD_FILE, USERS_FILE, Layout, plan, require_login

READY_TIMEOUT = 30.0
# A node that has just made thousands of partitions has files to sync; killed, it reads them again.
STOP_TIMEOUT = 30.0
STOP_NOTICE = 3.0
# What comes within it is the same Ctrl-C: some programs hand on what the whole group got anyway.
SAME_SIGNAL = 0.5


@dataclass(slots=True)
class _Child:
    node_id: int
    pid: int
    pipe: int
    line: dict[str, object] | None = None
    exit_status: int | None = None
    received: bytes = b""
    log_start: int = 0  # bytes that its log had before this life


@click.command(short_help="Start a local cluster and run it until Ctrl-C.")
@click.option(
    "--brokers",
    type=click.IntRange(1, 32),
    help="Nodes; each is a process of its own, broker and controller. "
    "[default: those of the data directory, else 3]",
)
@click.option(
    "--arbiters",
    type=click.IntRange(0, 8),
    help="Nodes that only vote: controllers that store no data. Two brokers and an arbiter "
    "survive the loss of any one of the three.",
)
@click.option(
    "--observers",
    type=click.IntRange(0, 32),
    help="Nodes that only store data: brokers without a vote.",
)
@click.option(
    "--data-dir",
    default="pegel-data",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Where the cluster keeps its data; started "
    "again on the same directory it is the same cluster on the same ports.",
)
@click.option(
    "--base-port",
    type=click.IntRange(0, 65_535),
    help="First of the ports: N for clients, N for controllers, N for http. "
    "0 picks free ones. [default: those of the data directory, else 9092]",
)
@click.option(
    "--racks",
    default="",
    metavar="A,B,…",
    help="Racks of the nodes, in turn: replicas of a partition are kept in different ones, and "
    "consumers may read from the one that is theirs.",
)
@click.option(
    "--sasl",
    is_flag=True,
    help="Clients have to log in. Makes the user admin, whose password is in "
    "DATA_DIR/admin.password. [default: as the data directory was made]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A broker setting by Kafka's name, for every node; may be repeated.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
@click.option(
    "--log-format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="json: the nodes log one object a line, with the same facts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the ready line as one JSON document.")
@click.option(
    "--until-eof",
    is_flag=True,
    help="Stop when standard input ends, so that it never outlives who started it.",
)
def up(
    brokers: int | None,
    arbiters: int | None,
    observers: int | None,
    data_dir: str,
    base_port: int | None,
    racks: str,
    sasl: bool,
    settings: tuple[str, ...],
    log_level: str,
    log_format: str,
    as_json: bool,
    until_eof: bool,
) -> None:
    """Start a cluster of real processes on this machine and run it until Ctrl-C or SIGTERM.

    Nodes log to DATA_DIR/node-N/node.log. One that was killed is started again, while the others
    run, with

        pegel server --config DATA_DIR/node-N/server.properties
    """
    from pegel_broker.cli import node_config
    from pegel_broker.config import NodeConfigError, parse_properties
    from pegel_broker.run import run_node  # noqa: F401 (imported once, before the forks)

    directory = Path(data_dir).absolute()
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    claimed = claim(directory)
    configs = {}
    try:
        if sasl:
            require_login(directory)
        layout = plan(directory, brokers, arbiters, observers, base_port)
        names = [rack.strip() for rack in racks.split(",") if rack.strip()]
        for node_id in layout.nodes:
            own = [f"broker.rack={names[(node_id - 1) % len(names)]}"] if names else []
            text = layout.properties(directory, node_id, [*own, *settings])
            (directory / f"node-{node_id}").mkdir(exist_ok=True)
            (directory / f"node-{node_id}" / "server.properties").write_text(text)
            configs[node_id] = node_config(parse_properties(text))
    except (NodeConfigError, click.ClickException) as error:
        if made:  # no cluster ever ran there
            shutil.rmtree(directory)
        raise (
            click.UsageError(str(error)) if isinstance(error, NodeConfigError) else error
        ) from None
    cluster = _Cluster(directory, claimed, log_level, log_format)
    if until_eof:
        cluster.input = sys.stdin.fileno()
    for node_id, config in configs.items():
        cluster.fork(node_id, config)
    sys.exit(cluster.run(layout, as_json=as_json))


class _Cluster:
    """The parent: forks the nodes, waits for them, passes the end on."""

    def __init__(self, directory: Path, claimed: Lock, log_level: str, log_format: str) -> None:
        self._directory = directory
        self._claimed = claimed
        self._log_level = log_level
        self._log_format = log_format
        self._children: dict[int, _Child] = {}
        # Whose end ends the cluster, if any.
        self.input: int | None = None
        # The children hold the reading end: it ends when this process does.
        self._lifeline = os.pipe()
        self._wake = os.pipe()
        self._stopping = False
        self._asked_at = 0.0
        self._hurry = False  # asked again
        os.set_blocking(self._wake[1], False)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _on_stop(self, *_: object) -> None:
        now = time.monotonic()
        if not self._stopping:
            self._asked_at = now
        elif now > self._asked_at + SAME_SIGNAL:
            self._hurry = True
        self._stopping = True

    def fork(self, node_id: int, config: object) -> None:
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        log = self._log_of(node_id)
        log_start = log.stat().st_size if log.exists() else 0
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.close(self._lifeline[1])
            self._claimed.close()
            self._be_node(node_id, config, writing)
        os.close(writing)
        self._children[node_id] = _Child(node_id, pid, reading, log_start=log_start)

    def _be_node(self, node_id: int, config: object, pipe: int) -> None:
        """In the child; never returns."""
        code = 1
        try:
            from pegel.logs import set_up_logging
            from pegel_broker.cli import node_line
            from pegel_broker.config import NodeConfig
            from pegel_broker.node import Node
            from pegel_broker.run import run_node

            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which ends all in order
            path = str(self._log_of(node_id))
            set_up_logging(self._log_level, path, self._log_format, node_id)
            assert isinstance(config, NodeConfig)

            def on_ready(node: Node) -> None:
                os.write(pipe, json.dumps(node_line(node)).encode() + b"\n")

            code = run_node(config, on_ready, self._lifeline[0])
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def run(self, layout: Layout, *, as_json: bool) -> int:
        """Until a signal, or until no node is left; the exit code."""
        os.close(self._lifeline[0])
        if self._wait_ready():
            self._print_ready(layout, as_json)
        while not self._stopping and self._alive():
            self._wait(None)
        failed = not self._stopping
        self._stop()
        return int(failed)

    def _alive(self) -> list[_Child]:
        return [c for c in self._children.values() if c.exit_status is None]

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._stopping and len(self._alive()) == len(self._children):
            if all(c.line for c in self._children.values()):
                return True
            if time.monotonic() > deadline:
                self._say(f"not ready after {READY_TIMEOUT:g} s: see the logs in {self._directory}")
                break
            self._wait(deadline - time.monotonic())
        if not self._stopping:  # the one that ended has said why
            self._stopping = True
            self._stop()
            raise SystemExit(1)
        return False

    def _wait(self, timeout: float | None) -> None:
        """One round: ready lines, and children that ended."""
        pipes = {c.pipe: c for c in self._children.values() if c.pipe >= 0}
        watched = [self._wake[0], *pipes] + ([] if self.input is None else [self.input])
        readable, _, _ = select.select(watched, [], [], timeout)
        for number in readable:
            if number == self.input:
                if not os.read(number, 4096):
                    self.input, self._stopping = None, True
                continue
            if number == self._wake[0]:
                os.read(number, 4096)
                continue
            child, data = pipes[number], os.read(number, 4096)
            child.received += data
            if not data:
                os.close(number)
                child.pipe = -1
            elif b"\n" in child.received:
                child.line = json.loads(child.received)
        self._reap()

    def _reap(self) -> None:
        for child in self._alive():
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.exit_status = status
                if not self._stopping:
                    self._say(f"node {child.node_id} (pid {child.pid}) {_how(status)}"
                              f"{self._last_words(child)}")  # fmt: skip

    def _log_of(self, node_id: int) -> Path:
        return self._directory / f"node-{node_id}" / "node.log"

    def _last_words(self, child: _Child) -> str:
        """The last line of the node's log that says why; of this life, not of one before."""
        try:
            content = self._log_of(child.node_id).read_bytes()[child.log_start :]
        except OSError:
            return ""
        lines = content.decode(errors="replace").splitlines()
        if self._log_format == "json":
            found = [json.loads(line) for line in lines[-20:] if '"critical"' in line]
            return f": {found[-1].get('message', found[-1])}" if found else ""
        critical = [line for line in lines[-20:] if " CRITICAL " in line]
        return f": {critical[-1].split(' CRITICAL', 1)[1].strip()}" if critical else ""

    @staticmethod
    def _say(text: str) -> None:
        click.echo(f"pegel up: {text}", err=True)

    def _print_ready(self, layout: Layout, as_json: bool) -> None:
        seconds = _age_of_this_process()
        nodes = [self._children[i].line for i in sorted(self._children)]
        bootstrap = layout.bootstrap
        if as_json:
            ready = {
                "bootstrap": bootstrap, "nodes": nodes, "data_dir": str(self._directory),
                "ready_seconds": round(seconds, 3),
            }  # fmt: skip
            click.echo(json.dumps(ready))
        else:
            click.echo(
                f"{_kinds(layout)} ready in {seconds:.2f} s: bootstrap {bootstrap}, data in "
                f"{self._directory}; Ctrl-C stops them"
            )
            if (self._directory / USERS_FILE).exists():
                password = self._directory / PASSWORD_FILE
                click.echo(f"log in: export PEGEL_USER={ADMIN} PEGEL_PASSWORD_FILE={password}")
        sys.stdout.flush()

    def _stop(self) -> None:
        """SIGTERM to all, and SIGKILL to who does not go, or at a second signal."""
        for child in self._alive():
            os.kill(child.pid, signal.SIGTERM)
            os.kill(child.pid, signal.SIGCONT)  # one that was paused could not end
        began, told = time.monotonic(), False
        while self._alive() and not self._hurry:
            waited = time.monotonic() - began
            if waited >= STOP_TIMEOUT:
                break
            if waited >= STOP_NOTICE and not told:
                told = True
                nodes = ", ".join(str(child.node_id) for child in self._alive())
                self._say(f"waiting for node {nodes} to write to disk; Ctrl-C kills")
            self._wait(0.2)
        for child in self._alive():
            self._say(
                f"node {child.node_id} did not stop in {time.monotonic() - began:.0f} s: killed"
            )
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def _kinds(layout: Layout) -> str:
    """``2 brokers, 1 arbiter``."""
    places = layout.nodes.values()
    brokers = sum(place.is_broker for place in places)
    arbiters = len(places) - brokers
    text = f"{brokers} broker{'s' if brokers != 1 else ''}"
    return text + (f", {arbiters} arbiter{'s' if arbiters != 1 else ''}" if arbiters else "")


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)}"


def _age_of_this_process() -> float:
    """Seconds since the process began, its interpreter's start included."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, IndexError, ValueError):
        return time.process_time()
