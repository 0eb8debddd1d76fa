"""The producer against brokers that fail in every way: nothing lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from pegel.client import AsyncClient
from pegel.config import ClientOptions
from pegel.errors import (
    BrokerError,
    ClosedError,
    ConnectionFailedError,
    DeliveryTimeoutError,
    RecordTooLargeError,
    TopicNotFoundError,
)
from pegel.producer.producer import Producer
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.init_producer_id import InitProducerIdRequest
from pegel.protocol.messages.produce import ProduceRequest
from pegel.record import read_header
from tests.support.fake_broker import FakeCluster, Fault

Body = Callable[[FakeCluster, AsyncClient], Coroutine[None, None, None]]
OPTIONS = ClientOptions(request_timeout=2.0, connect_timeout=2.0, topic_grace=0.05, stall=0.05)


@asynccontextmanager
async def _client(
    brokers: int = 1, options: ClientOptions = OPTIONS
) -> AsyncIterator[tuple[FakeCluster, AsyncClient]]:
    async with FakeCluster(brokers) as cluster:
        cluster.add_topic("t", partitions=brokers)
        async with AsyncClient(cluster.bootstrap, options=options, rng=random.Random(3)) as client:
            yield cluster, client
    leftover = asyncio.all_tasks() - {asyncio.current_task()}
    assert not leftover


def _run(body: Body, brokers: int = 1, options: ClientOptions = OPTIONS) -> None:
    async def main() -> None:
        async with _client(brokers, options) as (cluster, client):
            await body(cluster, client)

    asyncio.run(main())


def _values(cluster: FakeCluster, partition: int = 0) -> list[bytes | None]:
    return cluster.topics["t"].partitions[partition].values()


def test_a_record_with_all_that_it_may_have() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        where = await client.send("t", b"v", key=b"k", headers=[("h", b"1")], timestamp=1234)
        assert where == ("t", 0, 0, 1234)
        assert (await client.send("t", None, key=b"k")).offset == 1

    _run(body)


@pytest.mark.parametrize("acks", [0, 1, "all"])
@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_many_records_with_keys(acks: int, compression: str) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        values: list[bytes | None] = [b"value %d" % i for i in range(500)]
        keys: list[bytes | None] = [b"key %d" % (i % 7) for i in range(500)]
        async with client.producer(acks=acks, compression=compression) as producer:  # type: ignore[arg-type]
            result = await producer.send_many("t", values, keys=keys)
            assert result.count == 500
        await client.send("t", b"behind the others")  # acks=0 does not say when it is there
        assert sorted(v for p in range(1) for v in _values(cluster, p)[:500] if v) == sorted(
            v for v in values if v
        )

    _run(body)


def test_calls_of_one_turn_share_a_batch_and_a_request() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.producer() as producer:
            soon = [await producer.send_soon("t", b"%d" % i) for i in range(100)]
            offsets = [(await delivery).offset for delivery in soon]
        assert offsets == list(range(100))
        assert len(cluster.requests(ProduceRequest)) == 1

    _run(body)


def test_calls_before_the_topic_is_known_are_written_in_their_order() -> None:
    """Also a call that comes when the answer is there and the first have not gone on yet."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.producer() as producer:
            calls = [asyncio.create_task(producer.send("t", b"%03d" % i)) for i in range(100)]
            view = client._cluster.metadata.view
            while "t" not in view.topics:
                await asyncio.sleep(0)
            for i in range(100, 110):
                calls.append(asyncio.create_task(producer.send("t", b"%03d" % i)))
                await asyncio.sleep(0)
            await asyncio.gather(*calls)
        assert _values(cluster) == [b"%03d" % i for i in range(110)]

    _run(body)


def test_who_waits_for_a_topic_may_be_cancelled_and_hears_that_there_is_none() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.producer() as producer:
            calls = [asyncio.create_task(producer.send("t", b"%d" % i)) for i in range(4)]
            await asyncio.sleep(0)
            calls[0].cancel()
            calls[2].cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(d, asyncio.CancelledError) for d in done] == [True, False] * 2
            lost = [asyncio.create_task(producer.send("nope", b"v")) for _ in range(3)]
            for error in await asyncio.gather(*lost, return_exceptions=True):
                assert isinstance(error, TopicNotFoundError)
        assert _values(cluster) == [b"1", b"3"]

    _run(body)


RETRIED = [
    Fault.DROP,
    Fault.DROP_AFTER,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.UNKNOWN_TOPIC_ID,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.CORRUPT_MESSAGE,
]


@pytest.mark.parametrize("fault", RETRIED)
def test_what_can_be_retried_is_written_once(fault: Fault | ErrorCode) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.script(ApiKey.PRODUCE, fault, fault)
        assert (await client.send("t", b"v")).offset == 0
        assert _values(cluster) == [b"v"]

    _run(body)


def test_a_request_without_an_answer_is_sent_again_with_its_sequence() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.script(ApiKey.PRODUCE, Fault.SILENCE_AFTER)
        assert (await client.send("t", b"v")).offset == 0
        assert _values(cluster) == [b"v"]
        assert len(cluster.requests(ProduceRequest)) == 2

    _run(body, options=ClientOptions(request_timeout=0.2))


@pytest.mark.parametrize("seed", range(12))
def test_any_weather_keeps_every_record_once_and_in_order(seed: int) -> None:
    """Five requests in flight, random faults: the log is what was sent."""
    rng = random.Random(seed)

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        faults = [*RETRIED, None, None, None, None]
        for _ in range(30):
            fault = rng.choice(faults)
            cluster.script(
                ApiKey.PRODUCE,
                fault if fault is not None else lambda b, m, v: b.answer(m, v),
            )
        sent: list[bytes | None] = [b"%d" % i for i in range(400)]
        async with client.producer(batch_bytes=200) as producer:
            soon = [await producer.send_soon("t", v, partition=0) for v in sent]
            offsets = [(await delivery).offset for delivery in soon]
        assert _values(cluster) == sent
        assert offsets == list(range(400))

    _run(body)


@pytest.mark.parametrize("seed", range(6))
def test_leaders_that_move_and_die(seed: int) -> None:
    rng = random.Random(seed)

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        sent: list[bytes | None] = [b"%d" % i for i in range(300)]

        async def chaos() -> None:
            while True:
                for _ in range(rng.randrange(1, 6)):
                    await asyncio.sleep(0.002)
                victim = cluster.brokers[rng.randrange(1, 4)]
                others = [n for n in cluster.brokers if n != victim.node_id]
                victim.stop()
                for p, state in enumerate(cluster.topics["t"].partitions):
                    if state.leader == victim.node_id:
                        cluster.move("t", p, rng.choice(others))
                await asyncio.sleep(0.002)
                await victim.start()

        async with client.producer(batch_bytes=300) as producer:
            trouble = asyncio.create_task(chaos())
            soon = []
            for i, value in enumerate(sent):
                soon.append(await producer.send_soon("t", value, partition=0))
                if i % 20 == 0:
                    await asyncio.sleep(0.002)
            for delivery in soon:
                await delivery
            trouble.cancel()
            await asyncio.wait([trouble])
        assert _values(cluster) == sent

    _run(body, brokers=3)


def test_a_broker_that_hangs_is_left_once_another_leads() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        await client.send("t", b"before", partition=0)
        cluster.brokers[1].hung = True
        sending = asyncio.create_task(client.send("t", b"after", partition=0))
        while not cluster.brokers[1].connections:
            await asyncio.sleep(0)
        cluster.move("t", 0, 2)
        started = asyncio.get_running_loop().time()
        await sending
        assert asyncio.get_running_loop().time() - started < 1.0
        assert _values(cluster) == [b"before", b"after"]

    _run(body, brokers=2, options=ClientOptions(request_timeout=20.0, stall=0.05))


def test_a_broker_that_hangs_does_not_keep_a_new_producer_from_its_id() -> None:
    """It was waited for as long as for any request: 30 s by default."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.script(ApiKey.INIT_PRODUCER_ID, Fault.SILENCE)
        async with asyncio.timeout(20):
            await client.send("t", b"v", partition=0)
        asked = [node for node, m in cluster.log if isinstance(m, InitProducerIdRequest)]
        assert len(asked) == len(set(asked)) == 2

    _run(body, brokers=2, options=ClientOptions(request_timeout=1000.0, stall=0.05))


def test_a_new_leader_named_in_the_answer_is_asked_at_once() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        await client.send("t", b"1", partition=0)
        cluster.move("t", 0, 2)
        seen = len(cluster.log)
        await client.send("t", b"2", partition=0)
        kinds = [type(m).__name__ for _, m in cluster.log[seen:]]
        assert kinds == ["ProduceRequest", "ProduceRequest"]  # no Metadata between (KIP-951)

    _run(body, brokers=2)


def _epochs(cluster: FakeCluster) -> list[tuple[int, int]]:
    batches = cluster.topics["t"].partitions[0].batches
    return [(h.producer_epoch, h.base_sequence) for h, _ in batches]


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.INVALID_PRODUCER_EPOCH,
    ],
)
def test_a_broker_that_lost_the_producers_state_sees_a_new_epoch(code: ErrorCode) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        await client.send("t", b"1")
        cluster.script(ApiKey.PRODUCE, code)
        await client.send("t", b"2")
        await client.send("t", b"3")
        assert _values(cluster) == [b"1", b"2", b"3"]
        assert _epochs(cluster) == [(0, 0), (1, 0), (1, 1)]

    _run(body)


def test_records_lost_by_an_unclean_election_do_not_stop_the_producer() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        for i in range(4):
            await client.send("t", b"%d" % i)
        partition = cluster.topics["t"].partitions[0]
        partition.truncate(2)
        state = next(iter(partition.producers.values()))
        state.batches = state.batches[:2]
        await client.send("t", b"on")
        assert _values(cluster) == [b"0", b"1", b"on"]

    _run(body)


def test_a_record_that_is_refused_fails_alone() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.script(ApiKey.PRODUCE, ErrorCode.INVALID_RECORD)
        with pytest.raises(BrokerError) as caught:
            await client.send("t", b"bad")
        assert caught.value.code is ErrorCode.INVALID_RECORD
        assert not caught.value.retriable
        await client.send("t", b"good")
        assert _values(cluster) == [b"good"]

    _run(body)


def test_a_batch_that_is_too_large_is_split_until_it_fits() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.topics["t"].partitions[0].max_message_bytes = 400
        sent: list[bytes | None] = [b"%050d" % i for i in range(100)]
        result = await client.send_many("t", sent)
        assert _values(cluster) == sent
        assert sum(r.count for r in result.ranges) == 100
        assert result.ranges[0].first_offset == 0
        async with client.producer() as producer:
            soon = [await producer.send_soon("t", v) for v in sent]
            assert [(await d).offset for d in soon] == list(range(100, 200))
        with pytest.raises(RecordTooLargeError):
            await client.send("t", b"x" * 500)

    _run(body)


def test_deadlines() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.producer(delivery_timeout=0.15) as producer:
            await producer.send("t", b"1")
            cluster.brokers[1].stop()
            with pytest.raises(DeliveryTimeoutError, match="last error"):
                await producer.send("t", b"2")
            await cluster.brokers[1].start()
        async with client.producer() as producer:
            await producer.send("t", b"3")
        assert _values(cluster) == [b"1", b"3"]

    _run(body)


def test_memory_stays_within_its_bound() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.producer(batch_bytes=1000, buffer_bytes=5000) as producer:
            memory = producer._sender.memory
            most = 0
            soon = []
            for i in range(500):
                soon.append(await producer.send_soon("t", b"%0100d" % i, partition=0))
                most = max(most, memory.used)
            assert most <= 5000
            await producer.send_many("t", [b"x" * 100] * 500)
            for delivery in soon:
                await delivery
        assert memory.used == 0

    _run(body)


def test_a_failure_that_nobody_awaited_is_told_by_flush_and_by_close() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        producer = client.producer()
        cluster.script(ApiKey.PRODUCE, ErrorCode.INVALID_RECORD, ErrorCode.INVALID_RECORD)
        await producer.send_soon("t", b"1")
        with pytest.raises(BrokerError) as caught:
            await producer.flush()
        assert "1 records that nobody awaited" in caught.value.__notes__[0]
        await producer.flush()
        await producer.send_soon("t", b"2")
        with pytest.raises(BrokerError):
            await producer.close()
        with pytest.raises(ClosedError):
            await producer.send("t", b"3")

    _run(body)


def test_closing_is_bounded_and_fails_what_is_left() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        producer = client.producer()
        await producer.send("t", b"1")
        cluster.brokers[1].hung = True
        delivery = await producer.send_soon("t", b"2")
        with pytest.raises(ClosedError):
            await producer.close(timeout=0.05)
        with pytest.raises(ClosedError):
            await delivery

    _run(body)


def test_errors_of_the_caller() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        with pytest.raises(TopicNotFoundError, match="pegel topics create"):
            await client.send("nope", b"v")
        with pytest.raises(TypeError, match="encode"):
            await client.send("t", "text")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="encode"):
            await client.send_many("t", [b"v", "text"])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="1 values, but 0 keys"):
            await client.send_many("t", [b"v"], keys=[])
        with pytest.raises(ValueError, match="partitions 0 to 0"):
            await client.send("t", b"v", partition=5)
        assert client._default_producer()._sender.memory.used == 0

    _run(body)


def test_nobody_there_is_an_error_within_the_time_out_that_names_the_address() -> None:
    async def main() -> None:
        options = ClientOptions(request_timeout=0.2)
        async with AsyncClient("127.0.0.1:1", options=options) as client:
            with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"):
                await client.send("t", b"v")

    asyncio.run(main())


def test_cancelling_a_send_leaves_the_others_alone() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.producer() as producer:
            await producer.send("t", b"0")
            sends = [asyncio.create_task(producer.send("t", b"%d" % i)) for i in range(1, 9)]
            await asyncio.sleep(0)
            sends[3].cancel()
            results = await asyncio.gather(*sends, return_exceptions=True)
        assert sum(isinstance(r, BaseException) for r in results) == 1
        assert len(_values(cluster)) in {8, 9}

    _run(body)


def test_old_brokers_are_spoken_to_in_their_versions() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.versions |= {
            ApiKey.PRODUCE: 7,
            ApiKey.METADATA: 5,
            ApiKey.API_VERSIONS: 0,
            ApiKey.INIT_PRODUCER_ID: 0,
        }
        assert (await client.send("t", b"v")).offset == 0
        header = read_header(cluster.topics["t"].partitions[0].batches[0][1])
        assert header.has_producer_id

    _run(body)


def test_a_record_that_comes_while_the_producer_closes_fails() -> None:
    """It waited for metadata; nobody sends it any more, and nobody waits for ever."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.add_topic("late")
        producer = client.producer()
        sending = [
            asyncio.create_task(producer.send("late", b"one")),
            asyncio.create_task(_send_many(producer)),
        ]
        await asyncio.sleep(0)  # they ask for the topic
        await producer.close()
        done, waiting = await asyncio.wait(sending, timeout=3)
        for task in waiting:
            task.cancel()
        assert not waiting
        assert all(isinstance(task.exception(), ClosedError) for task in done)

    async def _send_many(producer: Producer) -> None:
        await producer.send_many("late", [b"many"])

    _run(body)
