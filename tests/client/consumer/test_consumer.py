"""The consumer: positions, resets, truncation, bounds, and brokers that fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

import pytest

from pegel.client import AsyncClient
from pegel.config import ClientOptions
from pegel.consumer.consumer import Consumer
from pegel.errors import (
    AuthorizationError,
    ClosedError,
    CorruptResponseError,
    LogTruncationError,
    OffsetOutOfRangeError,
    TopicNotFoundError,
)
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import (
    AbortedTransaction,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)
from pegel.protocol.schema import Message
from pegel.record import encode_batch
from pegel.types import TopicPartition
from tests.support.fake_broker import FakeBroker, FakeCluster, Fault

Body = Callable[[FakeCluster, AsyncClient], Coroutine[None, None, None]]
OPTIONS = ClientOptions(request_timeout=2.0, connect_timeout=2.0, topic_grace=0.05, stall=0.05)
T0 = TopicPartition("t", 0)


def _run(body: Body, brokers: int = 1, options: ClientOptions = OPTIONS) -> None:
    async def main() -> None:
        async with FakeCluster(brokers) as cluster:
            cluster.add_topic("t", partitions=brokers)
            async with AsyncClient(
                cluster.bootstrap, options=options, rng=random.Random(3)
            ) as client:
                async with asyncio.timeout(15):
                    await body(cluster, client)
        await asyncio.sleep(0)
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    asyncio.run(main())


def _fill(cluster: FakeCluster, count: int, *, partition: int = 0, batch: int = 10) -> None:
    log = cluster.topics["t"].partitions[partition]
    for start in range(log.log_end_offset, log.log_end_offset + count, batch):
        values: list[bytes | None] = [b"%d" % i for i in range(start, start + batch)]
        log.append(encode_batch(values, timestamps=[1000 + i for i in range(start, start + batch)]))


async def _read(consumer: Consumer, count: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    while len(values) < count:
        batch = await consumer.next_batch()
        assert batch is not None
        values += batch.values
    return values


def _numbers(start: int, end: int) -> list[bytes | None]:
    return [b"%d" % i for i in range(start, end)]


def test_from_the_beginning_by_batch_and_by_record() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 100)
        async with client.consumer("t", offset_reset="earliest") as consumer:
            assert await _read(consumer, 100) == _numbers(0, 100)
            assert await consumer.position(T0) == 100
            assert consumer.lag(T0) == 0
            assert await consumer.next_batch(timeout=0.03) is None
        async with client.consumer("t", offset_reset="earliest") as consumer:
            got = []
            async for record in consumer:
                got.append((record.offset, record.timestamp, record.value))
                if len(got) == 100:
                    break
            assert got == [(i, 1000 + i, b"%d" % i) for i in range(100)]

    _run(body)


def test_from_the_end_only_what_is_new() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 100)
        async with client.consumer("t") as consumer:
            assert await consumer.position(T0) == 100
            _fill(cluster, 10)
            assert await _read(consumer, 10) == _numbers(100, 110)

    _run(body)


def test_seeking_by_offset_time_beginning_and_end() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 100)
        async with client.consumer(partitions=[("t", 0)]) as consumer:
            consumer.seek(T0, 55)  # inside of a batch
            assert (await _read(consumer, 5))[:5] == _numbers(55, 60)
            await consumer.seek_to_time(1093)
            assert (await _read(consumer, 7)) == _numbers(93, 100)
            await consumer.seek_to_beginning()
            assert (await _read(consumer, 10))[0] == b"0"
            await consumer.seek_to_end(T0)
            assert await consumer.position(T0) == 100
            await consumer.seek_to_time(99_999)  # nothing is that late
            assert await consumer.position(T0) == 100
            record = anext(aiter(consumer))
            consumer.seek(T0, 3)
            assert (await record).value == b"3"
            consumer.seek(T0, 70)  # in the middle of a batch that is being iterated
            assert (await anext(aiter(consumer))).value == b"70"
            assert await consumer.beginning_offsets() == {T0: 0}
            assert await consumer.end_offsets() == {T0: 100}
            with pytest.raises(KeyError):
                consumer.seek(("other", 0), 1)
            with pytest.raises(ValueError, match="begin at 0"):
                consumer.seek(T0, -1)

    _run(body)


@pytest.mark.parametrize(("reset", "first"), [("earliest", b"20"), ("latest", b"100")])
def test_out_of_range_goes_where_the_policy_says(reset: str, first: bytes) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 100)
        cluster.topics["t"].partitions[0].log_start_offset = 20
        async with client.consumer("t", offset_reset=reset) as consumer:  # type: ignore[arg-type]
            consumer.seek(T0, 5)
            reading = asyncio.create_task(_read(consumer, 1))
            while await consumer.position(T0) == 5:
                await asyncio.sleep(0.002)
            _fill(cluster, 10)
            assert (await reading)[0] == first

    _run(body)


def test_out_of_range_without_a_policy_is_an_error_that_a_seek_mends() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 10)
        async with client.consumer("t", offset_reset="none") as consumer:
            consumer.seek(T0, 500)
            for _ in range(3):  # as often as one asks: else a loop that goes on waits for ever
                with pytest.raises(OffsetOutOfRangeError, match=r"500 .* seek"):
                    await consumer.next_batch(timeout=5)
            with pytest.raises(OffsetOutOfRangeError):
                await anext(consumer)
            consumer.seek(T0, 0)
            assert await _read(consumer, 10) == _numbers(0, 10)

    _run(body)


def test_one_partition_out_of_range_does_not_hide_the_others() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        await client.admin.grow_topic("t", 2)
        async with client.consumer("t", offset_reset="none") as consumer:
            consumer.seek(T0, 500)
            consumer.seek(("t", 1), 0)
            with pytest.raises(OffsetOutOfRangeError, match="t-0"):
                await consumer.next_batch(timeout=5)
            _fill(cluster, 10, partition=1)
            got: list[bytes | None] = []
            while not got:
                try:
                    batch = await consumer.next_batch(timeout=5)
                    got += batch.values if batch is not None else ()
                except OffsetOutOfRangeError:  # and meanwhile the loop turns
                    continue
            consumer.pause(T0)
            assert await consumer.next_batch(timeout=0.01) is None
            consumer.resume(T0)
            with pytest.raises(OffsetOutOfRangeError, match="t-0"):
                await consumer.next_batch(timeout=5)
            assert got == _numbers(0, 10)

    _run(body)


@pytest.mark.parametrize("reset", ["earliest", "none"])
def test_records_that_were_read_and_then_lost_are_noticed(reset: str) -> None:
    """KIP-320: after an unclean election the log ends before what was read of the old epoch."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 100)
        async with client.consumer("t", offset_reset=reset) as consumer:  # type: ignore[arg-type]
            consumer.seek(T0, 0)
            await _read(consumer, 100)
            log = cluster.topics["t"].partitions[0]
            log.truncate(60)
            cluster.move("t", 0, 2)
            log.append(encode_batch([b"new"] * 60, timestamps=0))
            if reset == "none":
                for _ in range(2):
                    with pytest.raises(LogTruncationError, match="offset 60"):
                        await consumer.next_batch()
            else:
                assert await _read(consumer, 60) == [b"new"] * 60
                assert await consumer.position(T0) == 120

    _run(body, brokers=2)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.DROP,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.OFFSET_NOT_AVAILABLE,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.KAFKA_STORAGE_ERROR,
    ],
)
def test_trouble_that_passes(fault: Fault | ErrorCode) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 50)
        cluster.script(ApiKey.FETCH, fault, fault)
        cluster.script(ApiKey.LIST_OFFSETS, fault)
        async with client.consumer("t", offset_reset="earliest") as consumer:
            assert await _read(consumer, 50) == _numbers(0, 50)

    _run(body)


def test_leaders_that_move_and_die_lose_and_repeat_nothing() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t", offset_reset="earliest", max_wait=0.05) as consumer:
            for round_ in range(8):
                victim = 1 + round_ % 3
                cluster.brokers[victim].stop()
                for p, state in enumerate(cluster.topics["t"].partitions):
                    if state.leader == victim:
                        cluster.move("t", p, 1 + victim % 3)
                _fill(cluster, 20)
                assert await _read(consumer, 20) == _numbers(20 * round_, 20 * round_ + 20)
                await cluster.brokers[victim].start()

    _run(body, brokers=3)


def test_a_broker_that_hangs_is_left_once_another_leads() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 10)
        consumer = client.consumer(partitions=[T0], offset_reset="earliest", max_wait=0.05)
        async with consumer:
            await _read(consumer, 10)
            cluster.brokers[1].hung = True
            cluster.move("t", 0, 2)
            _fill(cluster, 10)
            async with asyncio.timeout(2.0):
                assert await _read(consumer, 10) == _numbers(10, 20)

    _run(body, brokers=2, options=ClientOptions(request_timeout=20.0, stall=0.05))


def test_what_is_fetched_ahead_is_bounded() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 20_000, batch=100)
        async with client.consumer(
            "t", offset_reset="earliest", partition_fetch_bytes=4000, prefetch_bytes=10_000
        ) as consumer:
            first = await consumer.next_batch()
            assert first is not None
            fetcher = consumer._fetcher
            assert fetcher is not None
            most = count = 0
            while count < 20_000 - len(first):
                batch = await consumer.next_batch()
                assert batch is not None
                count += len(batch)
                most = max(most, fetcher.buffered_bytes)
                await asyncio.sleep(0)
            assert 0 < most <= 10_000 + 4000
        assert fetcher.buffered_bytes <= most

    _run(body)


def test_a_paused_partition_is_not_asked_for() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 10)
        async with client.consumer("t", offset_reset="earliest") as consumer:
            await _read(consumer, 10)
            consumer.pause(T0)
            await asyncio.sleep(0.03)
            _fill(cluster, 10)
            batch = await consumer.next_batch(timeout=0.03)
            got = 0 if batch is None else len(batch)  # one fetch may still have been out
            consumer.resume(T0)
            assert len(await _read(consumer, 10 - got)) == 10 - got

    _run(body)


def test_a_topic_that_is_created_again_is_read_from_its_beginning() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 100)
        async with client.consumer("t", offset_reset="latest") as consumer:
            consumer.seek(T0, 0)
            await _read(consumer, 100)
            cluster.add_topic("t")
            _fill(cluster, 30)
            assert await _read(consumer, 30) == _numbers(0, 30)

    _run(body)


def test_new_partitions_of_a_topic_are_read_from_their_beginning() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t") as consumer:
            await consumer.position(T0)
            await client.admin.grow_topic("t", 3)
            _fill(cluster, 10, partition=2)
            assert await _read(consumer, 10) == _numbers(0, 10)
            assert len(consumer.assignment) == 3

    _run(body, options=ClientOptions(metadata_max_age=0.05))


def _answer(data: PartitionData) -> Callable[[FakeBroker, Message, int], Message]:
    def script(broker: FakeBroker, message: Message, version: int) -> Message:
        topic_id = broker.cluster.topics["t"].topic_id
        topic = FetchableTopicResponse(topic="t", topic_id=topic_id, partitions=[data])
        return FetchResponse(responses=[topic])

    return script


def test_aborted_transactions_are_left_out() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        def batch(value: bytes, offset: int, producer_id: int) -> bytes:
            return bytes(
                encode_batch(
                    [value], timestamps=0, base_offset=offset, producer_id=producer_id,
                    producer_epoch=0, base_sequence=0, transactional=True,
                )
            )  # fmt: skip

        def marker(offset: int, producer_id: int, kind: int) -> bytes:
            made = encode_batch(
                [b"\0\0\0\0\0\0"], keys=[b"\0\0\0" + bytes([kind])], timestamps=0,
                base_offset=offset, producer_id=producer_id, producer_epoch=0, transactional=True,
            )  # fmt: skip
            made[22] |= 0x20
            import crc32c

            made[17:21] = crc32c.crc32c(bytes(made[21:])).to_bytes(4, "big")
            return bytes(made)

        records = b"".join(
            [
                batch(b"aborted", 0, 7),
                batch(b"kept", 1, 8),
                marker(2, 7, 0),
                batch(b"kept too", 3, 7),
                marker(4, 8, 1),
                marker(5, 7, 1),
            ]
        )
        aborted = [AbortedTransaction(producer_id=7, first_offset=0)]
        data = PartitionData(
            partition_index=0, high_watermark=6, last_stable_offset=6, records=records,
            aborted_transactions=aborted,
        )  # fmt: skip
        cluster.topics["t"].partitions[0].log_end_offset = 6
        cluster.script(ApiKey.FETCH, _answer(data))
        async with client.consumer("t", isolation="read_committed") as consumer:
            consumer.seek(T0, 0)
            assert await _read(consumer, 2) == [b"kept", b"kept too"]
            assert await consumer.next_batch(timeout=0.03) is None
            assert consumer.reached({T0: 6})

    _run(body)


def test_damaged_records_are_an_error_that_names_the_place() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        _fill(cluster, 20)
        log = cluster.topics["t"].partitions[0]
        header, data = log.batches[0]
        log.batches[0] = (header, data[:-1] + b"\x55")
        async with client.consumer("t", offset_reset="earliest") as consumer:
            with pytest.raises(CorruptResponseError, match="t-0 at offset 0"):
                await consumer.next_batch()
            consumer.seek(T0, 10)
            assert await _read(consumer, 10) == _numbers(10, 20)

    _run(body)


def test_errors_that_do_not_pass_reach_the_reader() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.script(ApiKey.FETCH, ErrorCode.TOPIC_AUTHORIZATION_FAILED)
        async with client.consumer("t", offset_reset="earliest") as consumer:
            with pytest.raises(AuthorizationError):
                await consumer.next_batch()
        with pytest.raises(ClosedError):
            await consumer.next_batch()
        with pytest.raises(TopicNotFoundError):
            async with client.consumer("nope"):
                pass
        with pytest.raises(ValueError, match="partitions 0 to 0"):
            async with client.consumer(partitions=[("t", 9)]):
                pass
        with pytest.raises(ValueError, match="instance_id"):
            client.consumer("t", instance_id="one")
        with pytest.raises(ValueError, match="topics"):
            client.consumer()

    _run(body)


def test_waiting_may_be_cancelled_and_a_close_ends_it() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t", offset_reset="earliest") as consumer:
            waiting = asyncio.create_task(consumer.next_batch())
            while not cluster.requests(FetchRequest):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            _fill(cluster, 10)
            assert await _read(consumer, 10) == _numbers(0, 10)
            waiting = asyncio.create_task(consumer.next_batch())
            await asyncio.sleep(0)
            await consumer.close()
            with pytest.raises(ClosedError):
                await waiting

    _run(body)


def test_old_brokers_are_spoken_to_in_their_versions() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.versions |= {ApiKey.FETCH: 4, ApiKey.METADATA: 5, ApiKey.LIST_OFFSETS: 1}
        _fill(cluster, 10)
        async with client.consumer("t", offset_reset="earliest") as consumer:
            assert await _read(consumer, 10) == _numbers(0, 10)

    _run(body)
