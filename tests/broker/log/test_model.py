"""Random appends, rolls, truncations, deletions and restarts, against a list of batches."""

from __future__ import annotations

import random

import pytest

from pegel.record.batch import read_header
from pegel_broker.log import LogManager, PartitionLog
from tests.broker.log.harness import (
    NOW,
    TOPIC_ID,
    Harness,
    batch,
    config,
    drain,
    read,
    read_all,
    run,
    settle,
)


class Model:
    """What the log must hold: batches with their places, and the log start."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.start = 0
        self.end = 0
        self.epoch = 0

    def truncate(self, offset: int) -> None:
        while self.batches and read_header(self.batches[-1]).last_offset >= offset:
            self.end = read_header(self.batches.pop()).base_offset

    def content_from(self, offset: int) -> bytes:
        return b"".join(b for b in self.batches if read_header(b).last_offset >= offset)


def _epochs(log: PartitionLog) -> list[tuple[int, int]]:
    """Those with records; one that has none yet may be forgotten."""
    return [(epoch, start) for epoch, start in log.epochs.entries() if start < log.log_end_offset]


async def _check(log: PartitionLog, model: Model, rng: random.Random) -> None:
    assert log.offline is None
    assert (log.log_start_offset, log.log_end_offset) == (model.start, model.end)
    assert await read_all(log) == model.content_from(model.start)
    for _ in range(3):
        offset = rng.randint(model.start, model.end)
        limit = rng.randint(model.start, model.end)
        max_bytes = rng.choice([1, 100, 500, 5000])
        result = await read(log, offset, max_bytes, limit_offset=limit)
        expected = [
            b
            for b in model.batches
            if read_header(b).last_offset >= offset and read_header(b).next_offset <= limit
        ]
        got = b"".join(bytes(r) for r in result.records)
        assert b"".join(expected).startswith(got)
        assert bool(got) == bool(expected)
        if len(got) > max_bytes:
            assert got == expected[0]


async def _step(
    harness: Harness, manager: LogManager, log: PartitionLog, model: Model, rng: random.Random
) -> tuple[LogManager, PartitionLog]:
    kind = rng.choices(
        ["append", "roll", "truncate", "delete", "restart", "kill", "fully"],
        [60, 6, 6, 5, 3, 4, 1],
    )[0]
    if kind == "append":
        count = rng.randint(1, 4)
        model.epoch += rng.choice([0, 0, 0, 1, 3])  # epochs never go back
        producer = (5, 0, 0) if log.log_end_offset == 0 else None
        records = batch(count, size=rng.randint(0, 120), producer=producer)
        log.append_as_leader(records, model.epoch, NOW)
        model.batches.append(bytes(records))
        model.end += count
    elif kind == "roll":
        log.roll(NOW)
    elif kind == "truncate":
        offset = rng.randint(model.start, model.end)
        await log.truncate_to(offset)
        model.truncate(offset)
        if model.end < model.start:
            model.batches, model.end = [], model.start
    elif kind == "delete":
        log.high_watermark = model.end
        model.start = rng.randint(model.start, model.end)
        log.delete_records_before(model.start)
        log.high_watermark = model.start
    elif kind == "fully":
        model.start = model.end = model.end + rng.randint(0, 50)
        model.batches = []
        await log.truncate_fully_and_start_at(model.start)
    else:
        await settle(log)
        if kind == "restart":
            await manager.close()
        else:
            log.keeper.write_checkpoints()
            await drain()
            harness.kill()
        manager = await harness.manager(log.config)
        found = manager.get("t", 0)
        assert found is not None
        assert found.offline is None, (kind, found.offline)
        assert _epochs(found) == _epochs(log)
        if model.start == 0:  # a producer whose records were all deleted may be forgotten
            assert found.producers == log.producers
        log = found
    return manager, log


@pytest.mark.parametrize("seed", range(60))
def test_a_log_is_its_model(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        harness = Harness(seed=seed)
        settings = config(
            segment_bytes=rng.choice([600, 1000, 5000]),
            index_interval_bytes=rng.choice([0, 200, 4096]),
        )
        manager = await harness.manager(settings)
        log = manager.create("t", 0, TOPIC_ID)
        model = Model()
        for step in range(120):
            harness.disk.cached = rng.random() < 0.5
            manager, log = await _step(harness, manager, log, model, rng)
            if step % 6 == 0:
                await _check(log, model, rng)
        await _check(log, model, rng)
        await manager.close()
        assert harness.disk.open_files == 0 or seed >= 0

    run(main)
