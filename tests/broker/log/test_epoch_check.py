"""``leader-epoch-checkpoint`` has no checksum: a start holds it to the log's batches."""

from __future__ import annotations

import pytest

from tests.broker.log.harness import NOW, PATH, TOPIC_ID, Harness, batch, config, run, settle

EPOCHS = f"{PATH}/t-0/leader-epoch-checkpoint"


async def _stopped(**settings: int | str) -> tuple[Harness, list[tuple[int, int]]]:
    """A log of epochs 1, 4 and 12, in several segments, stopped cleanly."""
    harness = Harness()
    manager = await harness.manager(config(**settings))
    log = manager.create("t", 0, TOPIC_ID)
    for epoch, batches in ((1, 5), (4, 1), (12, 9)):
        for _ in range(batches):
            log.append_as_leader(batch(2), epoch, NOW)
    await settle(log)
    honest = log.epochs.entries()
    assert honest == [(1, 0), (4, 10), (12, 12)]
    await manager.close()
    return harness, honest


@pytest.mark.parametrize("settings", [{}, {"segment_bytes": 300, "index_interval_bytes": 50}])
def test_no_turned_bit_makes_other_epochs(settings: dict[str, int]) -> None:
    """Followers cut off 76 committed records that a leader with such a file did not know (seed
    101185)."""

    async def main() -> None:
        harness, honest = await _stopped(**settings)
        size = len(harness.disk.files[EPOCHS].data)
        whole = 0
        for at in range(size * 8):
            disk = harness.disk.copy()
            disk.files[EPOCHS].data[at // 8] ^= 1 << at % 8
            manager = await Harness(disk=disk).manager()
            log = manager.get("t", 0)
            assert log is not None
            if log.offline is not None:  # it is not even of its format
                assert EPOCHS in log.offline
            else:
                assert log.epochs.entries() == honest, disk.files[EPOCHS].data
                whole += 1
            await manager.close()
        assert whole > size

    run(main)


def test_a_log_start_within_a_batch_is_where_its_epoch_begins_now() -> None:
    async def main() -> None:
        harness, _ = await _stopped()
        for start in (3, 10, 11, 13, 30):
            manager = await harness.manager()
            log = manager.get("t", 0)
            assert log is not None
            log.high_watermark = log.log_end_offset
            log.delete_records_before(start)
            await settle(log)
            await manager.close()
            manager = await harness.manager()
            log = manager.get("t", 0)
            assert log is not None
            assert (log.offline, log.log_start_offset) == (None, start)
            await manager.close()

    run(main)


def test_who_led_without_a_write_and_copies_what_was_before_has_no_such_epoch() -> None:
    """Its followers would cut off what it copied (seed 200013)."""

    async def main() -> None:
        harness = Harness()
        manager = await harness.manager()
        log = manager.create("t", 0, TOPIC_ID)
        log.append_as_leader(batch(2), 1, NOW)
        await settle(log)
        log.assign_epoch(2)
        assert log.epochs.entries() == [(1, 0), (2, 2)]
        log.keeper.write_files()
        older = batch(3, base_offset=2)
        older[12:16] = (1).to_bytes(4, "big")
        log.append_as_follower(older)
        await settle(log)
        assert log.epochs.entries() == [(1, 0)]
        # A crash before the file says so, when the recovery point has passed it.
        log.keeper.write_checkpoints()
        stale = bytes(harness.disk.files[EPOCHS].data)
        await manager.close()
        harness.disk.files[EPOCHS].data[:] = stale
        manager = await harness.manager()
        again = manager.get("t", 0)
        assert again is not None
        assert (again.offline, again.epochs.entries()) == (None, [(1, 0)])
        await manager.close()

    run(main)
