"""Who accepts writes, and until when: what keeps an old leader from writing beside a new one."""

from __future__ import annotations

from pegel.protocol.errors import ErrorCode
from tests.support.replicas import TOPIC_ID, Replicas, run


def test_a_leader_that_was_asked_to_hand_over_accepts_no_more() -> None:
    """Its lease still runs, and the new leader is elected on its word alone."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            assert (await replicas.produce(1, b"a", acks=1)).error is ErrorCode.NONE
            one = replicas.members[1]
            asked = ((TOPIC_ID, 0, 0),)
            assert one.manager.hand_over(asked) == asked
            refused = await replicas.produce(1, b"b", acks=1)
            assert refused.error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert one.log.log_end_offset == 1
            replicas.elect(1)  # nobody else was fit: the same one, in another epoch
            replicas.tell()
            assert (await replicas.produce(1, b"c", acks=1)).error is ErrorCode.NONE
            assert one.manager.hand_over(()) == ()

    run(main)


def test_a_broker_that_ends_accepts_no_more_writes() -> None:
    """Not even with a lease whose answer comes later."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            one = replicas.members[1]
            one.manager.retire()
            one.manager.on_lease(float("inf"))
            refused = await replicas.produce(1, b"a", acks=1)
            assert refused.error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert one.log.log_end_offset == 0

    run(main)
