"""Crash points: torn tails are cut, damage is refused with its file and byte named."""

from __future__ import annotations

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import iter_batches
from pegel_broker.log import LogError, LogManager, PartitionLog
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
from tests.support.memory_disk import MemoryDisk

SEGMENT = f"{PATH}/t-0/{0:020d}.log"


async def _written(batches: int = 6, **settings: int | str) -> tuple[Harness, bytes]:
    """A log of ``batches`` batches of two records, then the process is killed."""
    harness = Harness()
    manager = await harness.manager(config(**settings))
    log = manager.create("t", 0, TOPIC_ID)
    for number in range(batches):
        log.append_as_leader(batch(2, fill=b"%d" % number, producer=(7, 0, 2 * number)), 1, NOW)
    await settle(log)
    await drain()
    content = await read_all(log)
    harness.kill()
    return harness, content


async def _reopen(disk: MemoryDisk, **more: bool) -> tuple[LogManager, PartitionLog]:
    manager = await Harness(disk=disk).manager(**more)
    log = manager.get("t", 0)
    assert log is not None
    return manager, log


def _batch_starts(content: bytes) -> list[int]:
    return [position for position, _header in iter_batches(content)]


def test_a_log_cut_at_any_byte_keeps_its_longest_valid_prefix() -> None:
    async def main() -> None:
        harness, content = await _written()
        starts = [*_batch_starts(content), len(content)]
        for cut in range(starts[-3], len(content) + 1):
            disk = harness.disk.copy()
            del disk.files[SEGMENT].data[cut:]
            manager, log = await _reopen(disk)
            whole = max(n for n, start in enumerate(starts) if start <= cut)
            assert log.offline is None
            assert log.log_end_offset == 2 * whole
            assert len(disk.files[SEGMENT].data) == starts[whole]
            assert await read_all(log) == content[: starts[whole]]
            assert log.producers.describe()[7][1][-1].last_offset == 2 * whole - 1
            log.append_as_leader(batch(2, producer=(7, 0, 2 * whole)), 1, NOW)
            await manager.close()

    run(main)


@pytest.mark.parametrize("page_cache_lost", [True, False])
def test_a_last_batch_that_is_not_valid_is_cut_only_if_a_crash_can_have_left_it(
    page_cache_lost: bool,
) -> None:
    """A host that goes down may leave anything; a process that is killed leaves the beginning of
    its last write, so a last batch that is all there was damaged since."""

    async def main() -> None:
        harness, content = await _written()
        start = _batch_starts(content)[-1]
        for position in range(start, len(content)):
            if start + 12 <= position < start + 16:
                continue  # the leader epoch is outside of the checksum
            disk = harness.disk.copy()
            disk.files[SEGMENT].data[position] ^= 0x40
            _manager, log = await _reopen(disk, page_cache_lost=page_cache_lost)
            longer = start + 8 <= position < start + 11  # the batch seems to go on
            if page_cache_lost or longer:
                assert (log.offline, log.log_end_offset) == (None, 10), position
            else:
                assert log.offline is not None, position
                assert f"byte {start}:" in log.offline

    run(main)


def test_zeros_in_the_place_of_the_last_batch_are_not_cut() -> None:
    """A write that went elsewhere. What it held may have been acknowledged a moment ago, and the
    replica would be elected without it (seed 14051)."""

    async def main() -> None:
        harness, content = await _written()
        start = _batch_starts(content)[-1]
        harness.disk.files[SEGMENT].data[start:] = bytes(len(content) - start)
        _manager, log = await _reopen(harness.disk.copy())
        assert log.offline is not None
        assert "no write that was cut short looks so" in log.offline

    run(main)


def test_a_flipped_bit_in_the_middle_takes_the_log_offline_and_changes_no_byte() -> None:
    async def main() -> None:
        harness, content = await _written()
        starts = _batch_starts(content)
        for position in range(starts[2], starts[3]):
            if starts[2] + 12 <= position < starts[2] + 16:
                continue
            disk = harness.disk.copy()
            disk.files[SEGMENT].data[position] ^= 0x40
            before = bytes(disk.files[SEGMENT].data)
            _manager, log = await _reopen(disk)
            assert log.offline is not None, position
            assert SEGMENT in log.offline
            assert f"byte {starts[2]}:" in log.offline
            assert bytes(disk.files[SEGMENT].data) == before
            with pytest.raises(LogError) as caught:
                log.read(0, 100, limit_offset=1)
            assert caught.value.code == ErrorCode.KAFKA_STORAGE_ERROR
            with pytest.raises(LogError):
                log.append_as_leader(batch(), 1, NOW)

    run(main)


def test_a_damaged_log_leaves_the_others_alone_and_stays_refused() -> None:
    """Nothing of it was committed; but it was synced."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        for partition in range(3):
            log = manager.create("t", partition, TOPIC_ID)
            for _ in range(3):
                log.append_as_leader(batch(2), 1, NOW)
            await settle(log)
        await manager.close()
        path = f"{PATH}/t-1/{0:020d}.log"
        del harness.disk.files[path].data[-10:]
        for _ in range(2):
            manager = await harness.manager()
            states = [log.offline is None for log in manager.logs()]
            assert states == [True, False, True]
            await manager.close()

    run(main)


def test_an_invalid_batch_below_the_high_watermark_is_damage() -> None:
    async def main() -> None:
        harness, content = await _written()
        del harness.disk.files[SEGMENT].data[-1:]
        for high_watermark, torn in ((10, True), (11, False), (12, False)):
            disk = harness.disk.copy()
            disk.write_file(
                f"{PATH}/replication-offset-checkpoint", b"0\n1\nt 0 %d\n" % high_watermark
            )
            _manager, log = await _reopen(disk)
            assert (log.offline is None) == torn
            if not torn:  # it says which records would be lost
                acknowledged = f"records up to offset {high_watermark - 1} were acknowledged"
                assert f"this is offset 10, and {acknowledged}: nothing is cut off" in log.offline
        disk = harness.disk.copy()  # but a host that lost its page cache may have torn it
        disk.write_file(f"{PATH}/replication-offset-checkpoint", b"0\n1\nt 0 12\n")
        _manager, log = await _reopen(disk, page_cache_lost=True)
        assert (log.offline, log.log_end_offset, log.high_watermark) == (None, 10, 10)
        assert content

    run(main)


def test_a_loss_is_accepted_as_the_runbook_says() -> None:
    """Cut the file where it is said to be damaged, and take away who knows that more was there."""

    async def main() -> None:
        harness, content = await _written()
        disk, start = harness.disk, _batch_starts(content)[2]
        disk.files[SEGMENT].data[start + 30] ^= 0x40
        for name in ("replication-offset", "recovery-point-offset"):
            disk.write_file(f"{PATH}/{name}-checkpoint", b"0\n1\nt 0 12\n")
        _manager, log = await _reopen(disk.copy())
        assert f"damaged at byte {start}: " in log.offline
        del disk.files[SEGMENT].data[start:]
        _manager, log = await _reopen(disk.copy())
        assert "synced up to 12" in log.offline, "cut alone, it is still known to be too short"
        for name in ("replication-offset", "recovery-point-offset"):
            disk.remove(f"{PATH}/{name}-checkpoint")
        _manager, log = await _reopen(disk.copy())
        assert (log.offline, log.log_end_offset) == (None, 4)
        assert await read_all(log) == content[:start]

    run(main)


def test_what_a_loss_of_power_took_is_not_missed_by_the_starts_after_it() -> None:
    """Seed 3512: the next life wrote a torn end, below a high watermark of before the loss."""

    async def main() -> None:
        harness, content = await _written()
        disk = harness.disk
        disk.make_directories(f"{PATH}/other-0")
        disk.write_file(f"{PATH}/other-0/{0:020d}.log", content)
        disk.write_file(
            f"{PATH}/replication-offset-checkpoint", b"0\n3\ngone 0 4\nother 0 12\nt 0 12\n"
        )
        del disk.files[SEGMENT].data[_batch_starts(content)[-2] + 5 :]
        _manager, log = await _reopen(disk, page_cache_lost=True)
        assert (log.offline, log.log_end_offset) == (None, 8)
        disk.locks.clear()  # killed in the middle of its first write, as a full disk ends it
        disk.files[SEGMENT].data += content[_batch_starts(content)[-2] :][:40]
        manager, log = await _reopen(disk)
        assert (log.offline, log.log_end_offset, log.high_watermark) == (None, 8, 8)
        other = manager.get("other", 0)
        assert other is not None
        assert other.high_watermark == 12

    run(main)


def test_a_log_that_ends_below_its_recovery_point_is_damaged() -> None:
    async def main() -> None:
        harness, content = await _written()
        disk = harness.disk
        disk.write_file(f"{PATH}/recovery-point-offset-checkpoint", b"0\n1\nt 0 12\n")
        del disk.files[SEGMENT].data[_batch_starts(content)[-1] :]
        _manager, log = await _reopen(disk, page_cache_lost=True)
        assert log.offline is not None
        assert "synced up to 12" in log.offline

    run(main)


def test_recovery_reads_only_what_is_past_the_recovery_point() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=4000, index_interval_bytes=300))
        log = manager.create("t", 0, TOPIC_ID)
        for _ in range(200):
            log.append_as_leader(batch(2, size=30), 1, NOW)
        await settle(log)
        await drain()
        sealed = [s.base_offset for s in log.segments[:-1]]
        assert log.recovery_point == log.segments[-1].base_offset
        log.keeper.write_checkpoints()
        await drain()
        harness.kill()
        for base in sealed:  # flips where nobody looks: nobody notices at a start
            harness.disk.files[f"{PATH}/t-0/{base:020d}.log"].data[70] ^= 1
        opened: list[str] = []

        def watch(call: str, path: str) -> None:
            if call == "read" and path.endswith(".log"):
                opened.append(path)

        disk = harness.disk.copy()
        disk.fault = watch
        _manager, log = await _reopen(disk)
        assert (log.offline, log.log_end_offset) == (None, 400)
        assert len([p for p in opened if p != log.segments[-1].path()]) <= 2 * len(sealed)

    run(main)


def test_a_missing_middle_segment_or_a_torn_one_before_others_is_damage() -> None:
    async def main() -> None:
        harness, _content = await _written(60, segment_bytes=1000)
        bases = sorted(p for p in harness.disk.files if p.endswith(".log"))
        assert len(bases) > 3
        disk = harness.disk.copy()
        disk.remove(bases[1])
        _manager, log = await _reopen(disk)
        assert log.offline is not None
        disk = harness.disk.copy()
        del disk.files[bases[1]].data[-1:]
        _manager, log = await _reopen(disk)
        assert log.offline is not None
        assert bases[1] in log.offline

    run(main)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_a_lost_or_broken_index_is_rebuilt(suffix: str) -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=4000, index_interval_bytes=300))
        log = manager.create("t", 0, TOPIC_ID)
        for number in range(100):
            log.append_as_leader(batch(2, size=30, timestamp=NOW + number), 1, NOW)
        content = await read_all(log)
        await manager.close()
        good = {p: bytes(n.data) for p, n in harness.disk.files.items() if p.endswith(suffix)}
        assert len(good) > 2
        for damage in ("remove", "cut", "garbage"):
            disk = harness.disk.copy()
            for path, content_of in good.items():
                if damage == "remove":
                    disk.remove(path)
                elif damage == "cut":
                    del disk.files[path].data[-3:]
                else:
                    disk.files[path].data[:] = b"\xff" * len(content_of)
            again = await Harness(disk=disk).manager(config(index_interval_bytes=300))
            log = again.get("t", 0)
            assert log is not None
            assert log.offline is None
            assert await read_all(log) == content
            await again.close()
            if damage != "garbage":
                assert {p: bytes(disk.files[p].data) for p in good} == good

    run(main)


def test_flush_messages_1_loses_nothing_to_a_loss_of_power() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(flush_messages=1, segment_bytes=600))
        log = manager.create("t", 0, TOPIC_ID)
        stable = 0

        def on_stable(log: PartitionLog) -> None:
            nonlocal stable
            stable = log.stable_offset

        log.on_stable = on_stable
        for number in range(40):
            log.append_as_leader(batch(2, producer=(7, 0, 2 * number)), 1, NOW)
            if number % 3 == 0:
                await drain(number % 7)
        content = await read_all(log)
        harness.lose_power()
        manager = await harness.manager(page_cache_lost=True)
        again = manager.get("t", 0)
        assert again is not None
        assert again.offline is None
        assert stable > 10
        assert again.log_end_offset >= stable
        kept = await read_all(again)
        assert content.startswith(kept)

    run(main)


@pytest.mark.parametrize("seed", range(20))
def test_any_part_of_unsynced_files_may_survive_a_loss_of_power(seed: int) -> None:
    async def main() -> None:
        harness = Harness()
        manager = await harness.manager(config(segment_bytes=500))
        log = manager.create("t", 0, TOPIC_ID)
        for number in range(30):
            log.append_as_leader(batch(2, producer=(7, 0, 2 * number)), 1, NOW)
            await drain(seed % 5)
        await drain(seed)
        content = await read_all(log)
        harness.lose_power(seed)
        manager = await harness.manager(page_cache_lost=True)
        again = manager.get("t", 0)
        if again is None:
            return  # not even its directory was durable
        assert again.offline is None
        assert content.startswith(await read_all(again))
        again.append_as_leader(batch(2, producer=(7, 0, again.log_end_offset)), 2, NOW)

    run(main)


def test_a_follower_refuses_what_was_damaged_on_its_way() -> None:
    async def main() -> None:
        manager = await Harness().manager()
        log = manager.create("t", 0, TOPIC_ID)
        await drain()
        log.append_as_follower(batch())
        damaged = bytearray(batch(2, base_offset=1))
        damaged[-1] ^= 1
        with pytest.raises(LogError) as caught:
            log.append_as_follower(bytes(batch(base_offset=1)) + bytes(damaged))
        assert caught.value.code is ErrorCode.CORRUPT_MESSAGE
        assert log.log_end_offset == 1
        await manager.close()

    run(main)


def test_a_high_watermark_that_was_not_written_yet_makes_no_torn_tail_damage() -> None:
    """A follower that catches up hears of a high watermark beyond what its disk has."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        log = manager.create("t", 0, TOPIC_ID)
        await drain()
        log.append_as_follower(batch())
        await settle(log)
        harness.queues.named("log-write").hold()
        log.append_as_follower(batch(size=1000, base_offset=1))
        log.high_watermark = log.log_end_offset
        log.keeper.write_checkpoints()
        await drain()
        harness.kill()
        file = harness.disk.open(SEGMENT)
        file.append([bytes(batch(size=1000, base_offset=1))[:500]])  # killed in the midst of it
        file.close()
        manager, found = await _reopen(harness.disk)
        assert found.offline is None
        assert (found.log_end_offset, found.high_watermark) == (1, 1)
        await manager.close()

    run(main)


@pytest.mark.parametrize("policy", ["compact", "delete"])
@pytest.mark.parametrize("settled", [False, True], ids=["new", "settled"])
@pytest.mark.parametrize("clean", [False, True])
def test_a_follower_of_a_compacted_log_starts_again(
    clean: bool, settled: bool, policy: str
) -> None:
    """At a start the topics' policies are not known yet: what compaction left out is no damage.

    Nor is it where the policy has become ``delete`` before this replica was made.
    """

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()  # as a node makes it
        log = manager.create("t", 0, TOPIC_ID, config(cleanup_policy=policy))
        if settled:
            await drain()
        for offset in (0, 3, 9):
            log.append_as_follower(batch(base_offset=offset))
        with pytest.raises(LogError, match="overlaps the log of t-0, which ends at 10"):
            log.append_as_follower(batch(base_offset=9))
        log.high_watermark = log.log_end_offset
        await settle(log)
        await drain()
        content = await read_all(log)
        if clean:
            await manager.close()
        harness.kill()
        manager, found = await _reopen(harness.disk)
        assert found.offline is None
        assert (found.log_end_offset, await read_all(found)) == (10, content)
        await manager.close()

    run(main)


def test_a_new_log_is_not_measured_by_the_checkpoints_of_one_that_was_deleted() -> None:
    """Killed soon after it was made, it lacked what its predecessor had synced (seed 1098)."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        log = manager.create("t", 0, TOPIC_ID)
        log.append_as_leader(memoryview(batch(6)), 0, NOW)
        await log.flush()
        log.keeper.write_checkpoints()
        await drain()
        for gone in ("deleted", "deleted before the process was killed"):
            manager.delete("t", 0)
            if gone != "deleted":
                await drain()
                harness.kill()
                manager = await harness.manager()
            log = manager.create("t", 0, TOPIC_ID)
            await drain()
            log.append_as_leader(memoryview(batch(1)), 0, NOW)
            await settle(log)
            harness.kill()
            manager = await harness.manager()
            again = manager.get("t", 0)
            assert again is not None
            assert (again.offline, again.log_end_offset) == (None, 1), gone
            again.append_as_leader(memoryview(batch(6)), 0, NOW)
            await again.flush()
            again.keeper.write_checkpoints()
            await drain()
        await manager.close()

    run(main)
