"""What a client is told that comes to the wrong broker, or too early, or too late (KIP-951)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import FetchResponse
from pegel.protocol.messages.produce import ProduceResponse
from tests.support.node import RawClient, fetch_request, produce_request, records
from tests.support.replicas import TOPIC, TOPIC_ID, Replicas, turns, until
from tests.support.replicas import run as run_alone

NOWHERE = (-1, -1)


@asynccontextmanager
async def _connected(replicas: Replicas, node_id: int) -> AsyncIterator[RawClient]:
    client = RawClient(*await asyncio.open_connection(*replicas.members[node_id].address))
    try:
        yield client
    finally:
        client.close()


async def _produce(client: RawClient, version: int) -> ProduceResponse:
    by_id = version >= 13
    request = produce_request(
        "" if by_id else TOPIC, records(b"a"), topic_id=TOPIC_ID if by_id else UUID(int=0)
    )
    return await client.ask(request, version, ProduceResponse)


@pytest.mark.parametrize("version", [3, 9, 10, 12, 13])
def test_a_producer_at_a_follower_is_told_who_leads(version: int) -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1)
            replicas.tell()
            async with _connected(replicas, 2) as client:
                response = await _produce(client, version)
            answer = response.responses[0].partition_responses[0]
            assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            told = (answer.current_leader.leader_id, answer.current_leader.leader_epoch)
            endpoints = [(e.node_id, e.host, e.port) for e in response.node_endpoints]
            if version >= 10:
                assert told == (1, 1)
                assert endpoints == [(1, *replicas.members[1].address)]
            else:
                assert (told, endpoints) == (NOWHERE, [])

    run_alone(main)


@pytest.mark.parametrize("version", [4, 11, 12, 13, 16, 17])
def test_a_reader_at_the_wrong_broker_is_told_who_leads(version: int) -> None:
    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            by_id = version >= 13
            request = fetch_request(
                "" if by_id else TOPIC, 0, topic_id=TOPIC_ID if by_id else UUID(int=0),
                current_leader_epoch=0,
            )  # fmt: skip
            request.rack_id = ""
            # A follower answers readers that know of such (v11); the third holds nothing.
            node_id = 2 if version < 11 else 3
            async with _connected(replicas, node_id) as client:
                response = await client.ask(request, version, FetchResponse)
            data = response.responses[0].partitions[0]
            assert data.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            told = (data.current_leader.leader_id, data.current_leader.leader_epoch)
            endpoints = [(e.node_id, e.host, e.port) for e in response.node_endpoints]
            assert told == ((1, 0) if version >= 12 else NOWHERE)
            assert endpoints == ([(1, *replicas.members[1].address)] if version >= 16 else [])

    run_alone(main)


def test_without_a_lease_nothing_is_accepted_and_nobody_is_named() -> None:
    """Somebody else may lead by now, and this broker would be the last to know."""

    async def main() -> None:
        async with Replicas(1) as replicas:
            replicas.create(1)
            replicas.tell()
            one = replicas.members[1]
            one.manager.resign()
            async with _connected(replicas, 1) as client:
                response = await _produce(client, 12)
            answer = response.responses[0].partition_responses[0]
            assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert (answer.current_leader.leader_id, answer.current_leader.leader_epoch) == NOWHERE
            assert one.log.log_end_offset == 0
            one.manager.on_lease(float("inf"))
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE

    run_alone(main)


def test_a_leader_that_has_resigned_accepts_nothing_in_that_epoch() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            one = replicas.members[1]
            assert one.manager.hand_over([(TOPIC_ID, 0, 0)]) == ((TOPIC_ID, 0, 0),)
            refused = await replicas.produce(1, b"a", acks=1)
            assert refused.error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            replicas.elect(1)
            replicas.tell()
            assert one.manager.hand_over([]) == ()
            assert (await replicas.produce(1, b"a", acks=1)).error is ErrorCode.NONE

    run_alone(main)


def test_who_waits_is_told_when_the_leadership_ends() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell(1)
            waiting = replicas.produce(1, b"a")
            polling = asyncio.ensure_future(replicas.fetch(1, 1, max_wait_ms=60_000))
            await turns(5)
            assert not waiting.done()
            replicas.elect(2)
            replicas.tell(1)
            assert (await waiting).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert (await polling).error in {
                ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.OFFSET_OUT_OF_RANGE,
            }  # fmt: skip

    run_alone(main)


def test_an_acknowledgement_that_does_not_come_in_time() -> None:
    """The batch is there and may yet be replicated: the client has to retry."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell(1)
            result = await replicas.produce(1, b"a", timeout_ms=20, producer=(7, 0, 0))
            assert result.error is ErrorCode.REQUEST_TIMED_OUT
            assert replicas.members[1].log.log_end_offset == 1
            replicas.tell(2)
            again = await replicas.produce(1, b"a", producer=(7, 0, 0))
            assert (again.error, again.base_offset) == (ErrorCode.NONE, 0)
            assert replicas.members[1].log.log_end_offset == 1

    run_alone(main)


def test_too_few_in_sync_before_and_after_the_append() -> None:
    async def main() -> None:
        async with Replicas(2, lag_time_max=30.0) as replicas:
            replicas.create(1, 2, min_insync_replicas=2)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            await replicas.kill(2)
            waiting = replicas.produce(1, b"b", timeout_ms=15_000)
            replicas.elect(1, (1,), elr=(2,))
            replicas.tell(1)
            # What was appended stays, and waits on; what comes now is refused.
            refused = await replicas.produce(1, b"c")
            assert refused.error is ErrorCode.NOT_ENOUGH_REPLICAS
            assert "min.isr requirement of 2" in (refused.message or "")
            replicas.configure(min_insync_replicas=1)
            replicas.tell(1)
            assert (await waiting).error is ErrorCode.NONE
            assert (await replicas.produce(1, b"d")).error is ErrorCode.NONE

    run_alone(main)


def test_min_isr_that_grows_while_a_batch_waits() -> None:
    """It is acknowledged when as many have it as are asked for by then."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1, (1,))
            replicas.tell(1)
            one = replicas.members[1]
            for queue in one.queues.made:
                queue.hold()
            waiting = replicas.produce(1, b"a")
            replicas.configure(min_insync_replicas=2)
            replicas.tell(1)
            for queue in one.queues.made:
                queue.release()
            await turns()
            assert not waiting.done(), "acknowledged by one alone"
            replicas.tell(2)
            await until(waiting.done)
            assert waiting.result().error is ErrorCode.NONE
            assert replicas.partition.isr == (1, 2)

    run_alone(main)
