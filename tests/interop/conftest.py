"""The clusters that other people's clients are let loose on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pegel.testing import LocalCluster
from tests.interop.drivers import DRIVERS, Driver

# Another Kafka-compatible cluster to hold the same scenarios against: the reference, for one.
BOOTSTRAP_VARIABLE = "PEGEL_INTEROP_BOOTSTRAP"


@dataclass
class Clients:
    """A cluster and the drivers that talk to it, made once."""

    bootstrap: str
    brokers: int
    local: LocalCluster | None
    _drivers: dict[str, Driver] = field(default_factory=dict)

    def driver(self, name: str) -> Driver:
        if name not in self._drivers:
            self._drivers[name] = DRIVERS[name](self.bootstrap)
        return self._drivers[name]


@pytest.fixture(scope="session", params=[1, 3], ids=["one-broker", "three-brokers"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    brokers = int(request.param)
    if other := os.environ.get(BOOTSTRAP_VARIABLE):
        if brokers != len(other.split(",")):
            pytest.skip(f"{BOOTSTRAP_VARIABLE} names another number of brokers")
        yield Clients(other, brokers, None)
        return
    with LocalCluster(brokers=brokers) as cluster:
        yield Clients(cluster.bootstrap, brokers, cluster)


@pytest.fixture(params=sorted(DRIVERS))
def driver(request: pytest.FixtureRequest, clients: Clients) -> Driver:
    return clients.driver(request.param)


@pytest.fixture
def topic(driver: Driver, clients: Clients) -> str:
    """A new topic of two partitions on as many brokers as there are."""
    name = f"interop-{uuid.uuid4().hex[:10]}"
    driver.create_topic(name, 2, clients.brokers)
    return name
