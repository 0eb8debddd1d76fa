"""The runtime of coordinators, on logs that the test commits by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.record.decode import decode_batch
from pegel.record.encode import encode_batch
from pegel_broker.coordinator import runtime as runtime_module
from pegel_broker.coordinator.effects import Effects, Moment, Record, Write
from pegel_broker.coordinator.runtime import CoordinatorRuntime

TIMEOUT = 10.0
PARTITION = 7


class LoopClock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return 1_700_000_000_000


class FakeLog:
    """A partition in memory; ``commit()`` moves its high watermark to the end."""

    def __init__(self, batches: list[bytearray] | None = None) -> None:
        self.epoch = 1
        self.may_act = True
        self.start_offset = 0
        self.high_watermark = 0
        self.end_offset = 0
        self.refuse = ErrorCode.NONE
        self.held: asyncio.Event | None = None
        self._batches: list[tuple[int, bytearray]] = []
        self._watcher: Callable[[], None] | None = None
        for batch in batches or []:
            self.append(batch)
        self.epoch_start_offset = self.end_offset

    def append(self, batch: bytearray) -> tuple[ErrorCode, int]:
        if self.refuse:
            return self.refuse, -1
        self._batches.append((self.end_offset, batch))
        self.end_offset += len(decode_batch(batch))
        return ErrorCode.NONE, self.end_offset

    async def read(self, offset: int, max_bytes: int) -> tuple[list[memoryview], int]:
        if self.held is not None:
            await self.held.wait()
        base, batch = next((b, d) for b, d in self._batches if b >= offset)
        return [memoryview(batch)], base + len(decode_batch(batch))

    def watch(self, on_high_watermark: Callable[[], None] | None) -> None:
        self._watcher = on_high_watermark

    def commit(self, offset: int | None = None) -> None:
        self.high_watermark = self.end_offset if offset is None else offset
        if self._watcher is not None:
            self._watcher()


class Diary:
    """A state machine that remembers what was replayed and answers with it."""

    def __init__(self) -> None:
        self.replayed: list[bytes] = []
        self.waiting: list[Any] = []
        self.deadline: float | None = None
        self.on_time_calls = 0

    def replay(self, record: Record) -> None:
        if record.value == b"broken":
            raise ValueError("not a page")
        self.replayed.append(record.value or b"")

    def on_loaded(self, now: Moment) -> Effects:
        return Effects()

    def on_committed(self, now: Moment, write: Write) -> Effects:
        effects = Effects()
        effects.reply(write.context, list(self.replayed))
        return effects

    def on_failed(self, now: Moment, write: Write, error: ErrorCode) -> Effects:
        effects = Effects()
        effects.reply(write.context, error)
        return effects

    def next_deadline(self) -> float | None:
        return self.deadline

    def on_time(self, now: Moment) -> Effects:
        self.on_time_calls += 1
        self.deadline = None
        effects = Effects()
        for handle in self.waiting:
            effects.reply(handle, "time")
        return effects

    def on_unload(self) -> Effects:
        effects = Effects()
        for handle in self.waiting:
            effects.reply(handle, "unloaded")
        return effects


def batch(*values: bytes) -> bytearray:
    return encode_batch(values, keys=[b"k"] * len(values), timestamps=1)


Runtime = CoordinatorRuntime[Diary]


def write(runtime: Runtime, *values: bytes) -> asyncio.Future[Any]:
    handle: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def operation(_machine: Diary, _now: Moment) -> Effects:
        effects = Effects()
        effects.write([Record(b"k", value) for value in values], handle)
        return effects

    assert runtime.call(PARTITION, operation) is ErrorCode.NONE
    return handle


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0)


def run(main: Callable[[Runtime], Coroutine[None, None, None]], **options: Any) -> None:
    async def body() -> None:
        runtime = CoordinatorRuntime("topic", LoopClock(), Diary, **options)
        try:
            await main(runtime)
        finally:
            await runtime.close()

    asyncio.run(body())


async def loaded(runtime: Runtime, log: FakeLog) -> Diary:
    runtime.load(PARTITION, log)
    log.commit()
    await until(lambda: runtime.check(PARTITION) is ErrorCode.NONE)
    return runtime.machine(PARTITION)


def test_nothing_is_served_before_all_that_the_log_holds_is_committed_and_replayed() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog([batch(b"1", b"2"), batch(b"3")])
        log.held = asyncio.Event()
        assert runtime.check(PARTITION) is ErrorCode.NOT_COORDINATOR
        runtime.load(PARTITION, log)
        await asyncio.sleep(0)
        log.commit(2)  # not yet all of it: an older leader's last write may be acknowledged
        await asyncio.sleep(0)
        assert runtime.check(PARTITION) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert runtime.call(PARTITION, lambda *_: pytest.fail("called")) is (
            ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        )
        log.commit()
        for _ in range(10):
            await asyncio.sleep(0)
        assert runtime.check(PARTITION) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        log.held.set()
        await until(lambda: runtime.check(PARTITION) is ErrorCode.NONE)
        assert runtime.machine(PARTITION).replayed == [b"1", b"2", b"3"]

    run(main)


def test_a_write_is_replayed_and_answered_when_it_is_committed() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog([batch(b"old")])
        machine = await loaded(runtime, log)
        first, second = write(runtime, b"a", b"b"), write(runtime, b"c")
        assert (machine.replayed, first.done()) == ([b"old"], False)
        log.commit(3)
        assert first.result() == [b"old", b"a", b"b"]
        assert not second.done()
        log.commit()
        assert second.result() == [b"old", b"a", b"b", b"c"]

    run(main)


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.MESSAGE_TOO_LARGE),  # for the machine to say
    ],
)
def test_a_refused_write_is_told_in_terms_of_coordinators(
    refused: ErrorCode, told: ErrorCode
) -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog()
        machine = await loaded(runtime, log)
        log.refuse = refused
        assert write(runtime, b"a").result() is told
        assert machine.replayed == []

    run(main)


def test_a_write_that_takes_too_long_is_told_and_counts_once_it_is_committed() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog()
        machine = await loaded(runtime, log)
        late, next_one = write(runtime, b"late"), write(runtime, b"next")
        async with asyncio.timeout(TIMEOUT):
            assert await late is ErrorCode.COORDINATOR_NOT_AVAILABLE
            assert await next_one is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert machine.replayed == []
        log.commit()
        assert machine.replayed == [b"late", b"next"]
        in_time = write(runtime, b"in time")
        log.commit()
        assert in_time.result() == [b"late", b"next", b"in time"]

    run(main, commit_timeout=0.02)


def test_who_waits_is_told_when_the_partition_goes() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog()
        machine = await loaded(runtime, log)
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        machine.waiting.append(waiting)
        pending = write(runtime, b"a")
        runtime.unload(PARTITION)
        assert pending.result() is ErrorCode.NOT_COORDINATOR
        assert waiting.result() == "unloaded"
        assert runtime.check(PARTITION) is ErrorCode.NOT_COORDINATOR
        log.commit()  # heard by nobody
        assert machine.replayed == []

    run(main)


def test_a_partition_may_go_while_it_is_loaded_and_come_back() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog([batch(b"1")])
        runtime.load(PARTITION, log)
        await asyncio.sleep(0)
        runtime.unload(PARTITION)
        log.commit()
        again = FakeLog([batch(b"1"), batch(b"2")])
        assert (await loaded(runtime, again)).replayed == [b"1", b"2"]

    run(main)


def test_without_a_lease_nothing_is_answered() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog()
        await loaded(runtime, log)
        log.may_act = False
        assert runtime.check(PARTITION) is ErrorCode.NOT_COORDINATOR
        log.may_act = True
        assert runtime.check(PARTITION) is ErrorCode.NONE

    run(main)


def test_a_deadline_that_passes_without_a_lease_is_not_looked_at_without_pause() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog()
        machine = await loaded(runtime, log)
        log.may_act = False
        looked = 0
        past = asyncio.get_running_loop().time() - 1.0

        def next_deadline() -> float:
            nonlocal looked
            looked += 1
            return past

        machine.next_deadline = next_deadline  # type: ignore[method-assign]
        runtime._arm_at(past)
        for _ in range(200):
            await asyncio.sleep(0)
        assert 0 < looked < 10  # it was once for each turn of the loop

    run(main)


def test_a_record_that_cannot_be_read_makes_no_coordinator() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog([batch(b"1"), batch(b"broken"), batch(b"3")])
        runtime.load(PARTITION, log)
        log.commit()
        hosted = runtime.hosted(PARTITION)
        assert hosted is not None
        await until(lambda: hosted.failed != "")
        assert "not a page" in hosted.failed
        assert runtime.check(PARTITION) is ErrorCode.NOT_COORDINATOR

    run(main)


def test_writes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "MAX_PENDING_WRITES", 3)

    async def main(runtime: Runtime) -> None:
        log = FakeLog()
        await loaded(runtime, log)
        handles = [write(runtime, b"%d" % n) for n in range(4)]
        assert handles[3].result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
        log.commit()
        assert handles[2].result() == [b"0", b"1", b"2"]

    run(main)


def test_time_is_told_when_it_is_due_and_not_before() -> None:
    async def main(runtime: Runtime) -> None:
        log = FakeLog()
        machine = await loaded(runtime, log)
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        machine.waiting.append(waiting)
        due = asyncio.get_running_loop().time() + 0.03
        machine.deadline = due + 5
        runtime.call(PARTITION, lambda *_: Effects())
        machine.deadline = due  # an earlier one takes its place
        runtime.call(PARTITION, lambda *_: Effects())
        async with asyncio.timeout(TIMEOUT):
            assert await waiting == "time"
        assert asyncio.get_running_loop().time() >= due
        assert machine.on_time_calls == 1

    run(main)


def test_markers_of_transactions_are_no_records() -> None:
    async def main(runtime: Runtime) -> None:
        marker = batch(b"marker")
        marker[22] |= 0x20
        marker[17:21] = _crc(marker).to_bytes(4, "big")
        log = FakeLog([batch(b"1"), marker, batch(b"2")])
        assert (await loaded(runtime, log)).replayed == [b"1", b"2"]

    run(main)


def _crc(data: bytearray) -> int:
    from pegel.record.batch import compute_crc

    return compute_crc(data, 0, len(data))
