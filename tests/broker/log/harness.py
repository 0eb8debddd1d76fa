"""Logs on a disk in memory, and batches to put in them."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pegel.record.decode import decode_batch
from pegel.record.encode import encode_batch
from pegel.seams import World
from pegel_broker.log import LogConfig, LogManager, PartitionLog, ReadResult
from tests.support.disk_queue import LoopDiskQueues
from tests.support.memory_disk import MemoryDisk

TOPIC_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
PATH = "/data"
NOW = 1_700_000_000_000


class FixedClock:
    """Wall clock at ``now_ms``, monotonic clock of the running loop."""

    def __init__(self, now_ms: int = NOW) -> None:
        self.now_ms = now_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return self.now_ms


@dataclass
class Harness:
    """A world without network; ``manager()`` is a broker's logs in it."""

    disk: MemoryDisk = field(default_factory=MemoryDisk)
    queues: LoopDiskQueues = field(default_factory=LoopDiskQueues)
    clock: FixedClock = field(default_factory=FixedClock)
    seed: int = 1

    @property
    def world(self) -> World:
        return World(self.clock, None, self.disk, self.queues, random.Random(self.seed))  # type: ignore[arg-type]

    async def manager(
        self, config: LogConfig | None = None, *, page_cache_lost: bool = False
    ) -> LogManager:
        manager = LogManager(self.world, [PATH], config)
        await manager.start("cluster-1", 1, page_cache_lost=page_cache_lost)
        return manager

    def kill(self) -> None:
        """The process dies, the host lives: what was written stays."""
        self.queues.drop()
        self.disk.locks.clear()

    def lose_power(self, seed: int | None = None) -> None:
        """The host dies: what was not synced is gone, or with ``seed`` some of it."""
        self.queues.drop()
        self.disk.crash(None if seed is None else random.Random(seed))


def config(values: Mapping[str, int | str] | None = None, **settings: int | str) -> LogConfig:
    """``config(segment_bytes=1000)`` and so on; Kafka's names with underscores."""
    merged = {key.replace("_", "."): value for key, value in settings.items()}
    return LogConfig.from_values({**(values or {}), **merged})


def batch(
    count: int = 1,
    *,
    size: int = 10,
    timestamp: int = NOW,
    producer: tuple[int, int, int] | None = None,
    base_offset: int = 0,
    fill: bytes = b"x",
) -> bytearray:
    """``count`` records of ``size`` bytes; ``producer`` is (id, epoch, base sequence)."""
    values = [fill * size for _ in range(count)]
    producer_id, epoch, sequence = producer or (-1, -1, -1)
    return encode_batch(
        values,
        timestamps=timestamp,
        base_offset=base_offset,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
    )


async def read(log: PartitionLog, offset: int, max_bytes: int = 1 << 20, **more: int) -> ReadResult:
    """A read, waited for where it must be."""
    limit = more.get("limit_offset", log.log_end_offset)
    result = log.read(offset, max_bytes, limit_offset=limit, min_one=bool(more.get("min_one", 1)))
    return result if isinstance(result, ReadResult) else await result


async def read_all(log: PartitionLog, start: int | None = None) -> bytes:
    """Everything from the log start to the log end, joined."""
    offset = log.log_start_offset if start is None else start
    pieces = []
    while offset < log.log_end_offset:
        result = await read(log, offset)
        assert result.records, f"nothing at {offset} of {log.log_end_offset}"
        assert result.size == sum(len(r) for r in result.records)
        pieces += [bytes(r) for r in result.records]
        assert result.next_offset > offset
        offset = result.next_offset
    return b"".join(pieces)


async def settle(log: PartitionLog) -> None:
    """Until everything appended is stable."""
    while log.stable_offset < log.log_end_offset and log.offline is None:
        await asyncio.sleep(0)


async def drain(turns: int = 200) -> None:
    """Turns of the loop, for work that nobody waits for."""
    for _ in range(turns):
        await asyncio.sleep(0)


def timestamps(data: bytes) -> list[int]:
    return decode_batch(data).timestamps


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await main()

    asyncio.run(body())
