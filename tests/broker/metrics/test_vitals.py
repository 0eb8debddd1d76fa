"""The node's own vitals end before what they ask."""

from __future__ import annotations

import asyncio

import pytest

from pegel_broker.log import LogManager
from pegel_broker.metrics import vitals
from tests.support.node import running_node


def test_a_stopping_node_asks_no_disk_whose_queue_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timer came between the end of the logs and that of the controller."""
    monkeypatch.setattr(vitals, "SAMPLE_INTERVAL", 1e-4)
    monkeypatch.setattr(vitals, "DISK_INTERVAL", 0.0)
    honest = LogManager.close
    errors: list[dict[str, object]] = []

    async def close_and_wait(self: LogManager, **more: int) -> None:
        await honest(self, **more)
        await asyncio.sleep(0.02)

    monkeypatch.setattr(LogManager, "close", close_and_wait)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: errors.append(what))
        async with running_node() as under_test:
            under_test.node.vitals.start()

    asyncio.run(main())
    assert not errors
