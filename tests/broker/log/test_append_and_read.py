"""Appending, reading back from memory and files, restarting."""

from __future__ import annotations

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.log import LogError
from tests.broker.log.harness import (
    NOW,
    TOPIC_ID,
    Harness,
    batch,
    config,
    read,
    read_all,
    run,
    settle,
)


def test_what_was_appended_is_read_back_before_and_after_a_restart() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=2000))
        log = manager.create("t", 0, TOPIC_ID)
        for number in range(50):
            result = log.append_as_leader(batch(2, size=40), leader_epoch=3, now_ms=NOW)
            assert (result.first_offset, result.last_offset) == (2 * number, 2 * number + 1)
        content = await read_all(log)
        await settle(log)
        assert log.stable_offset == 100
        assert len(log.segments) > 2
        log.high_watermark = 90
        await manager.close(broker_epoch=17)
        again = await harness.manager()
        assert again.was_clean
        assert again.last_broker_epoch == 17
        log = again.get("t", 0)
        assert log is not None
        assert log.offline is None
        assert (log.log_end_offset, log.stable_offset, log.high_watermark) == (100, 100, 90)
        assert log.topic_id == TOPIC_ID
        assert log.latest_epoch == 3
        assert await read_all(log) == content
        await again.close()
        assert harness.disk.open_files == 0

    run(main)


def test_reading_outside_of_the_log_is_refused() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        log = manager.create("t", 0, TOPIC_ID)
        log.append_as_leader(batch(3), 0, NOW)
        for offset in (-1, 4):
            with pytest.raises(LogError) as caught:
                log.read(offset, 100, limit_offset=3)
            assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
        assert (await read(log, 3)).records == []
        await manager.close()

    run(main)
