"""The clusters that the suite of our own client runs on: Pegel always, Apache Kafka when given.

``PEGEL_TEST_BOOTSTRAP=host:port,…`` names a running cluster of Apache Kafka (or of anything else
that speaks its protocol); without it that half is skipped, and says so.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pegel.testing import LocalCluster
from tests.client.suite.flavours import FLAVOURS, connect

VARIABLE = "PEGEL_TEST_BOOTSTRAP"


@dataclass(frozen=True)
class System:
    """A cluster under the client."""

    name: str
    bootstrap: str

    @property
    def replication(self) -> int:
        return min(3, len(self.bootstrap.split(",")))


@pytest.fixture(scope="session", params=["pegel", "kafka"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "kafka":
        other = os.environ.get(VARIABLE)
        if not other:
            pytest.skip(f"{VARIABLE} names no cluster of Apache Kafka")
        yield System("kafka", other)
        return
    settings = {"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "4"}
    with LocalCluster(brokers=3, settings=settings) as cluster:
        yield System("pegel", cluster.bootstrap)


@pytest.fixture(params=FLAVOURS)
def client(request: pytest.FixtureRequest, system: System) -> Iterator[Any]:
    with connect(request.param, system.bootstrap) as client:
        yield client


@pytest.fixture
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["client"])


@pytest.fixture
def new_topic(client: Any, system: System) -> Callable[..., str]:
    """Makes topics with names of their own."""

    def make(partitions: int = 1, **config: str | int) -> str:
        name = f"suite-{uuid.uuid4().hex[:12]}"
        client.create_topic(
            name, partitions=partitions, replication=system.replication,
            config={key.replace("_", "."): value for key, value in config.items()},
        )  # fmt: skip
        return name

    return make


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex[:12]}"
