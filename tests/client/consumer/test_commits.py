"""Offsets that are committed by hand: what is refused, and that the refusal says where."""

from __future__ import annotations

import asyncio

import pytest

from pegel.client import AsyncClient
from pegel.errors import CommitFailedError, GroupError, TopicNotFoundError
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.types import CommittedOffset
from tests.client.consumer.test_group import fill, member, run
from tests.support.fake_broker import FakeCluster


@pytest.mark.parametrize(
    ("offset", "error"),
    [
        (-1, ValueError), (2**63, ValueError), (CommittedOffset(-1), ValueError), ("7", TypeError),
        (None, TypeError), (1.0, TypeError), (True, TypeError), (CommittedOffset("7"), TypeError),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_no_offset_is_refused_with_its_partition(
    offset: object, error: type[Exception]
) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with member(client, commit="manual") as consumer:
            await consumer.wait_for_assignment(5)
            with pytest.raises(error, match=r"t-1: .*offset"):
                await consumer.commit({("t", 0): 1, ("t", 1): offset})  # type: ignore[dict-item]
            assert not cluster.group("g").offsets

    run(body)


def test_a_refused_commit_names_the_partitions() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with member(client, commit="manual") as consumer:
            await consumer.wait_for_assignment(5)
            cluster.script(ApiKey.OFFSET_COMMIT, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            with pytest.raises(TopicNotFoundError, match=r"group 'g'.* nowhere-3"):
                await consumer.commit({("nowhere", 3): 1})

    run(body)


@pytest.mark.parametrize("by_record", [True, False])
def test_a_member_that_knows_that_it_is_fenced_hands_out_nothing_more(by_record: bool) -> None:
    """What was fetched ahead is another's, who may have worked on it already."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 100)
        settings = {"instance_id": "one", "commit": "manual", "heartbeat_interval": 5.0}
        old = member(client, **settings)
        await (anext(old) if by_record else old.next_batch())
        async with member(client, **settings) as new:
            await new.wait_for_assignment(5)
            with pytest.raises(CommitFailedError) as caught:
                await old.commit()
            assert caught.value.code is ErrorCode.FENCED_INSTANCE_ID
            for _ in range(3):
                with pytest.raises(GroupError, match="took the place"):
                    await (anext(old) if by_record else old.next_batch(timeout=5))
            await old.close()

    run(body)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"group": "x" * 32_768}, "group has at most 32767 bytes, not 32768"),
        ({"instance_id": "x" * 40_000}, "instance_id has at most 32767 bytes"),
        ({"assignors": ("foo",)}, "assignors are one or more of range, .*cooperative-sticky"),
        ({"assignors": ()}, "assignors are one or more"),
        ({"max_wait": -1}, "max_wait"),
        ({"on_assigned": 5}, "on_assigned is a function"),
        ({"on_lost": "x"}, "on_lost is a function"),
    ],
)
def test_arguments_are_checked_before_anything_is_sent(
    options: dict[str, object], says: str
) -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:1") as client:
            with pytest.raises((ValueError, TypeError), match=says):
                member(client, **options)
            for topics in ([["py"]], [b"py"]):
                with pytest.raises(TypeError, match="topic"):
                    client.consumer(*topics)  # type: ignore[arg-type]

    asyncio.run(main())
