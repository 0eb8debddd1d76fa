"""Look-up by time, retention and removal on whole logs."""

from __future__ import annotations

import asyncio
import random
import uuid

import pytest

from tests.broker.log.harness import (
    NOW,
    TOPIC_ID,
    Harness,
    batch,
    config,
    drain,
    run,
    settle,
)


@pytest.mark.parametrize("seed", range(8))
def test_look_up_by_time_equals_a_linear_scan(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=2000, index_interval_bytes=300))
        log = manager.create("t", 0, TOPIC_ID)
        records: list[tuple[int, int]] = []  # timestamp, offset
        timestamp = NOW - 10_000
        for number in range(80):
            timestamp += rng.randint(-30, 60)
            count = rng.randint(1, 3)
            log.append_as_leader(batch(count, size=40, timestamp=timestamp), 2, NOW)
            records += [(timestamp, log.log_end_offset - count + n) for n in range(count)]
            if number == 60:
                await settle(log)
                await drain()
        for held in (True, False):  # the newest in memory only, then all in files
            queue = harness.queues.named("log-write")
            queue.held = held
            for target in [rng.randint(NOW - 10_100, timestamp + 50) for _ in range(30)]:
                found = await log.offset_for_timestamp(target)
                first = next((r for r in records if r[0] >= target), None)
                assert (found and (found.timestamp, found.offset)) == first
            newest = await log.max_timestamp()
            assert newest is not None
            assert (newest.timestamp, newest.leader_epoch) == (max(records)[0], 2)
            queue.release()
            await settle(log)
            await drain()
        await manager.close()

    run(main)


def test_a_topic_made_again_under_its_old_name_starts_empty() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=400))
        old = manager.create("t", 0, TOPIC_ID)
        for _ in range(20):
            old.append_as_leader(batch(3), 0, NOW)
        done = manager.delete("t", 0)
        new_id = type(TOPIC_ID)(int=5)
        new = manager.create("t", 0, new_id)
        new.append_as_leader(batch(1), 0, NOW)
        await done
        await settle(new)
        assert (new.log_end_offset, new.stable_offset, new.topic_id) == (1, 1, new_id)
        await manager.close()
        again = (await harness.manager()).get("t", 0)
        assert again is not None
        assert (again.log_end_offset, again.topic_id) == (1, new_id)
        assert not [p for p in harness.disk.directories if p.endswith("-delete")]

    run(main)


def test_a_thousand_topics_made_again_wait_for_one_write_of_the_checkpoints() -> None:
    """Each of these files names every log: a write for each topic would take minutes."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        for number in range(30):
            manager.create(f"t{number}", 0, TOPIC_ID).append_as_leader(batch(3), 0, NOW)
        for log in manager.logs():
            await settle(log)
        await manager.close()
        manager = await harness.manager()
        await asyncio.gather(*(manager.delete(f"t{number}", 0) for number in range(30)))
        written: list[str] = []
        harness.disk.fault = lambda call, path: (
            written.append(path) if call == "write_file" and path.endswith("-checkpoint") else None
        )
        made = [manager.create(f"t{number}", 0, uuid.UUID(int=5)) for number in range(30)]
        for log in made:
            log.append_as_leader(batch(1), 0, NOW)
            await settle(log)
        assert len(written) == len(set(written)) > 1
        await manager.close()

    run(main)


def test_what_follows_a_removal_is_left_to_the_next_start_where_the_node_stops() -> None:
    """Seed 301110: the directory was renamed, and its removal came to a queue that was closed."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        manager.create("t", 0, TOPIC_ID).append_as_leader(batch(3), 0, NOW)
        directory = manager._keepers[0].directory
        await manager.close()
        called: list[int] = []
        directory.run("background", lambda: called.append(1))
        await drain()
        assert called == []

    run(main)


def test_a_read_that_is_answered_once_the_directory_is_closed_closes_its_file() -> None:
    """Seed 301289: the file was to be closed in a queue that had ended."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        manager.create("t", 0, TOPIC_ID).append_as_leader(batch(3), 0, NOW)
        await manager.close()
        manager = await harness.manager()  # nothing is in memory, no file is open
        log = manager.get("t", 0)
        assert log is not None
        before = harness.disk.open_files
        harness.queues.named("log-read").hold()
        reading = log.read(0, 10_000, limit_offset=3)
        assert isinstance(reading, asyncio.Future)
        manager._keepers[0].directory.close()  # which ends the read, and its answer comes after
        assert harness.disk.open_files == before + 1
        assert (await reading).next_offset == 3
        assert harness.disk.open_files == before

    run(main)


def test_retention_keeps_the_log_start_over_a_restart() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=500, retention_ms=1000))
        log = manager.create("t", 0, TOPIC_ID)
        for number in range(30):
            log.append_as_leader(batch(2, timestamp=NOW + number), 0, NOW)
        await settle(log)
        log.high_watermark = 60
        assert manager.retention(NOW + 500) == 0
        assert manager.retention(NOW + 5000) > 3
        assert (log.log_start_offset, log.log_end_offset, len(log.segments)) == (60, 60, 1)
        await manager.close()
        log = (await harness.manager()).get("t", 0)  # type: ignore[assignment]
        assert (log.log_start_offset, log.log_end_offset) == (60, 60)

    run(main)
