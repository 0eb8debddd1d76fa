"""What ends a node, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from pegel_broker import node as node_module
from pegel_broker.known_controllers import read_controllers
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
