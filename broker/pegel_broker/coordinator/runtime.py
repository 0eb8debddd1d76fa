"""The one runtime of all coordinators: load, append, replay, timers, unload.

It hosts a ``StateMachine`` for each partition of an internal topic that this broker leads. Kinds of
coordinators (groups now; transactions and share groups have topics of their own) are told apart by
their topic, and all of them get the same life:

- *Load* on becoming leader: wait until everything that the log holds by then is committed, replay
  it. Until that is done callers get COORDINATOR_LOAD_IN_PROGRESS.
- *Serve*: a call returns effects; replies leave, writes are appended as one batch each and replayed
  when the high watermark has passed them, strictly in the order of the log.
- *Unload* on losing the partition: whoever waits gets NOT_COORDINATOR, and the memory is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import iter_batches
from pegel.record.decode import decode_batch
from pegel.record.encode import encode_batch
from pegel.seams import Clock
from pegel_broker.coordinator.effects import Effects, Moment, Record, StateMachine, Write

_log = logging.getLogger("pegel.broker")

# What is read and replayed before other work of the loop gets its turn.
LOAD_CHUNK_BYTES = 256 * 1024
LOAD_RETRY = 0.050
# A broker without a lease may expire nobody; it looks again after this time.
NO_LEASE_RETRY = 0.1
# Partitions that are read at the same time.
MAX_LOADING = 4
# Writes of one partition that are not committed yet; more are refused.
MAX_PENDING_WRITES = 10_000

S = TypeVar("S", bound=StateMachine)
Partition = tuple[str, int]


class CoordinatorLog(Protocol):
    """One partition of an internal topic, in one leader epoch of this broker."""

    epoch: int

    @property
    def epoch_start_offset(self) -> int:
        """The log end when the leadership began: what a new coordinator has to replay."""
        ...

    @property
    def may_act(self) -> bool:
        """Whether no other broker can have become the coordinator."""
        ...

    @property
    def start_offset(self) -> int: ...

    @property
    def high_watermark(self) -> int: ...

    def append(self, batch: bytearray) -> tuple[ErrorCode, int]:
        """Append with the rules of acks=all; the offset behind the batch, or an error."""
        ...

    async def read(self, offset: int, max_bytes: int) -> tuple[list[memoryview], int]:
        """Whole batches below the high watermark, and where to go on. Raises LogError."""
        ...

    def watch(self, on_high_watermark: Callable[[], None] | None) -> None:
        """Call back whenever the high watermark has grown; None ends that."""
        ...


class _Pending:
    """An appended write; ``told`` once its requester was given an error instead."""

    __slots__ = ("deadline", "end_offset", "told", "write")

    def __init__(self, write: Write, end_offset: int, deadline: float) -> None:
        self.write = write
        self.end_offset = end_offset
        self.deadline = deadline
        self.told = False


class Hosted(Generic[S]):
    """A state machine and its log. ``ready`` once it is loaded."""

    __slots__ = ("failed", "given_up", "log", "machine", "pending", "ready", "task")

    def __init__(self, machine: S, log: CoordinatorLog) -> None:
        self.machine = machine
        self.log = log
        self.ready = False
        # Why it could not be loaded: a record in the middle of the log cannot be read.
        self.failed = ""
        self.pending: deque[_Pending] = deque()
        # How many at the front of ``pending`` were given up already.
        self.given_up = 0
        self.task: asyncio.Task[None] | None = None


class CoordinatorRuntime(Generic[S]):
    """All partitions of one internal topic on this broker; everything on the event loop.

    ``make()`` makes the state machine of a partition. ``commit_timeout`` (seconds) bounds how long
    a requester waits for its write; the write itself is never taken back. ``on_loaded(partition)``
    is called when a partition can be used.
    """

    def __init__(
        self,
        topic: str,
        clock: Clock,
        make: Callable[[], S],
        *,
        commit_timeout: float = 5.0,
        on_loaded: Callable[[int], None] | None = None,
    ) -> None:
        self.topic = topic
        self._clock = clock
        self._make = make
        self._commit_timeout = commit_timeout
        self._on_loaded = on_loaded
        self._hosted: dict[int, Hosted[S]] = {}
        self._loading = asyncio.Semaphore(MAX_LOADING)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    # -- what there is

    def hosted(self, partition: int) -> Hosted[S] | None:
        return self._hosted.get(partition)

    def partitions(self) -> list[int]:
        return sorted(self._hosted)

    def check(self, partition: int) -> ErrorCode:
        """Whether this broker may coordinate what belongs to ``partition`` now."""
        hosted = self._hosted.get(partition)
        if hosted is None or hosted.failed or not hosted.log.may_act:
            return ErrorCode.NOT_COORDINATOR
        return ErrorCode.NONE if hosted.ready else ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    def machine(self, partition: int) -> S:
        """For a look at what is committed, where ``check`` has no objection."""
        return self._hosted[partition].machine

    def _now(self) -> Moment:
        return Moment(self._clock.monotonic(), self._clock.wall_ms())

    # -- load, unload

    def load(self, partition: int, log: CoordinatorLog) -> None:
        """This broker leads the partition now."""
        assert partition not in self._hosted
        hosted = self._hosted[partition] = Hosted(self._make(), log)
        hosted.task = asyncio.create_task(
            self._load(partition, hosted), name=f"load {self.topic}-{partition}"
        )

    async def _load(self, partition: int, hosted: Hosted[S]) -> None:
        log = hosted.log
        committed = asyncio.Event()
        log.watch(committed.set)
        while log.high_watermark < log.epoch_start_offset:
            committed.clear()
            await committed.wait()
        started = self._clock.monotonic()
        count = 0
        async with self._loading:
            offset, end = log.start_offset, log.high_watermark
            while offset < end:
                try:
                    pieces, offset = await log.read(offset, LOAD_CHUNK_BYTES)
                    for piece in pieces:
                        count += _replay(hosted.machine, piece)
                except Exception as error:
                    # Without this record the state would be wrong: rather no coordinator.
                    hosted.failed = f"{type(error).__name__}: {error}"
                    _log.exception("cannot load %s-%d at offset %d", self.topic, partition, offset)
                    return
                await asyncio.sleep(0)
        took = self._clock.monotonic() - started
        log.watch(lambda: self._on_high_watermark(hosted))
        hosted.ready = True
        if count:
            _log.info(
                "coordinator of %s-%d: %d records replayed in %.3f s",
                self.topic, partition, count, took,
            )  # fmt: skip
        self._perform(hosted, hosted.machine.on_loaded(self._now()))
        if self._on_loaded is not None:
            self._on_loaded(partition)

    def unload(self, partition: int) -> None:
        """This broker leads the partition no longer (or not in that epoch)."""
        hosted = self._hosted.pop(partition)
        hosted.log.watch(None)
        if hosted.task is not None:
            hosted.task.cancel()
        now = self._now()
        while hosted.pending:
            pending = hosted.pending.popleft()
            if not pending.told:
                # Whatever else it wants to write is refused: the partition is gone.
                effects = hosted.machine.on_failed(now, pending.write, ErrorCode.NOT_COORDINATOR)
                _send_replies(effects)
        _send_replies(hosted.machine.on_unload())
        hosted.ready = False

    async def close(self) -> None:
        tasks = [h.task for h in self._hosted.values() if h.task is not None]
        for partition in self.partitions():
            self.unload(partition)
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- calls

    def call(self, partition: int, operation: Callable[[S, Moment], Effects]) -> ErrorCode:
        """Run ``operation`` and carry out its effects; an error where it was not run."""
        error = self.check(partition)
        if not error:
            hosted = self._hosted[partition]
            self._perform(hosted, operation(hosted.machine, self._now()))
        return error

    def _perform(self, hosted: Hosted[S], effects: Effects) -> None:
        """Replies leave, writes are appended; what comes of a refused write as well."""
        todo = deque([effects])
        while todo:
            current = todo.popleft()
            for write in current.writes:
                error = self._append(hosted, write)
                if error:
                    todo.append(hosted.machine.on_failed(self._now(), write, error))
            _send_replies(current)
        self._arm(hosted)

    def _append(self, hosted: Hosted[S], write: Write) -> ErrorCode:
        if len(hosted.pending) >= MAX_PENDING_WRITES:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        now = self._now()
        batch = encode_batch(
            [record.value for record in write.records],
            keys=[record.key for record in write.records],
            timestamps=now.wall_ms,
        )
        error, end_offset = hosted.log.append(batch)
        if error:
            return coordinator_error(error)
        pending = _Pending(write, end_offset, now.seconds + self._commit_timeout)
        hosted.pending.append(pending)
        self._arm_at(pending.deadline)
        return ErrorCode.NONE

    def _on_high_watermark(self, hosted: Hosted[S]) -> None:
        """Replay what is committed now, then tell who waited for it."""
        reached = hosted.log.high_watermark
        while hosted.pending and hosted.pending[0].end_offset <= reached:
            pending = hosted.pending.popleft()
            hosted.given_up = max(0, hosted.given_up - 1)
            for record in pending.write.records:
                hosted.machine.replay(record)
            if not pending.told:
                effects = hosted.machine.on_committed(self._now(), pending.write)
                self._perform(hosted, effects)

    # -- time

    def _arm(self, hosted: Hosted[S]) -> None:
        deadline = hosted.machine.next_deadline()
        if deadline is not None:
            self._arm_at(deadline)

    def _arm_at(self, deadline: float) -> None:
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)
            self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        for partition in self.partitions():
            hosted = self._hosted.get(partition)
            if hosted is None or not hosted.ready:
                continue
            now = self._now()
            deadline = hosted.machine.next_deadline()
            due = deadline is not None and deadline <= now.seconds
            if due and hosted.log.may_act:
                self._perform(hosted, hosted.machine.on_time(now))
            elif due:
                # Without a lease: it comes back, or the partition goes. The deadline stays past.
                self._arm_at(now.seconds + NO_LEASE_RETRY)
            else:
                self._arm(hosted)
            self._give_up(hosted, now)

    def _give_up(self, hosted: Hosted[S], now: Moment) -> None:
        """Tell requesters whose writes take too long; the writes stay, and count once committed."""
        while hosted.given_up < len(hosted.pending):
            pending = hosted.pending[hosted.given_up]
            if pending.deadline > now.seconds:
                self._arm_at(pending.deadline)
                return
            hosted.given_up += 1
            pending.told = True
            error = coordinator_error(ErrorCode.REQUEST_TIMED_OUT)
            self._perform(hosted, hosted.machine.on_failed(now, pending.write, error))


def _replay(machine: StateMachine, piece: memoryview) -> int:
    count = 0
    for position, header in iter_batches(piece):
        if header.is_control:
            continue
        columns = decode_batch(piece, position)
        count += len(columns)
        for key, value in zip(columns.keys, columns.values, strict=True):
            if key is not None:
                machine.replay(Record(key, value))
    return count


def _send_replies(effects: Effects) -> None:
    for handle, answer in effects.replies:
        assert isinstance(handle, asyncio.Future)
        if not handle.done():  # the client may have gone
            handle.set_result(answer)


def coordinator_error(error: ErrorCode) -> ErrorCode:
    """What a client of a coordinator is told when an append failed, as in Kafka.

    A write that is too large stays that: what it means is for the state machine to say.
    """
    match error:
        case (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode.NOT_ENOUGH_REPLICAS
            | ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode.REQUEST_TIMED_OUT
        ):
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        case ErrorCode.NOT_LEADER_OR_FOLLOWER | ErrorCode.KAFKA_STORAGE_ERROR:
            return ErrorCode.NOT_COORDINATOR
        case _:
            return error
