"""What one node is started with, from options or from a properties file with Kafka's key names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pegel_controller.config import BROKER_CONFIGS, InvalidConfigError, Value, parse
from pegel_controller.control.options import CLOCK_DRIFT, TAKEOVER_GRACE

ROLE_BROKER = "broker"
ROLE_CONTROLLER = "controller"
OPEN_PROTOCOL = "PLAINTEXT"
SASL_PROTOCOL = "SASL_PLAINTEXT"
ALL_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class NodeConfigError(ValueError):
    """The configuration is not usable; one line that says what to change."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Addresses are (host, port); port 0 picks a free one. ``settings`` are broker keys as text."""

    node_id: int
    data_dir: str
    controllers: Mapping[int, tuple[str, int]]
    roles: frozenset[str] = frozenset({ROLE_BROKER, ROLE_CONTROLLER})
    listen: tuple[str, int] = ("127.0.0.1", 9092)
    advertise: tuple[str, int] | None = None
    http: tuple[str, int] | None = None
    rack: str | None = None
    cluster_id: str = ""
    # Where the controller of this node listens that joins a running cluster.
    controller_listen: tuple[str, int] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises NodeConfigError."""
        if self.node_id < 0:
            raise NodeConfigError(f"the node id must not be negative, it is {self.node_id}")
        unknown = self.roles - {ROLE_BROKER, ROLE_CONTROLLER}
        if unknown or not self.roles:
            raise NodeConfigError("roles are broker, controller, or both")
        if (
            ROLE_CONTROLLER in self.roles
            and self.node_id not in self.controllers
            and self.controller_listen is None
        ):
            raise NodeConfigError(
                f"node {self.node_id} is a controller, but --controllers names only "
                f"{sorted(self.controllers)}: name it as well or, if it joins a running cluster, "
                "give its address as --controller-listen"
            )
        if not self.controllers:
            raise NodeConfigError("--controllers names nobody: a broker needs a controller")
        for key, text in sorted(self.settings.items()):
            if key not in BROKER_CONFIGS:
                raise NodeConfigError(
                    f"unknown setting {key!r} (see: pegel server --list-settings)"
                )
            try:
                parse(BROKER_CONFIGS[key], text)
            except InvalidConfigError as error:
                raise NodeConfigError(str(error)) from None
        self._check_lease()
        self._check_authentication()

    def _check_lease(self) -> None:
        """A lease must end before anybody may be made leader in the place of its holder."""
        lease, session = self.number("broker.lease.ms"), self.number("broker.session.timeout.ms")
        longest = math.ceil(TAKEOVER_GRACE * 1000 / CLOCK_DRIFT) - 1
        if lease > longest:
            raise NodeConfigError(f"broker.lease.ms is {lease}, it may be {longest} at most")
        if lease * CLOCK_DRIFT >= session:
            raise NodeConfigError(
                f"broker.session.timeout.ms is {session}: it must be more than 5 % longer than "
                f"broker.lease.ms, which is {lease}, for clocks may drift"
            )

    def _check_authentication(self) -> None:
        if self.value("sasl.bootstrap.users.file") and not self.mechanisms:
            raise NodeConfigError(
                "sasl.bootstrap.users.file is given, and nobody has to log in: set "
                "sasl.enabled.mechanisms as well, such as SCRAM-SHA-256,SCRAM-SHA-512,PLAIN"
            )

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """How clients log in; none of them have to where this is empty."""
        found = self.value("sasl.enabled.mechanisms")
        assert isinstance(found, list)
        return tuple(found)

    def value(self, key: str) -> Value:
        """The value of a broker key as this node was started with."""
        declared = BROKER_CONFIGS[key]
        return parse(declared, self.settings.get(key, declared.default))

    def described(
        self, bound: tuple[str, int], advertised: tuple[str, int], log_directory: str
    ) -> dict[str, str]:
        """Every broker key that this node was started with, as DescribeConfigs tells it."""
        protocol = SASL_PROTOCOL if self.mechanisms else OPEN_PROTOCOL
        own = {
            "advertised.listeners": f"{protocol}://{advertised[0]}:{advertised[1]}",
            "broker.id": str(self.node_id),
            "listeners": f"{protocol}://{bound[0]}:{bound[1]}",
            "log.dirs": log_directory,
            "node.id": str(self.node_id),
            "process.roles": ",".join(sorted(self.roles)),
        }
        if self.rack is not None:
            own["broker.rack"] = self.rack
        return {**self.settings, **own}

    def number(self, key: str) -> int:
        value = self.value(key)
        assert isinstance(value, int)
        return value


def split_protocol(text: str) -> tuple[str, str]:
    """``SASL_PLAINTEXT://host:port`` as its two halves; without the first it is PLAINTEXT.

    Raises NodeConfigError.
    """
    protocol, separator, address = text.rpartition("://")
    if separator and protocol not in (OPEN_PROTOCOL, SASL_PROTOCOL):
        raise NodeConfigError(
            f"{text!r}: a listener is PLAINTEXT://host:port, or {SASL_PROTOCOL}://host:port where "
            "clients have to log in; there is no encryption (yet)"
        )
    return protocol or OPEN_PROTOCOL, address


def parse_address(text: str, default_port: int) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[v6]:port``. Raises NodeConfigError."""
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        host, port = text, str(default_port)
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdigit() or not 0 <= int(port) <= 65_535 or not host:
        raise NodeConfigError(f"{text!r} is no address: write host:port")
    return host, int(port)


def parse_controllers(text: str) -> dict[int, tuple[str, int]]:
    """``1@host:9093,2@host:9093``. Raises NodeConfigError."""
    found: dict[int, tuple[str, int]] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        node_id, separator, address = part.partition("@")
        if not separator or not node_id.isdigit():
            raise NodeConfigError(f"{part!r} is no controller: write id@host:port")
        if int(node_id) in found:
            raise NodeConfigError(f"controller {node_id} is named twice")
        found[int(node_id)] = parse_address(address, 9093)
        if not found[int(node_id)][1]:
            raise NodeConfigError(f"controller {node_id} needs a port that the others can know")
    return found


def parse_properties(text: str) -> dict[str, str]:
    """Lines ``key=value``; ``#`` starts a comment line. Raises NodeConfigError."""
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "!")):
            continue
        key, separator, value = stripped.partition("=")
        if not separator:
            raise NodeConfigError(f"line {number}: {stripped!r} is not key=value")
        settings[key.strip()] = value.strip()
    return settings
