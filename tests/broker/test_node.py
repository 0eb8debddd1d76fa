"""What ends a node, and what does not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from pegel_broker import node as node_module
from pegel_broker.known_controllers import read_controllers
from pegel_broker.node import BOOT_ID_FILE, BOOT_ID_PATH, Node
from tests.support.memory_disk import MemoryDisk
from tests.support.node import NodeUnderTest, run

TIMEOUT = 20.0


def test_metadata_that_cannot_be_taken_end_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a change is taken, then: as a leader it would go by what is not so."""

    async def main(under_test: NodeUnderTest) -> None:
        node = under_test.node
        replicas, session = node.replicas, node.session
        assert replicas is not None
        assert session is not None

        def apply(*_: object) -> None:
            raise KeyError("no such replica")

        monkeypatch.setattr(replicas, "apply", apply)
        asking = asyncio.ensure_future(under_test.create("t"))
        async with asyncio.timeout(TIMEOUT):
            error = await node.failed
        assert str(error) == "the task metadata of this broker failed: KeyError: 'no such replica'"
        assert not replicas.holds_lease(node.world.clock.monotonic())
        await asyncio.gather(*session._tasks, return_exceptions=True)  # no heartbeat any more
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    run(main)


def test_a_disk_that_cannot_take_the_list_of_controllers_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a help for the next start; and it is tried again."""

    async def main(under_test: NodeUnderTest) -> None:
        node = under_test.node
        joined = {2: ("127.0.0.1", 9)}

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device", "/node/controllers.json")

        with monkeypatch.context() as patched:
            patched.setattr(node_module, "write_controllers", full)
            node._on_controllers(joined)
        assert "/node/controllers.json: No space left on device" in caplog.text
        node._on_controllers(joined)
        assert read_controllers(node.world.disk, "/node") == joined

    run(main)


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        ("one", None, ("one", False)),
        ("one", "one", ("one", False)),
        ("two", "one", ("two", True)),
        (None, "", ("", True)),
        (None, None, ("", True)),
    ],
)
def test_a_host_that_does_not_tell_its_boots_may_have_lost_its_page_cache(
    now: str | None, before: str | None, expected: tuple[str, bool]
) -> None:
    """Not Linux: what a loss of power leaves of a write would be refused as damage."""
    disk = MemoryDisk()
    for path, content in ((BOOT_ID_PATH, now), (f"/data/{BOOT_ID_FILE}", before)):
        if content is not None:
            disk.make_directories(path.rpartition("/")[0])
            disk.write_file(path, content.encode())
    world = SimpleNamespace(disk=disk)
    node = cast(Node, SimpleNamespace(world=world, config=SimpleNamespace(data_dir="/data")))
    assert Node._boot_id(node) == expected
