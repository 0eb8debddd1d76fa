"""The order of a partition, its sequences and the bound on memory, without a broker."""

from __future__ import annotations

import asyncio

import pytest

from pegel.errors import BufferFullError
from pegel.producer.accumulator import Memory, PartitionQueue, new_batch
from pegel.producer.batch import ProducerBatch
from pegel.producer.idempotence import MAX_EPOCH, ProducerIdentity, SequenceState, follows

NEVER = float("inf")


def _queue(batches: int, records: int = 10) -> tuple[PartitionQueue, list[ProducerBatch]]:
    queue = PartitionQueue("t", 0)
    queue.sequences = SequenceState(ProducerIdentity(7, 0))
    queue.sequences.proven = True
    made = []
    for _ in range(batches):
        batch = new_batch("t", 0, 0.0, 60.0)
        batch.extend([b"v"] * records, None, None, 0, 13 * records)
        queue.add(batch)
        made.append(batch)
    return queue, made


def test_sequences_wrap() -> None:
    state = SequenceState(ProducerIdentity(1, 0))
    state.next_sequence = 0x7FFFFFFF
    assert state.take(2) == 0x7FFFFFFF
    assert state.next_sequence == 1
    assert follows(0x7FFFFFFF, 2, 1)


def test_epochs_of_a_producer_id_run_out() -> None:
    state = SequenceState(ProducerIdentity(1, MAX_EPOCH - 2))
    assert state.bump()
    assert not state.bump()
    state.renew(ProducerIdentity(2, 0))
    assert state.take(1) == 0


def test_after_a_failure_nothing_leaves_until_all_is_answered_and_order_is_kept() -> None:
    async def main() -> None:
        queue, (first, second, third, fourth) = _queue(4)
        assert [queue.take() for _ in range(3)] == [first, second, third]
        queue.on_failed(second)
        assert queue.due(0.0, 0.0, 5) == NEVER
        queue.on_answered(first)
        assert queue.due(0.0, 0.0, 5) == NEVER
        queue.on_failed(third)
        assert queue.due(0.0, 0.0, 5) == 0.0
        assert [queue.take() for _ in range(2)] == [second, third]
        assert queue.due(0.0, 0.0, 5) == NEVER  # what is in doubt comes first
        queue.on_answered(second)
        queue.on_answered(third)
        assert queue.take() is fourth
        assert [b.sequence for b in (first, second, third, fourth)] == [0, 10, 20, 30]

    asyncio.run(main())


def test_a_new_epoch_restamps_what_was_sent_and_nothing_else() -> None:
    async def main() -> None:
        queue, (first, second, third) = _queue(3)
        queue.take(), queue.take()
        queue.on_failed(first)
        queue.on_failed(second)
        queue.needs_epoch = True
        assert queue.begin_epoch()
        assert [(b.identity.epoch, b.sequence) for b in (first, second)] == [(1, 0), (1, 10)]
        assert third.sequence == -1
        assert [queue.take() for _ in range(3)] == [first, second, third]
        assert third.sequence == 20

    asyncio.run(main())


def test_until_a_broker_knows_the_producer_one_batch_is_in_flight() -> None:
    async def main() -> None:
        queue, (first, _) = _queue(2)
        assert queue.sequences is not None
        queue.sequences.proven = False
        queue.take()
        assert queue.due(0.0, 0.0, 5) == NEVER
        queue.on_answered(first, written=True)
        assert queue.due(0.0, 0.0, 5) == 0.0

    asyncio.run(main())


def test_halves_of_a_batch_keep_its_place_and_its_sequences() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue, (first, second) = _queue(2)
        queue.take()
        queue.on_answered(first)
        first.split(loop.create_future)
        assert first.halves is not None
        left, right = first.halves
        queue.put_back(right)
        queue.put_back(left)
        assert [queue.take() for _ in range(3)] == [left, right, second]
        assert [b.sequence for b in (left, right, second)] == [0, 5, 10]
        assert left.size + right.size == first.size

    asyncio.run(main())


def test_an_open_batch_lingers_and_gathers_while_answers_are_awaited() -> None:
    async def main() -> None:
        queue, batches = _queue(1)
        assert queue.due(0.0, 0.5, 5) == 0.5
        assert queue.due(0.0, 0.0, 5) == 0.0
        queue, batches = _queue(3)
        queue.take(), queue.take()
        assert queue.open is batches[2]
        assert queue.due(0.0, 0.0, 5) == NEVER
        queue.on_answered(batches[0])
        assert queue.due(0.0, 0.0, 5) == 0.0

    asyncio.run(main())


def test_deadlines_take_what_waits_and_leave_what_is_in_flight_in_place() -> None:
    async def main() -> None:
        queue, (first, second) = _queue(2)
        queue.take()
        assert queue.drop_expired(59.0) == []
        assert queue.drop_expired(60.0) == [first, second]
        assert queue.in_flight == [first]
        assert not queue.pending

    asyncio.run(main())


def test_memory_is_bounded_and_granted_in_order() -> None:
    async def main() -> None:
        memory = Memory(100)
        await memory.acquire(80, 1.0)
        large = asyncio.create_task(memory.acquire(60, 10.0))
        small = asyncio.create_task(memory.acquire(10, 10.0))
        await asyncio.sleep(0)
        assert memory.used == 80
        memory.release(80)
        await asyncio.gather(large, small)
        assert memory.used == 70

    asyncio.run(main())


def test_a_wait_for_memory_ends_with_an_error_and_leaves_no_trace() -> None:
    async def main() -> None:
        memory = Memory(100)
        await memory.acquire(100, 1.0)
        with pytest.raises(BufferFullError, match="buffer_bytes"):
            await memory.acquire(1, 0.01)
        cancelled = asyncio.create_task(memory.acquire(50, 10.0))
        behind = asyncio.create_task(memory.acquire(20, 10.0))
        await asyncio.sleep(0)
        cancelled.cancel()
        memory.release(100)
        await behind
        assert memory.used == 20

    asyncio.run(main())


def test_a_record_larger_than_all_memory_goes_alone() -> None:
    memory = Memory(10)
    assert memory.try_acquire(50)
    assert not memory.try_acquire(1)
    memory.release(50)
    assert memory.try_acquire(1)
