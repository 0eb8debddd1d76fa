"""What is measured: a cluster started here, Apache Kafka beside it, or one that is there."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from pegel.config import parse_bootstrap
from pegel.testing import ClusterError, LocalCluster
from pegel_bench.kafka import VERSION as KAFKA_VERSION
from pegel_bench.kafka import KafkaCluster

Say = Callable[[str], None]


@dataclass(slots=True)
class Target:
    """One cluster. ``cluster`` is there where the bench started it, so it may be killed."""

    name: str
    bootstrap: str
    version: str
    cluster: LocalCluster | KafkaCluster | None = None
    settings: dict[str, str] = field(default_factory=dict)
    warm: bool = False

    @property
    def brokers(self) -> int:
        """How many addresses are known."""
        return len(parse_bootstrap(self.bootstrap))

    @property
    def ready_seconds(self) -> float | None:
        return None if self.cluster is None else self.cluster.ready_seconds

    def pids(self) -> dict[int, int]:
        """Process of each node; empty where the bench did not start them."""
        return {} if self.cluster is None else {n: x.pid for n, x in self.cluster.nodes.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """Which clusters a command asks for."""

    bootstrap: str | None
    compare: tuple[str, ...]
    brokers: int
    settings: Mapping[str, str]
    kafka_settings: Mapping[str, str]
    kafka_heap: str


@contextlib.contextmanager
def targets(plan: Plan, say: Say) -> Iterator[list[Target]]:
    """Start what has to be started; everything that was started ends with the context.

    Raises:
        ClusterError: a cluster does not start, or ``--compare`` makes no sense.
    """
    with contextlib.ExitStack() as stack:
        found = [_first(plan, stack, say)]
        found += [_compared(text, plan, stack, say) for text in plan.compare]
        names = [t.name for t in found]
        if len(set(names)) < len(names):
            raise ClusterError(f"each target needs a name of its own, not {', '.join(names)}")
        yield found


def _first(plan: Plan, stack: contextlib.ExitStack, say: Say) -> Target:
    if plan.bootstrap is not None:
        return Target("target", plan.bootstrap, "given by --bootstrap")
    say(f"starting {plan.brokers} Pegel brokers")
    cluster = LocalCluster(plan.brokers, settings=plan.settings)
    stack.callback(cluster.stop)
    cluster.start()
    return Target(
        "pegel", cluster.bootstrap, f"Pegel {version('pegel')}, Python {platform.python_version()}",
        cluster, dict(plan.settings),
    )  # fmt: skip


def _compared(text: str, plan: Plan, stack: contextlib.ExitStack, say: Say) -> Target:
    if text == "kafka":
        say(f"starting {plan.brokers} brokers of Apache Kafka {KAFKA_VERSION}")
        cluster = KafkaCluster(plan.brokers, plan.kafka_settings, plan.kafka_heap)
        stack.callback(cluster.stop)
        cluster.start()
        return Target(
            "kafka", cluster.bootstrap, f"Apache Kafka {KAFKA_VERSION}, heap {plan.kafka_heap}",
            cluster, dict(plan.kafka_settings),
        )  # fmt: skip
    name, equals, bootstrap = text.partition("=")
    if not equals or not name:
        raise ClusterError(f"--compare takes kafka or NAME=HOST:PORT, not {text!r}")
    try:
        parse_bootstrap(bootstrap)
    except ValueError as error:
        raise ClusterError(f"--compare: {error}") from None
    return Target(name, bootstrap, "given by --compare")
