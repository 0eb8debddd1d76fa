"""Disks that fail, fill up or hang; directories that are somebody else's."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.seams.disk import LockedError, RealDisk
from pegel_broker.log import LogDirectoryError, LogError, LogManager, PartitionLog, directory
from tests.broker.log.harness import (
    NOW,
    PATH,
    TOPIC_ID,
    Harness,
    batch,
    config,
    drain,
    read_all,
    run,
    settle,
)


def _fail_on(call: str, suffix: str = ".log"):  # type: ignore[no-untyped-def]
    def fault(happening: str, path: str) -> None:
        if happening == call and path.endswith(suffix):
            raise OSError(errno.EIO, "Input/output error", path)

    return fault


def test_after_a_failed_sync_nothing_more_is_stable_and_the_directory_is_offline() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(flush_messages=1))
        gone: list[str] = []
        manager.on_directory_offline = lambda path, _reason: gone.append(path)
        logs = [manager.create("t", n, TOPIC_ID) for n in range(2)]
        reasons: list[int] = []
        for log in logs:
            log.on_offline = lambda log, _reason: reasons.append(log.partition)
            log.append_as_leader(batch(), 0, NOW)
            await settle(log)
        harness.disk.fault = _fail_on("sync")
        logs[0].append_as_leader(batch(), 0, NOW)
        await drain()
        assert gone == [PATH]
        assert reasons == [0, 1]
        assert [log.stable_offset for log in logs] == [1, 1]
        harness.disk.fault = None  # a later sync that succeeds says nothing of the failed one
        for log in logs:
            with pytest.raises(LogError) as caught:
                log.append_as_leader(batch(), 0, NOW)
            assert caught.value.code == ErrorCode.KAFKA_STORAGE_ERROR
            with pytest.raises(LogError):
                await log.flush()
        with pytest.raises(LogError):
            manager.create("t", 5, TOPIC_ID)
        await manager.close()
        assert f"{PATH}/.kafka_cleanshutdown" not in harness.disk.files

    run(main)


@pytest.mark.parametrize("room", [0, 1, 30, 80, 250, 1000, 3000])
def test_a_full_disk_takes_the_directory_offline_and_a_restart_resumes(room: int) -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=400))
        log = manager.create("t", 0, TOPIC_ID)
        for _ in range(5):
            log.append_as_leader(batch(2), 0, NOW)
        await settle(log)
        await drain()
        harness.disk.capacity = room
        for _ in range(40):
            try:
                log.append_as_leader(batch(2), 0, NOW)
            except LogError:
                break
            await drain(5)
        await drain()
        assert log.offline is not None
        assert "No space left" in log.offline
        stable = log.stable_offset
        harness.kill()
        harness.disk.capacity = None
        manager = await harness.manager()
        again = manager.get("t", 0)
        assert again is not None
        assert again.offline is None
        assert again.log_end_offset >= stable
        again.append_as_leader(batch(2), 1, NOW)
        await settle(again)
        await read_all(again)
        await manager.close()

    run(main)


def test_group_commit_syncs_once_for_many_appends() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(flush_messages=1))
        log = manager.create("t", 0, TOPIC_ID)
        await drain()
        queue = harness.queues.named("log-write")
        queue.hold()
        log.append_as_leader(batch(), 0, NOW)
        await drain(5)  # the first write is under way
        before = harness.disk.calls["sync"], harness.disk.calls["append"]
        for _ in range(100):
            log.append_as_leader(batch(), 0, NOW)
        queue.release()
        await settle(log)
        assert log.stable_offset == 101
        assert harness.disk.calls["sync"] - before[0] == 2
        assert harness.disk.calls["append"] - before[1] == 2
        await manager.close()

    run(main)


def test_a_disk_that_hangs_is_known_by_the_age_of_its_write() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        log = manager.create("t", 0, TOPIC_ID)
        await drain()
        assert manager.stalled_seconds() == 0
        queue = harness.queues.named("log-write")
        queue.hold()
        log.append_as_leader(batch(), 0, NOW)
        await drain(5)
        first = manager.stalled_seconds()
        await drain(5)
        log.append_as_leader(batch(), 0, NOW)  # what comes meanwhile does not make it younger
        assert manager.stalled_seconds() > first > 0
        queue.release()
        await settle(log)
        assert manager.stalled_seconds() == 0
        await manager.close()

    run(main)


def test_a_disk_that_hangs_is_known_by_its_reads_where_nobody_writes() -> None:
    """Seed 606306: such a leader held its partition for ever, and could read nothing of it."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        log = manager.create("t", 0, TOPIC_ID)
        log.append_as_leader(batch(), 0, NOW)
        await settle(log)
        log.drop_cached(0)
        harness.disk.cached = False
        queue = harness.queues.named("log-read")
        queue.hold()
        read = log.read(0, 1000, limit_offset=1)
        assert isinstance(read, asyncio.Future)
        await drain(5)
        first = manager.stalled_seconds()
        await drain(5)
        log.read(0, 1000, limit_offset=1)  # it waits behind the other
        assert manager.stalled_seconds() > first > 0
        queue.release()
        assert (await read).next_offset == 1
        await drain(5)
        assert manager.stalled_seconds() == 0
        await manager.close()

    run(main)


def test_flush_messages_counts_and_flush_ms_waits() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(flush_messages=10))
        log = manager.create("t", 0, TOPIC_ID)
        await drain()
        start = harness.disk.calls["sync"]
        for _ in range(9):
            log.append_as_leader(batch(), 0, NOW)
            await settle(log)
        assert harness.disk.calls["sync"] == start
        log.append_as_leader(batch(), 0, NOW)
        await settle(log)
        assert harness.disk.calls["sync"] == start + 1
        assert log.recovery_point == 10
        log.update_config(config(flush_ms=1))
        log.append_as_leader(batch(), 0, NOW)
        await settle(log)
        while log.recovery_point < 11:
            await asyncio.sleep(0.001)
        await manager.close()

    run(main)


def test_a_hanging_disk_bounds_what_is_unwritten_and_blocks_no_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr(directory, "MAX_UNWRITTEN_BYTES", 5000)
        harness = Harness()
        manager = await harness.manager()
        log = manager.create("t", 0, TOPIC_ID)
        await drain()
        queue = harness.queues.named("log-write")
        queue.hold()
        while log.size_bytes + len(batch()) <= 5000:
            log.append_as_leader(batch(), 0, NOW)
        with pytest.raises(LogError) as caught:
            log.append_as_leader(batch(), 0, NOW)
        assert caught.value.code == ErrorCode.REQUEST_TIMED_OUT
        assert caught.value.code.retriable
        assert log.stable_offset == 0
        assert 4000 < log.size_bytes <= 5000
        assert len(await read_all(log)) == log.size_bytes
        queue.release()
        await settle(log)
        log.append_as_leader(batch(), 0, NOW)
        await manager.close()

    run(main)


def test_another_process_cluster_or_node_is_refused() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        with pytest.raises(LogDirectoryError, match="another process"):
            await harness.manager()
        await manager.close()
        for cluster, node, problem in (
            ("cluster-2", 1, "of cluster 'cluster-1'"),
            ("cluster-1", 2, "of node 1"),
        ):
            other = LogManager(harness.world, [PATH])
            with pytest.raises(LogDirectoryError, match=problem):
                await other.start(cluster, node)
        await (await harness.manager()).close()

    run(main)


def test_the_lock_file_holds_off_a_second_user_of_a_real_directory() -> None:
    disk = RealDisk()
    with tempfile.TemporaryDirectory() as path:
        lock = disk.lock(f"{path}/.lock")
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            disk.lock(f"{path}/.lock")
        lock.close()
        disk.lock(f"{path}/.lock").close()


def test_damage_found_by_a_read_takes_only_that_log_offline() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        log, other = (manager.create("t", n, TOPIC_ID) for n in range(2))
        for _ in range(4):
            log.append_as_leader(batch(3), 0, NOW)
        await manager.close()
        harness.disk.files[f"{PATH}/t-0/{0:020d}.log"].data[8] = 0x80  # a negative length
        manager = await harness.manager()
        damaged: PartitionLog | None = manager.get("t", 0)
        assert damaged is not None
        if damaged.offline is None:
            with pytest.raises(LogError, match="damaged at byte 0"):
                await read_all(damaged)
        assert damaged.offline is not None
        fine = manager.get("t", 1)
        assert fine is not None
        fine.append_as_leader(batch(), 0, NOW)
        await manager.close()
        assert other is not fine

    run(main)


def test_a_damaged_base_offset_is_damage_and_not_a_log_that_never_gets_there() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=300))
        log = manager.create("t", 0, TOPIC_ID)
        for _ in range(8):
            log.append_as_leader(batch(2), 0, NOW)
        await manager.close()
        harness.disk.files[f"{PATH}/t-0/{0:020d}.log"].data[0] ^= 1  # offset 0 is 2**56 now
        manager = await harness.manager(config(segment_bytes=300))
        again = manager.get("t", 0)
        assert again is not None
        with pytest.raises(LogError, match=r"00000\.log: damaged at byte 0"):
            await read_all(again)
        assert again.offline is not None
        await manager.close()

    run(main)


def test_a_damaged_log_does_not_keep_the_others_in_memory() -> None:
    """It fails with a write under way: its batches go, and the cache keeps its bound."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        bad, good = (manager.create("t", n, TOPIC_ID) for n in range(2))
        await drain()
        queue = harness.queues.named("log-write")
        queue.hold()
        for _ in range(20):
            bad.append_as_leader(batch(size=1_000_000), 0, NOW)
            await drain(5)
        resumed: list[bool] = []
        assert manager.await_room(lambda: resumed.append(True))
        bad.fail("damaged")
        assert resumed, "what is never written takes room"
        queue.release()
        for _ in range(12):
            good.append_as_leader(batch(size=1_000_000), 0, NOW)
            await settle(good)
        assert sum(map(len, good.tail_batches())) <= directory.TAIL_CACHE_BYTES
        assert not bad.tail_batches()
        assert manager.directories[0].unwritten_bytes == 0
        await manager.close()

    run(main)
