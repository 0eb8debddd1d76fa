"""What a leader that comes back after SIGKILL makes readable, with a high watermark that is older.

The checkpoint of it is up to five seconds old, or was never written; nothing that was readable
before may be out of reach for longer than its followers need to fetch once.
"""

from __future__ import annotations

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.log import checkpointing
from pegel_broker.log.checkpoints import HIGH_WATERMARK_FILE, decode_offsets
from pegel_broker.replication.offsets import LATEST, list_offset
from pegel_broker.replication.results import OffsetResult
from tests.support.replicas import TOPIC, Replicas, run, until

CHECKPOINT = f"/data/{HIGH_WATERMARK_FILE}"


def _checkpointed(replicas: Replicas, node_id: int) -> int | None:
    disk = replicas.members[node_id].disk
    if not disk.exists(CHECKPOINT):
        return None
    return decode_offsets(disk.read_file(CHECKPOINT)).get((TOPIC, 0))


def _latest(replicas: Replicas, node_id: int) -> tuple[int, int]:
    """What a consumer that begins at the end is told: the error and the offset."""
    manager = replicas.members[node_id].manager
    found = list_offset(manager, TOPIC, 0, LATEST, -1, debugging=False)
    assert isinstance(found, OffsetResult)
    return found.error, found.offset


def test_alone_in_sync_it_knows_at_once() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1, (1,))
            replicas.tell(1)
            assert (await replicas.produce(1, b"a", b"b")).error is ErrorCode.NONE
            await replicas.kill(1)
            assert _checkpointed(replicas, 1) in {None, 0}
            await replicas.restart(1)
            replicas.elect(1, (1,))
            replicas.tell(1)
            assert replicas.members[1].high_watermark == 2
            assert _latest(replicas, 1) == (ErrorCode.NONE, 2)
            assert (await replicas.fetch(1, 0)).high_watermark == 2

    run(main)


def test_with_followers_it_tells_no_old_end_and_one_fetch_of_each_is_enough() -> None:
    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2, 3)
            replicas.tell()
            assert (await replicas.produce(1, b"a", b"b")).error is ErrorCode.NONE
            for node_id in replicas.members:
                await replicas.kill(node_id)
            for node_id in replicas.members:
                await replicas.restart(node_id)
            replicas.elect(1)
            replicas.tell(1)
            one = replicas.members[1]
            assert one.high_watermark == 0
            assert _latest(replicas, 1)[0] is ErrorCode.OFFSET_NOT_AVAILABLE
            waiting = await replicas.fetch(1, 2)  # a consumer that had read both
            assert (waiting.error, list(waiting.records)) == (ErrorCode.NONE, [])
            replicas.tell(2, 3)
            await until(lambda: one.high_watermark == 2)  # and nothing was written meanwhile
            assert _latest(replicas, 1) == (ErrorCode.NONE, 2)

    run(main)


def test_what_was_checkpointed_is_known_after_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "CHECKPOINT_INTERVAL", 0.01)

    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2, 3)
            replicas.tell()
            assert (await replicas.produce(1, b"a", b"b")).error is ErrorCode.NONE
            for node_id in replicas.members:
                await until(lambda n=node_id: _checkpointed(replicas, n) == 2)  # type: ignore[misc]
            await replicas.kill(1)
            await replicas.restart(1)
            replicas.elect(1)
            replicas.tell(1)
            assert replicas.members[1].high_watermark == 2

    run(main)


def test_committed_records_that_it_must_cut_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unclean election, while it was down: it knows from its checkpoint what that cost."""
    monkeypatch.setattr(checkpointing, "CHECKPOINT_INTERVAL", 0.01)

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1, (1,))
            replicas.tell(1)
            one, two = replicas.members[1], replicas.members[2]
            assert (await replicas.produce(1, b"lost", b"lost")).error is ErrorCode.NONE
            await until(lambda: _checkpointed(replicas, 1) == 2)
            await replicas.kill(1)
            replicas.elect(2, (2,))
            replicas.tell(2)
            assert (await replicas.produce(2, b"new")).error is ErrorCode.NONE
            await replicas.restart(1)
            replicas.tell()
            await replicas.until_identical()
            assert await one.values() == await two.values() == [b"new"]
            assert one.manager.stats.high_watermark_backwards == 1
            assert two.manager.stats.high_watermark_backwards == 0

    run(main)
