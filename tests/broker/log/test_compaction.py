"""Compaction: of each key the newest record stays, at the offset that it had."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pegel.record.batch import HEADER_SIZE, compute_crc, iter_batches, read_header
from pegel.record.compression import Codec
from pegel.record.decode import decode_batch
from pegel.record.encode import encode_batch
from pegel.record.retain import empty_batch, retain_records
from pegel_broker.log import LogConfig, PartitionLog
from pegel_broker.log.cleaner import Cleaner
from pegel_broker.log.compaction import KeyMap, SegmentSpan, cleanable, dirty_ratio, group, is_due
from pegel_broker.log.partition_log import PartitionLog as Log
from tests.broker.log.harness import NOW, PATH, TOPIC_ID, Harness, config, drain, read_all, settle
from tests.support.memory_disk import MemoryDisk

Record = tuple[int, bytes | None, bytes | None]  # offset, key, value
DAY_MS = 86_400_000


def _batch(
    records: Sequence[tuple[bytes | None, bytes | None]],
    *,
    codec: Codec = Codec.NONE,
    producer: tuple[int, int, int] = (-1, -1, -1),
    timestamps: int | Sequence[int] = NOW,
) -> bytearray:
    return encode_batch(
        [value for _, value in records], keys=[key for key, _ in records], timestamps=timestamps,
        codec=codec, producer_id=producer[0], producer_epoch=producer[1], base_sequence=producer[2],
    )  # fmt: skip


def _records(data: bytes) -> list[Record]:
    found: list[Record] = []
    for position, _ in iter_batches(data):
        columns = decode_batch(data, position)
        found += zip(columns.offsets, columns.keys, columns.values, strict=True)
    return found


async def _content(log: PartitionLog) -> list[Record]:
    return _records(await read_all(log))


def _compacted(**more: int | str) -> LogConfig:
    return config(
        {"cleanup.policy": "compact", "segment.bytes": 400, "min.cleanable.dirty.ratio": 0, **more}
    )


async def _fill(log: Log, records: Sequence[tuple[bytes, bytes | None]], codec: Codec) -> None:
    """Batches of three records; all committed, and the files of sealed segments whole."""
    for start in range(0, len(records), 3):
        log.append_as_leader(_batch(records[start : start + 3], codec=codec), 0, NOW)
        log.high_watermark = log.log_end_offset
    await settle(log)
    await drain()


def _newest(records: Sequence[Record], until: int) -> list[Record]:
    """What compaction of the offsets below ``until`` has to leave."""
    last = {key: offset for offset, key, _ in records if offset < until}
    return [r for r in records if r[0] >= until or last[r[1]] == r[0]]


def _updates(seed: int, count: int, keys: int) -> list[tuple[bytes, bytes | None]]:
    r = random.Random(seed)
    return [(b"key-%d" % r.randrange(keys), b"value-%d" % n) for n in range(count)]


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP, Codec.LZ4, Codec.ZSTD, Codec.SNAPPY])
def test_the_newest_record_of_each_key_stays_where_it_was(codec: Codec) -> None:
    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        updates = _updates(1, 300, 20)
        await _fill(log, updates, codec)
        before = [(n, k, v) for n, (k, v) in enumerate(updates)]
        assert await _content(log) == before
        cleaner = Cleaner(h.world, manager, 1.0)
        active = log.segments[-1].base_offset
        size = log.size_bytes
        assert await cleaner.clean_dirtiest()
        assert await _content(log) == _newest(before, active)
        assert (log.log_end_offset, log.cleaned_offset) == (300, active)
        assert log.size_bytes < size / 2
        assert not await cleaner.clean_dirtiest()  # nothing is dirty
        # More of the same keys: a second pass goes over what the first has left, too.
        await _fill(log, _updates(2, 200, 20), codec)
        everything = await _content(log)
        assert await cleaner.clean_dirtiest()
        assert await _content(log) == _newest(everything, log.segments[-1].base_offset)
        # It is what the files say, after a clean end and after a kill.
        content = await _content(log)
        await manager.close()
        manager = await h.manager(_compacted())
        log = manager.get("t", 0)
        assert await _content(log) == content
        assert log.cleaned_offset == log.segments[-1].base_offset
        h.kill()
        manager = await h.manager(_compacted())
        log = manager.get("t", 0)
        assert log.offline is None
        assert await _content(log) == content

    asyncio.run(main())


def test_every_offset_can_be_asked_for_and_small_segments_join() -> None:
    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        await _fill(log, _updates(3, 400, 5), Codec.NONE)
        count = len(log.segments)
        cleaner = Cleaner(h.world, manager, 1.0)
        await cleaner.clean_dirtiest()
        # They join by the sizes that they had before a pass, as Kafka's do: in the next one.
        await _fill(log, _updates(4, 20, 5), Codec.NONE)
        await cleaner.clean_dirtiest()
        assert len(log.segments) < count / 3
        names = [n for n in h.disk.list_directory(f"{PATH}/t-0") if n.endswith(".log")]
        assert len(names) == len(log.segments)
        content = await _content(log)
        for offset in range(log.log_end_offset):
            found = log.read(offset, 1, limit_offset=log.log_end_offset)
            result = await found if isinstance(found, asyncio.Future) else found
            records = _records(b"".join(bytes(piece) for piece in result.records))
            expected = next(r for r in content if r[0] >= offset)
            after = [r for r in records if r[0] >= offset]
            # A batch that was emptied stands for offsets, too: the reader goes on behind it.
            assert after[:1] == [expected] or result.next_offset > offset

    asyncio.run(main())


def test_tombstones_stay_until_their_horizon() -> None:
    async def main() -> None:
        h = Harness()
        settings = _compacted(**{"delete.retention.ms": DAY_MS})
        manager = await h.manager(settings)
        log = manager.create("t", 0, TOPIC_ID)
        filler = [(b"filler-%d" % n, b"x" * 50) for n in range(12)]
        await _fill(log, [(b"a", b"1"), (b"b", b"2"), (b"a", None), *filler], Codec.NONE)
        cleaner = Cleaner(h.world, manager, 1.0)
        assert await cleaner.clean_dirtiest()
        assert (await _content(log))[:2] == [(1, b"b", b"2"), (2, b"a", None)]
        header = read_header(await read_all(log))
        assert header.has_delete_horizon
        assert header.base_timestamp == NOW + DAY_MS
        assert decode_batch(await read_all(log)).timestamps == [NOW, NOW]

        async def again() -> list[Record]:
            await _fill(log, filler, Codec.NONE)
            assert await cleaner.clean_dirtiest()
            return [r for r in await _content(log) if r[1] in {b"a", b"b"}]

        h.clock.now_ms = NOW + DAY_MS
        assert await again() == [(1, b"b", b"2"), (2, b"a", None)]
        h.clock.now_ms += 1
        assert await again() == [(1, b"b", b"2")]

    asyncio.run(main())


def test_the_last_batch_of_a_producer_stays_for_its_sequence() -> None:
    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        log.append_as_leader(_batch([(b"k", b"1")], producer=(7, 0, 0)), 0, NOW)
        log.append_as_leader(_batch([(b"k", b"2")], producer=(7, 0, 1)), 0, NOW)
        filler = [(b"k", b"x" * 50), (b"f", b"x" * 50)] * 8
        await _fill(log, filler, Codec.NONE)
        await Cleaner(h.world, manager, 1.0).clean_dirtiest()
        batches = [header for _, header in iter_batches(await read_all(log))]
        assert [(b.base_offset, b.record_count, b.base_sequence) for b in batches
                if b.producer_id == 7] == [(1, 0, 1)]  # fmt: skip
        # Known after a restart without any snapshot, from the batches alone.
        await manager.close()
        for name in h.disk.list_directory(f"{PATH}/t-0"):
            if name.endswith(".snapshot"):
                h.disk.remove(f"{PATH}/t-0/{name}")
        log = (await h.manager(_compacted())).get("t", 0)
        again = log.append_as_leader(_batch([(b"k", b"2")], producer=(7, 0, 1)), 0, NOW)
        assert (again.duplicate, again.first_offset) == (True, 1)

    asyncio.run(main())


def test_nothing_uncommitted_and_nothing_young_is_touched() -> None:
    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted(**{"min.compaction.lag.ms": 1_000}))
        log = manager.create("t", 0, TOPIC_ID)
        await _fill(log, _updates(4, 100, 3), Codec.NONE)
        cleaner = Cleaner(h.world, manager, 1.0)
        assert not await cleaner.clean_dirtiest()  # too young
        h.clock.now_ms += 1_001
        before = await _content(log)
        log._high_watermark = log.segments[2].base_offset + 1  # the third is not all committed
        assert await cleaner.clean_dirtiest()
        assert await _content(log) == _newest(before, log.cleaned_offset)
        assert log.cleaned_offset < log.high_watermark

    asyncio.run(main())


def test_keys_that_do_not_fit_wait_for_the_next_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        await _fill(log, _updates(5, 300, 60), Codec.NONE)
        before = await _content(log)
        cleaner = Cleaner(h.world, manager, 1.0)
        passes = 0
        while await cleaner.clean_dirtiest():
            passes += 1
            assert passes < 100
        assert passes > 3
        assert await _content(log) == _newest(before, log.segments[-1].base_offset)

    monkeypatch.setattr("pegel_broker.log.compaction.KEYS_MAX", 20)
    monkeypatch.setattr(KeyMap.__init__, "__defaults__", (20,))
    asyncio.run(main())


def test_a_truncation_and_a_removal_meanwhile_give_the_pass_up() -> None:
    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        await _fill(log, _updates(6, 300, 5), Codec.NONE)
        cleaner = Cleaner(h.world, manager, 1.0)
        cleaning = asyncio.ensure_future(cleaner.clean_dirtiest())
        for _ in range(7):
            await asyncio.sleep(0)
        await log.truncate_to(250)
        assert await cleaning
        content = await _content(log)
        assert content[-1][0] < 250
        assert {k for _, k, _ in content} == {b"key-%d" % n for n in range(5)}
        assert not [n for n in h.disk.list_directory(f"{PATH}/t-0") if n.endswith(("ed", "swap"))]
        cleaning = asyncio.ensure_future(cleaner.clean_dirtiest())
        for _ in range(7):
            await asyncio.sleep(0)
        await manager.delete("t", 0)
        await cleaning
        await drain()
        assert manager.get("t", 0) is None
        assert not [d for d in h.disk.list_directory(PATH) if d.startswith("t-0")]
        assert manager.directories[0].offline is None

    asyncio.run(main())


def test_a_crash_at_any_step_of_the_exchange_loses_nothing() -> None:
    async def fill(h: Harness) -> tuple[list[Record], list[Record]]:
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        await _fill(log, _updates(7, 45, 6), Codec.NONE)
        before = await _content(log)
        newest = _newest(before, log.segments[-1].base_offset)
        await manager.close()
        return before, newest

    async def crash_at(
        full: MemoryDisk, before: list[Record], after: list[Record], step: int, *, power: bool
    ) -> bool:
        h = Harness(disk=copy.deepcopy(full))
        manager = await h.manager(_compacted())
        log = manager.get("t", 0)
        log.high_watermark = log.log_end_offset
        operations = 0
        real = h.disk.rename, h.disk.remove, h.disk.sync_directory

        def counted(number: int):
            def call(*arguments: str) -> None:
                nonlocal operations
                operations += 1
                if operations > step:
                    raise _CrashError
                real[number](*arguments)

            return call

        h.disk.rename, h.disk.remove, h.disk.sync_directory = map(counted, range(3))
        with contextlib.suppress(_CrashError):
            await Cleaner(h.world, manager, 1.0).clean_dirtiest()
        crashed = operations > step
        h.disk.rename, h.disk.remove, h.disk.sync_directory = real
        (h.lose_power if power else h.kill)()
        log = (await h.manager(_compacted(), page_cache_lost=power)).get("t", 0)
        assert log.offline is None, log.offline
        content = await _content(log)
        # Old records may be there still where the exchange was undone, or partly done.
        assert set(after) <= set(content) <= set(before), step
        assert content == sorted(content)
        leftovers = [n for n in h.disk.list_directory(f"{PATH}/t-0") if n.endswith(("ed", "swap"))]
        assert not leftovers
        return crashed

    async def main() -> None:
        h = Harness()
        before, after = await fill(h)
        for power in (False, True):
            step = 0
            while await crash_at(h.disk, before, after, step, power=power):
                step += 1
            assert step > 20

    asyncio.run(main())


class _CrashError(Exception):
    pass


def test_retained_records_are_the_same_bytes() -> None:
    records = [(b"a", b"1"), (b"b", None), (None, b"3"), (b"c", b"4" * 200)]
    for codec in Codec:
        batch = _batch(records, codec=codec, timestamps=[NOW, NOW + 5, NOW + 9, NOW + 2])
        header = read_header(batch)
        same = retain_records(batch, 0, header, lambda *_: True)
        assert bytes(same) == bytes(batch)
        some = retain_records(batch, 0, header, lambda offset, *_: offset in {1, 3})
        columns = decode_batch(some)
        assert (columns.offsets, columns.keys) == ([1, 3], [b"b", b"c"])
        assert columns.values == [None, b"4" * 200]
        assert columns.timestamps == [NOW + 5, NOW + 2]
        kept = columns.header
        assert (kept.max_timestamp, kept.last_offset_delta, kept.codec) == (NOW + 5, 3, codec)
        assert retain_records(batch, 0, header, lambda *_: False) is None
        none = retain_records(batch, 0, header, lambda *_: False, keep_empty=True)
        assert bytes(none) == bytes(empty_batch(header))
        assert (len(decode_batch(none)), read_header(none).next_offset) == (0, 4)
        horizon = retain_records(batch, 0, header, lambda *_: True, delete_horizon_ms=NOW + 10**9)
        columns = decode_batch(horizon)
        assert columns.header.base_timestamp == NOW + 10**9
        assert columns.timestamps == [NOW, NOW + 5, NOW + 9, NOW + 2]
        assert columns.values == [value for _, value in records]


def test_what_is_due() -> None:
    spans = [SegmentSpan(0, 10, 100, NOW - 50), SegmentSpan(10, 20, 300, NOW - 20),
             SegmentSpan(20, 30, 100, NOW)]  # fmt: skip
    assert cleanable(spans, safe_offset=29, newest_ms=NOW) == spans[:2]
    assert cleanable(spans, safe_offset=30, newest_ms=NOW - 30) == spans[:1]
    assert cleanable(spans, safe_offset=30, newest_ms=NOW) == spans
    assert dirty_ratio(spans, 0) == 1.0
    assert dirty_ratio(spans, 20) == 0.2
    assert dirty_ratio([], 0) == 0.0
    due = {"min_ratio": 0.5, "now_ms": NOW, "max_lag_ms": 2**63 - 1}
    assert is_due(spans, 10, **due)
    assert not is_due(spans, 20, **due)
    assert is_due(spans, 20, **{**due, "max_lag_ms": -1})
    assert not is_due(spans, 30, **due)
    assert [[s.base for s in g] for g in group(spans, max_bytes=400, max_offsets=100)] == [
        [0, 10],
        [20],
    ]
    assert len(group(spans, max_bytes=10_000, max_offsets=20)) == 2


def test_long_keys_have_names_that_no_short_key_has() -> None:
    keys = KeyMap(0)
    long = b"k" * 40
    batch = _batch([(long, b"1"), (b"s", b"2"), (long, b"3")])
    assert keys.add(batch, 0, read_header(batch))
    assert keys.is_superseded(long, 0)
    assert not keys.is_superseded(long, 2)
    assert not keys.is_superseded(b"k" * 41, 0)
    assert (len(keys), keys.end_offset) == (2, 3)


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP])
def test_what_nobody_can_read_stays_as_it_was_written(codec: Codec) -> None:
    """Records are opaque to a broker: their client may have written anything."""

    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        await _fill(log, _updates(5, 60, 4), codec)
        garbage = _batch([(b"key-1", b"unreadable")], codec=codec)
        garbage[HEADER_SIZE:] = b"\xff" * (len(garbage) - HEADER_SIZE)
        garbage[17:21] = compute_crc(garbage, 0, len(garbage)).to_bytes(4, "big")
        # Taken in before the topic was compacted: a leader of a compacted topic looks for keys.
        log.config = replace(log.config, compact_policy=False)
        log.append_as_leader(garbage, 0, NOW)
        log.config = replace(log.config, compact_policy=True)
        await _fill(log, _updates(6, 60, 4), codec)
        assert await Cleaner(h.world, manager, 1.0).clean_dirtiest()
        assert log.offline is None
        assert log.cleaned_offset > 61
        data = await read_all(log)
        pieces = {b.base_offset: data[at : at + b.size] for at, b in iter_batches(data)}
        assert pieces[60][HEADER_SIZE:] == garbage[HEADER_SIZE:]
        assert sum(offset < 60 for offset in pieces) < 10, "the others were compacted"

    asyncio.run(main())


def test_a_flipped_bit_is_not_given_a_checksum_that_vouches_for_it() -> None:
    async def main() -> None:
        h = Harness()
        manager = await h.manager(_compacted())
        log = manager.create("t", 0, TOPIC_ID)
        await _fill(log, _updates(7, 60, 4), Codec.NONE)
        name = f"{PATH}/t-0/{0:020d}.log"
        h.disk.files[name].data[HEADER_SIZE + 15] ^= 0x40
        before = bytes(h.disk.files[name].data)
        await Cleaner(h.world, manager, 1.0).clean_dirtiest()
        assert log.offline is not None
        assert "checksum of the batch at offset 0 is wrong" in log.offline
        assert name in log.offline
        assert bytes(h.disk.files[name].data) == before

    asyncio.run(main())
