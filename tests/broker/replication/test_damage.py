"""Replicas whose files are damaged: they neither lead, nor are they cut or deleted for it."""

from __future__ import annotations

from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.log.checkpoints import (
    LEADER_EPOCH_FILE,
    PARTITION_METADATA_FILE,
    encode_partition_metadata,
)
from pegel_controller.metadata import records as r
from tests.support.replicas import TOPIC, TOPIC_ID, Replicas, run, turns


def test_a_leader_whose_log_has_failed_answers_nobody() -> None:
    """It seems to hold nothing: its follower cut its own log to that (seed 180)."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            one, two = replicas.members[1], replicas.members[2]
            await replicas.kill(2)
            checkpoint = f"/data/{TOPIC}-0/{LEADER_EPOCH_FILE}"
            damaged = b"\0\0\0"
            two.disk.files[checkpoint].data[:] = damaged
            await replicas.restart(2)
            replicas.elect(2, (2,))
            replicas.tell()
            assert two.log.offline is not None
            await turns(200)
            assert await one.values() == [b"a"]
            for replica_id in (-1, 1):
                answer = await replicas.fetch(2, 1, replica_id=replica_id, last_fetched_epoch=0)
                assert answer.error is ErrorCode.KAFKA_STORAGE_ERROR
            ends = two.manager.end_offset_for_epoch(TOPIC, 0, 1, 0)
            assert ends.error is ErrorCode.KAFKA_STORAGE_ERROR
            assert two.disk.files[checkpoint].data == damaged, "the evidence is overwritten"

    run(main)


async def _restart_with(replicas: Replicas, damage: str) -> None:
    """Broker 2 comes back, and what no checksum covers is not what it was."""
    two = replicas.members[2]
    await replicas.kill(2)
    if damage == "topic id":
        path = f"/data/{TOPIC}-0/{PARTITION_METADATA_FILE}"
        two.disk.write_file(path, encode_partition_metadata(UUID(int=77)))
    else:
        path = f"/data/{TOPIC}-0/{0:020d}.log"
        two.disk.files[path].data[12:16] = (1 << 23).to_bytes(4, "big")
    await replicas.restart(2)


@pytest.mark.parametrize("damage", ["topic id", "leader epoch"])
def test_what_contradicts_the_metadata_is_damage(damage: str) -> None:
    """The replica was deleted, and elected empty (seed 2459), or cut itself to nothing (2148)."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            await _restart_with(replicas, damage)
            two = replicas.members[2]
            before = {p: bytes(f.data) for p, f in two.disk.files.items() if p.endswith(".log")}
            replicas.tell()
            assert "is damaged" in (two.log.offline or "")
            assert list(two.manager.offline) == [(TOPIC_ID, 0)]
            await turns()
            after = {p: bytes(f.data) for p, f in two.disk.files.items() if p.endswith(".log")}
            assert after == before, "it is left as it was found"

    run(main)


def test_the_last_that_held_what_was_acknowledged_is_not_deleted_for_a_turned_bit() -> None:
    """It had lost its page cache, so that it was in sync no more; then it led, empty (3771)."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            await _restart_with(replicas, "topic id")
            replicas.elect(-1, (), last_known=(2, 1))
            replicas.tell()
            two = replicas.members[2]
            assert "is damaged" in (two.log.offline or "")
            assert list(two.manager.offline) == [(TOPIC_ID, 0)]

    run(main)


def test_the_replica_of_a_topic_that_was_made_anew_gives_way() -> None:
    """Nothing is expected of it: it is not in sync."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            assert (await replicas.produce(1, b"before")).error is ErrorCode.NONE
            await _restart_with(replicas, "topic id")
            replicas.elect(1, (1,))
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            await replicas.until_identical()

    run(main)


def test_the_damaged_replica_of_a_deleted_topic_goes_with_it() -> None:
    """The next topic of that name begins with nothing."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            assert (await replicas.produce(1, b"before")).error is ErrorCode.NONE
            two = replicas.members[2]
            await replicas.kill(2)
            two.disk.files[f"/data/{TOPIC}-0/{LEADER_EPOCH_FILE}"].data[:] = b"\0\0\0"
            await replicas.restart(2)
            replicas.tell()
            assert two.log.offline is not None
            assert two.log.topic_id == TOPIC_ID
            replicas.commit([r.TopicRemovedRecord(TOPIC_ID)])
            replicas.create(1, 2, topic_id=UUID(int=78))
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            assert await two.values() == [b"a"]
            assert two.log.topic_id == UUID(int=78)

    run(main)


def test_a_damaged_replica_that_is_in_sync_keeps_its_files_whatever_topic_they_name() -> None:
    """Both its topic id and its log are damaged: nothing of it is deleted for that."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            two = replicas.members[2]
            two.disk.files[f"/data/{TOPIC}-0/{LEADER_EPOCH_FILE}"].data[:] = b"\0\0\0"
            await _restart_with(replicas, "topic id")
            replicas.tell()
            assert two.log.offline is not None
            await turns()
            assert two.disk.files[f"/data/{TOPIC}-0/{0:020d}.log"].data

    run(main)
