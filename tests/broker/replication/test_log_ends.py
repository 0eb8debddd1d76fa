"""What a broker says of its logs where nobody leads (KIP-966): it must stay true."""

from __future__ import annotations

from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.log_ends import log_ends
from pegel_controller.rpc.recovery_messages import LogEnd
from tests.support.replicas import TOPIC_ID, Replicas, run, until


def _ends(replicas: Replicas, node_id: int, epoch: int, number: int = 0) -> tuple[LogEnd, ...]:
    return log_ends(replicas.members[node_id].manager, [(TOPIC_ID, number, epoch)])


def test_a_log_tells_its_end_where_nobody_leads_in_the_epoch_that_is_asked_for() -> None:
    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2, partitions=2)
            replicas.tell()
            assert (await replicas.produce(1, b"a", b"b")).error is ErrorCode.NONE
            assert [_ends(replicas, n, 0) for n in (1, 2)] == [(), ()], "somebody leads"
            replicas.elect(-1, ())
            assert _ends(replicas, 2, 1) == (), "it has not heard of it, and may yet copy"
            replicas.tell()
            end = LogEnd(TOPIC_ID, 0, 1, 0, 2)
            assert _ends(replicas, 1, 1) == _ends(replicas, 2, 1) == (end,)
            assert _ends(replicas, 2, 0) == _ends(replicas, 2, 2) == ()
            assert _ends(replicas, 3, 1) == (), "it holds no replica"
            assert _ends(replicas, 1, 1, number=7) == ()
            two = replicas.members[2].manager
            assert log_ends(two, [(UUID(int=5), 0, 1)]) == ()
            wanted = [(TOPIC_ID, 1, 0), (TOPIC_ID, 0, 1)]
            assert log_ends(two, wanted) == (end,), "partition 1 is led"

    run(main)


def test_the_epoch_is_that_of_the_last_record_and_not_of_the_last_leader() -> None:
    """Who led without a write holds no more than who did not."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            replicas.elect(2)
            replicas.tell()
            assert (await replicas.produce(2, b"a")).error is ErrorCode.NONE
            replicas.elect(1)
            replicas.tell()
            assert replicas.members[1].log.latest_epoch == 2
            replicas.elect(-1, ())
            replicas.tell()
            assert _ends(replicas, 1, 3) == _ends(replicas, 2, 3) == (LogEnd(TOPIC_ID, 0, 3, 1, 1),)

    run(main)


def test_an_empty_log_has_an_end_as_well() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(-1, ())
            replicas.tell()
            two = replicas.members[2]
            await until(lambda: two.log.ready)
            assert _ends(replicas, 2, 1) == (LogEnd(TOPIC_ID, 0, 1, -1, 0),)

    run(main)


def test_a_log_without_records_tells_the_epoch_that_it_knows() -> None:
    """All of it was deleted: it holds as much as one that has yet to delete it."""

    async def main() -> None:
        async with Replicas(1) as replicas:
            replicas.create(1)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            one = replicas.members[1]
            one.log.delete_records_before(1)
            replicas.elect(-1, ())
            replicas.tell()
            assert _ends(replicas, 1, 1) == (LogEnd(TOPIC_ID, 0, 1, 0, 1),)

    run(main)


def test_a_log_that_still_writes_is_asked_again() -> None:
    """What is not on the disk may yet fail to get there."""

    async def main() -> None:
        async with Replicas(1) as replicas:
            replicas.create(1)
            replicas.tell()
            one = replicas.members[1]
            await until(lambda: one.log.ready)
            queue = one.queues.named("log-write")
            queue.hold()
            pending = replicas.produce(1, b"a", acks=1)
            replicas.elect(-1, ())
            replicas.tell()
            assert _ends(replicas, 1, 1) == ()
            queue.release()
            await until(lambda: one.log.stable_offset == 1)
            assert _ends(replicas, 1, 1) == (LogEnd(TOPIC_ID, 0, 1, 0, 1),)
            assert (await pending).error is ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(main)


def test_a_log_that_is_being_cut_is_asked_again() -> None:
    async def main() -> None:
        async with Replicas(3) as replicas:
            three = await replicas.begin_to_cut()
            replicas.elect(-1, ())
            replicas.tell()
            assert _ends(replicas, 3, 3) == ()
            three.queues.named("log-write").release()
            await until(lambda: three.log.truncation is None)
            assert _ends(replicas, 3, 3) == (LogEnd(TOPIC_ID, 0, 3, 0, 1),)

    run(main)


def test_a_log_that_failed_has_no_end() -> None:
    async def main() -> None:
        async with Replicas(1) as replicas:
            replicas.create(1)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            replicas.elect(-1, ())
            replicas.tell()
            replicas.members[1].log.fail("its disk broke")
            assert _ends(replicas, 1, 1) == ()

    run(main)
