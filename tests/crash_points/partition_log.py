"""Crash points of a broker's log directory: every file that it holds, every byte of each.

Whatever is done to one file, the next start either serves exactly what was written (a prefix of it
where the tail of the last segment is torn), or refuses the log or the whole directory with a reason
that names the file. Committed records are never cut, and nothing is invented.
"""

from __future__ import annotations

import asyncio
import errno
import random

from pegel.record.batch import CorruptBatchError, check_batch, iter_batches
from pegel_broker.log import LogDirectoryError, LogManager
from pegel_broker.log.errors import LogError
from tests.broker.log.harness import (
    NOW,
    PATH,
    TOPIC_ID,
    Harness,
    batch,
    config,
    drain,
    read_all,
    settle,
)
from tests.crash_points.tally import POINTS, Tally, require
from tests.support.memory_disk import MemoryDisk

SETTINGS: dict[str, int | str] = {"segment_bytes": 700, "index_interval_bytes": 150}
COMMITTED = 20  # offsets below it were checkpointed as committed
# Bytes of a batch that no checksum covers: its base offset and length are checked otherwise, the
# leader epoch is the leader's to set.
_EPOCH_AT = range(12, 16)
_LENGTH_AT = range(8, 12)  # a batch that seems to go on looks torn; the last segment has but one


async def written(*, clean: bool) -> tuple[MemoryDisk, bytes]:
    """A log of two leader epochs, an idempotent producer and several segments, and its content."""
    harness = Harness()
    manager = await harness.manager(config(**SETTINGS))
    log = manager.create("t", 0, TOPIC_ID)
    for number in range(14):
        records = batch(2, fill=b"%d" % number, producer=(7, 0, 2 * number), timestamp=NOW + number)
        log.append_as_leader(records, 1 + number // 7, NOW)
        await settle(log)
    log.high_watermark = COMMITTED
    log.keeper.write_files()
    log.keeper.write_checkpoints()
    await drain()
    content = await read_all(log)
    if clean:
        await manager.close()
    else:
        harness.kill()
    return harness.disk, content


async def _stays_refused(harness: Harness, manager: LogManager, why: str) -> None:
    """A clean shutdown and a kill change nothing."""
    for end in ("shutdown", "kill"):
        if end == "shutdown":
            await manager.close()
        else:
            harness.kill()
        manager = await harness.manager(config(**SETTINGS))
        log = manager.get("t", 0)
        again = None if log is None else log.offline
        require(again == why, f"refused with {why}, and after a {end} with {again}")
    harness.kill()


async def outcome(disk: MemoryDisk, content: bytes, touched: str) -> str:
    """What a start makes of ``disk``; raises CrashPointError where it breaks the promise."""
    harness = Harness(disk=disk)
    try:
        manager = await harness.manager(config(**SETTINGS))
    except LogDirectoryError as error:
        harness.kill()
        name = touched.rpartition("/")[2]
        require(name in str(error) or PATH in str(error), f"{touched}: the error names it: {error}")
        return "directory refused"
    log = manager.get("t", 0)
    require(log is not None, f"{touched}: the log is forgotten")
    assert log is not None
    if log.offline is not None:
        require(PATH in log.offline, f"{touched}: the reason names a file: {log.offline}")
        await _stays_refused(harness, manager, log.offline)
        return "log refused"
    try:
        found = await read_all(log)
    except LogError:
        require(log.offline is not None, f"{touched}: a read fails, and the log stays online")
        harness.kill()
        return "refused at a read"
    whole = found == content
    if not whole and not content.startswith(found):
        # Below the recovery point nothing is read at a start. Whoever is sent it finds the damage.
        require(not _passes(found), f"{touched}: other records than were written")
        harness.kill()
        return "refused by who reads it"
    ends = [header.last_offset + 1 for _at, header in iter_batches(found)]
    require(log.log_end_offset == (ends[-1] if ends else 0), f"{touched}: a wrong log end")
    require(log.log_end_offset >= COMMITTED, f"{touched}: committed records are gone")
    sequences = log.producers.describe().get(7)
    if sequences is not None:
        last = sequences[1][-1].last_offset
        require(last == log.log_end_offset - 1, f"{touched}: the producer's last batch is {last}")
    else:
        require(False, f"{touched}: the producer is forgotten")
    end = log.log_end_offset
    log.append_as_leader(batch(2, producer=(7, 0, end)), 3, NOW)
    await settle(log)
    require((await read_all(log)).startswith(found), f"{touched}: what was there is still there")
    await manager.close()
    return "whole" if whole else "prefix"


def _passes(found: bytes) -> bool:
    """Whether a follower would take all of it: its checksums are right, its offsets follow."""
    following = 0
    try:
        for at, header in iter_batches(found):
            check_batch(found, at, header)
            if header.base_offset != following:
                return False
            following = header.next_offset
    except CorruptBatchError:
        return False
    return True


def damage_every_file(*, clean: bool, stride: int = 1) -> list[Tally]:
    """Cut each file at each byte, remove it, and turn a bit of each byte."""

    async def main() -> list[Tally]:
        origin, content = await written(clean=clean)
        tallies: dict[str, Tally] = {}
        for path in sorted(origin.files):
            name = path.rpartition("/")[2]
            kind = "*" + name[20:] if name[:20].isdigit() else name
            title = f"{kind}, {'clean stop' if clean else 'kill'}"
            tally = tallies.setdefault(title, Tally(title))
            size = len(origin.files[path].data)
            last = path == max(p for p in origin.files if p.endswith(".log"))
            for point in range(0, 2 * size + 1, stride):
                if not POINTS.wanted(f"{path} at {point}"):
                    continue
                disk = origin.copy()
                data = disk.files[path].data
                if point == 2 * size:
                    disk.remove(path)
                elif point < size:
                    del data[point:]
                else:
                    data[point - size] ^= 1 << point % 8
                if _is_free(path, content, origin, point - size):
                    continue
                result = await outcome(disk, content, f"{path} at point {point}")
                torn_tail_only = result != "prefix" or last
                require(torn_tail_only, f"{path} at point {point}: records behind it are cut")
                if not clean and last and size <= point < 2 * size:
                    # A kill leaves the beginning of a write: what is all there was damaged since.
                    refused = result == "log refused" or point - size in _LENGTH_AT
                    require(refused, f"{path} at point {point}: a turned bit gives {result}")
                tally.take(result)
        return list(tallies.values())

    return asyncio.run(main())


def _is_free(path: str, content: bytes, disk: MemoryDisk, position: int) -> bool:
    """Whether the byte is in a field that may hold anything (the leader epoch of a batch)."""
    if not path.endswith(".log") or position < 0:
        return False
    starts = [at for at, _header in iter_batches(bytes(disk.files[path].data))]
    before = [at for at in starts if at <= position]
    return bool(before) and position - before[-1] in _EPOCH_AT


def crash_at_every_call(stride: int = 1) -> Tally:
    """The host or the process dies before each call to the disk, amid appends, rolls, truncations,
    checkpoints and deletions; ``flush.messages=1``, so what is stable may not be lost."""

    async def main() -> Tally:
        tally = Tally("log directory, a crash at each disk call")
        for power in ("kill", "power", "some"):
            stop = 0
            while True:
                stable, harness = await _run_until(stop)
                if harness is None:
                    break
                harness.kill()
                harness.disk.fault = None
                if power != "kill":
                    harness.disk.crash(random.Random(stop) if power == "some" else None)
                if POINTS.wanted(where := f"{power} at {stop}"):
                    tally.take(await _recovered(harness.disk, stable, where))
                stop += stride
        return tally

    return asyncio.run(main())


async def _run_until(stop: int) -> tuple[int, Harness | None]:
    """The stable end that was announced, and the world as it died; None if it lived."""
    harness = Harness()
    calls = 0

    def fault(_call: str, path: str) -> None:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise OSError(errno.EIO, "the crash", path)

    harness.disk.fault = fault
    stable = 0
    try:
        manager = await harness.manager(config(flush_messages=1, **SETTINGS))
        log = manager.create("t", 0, TOPIC_ID)
        for number in range(12):
            log.append_as_leader(batch(2, producer=(7, 0, 2 * number)), 1, NOW)
            await settle(log)
            if log.offline is not None:
                break
            stable = log.stable_offset
            if number == 8:
                log.high_watermark = stable
                log.keeper.write_checkpoints()
                await drain(20)
        if log.offline is None:
            await manager.close()
    except LogError:
        return stable, harness
    return stable, harness if calls > stop else None


async def _recovered(disk: MemoryDisk, stable: int, where: str) -> str:
    harness = Harness(disk=disk)
    manager = await harness.manager(config(flush_messages=1, **SETTINGS), page_cache_lost=True)
    log = manager.get("t", 0)
    if log is None:
        require(stable == 0, f"{where}: the log is forgotten")
        manager.create("t", 0, TOPIC_ID)
        await manager.close()
        return "whole"
    require(log.offline is None, f"{where}: refused: {log.offline}")
    require(log.log_end_offset >= stable, f"{where}: ends at {log.log_end_offset} of {stable}")
    content = await read_all(log)
    offsets = [header.base_offset for _at, header in iter_batches(content)]
    require(offsets == list(range(0, log.log_end_offset, 2)), f"{where}: offsets {offsets}")
    log.append_as_leader(batch(2, producer=(7, 0, log.log_end_offset)), 2, NOW)
    await settle(log)
    await manager.close()
    return "whole" if log.log_end_offset - 2 == stable else "prefix"
