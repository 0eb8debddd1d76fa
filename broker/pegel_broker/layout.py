"""Which nodes a local cluster has, in which roles and on which ports: ``cluster.json``."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

# Below the range that the system takes outgoing ports from: a port picked there could be in use
# by some connection when a node that was killed comes back.
_PORTS = range(10_000, 32_000)
HOST = "127.0.0.1"
FIRST_PORT = 9092
FILE = "cluster.json"
# Where it is, clients have to log in; the first user is in it.
USERS_FILE = "users"
PASSWORD_FILE = "admin.password"
ADMIN = "admin"

BOTH = "broker,controller"
ARBITER = "controller"  # votes, and stores no data
OBSERVER = "broker"  # stores data, and does not vote


@dataclass(slots=True)
class Place:
    """One node's ports and roles."""

    ports: tuple[int, int, int]  # for clients, for controllers, for http
    roles: str = BOTH

    @property
    def client(self) -> int:
        return self.ports[0]

    @property
    def controller(self) -> int:
        return self.ports[1]

    @property
    def http(self) -> int:
        return self.ports[2]

    @property
    def is_broker(self) -> bool:
        return self.roles != ARBITER

    @property
    def is_controller(self) -> bool:
        return self.roles != OBSERVER


@dataclass(slots=True)
class Layout:
    """The same directory is the same cluster on the same ports."""

    cluster_id: str
    nodes: dict[int, Place] = field(default_factory=dict)

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{HOST}:{p.client}" for _, p in sorted(self.nodes.items()) if p.is_broker)

    def controllers(self, *, without: int = -1) -> str:
        return ",".join(
            f"{i}@{HOST}:{p.controller}"
            for i, p in sorted(self.nodes.items())
            if p.is_controller and i != without
        )

    def save(self, directory: Path) -> None:
        document = {
            "cluster_id": self.cluster_id,
            "ports": {i: p.ports for i, p in self.nodes.items()},
            "roles": {i: p.roles for i, p in self.nodes.items()},
        }
        aside = directory / f"{FILE}.new"
        aside.write_text(json.dumps(document, indent=1))
        aside.replace(directory / FILE)

    def add(self, roles: str) -> int:
        """A node on free ports; its id."""
        node_id = max(self.nodes) + 1
        client, controller, http = free_ports(3)
        self.nodes[node_id] = Place((client, controller, http), roles)
        return node_id

    def properties(
        self, directory: Path, node_id: int, settings: Sequence[str], *, joins: bool = False
    ) -> str:
        """A node's properties file, which ``pegel server --config`` starts it from as well.

        ``joins``: a controller that the others are to be told of before it may vote.
        """
        from pegel_broker.config import OPEN_PROTOCOL, SASL_PROTOCOL

        place = self.nodes[node_id]
        lines = [
            f"node.id={node_id}",
            f"process.roles={place.roles}",
            f"data.dir={directory / f'node-{node_id}'}",
            f"controllers={self.controllers(without=node_id if joins else -1)}",
            f"http.listener={HOST}:{place.http}",
            f"cluster.id={self.cluster_id}",
            # Kafka waits 3 s for a group's first members, which suits a rolling start in
            # production; here they start together or one by one at a prompt.
            "group.initial.rebalance.delay.ms=100",
        ]
        if place.is_broker:
            with_login = (directory / USERS_FILE).exists()
            protocol = SASL_PROTOCOL if with_login else OPEN_PROTOCOL
            lines.append(f"listeners={protocol}://{HOST}:{place.client}")
            if with_login:
                lines.append(f"sasl.bootstrap.users.file={directory / USERS_FILE}")
        if joins:
            lines.append(f"controller.listener={HOST}:{place.controller}")
        return "\n".join([*lines, *settings]) + "\n"


def require_login(directory: Path) -> None:
    """Have clients log in, from the start: as ADMIN with a password that is made here.

    Raises:
        click.ClickException: the cluster is there already, and open.
    """
    if (directory / USERS_FILE).exists():
        return
    if (directory / FILE).exists():
        raise click.ClickException(
            f"{directory} holds a cluster that nobody has to log in to: start it without --sasl, "
            "or give another --data-dir"
        )
    password = secrets.token_urlsafe(24)
    _write_secret(directory / PASSWORD_FILE, f"{password}\n")
    _write_secret(directory / USERS_FILE, f"{ADMIN}:{password}\n")


def _write_secret(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Raises click.ClickException where there are none."""
    generator = random.SystemRandom()
    found: list[int] = []
    for _ in range(10_000):
        port = generator.choice(_PORTS)
        if port not in found and can_bind(port):
            found.append(port)
            if len(found) == count:
                return found
    raise click.ClickException(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def load(directory: Path) -> Layout | None:
    """What ``cluster.json`` says, if it is there. Raises click.ClickException."""
    file = directory / FILE
    if not file.exists():
        return None
    try:
        saved = json.loads(file.read_text())
        roles = saved.get("roles", {})
        nodes = {
            int(i): Place((int(a), int(b), int(c)), str(roles.get(i, BOTH)))
            for i, (a, b, c) in saved["ports"].items()
        }
        return Layout(saved["cluster_id"], nodes)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise click.ClickException(f"{file} is damaged; the data itself is untouched") from None


def plan(
    directory: Path,
    brokers: int | None,
    arbiters: int | None,
    observers: int | None,
    base_port: int | None,
) -> Layout:
    """The saved layout where there is one, else a new one; saved.

    Raises:
        click.ClickException: the directory holds another cluster, or a port is in use.
    """
    found = load(directory)
    if found is not None:
        _check_same(directory, found, brokers, arbiters, observers)
        roles = [place.roles for _, place in sorted(found.nodes.items())]
        ids = sorted(found.nodes)
    else:
        roles = [BOTH] * (3 if brokers is None else brokers)
        roles += [ARBITER] * (arbiters or 0) + [OBSERVER] * (observers or 0)
        ids = list(range(1, len(roles) + 1))
    if found is None or base_port is not None:
        numbers = _numbers(len(roles), base_port)
        count = len(roles)
        nodes = {
            node_id: Place((numbers[i], numbers[count + i], numbers[2 * count + i]), role)
            for i, (node_id, role) in enumerate(zip(ids, roles, strict=True))
        }
        found = Layout(found.cluster_id if found else _new_cluster_id(), nodes)
    for port in [p for place in found.nodes.values() for p in place.ports]:
        if not can_bind(port):
            raise click.ClickException(
                f"port {port} is in use: choose another --base-port (0 picks free ones)"
            )
    found.save(directory)
    return found


def _check_same(
    directory: Path,
    found: Layout,
    brokers: int | None,
    arbiters: int | None,
    observers: int | None,
) -> None:
    roles = [place.roles for place in found.nodes.values()]
    for option, wanted, role in (
        ("--brokers", brokers, BOTH),
        ("--arbiters", arbiters, ARBITER),
        ("--observers", observers, OBSERVER),
    ):
        has = roles.count(role)
        if wanted is not None and wanted != has:
            raise click.ClickException(
                f"{directory} holds a cluster of {len(roles)} nodes, with {option} {has}, not "
                f"{wanted}: leave it out, or give another --data-dir"
            )


def _numbers(nodes: int, base_port: int | None) -> list[int]:
    if base_port == 0:
        return free_ports(3 * nodes)
    first = FIRST_PORT if base_port is None else base_port
    numbers = list(range(first, first + 3 * nodes))
    if numbers[-1] > 65_535:
        raise click.UsageError(f"--base-port {first} leaves no room for {nodes} nodes")
    return numbers


def _new_cluster_id() -> str:
    import base64

    return base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
