from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pegel
from pegel.testing import ProxiedCluster
from pegel.testing.network import FaultyNetwork
from tests.monitoring.load import TOPIC
from tests.monitoring.runbook.trial import TRIES, Trial
from tests.monitoring.theatre import SETTINGS, Scene, scene

# A disk whose syncs take long: what a real one does to a node, made where no slow disk is at hand.
_SLOW_SYNC = """
import os, pathlib, time
_asked = pathlib.Path(__file__).with_name("seconds")
_sync = os.fdatasync
def fdatasync(fd):
    time.sleep(float(_asked.read_text()))
    _sync(fd)
os.fdatasync = fdatasync
"""


@pytest.fixture(scope="package")
def sync_seconds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that says how long every sync of every node of ``theatre`` takes at least."""
    directory = tmp_path_factory.mktemp("slow-sync")
    (directory / "seconds").write_text("0")
    (directory / "sitecustomize.py").write_text(_SLOW_SYNC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(directory))
        yield directory / "seconds"


@pytest.fixture(scope="package")
def theatre(tmp_path_factory: pytest.TempPathFactory, sync_seconds: Path) -> Iterator[Scene]:
    """The cluster of all tries that need none of their own."""
    with scene(tmp_path_factory.mktemp("runbook"), alertmanager=False) as made:
        yield made


@pytest.fixture
def slow_sync(sync_seconds: Path) -> Iterator[Callable[[float], None]]:
    """Called with seconds: from then on every sync takes so long, until the test ends."""
    yield lambda seconds: _put(sync_seconds, str(seconds))
    _put(sync_seconds, "0")


def _put(path: Path, text: str) -> None:
    """Whoever reads it sees the old text or the new one."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


@pytest.fixture
def stage(theatre: Scene) -> Iterator[Scene]:
    yield theatre
    theatre.heal()
    theatre.ask(_remove_topics)


@pytest.fixture(scope="package")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A cluster whose links can be cut."""
    cluster = ProxiedCluster(3, settings=SETTINGS)
    with scene(tmp_path_factory.mktemp("cut"), cluster=cluster, alertmanager=False) as made:
        yield made


@pytest.fixture
def cuttable(proxied: Scene) -> Iterator[Scene]:
    yield proxied
    network(proxied).heal()
    proxied.heal()


def network(scene: Scene) -> FaultyNetwork:
    assert isinstance(scene.cluster, ProxiedCluster)
    return scene.cluster.network


async def _remove_topics(client: pegel.AsyncClient) -> None:
    """Of two replicas each: what the next try kills may be the last one of another's topic."""
    for topic in await client.admin.list_topics():
        if topic.name != TOPIC:
            await client.admin.delete_topic(topic.name)


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Trial:
    return Trial(TRIES[request.function.__name__])
