"""A log that was refused as damaged is refused at every later start, whatever came between."""

from __future__ import annotations

import uuid

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import iter_batches
from pegel_broker.log import LogManager, PartitionLog
from pegel_broker.log.errors import LogError
from tests.broker.log.harness import NOW, PATH, TOPIC_ID, Harness, batch, config, drain, run, settle

SEGMENT = f"{PATH}/t-0/{0:020d}.log"
HIGH_WATERMARKS = f"{PATH}/replication-offset-checkpoint"


async def _damaged(harness: Harness, number: int) -> LogManager:
    """Twelve committed records in six batches, of which one has a flipped bit: the next start."""
    manager = await harness.manager()
    log = manager.create("t", 0, TOPIC_ID)
    for _ in range(6):
        log.append_as_leader(batch(2), 1, NOW)
    await settle(log)
    log.high_watermark = 12
    manager._keepers[0].write_checkpoints()
    await drain()
    harness.kill()
    _flip(harness, number)
    manager = await harness.manager()
    assert _log(manager).offline is not None
    return manager


def _flip(harness: Harness, number: int) -> None:
    data = harness.disk.files[SEGMENT].data
    at = [at for at, _ in iter_batches(bytes(data))][number]
    data[at + 70] ^= 0x40


def _log(manager: LogManager) -> PartitionLog:
    log = manager.get("t", 0)
    assert log is not None
    return log


async def _commit_to_another(manager: LogManager) -> None:
    """Has the checkpoint files written anew."""
    other = manager.get("u", 0) or manager.create("u", 0, TOPIC_ID)
    other.append_as_leader(batch(2), 1, NOW)
    await settle(other)
    other.high_watermark = other.log_end_offset
    manager._keepers[0].write_checkpoints()
    await drain()


@pytest.mark.parametrize("number", [2, 5])
@pytest.mark.parametrize("other_boot", [False, True])
def test_damage_is_refused_after_a_clean_restart_too(number: int, other_boot: bool) -> None:
    """The mark of a clean shutdown is not for it, and neither is the excuse of a lost page cache:
    the cluster counts on a broker that was shut down."""

    async def main() -> None:
        harness = Harness()
        manager = await _damaged(harness, number)
        why = _log(manager).offline
        for _ in range(2):
            await manager.close()
            manager = await harness.manager(page_cache_lost=other_boot)
            assert manager.was_clean
            assert _log(manager).offline == why
        _flip(harness, number)  # somebody mends it
        await manager.close()
        manager = await harness.manager()
        assert (_log(manager).offline, _log(manager).log_end_offset) == (None, 12)
        assert _log(manager).high_watermark == 12
        await manager.close()

    run(main)


@pytest.mark.parametrize("number", [2, 5])
def test_damage_is_refused_after_a_second_kill_too(number: int) -> None:
    """What the checkpoints said of it stays: by a high watermark of 0 its end would be torn."""

    async def main() -> None:
        harness = Harness()
        manager = await _damaged(harness, number)
        why = _log(manager).offline
        for _ in range(2):
            await _commit_to_another(manager)
            assert b"t 0 12" in harness.disk.read_file(HIGH_WATERMARKS)
            harness.kill()
            manager = await harness.manager()
            assert _log(manager).offline == why

    run(main)


def test_nothing_is_written_to_a_refused_log() -> None:
    async def main() -> None:
        harness = Harness()
        manager = await _damaged(harness, 2)
        log = _log(manager)

        def files() -> dict[str, bytes]:
            named = harness.disk.files.items()
            return {p: bytes(f.data) for p, f in named if p.startswith(f"{PATH}/t-0/")}

        before = files()
        assert manager.create("t", 0, TOPIC_ID, config(cleanup_policy="compact")) is log
        log.assign_epoch(7)
        log.high_watermark = 5
        for write in (log.append_as_follower, lambda b: log.append_as_leader(b, 7, NOW)):
            with pytest.raises(LogError, match="damaged"):
                write(batch(1))
        with pytest.raises(LogError, match="damaged"):
            await log.truncate_to(0)
        await _commit_to_another(manager)
        await manager.close()
        assert files() == before

    run(main)


def test_a_refused_log_is_not_given_to_the_next_topic_of_its_name() -> None:
    """It had no topic id, took that of the new topic, and served the records of the old one."""

    async def main() -> None:
        harness = Harness()
        manager = await _damaged(harness, 2)
        new_id = uuid.UUID(int=77)
        with pytest.raises(LogError) as caught:
            manager.create("t", 0, new_id)
        assert caught.value.code is ErrorCode.INCONSISTENT_TOPIC_ID
        manager.delete("t", 0)
        log = manager.create("t", 0, new_id)
        log.append_as_leader(batch(1), 0, NOW)
        await settle(log)
        await drain()
        harness.kill()
        manager = await harness.manager()
        log = _log(manager)
        assert (log.offline, log.topic_id, log.log_end_offset) == (None, new_id, 1)
        await manager.close()

    run(main)
