"""Reading from a follower (KIP-392): bounded by its high watermark, and waiting for it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import read_header
from pegel.record.decode import decode_batch
from pegel_broker.replication.results import PartitionFetchResult
from tests.support.replicas import Replicas, until

RACKS = {1: "a", 2: "b", 3: "c"}
# Longer than a test may take: only what is answered early passes.
FOR_EVER_MS = 60_000


def _values(result: PartitionFetchResult) -> list[bytes]:
    data = b"".join(bytes(piece) for piece in result.records)
    found: list[bytes] = []
    while data:
        size = read_header(data).size
        found += [bytes(value or b"") for value in decode_batch(data[:size]).values]
        data = data[size:]
    return found


async def _start(replicas: Replicas) -> None:
    for member in replicas.members.values():
        member.manager.options = replace(member.manager.options, fetch_wait_max_ms=FOR_EVER_MS)
    replicas.create(1, 2, 3, min_insync_replicas=2)
    replicas.tell()
    assert not (await replicas.produce(1, b"first")).error


async def _redirect(replicas: Replicas, rack: str, offset: int) -> int:
    """Which replica the leader names to a consumer of that rack."""
    result = await replicas.fetch(1, offset, rack=rack, allow_follower=True)
    return result.preferred_read_replica


def test_a_consumer_is_sent_to_an_in_sync_replica_of_its_rack() -> None:
    async def main() -> None:
        async with Replicas(racks=RACKS) as replicas:
            await _start(replicas)
            assert await _redirect(replicas, "b", 1) == 2
            assert await _redirect(replicas, "c", 1) == 3
            assert await _redirect(replicas, "a", 1) == -1  # the leader's own
            assert await _redirect(replicas, "elsewhere", 1) == -1
            assert await _redirect(replicas, "", 1) == -1
            old = replicas.partition
            replicas.commit([replace(old, isr=(1, 3), partition_epoch=old.partition_epoch + 1)])
            replicas.alter = lambda _item: None  # it stays out
            replicas.tell(1)
            assert await _redirect(replicas, "b", 1) == -1

    asyncio.run(main())


def test_a_read_of_what_was_written_waits_on_a_follower_until_it_is_there() -> None:
    async def main() -> None:
        async with Replicas(racks=RACKS) as replicas:
            await _start(replicas)
            r = random.Random(5)
            for n in range(300):
                offset = replicas.members[1].log.log_end_offset
                assert await _redirect(replicas, "b", offset) in {2, -1}
                value = b"%d" % n
                if r.random() < 0.5:
                    # The reader comes first: it asks for an offset that is not written yet.
                    read = asyncio.ensure_future(
                        replicas.fetch(2, offset, max_wait_ms=FOR_EVER_MS, allow_follower=True)
                    )
                    await asyncio.sleep(0)
                    assert not (await replicas.produce(1, value)).error
                    result = await read
                else:
                    written = await replicas.produce(1, value)
                    assert written.base_offset == offset
                    result = await replicas.fetch(
                        2, offset, max_wait_ms=FOR_EVER_MS, allow_follower=True
                    )
                assert (result.error, _values(result)) == (ErrorCode.NONE, [value])

    asyncio.run(main())


def test_an_offset_beyond_the_followers_high_watermark_is_not_available_yet() -> None:
    async def main() -> None:
        async with Replicas(racks=RACKS) as replicas:
            await _start(replicas)
            follower = replicas.members[2]
            at = follower.high_watermark
            for offset in (at + 1, at + 1_000):
                result = await replicas.fetch(2, offset, allow_follower=True)
                assert result.error is ErrorCode.OFFSET_NOT_AVAILABLE
            # Also where the consumer tells the epoch of what it has read: a follower that is
            # behind has not diverged from it.
            behind = await replicas.fetch(2, at + 1, last_fetched_epoch=0, allow_follower=True)
            assert (behind.error, behind.diverging) == (ErrorCode.OFFSET_NOT_AVAILABLE, None)
            # The leader knows better.
            assert (await replicas.fetch(1, 1_000)).error is ErrorCode.OFFSET_OUT_OF_RANGE
            below = await replicas.fetch(2, -1, allow_follower=True)
            assert below.error is ErrorCode.OFFSET_OUT_OF_RANGE

    asyncio.run(main())


def test_a_follower_serves_nothing_above_its_high_watermark() -> None:
    async def main() -> None:
        async with Replicas(racks=RACKS) as replicas:
            await _start(replicas)
            replicas.alter = lambda _item: None
            await replicas.kill(3)
            pending = replicas.produce(1, b"second")  # broker 3 is in the ISR and lacks it
            await until(lambda: replicas.members[2].log.log_end_offset == 2)
            await until(lambda: replicas.members[2].high_watermark == 1)
            first = await replicas.fetch(2, 0, allow_follower=True)
            assert _values(first) == [b"first"]
            empty = await replicas.fetch(2, 1, allow_follower=True)
            assert (empty.error, _values(empty)) == (ErrorCode.NONE, [])
            assert not pending.done()

    asyncio.run(main())


def test_an_old_client_is_not_served_by_a_follower() -> None:
    async def main() -> None:
        async with Replicas(racks=RACKS) as replicas:
            await _start(replicas)
            result = await replicas.fetch(2, 0)
            assert result.error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert result.leader_id == 1

    asyncio.run(main())


@pytest.mark.parametrize("timestamp", [-1, 0])
def test_a_new_leader_does_not_name_an_end_below_what_was_read(timestamp: int) -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            await _start(replicas)
            old = replicas.members[2]
            await until(lambda: old.log.log_end_offset == 1)
            old.hosted().core.high_watermark = 0  # it never heard of the last move
            replicas.alter = lambda _item: None
            await replicas.kill(1)
            await replicas.kill(3)
            replicas.elect(2, (2, 3))
            replicas.tell(2)
            found = old.manager.list_offset("orders", 0, timestamp)
            result = await found if isinstance(found, asyncio.Future) else found
            assert result.error is ErrorCode.OFFSET_NOT_AVAILABLE
            assert old.manager.list_offset("orders", 0, -2).offset == 0
            await replicas.restart(3)
            replicas.tell(2, 3)
            await until(lambda: old.high_watermark == 1)
            assert old.manager.list_offset("orders", 0, -1).offset == 1

    asyncio.run(main())
