"""A topic of many partitions arrives: in slices, and in nobody's way."""

from __future__ import annotations

from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.hosting import SLICE
from pegel_controller.metadata import records as r
from tests.support.replicas import TOPIC, TOPIC_ID, Replicas, run, until

MANY = 10 * SLICE
OTHER_ID = UUID(int=99)


def create_many(replicas: Replicas, topic_id: UUID = OTHER_ID, leader: int = 1) -> None:
    replicas.commit([
        r.TopicRecord("many", topic_id),
        *(r.PartitionRecord(topic_id, n, (1, 2), (1, 2), leader) for n in range(MANY)),
    ])  # fmt: skip


def test_many_new_replicas_are_made_in_slices_and_produce_goes_on_between_them() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            await replicas.produce(1, b"before")
            create_many(replicas)
            replicas.tell()
            manager = replicas.members[1].manager
            assert manager.hosted("many", MANY - 1) is None
            refused = manager.produce("many", MANY - 1, memoryview(b""), -1, 1000)
            assert getattr(refused, "error", None) is ErrorCode.NOT_LEADER_OR_FOLLOWER
            result = await replicas.produce(1, b"meanwhile")
            assert result.error is ErrorCode.NONE
            await until(lambda: all(not m.manager.arrivals for m in replicas.members.values()))
            for member in replicas.members.values():
                assert all(member.manager.hosted("many", n) for n in range(MANY))
            appended = manager.hosted("many", MANY - 1)
            assert appended is not None
            assert appended.core.state.epoch == 0

    run(main)


def test_what_arrives_is_made_from_the_newest_metadata() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            create_many(replicas)
            replicas.tell(1)
            manager = replicas.members[1].manager
            replicas.commit([
                r.PartitionChangeRecord(OTHER_ID, MANY - 1, (1, 2), (), (), 2, 1, 1)
            ])  # fmt: skip
            replicas.tell(1)
            await until(lambda: not manager.arrivals)
            last = manager.hosted("many", MANY - 1)
            assert last is not None
            assert last.leader_hint == (2, 1)

    run(main)


def test_a_topic_that_is_deleted_and_made_again_meanwhile_is_the_new_one() -> None:
    async def main() -> None:
        async with Replicas(1) as replicas:
            replicas.create(1)
            replicas.tell()
            create_many(replicas)
            replicas.tell()
            manager = replicas.members[1].manager
            replicas.commit([r.TopicRemovedRecord(OTHER_ID)])
            replicas.tell()
            create_many(replicas, UUID(int=100))
            replicas.tell()
            await until(lambda: not manager.arrivals)
            for number in range(MANY):
                hosted = manager.hosted("many", number)
                assert hosted is not None
                assert hosted.topic_id == UUID(int=100)
            assert manager.hosted(TOPIC, 0) is not None
            assert TOPIC_ID in manager.image.topics_by_id

    run(main)


def test_a_start_hosts_all_before_it_looks_for_strays() -> None:
    async def main() -> None:
        async with Replicas(1) as replicas:
            replicas.create(1, partitions=MANY)
            replicas.tell()
            assert not replicas.members[1].manager.arrivals
            await replicas.produce(1, b"kept", partition=MANY - 1)
            await replicas.stop(1)
            await replicas.restart(1)
            # The small files of all logs are there, although they are written a few at a time.
            assert {log.topic_id for log in replicas.members[1].logs.logs()} == {TOPIC_ID}
            replicas.tell(1)
            manager = replicas.members[1].manager
            assert not manager.arrivals
            assert all(manager.hosted(TOPIC, n) is not None for n in range(MANY))
            assert await replicas.members[1].values(MANY - 1) == [b"kept"]

    run(main)
