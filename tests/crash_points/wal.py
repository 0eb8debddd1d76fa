"""Crash points of what a controller keeps on disk: the write-ahead log and its snapshots.

The oracle is a model that takes whole operations; recovery must give a state that the model was in,
at or after the last one that was synced.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.log_view import Entry, EntryKind
from pegel_controller.raft.ready import HardState, Membership, Snapshot
from pegel_controller.raft.wal import Recovered, WriteAheadLog
from pegel_controller.raft.wal_format import HEADER_SIZE, scan
from tests.crash_points.tally import POINTS, Tally, require
from tests.support.memory_disk import MemoryDisk

DIRECTORY = "/raft"
SEGMENT_BYTES = 400
_NOTHING = HardState()
MEMBERS = Membership((1, 2, 3), (4,))


@dataclass(frozen=True, slots=True)
class State:
    """What a recovered node knows."""

    hard: HardState = _NOTHING
    snapshot: int = 0
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One Ready, or a snapshot of its own state, as the runner writes it."""

    entries: tuple[Entry, ...] = ()
    hard: HardState | None = None
    truncate_from: int | None = None
    installed: int = 0  # a leader's snapshot at this index
    compacted: int = 0  # a snapshot of its own

    def perform(self, log: WriteAheadLog) -> None:
        if self.compacted:
            log.save_snapshot(_snapshot(self.compacted))
            log.compact(self.compacted)
            return
        if self.installed:
            log.save_snapshot(_snapshot(self.installed))
        log.append(
            self.truncate_from, self.entries, self.hard, sync=True,
            compacted=self.installed or None,
        )  # fmt: skip
        if self.installed:
            log.compact(self.installed)

    def steps(self, state: State) -> Iterator[State]:
        """The states that a crash within it may leave, in order; the last is the whole of it."""
        if self.compacted or self.installed:
            index = self.compacted or self.installed
            kept = tuple(e for e in state.entries if e.index > index and self.compacted)
            state = replace(state, snapshot=index, entries=kept)
            yield state
        if self.truncate_from is not None:
            kept = tuple(e for e in state.entries if e.index < self.truncate_from)
            state = replace(state, entries=kept)
            yield state
        for entry in self.entries:
            state = replace(state, entries=(*state.entries, entry))
            yield state
        if self.hard is not None:
            state = replace(state, hard=self.hard)
        yield state


def _snapshot(index: int) -> Snapshot:
    return Snapshot(index, 1 + index // 10, MEMBERS, b"state of %d" % index)


def _entry(index: int) -> Entry:
    return Entry(index, 1 + index // 10, EntryKind.COMMAND, b"%d" % index * (index % 7 + 1))


def script() -> list[Operation]:
    """Votes, entries, a truncation, snapshots of both kinds, over several segments."""
    made = [Operation(hard=HardState(1, 2, 0))]
    for index in range(1, 10):
        made.append(Operation((_entry(index),), HardState(1, 2, index - 1)))
    made.append(Operation(hard=HardState(2, None, 8)))
    made.append(Operation((Entry(9, 2, EntryKind.NO_OP, b""),), HardState(2, 3, 8), 9))
    made += [
        Operation(tuple(map(_entry, (i, i + 1))), HardState(3, 1, i - 1)) for i in range(10, 18, 2)
    ]
    made.append(Operation(compacted=12))
    made += [Operation((_entry(index),), HardState(3, 1, index - 1)) for index in range(18, 24)]
    made.append(Operation((), HardState(4, None, 40), 41, installed=40))
    made += [Operation((_entry(index),), HardState(5, 2, index - 1)) for index in range(41, 47)]
    made.append(Operation(compacted=44))
    made.append(Operation((_entry(47),), HardState(5, 2, 46)))
    return made


def _recover(disk: MemoryDisk) -> tuple[WriteAheadLog, Recovered]:
    log = WriteAheadLog(disk, DIRECTORY, SEGMENT_BYTES)
    return log, log.recover()


def _state_of(found: Recovered) -> State:
    index = found.snapshot.index if found.snapshot else 0
    if found.snapshot is not None:
        require(found.snapshot == _snapshot(index), "a snapshot comes back as it was")
    return State(found.hard_state, index, tuple(found.entries))


def _usable(disk: MemoryDisk, state: State) -> None:
    """It can be written to again, and recovers to that."""
    log, found = _recover(disk)
    require(_state_of(found) == state, "a second recovery gives the same")
    last = max([state.snapshot, *(e.index for e in state.entries)])
    term = max([state.hard.term, *(e.term for e in state.entries)])
    entry = Entry(last + 1, term + 1, EntryKind.COMMAND, b"after")
    log.append(None, [entry], HardState(term + 1, 1, state.hard.commit_index), sync=True)
    log.close()
    again = _state_of(_recover(disk)[1])
    require(again.entries == (*state.entries, entry), "what follows a recovery is kept")


def crash_at_every_call(stride: int = 1) -> Tally:
    """Stop before each call to the disk; the process dies, or the host with what was not synced."""
    tally = Tally("raft log, a crash at each disk call")
    operations = script()
    for power in ("kill", "power", "some"):
        stop = 0
        while True:
            disk = MemoryDisk()
            state, possible, stopped = _run_until(disk, operations, stop)
            if not stopped:
                break
            stop += stride
            if not POINTS.wanted(f"{power} at {stop - stride}"):
                continue
            if power != "kill":
                disk.crash(random.Random(stop - stride) if power == "some" else None)
            disk.fault = None
            found = _state_of(_recover(disk)[1])
            require(found in possible, f"after {POINTS.now}: {found} of {possible}")
            require(found.hard.term >= state.hard.term, "the term never goes back")
            tally.take("whole" if found in {possible[0], possible[-1]} else "prefix")
            _usable(disk, found)
    return tally


def _run_until(
    disk: MemoryDisk, operations: Sequence[Operation], stop: int
) -> tuple[State, list[State], bool]:
    """Last acknowledged state, the states that are possible now, and whether it was stopped."""
    calls = 0

    def fault(_call: str, path: str) -> None:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise OSError(errno.EIO, "the crash", path)

    state, possible = State(), [State()]
    disk.fault = fault
    try:
        log, _found = _recover(disk)
        for operation in operations:
            possible = [state, *operation.steps(state)]
            operation.perform(log)
            state = possible[-1]
    except OSError:
        return state, possible, True
    return state, possible, False


def _written(operations: Sequence[Operation]) -> tuple[MemoryDisk, list[State]]:
    """A disk after ``operations``, and every state on the way."""
    disk = MemoryDisk()
    log, _found = _recover(disk)
    states = [State()]
    for operation in operations:
        states += operation.steps(states[-1])
        operation.perform(log)
    log.close()
    return disk, states


def _segments(disk: MemoryDisk) -> list[str]:
    return sorted(path for path in disk.files if path.endswith(".wal"))


def torn_at_every_byte() -> Tally:
    """The last segment cut at every byte of its last two operations, after each operation."""
    tally = Tally("raft log, a torn tail at each byte")
    operations = script()
    for count in range(2, len(operations) + 1):
        before, acknowledged = _written(operations[: count - 2])
        disk, states = _written(operations[:count])
        possible = states[len(acknowledged) - 1 :]  # nothing that was synced before is lost
        path = _segments(disk)[-1]
        if operations[count - 1].compacted or operations[count - 2].compacted:
            continue  # written aside and renamed: not torn, see crash_at_every_call
        if operations[count - 1].installed or operations[count - 2].installed:
            continue
        start = len(before.files[path].data) if path in before.files else 0
        for cut in range(start, len(disk.files[path].data)):
            if not POINTS.wanted(f"{path} cut at {cut} after {count}"):
                continue
            torn = disk.copy()
            del torn.files[path].data[cut:]
            found = _state_of(_recover(torn)[1])
            require(found in possible, f"{path} cut at {cut}: {found} of {possible}")
            tally.take("prefix")
            _usable(torn, found)
    return tally


def flipped_at_every_bit(stride: int = 1) -> Tally:
    """A bit turned anywhere in any segment: refused with file and offset, or a torn last record."""
    tally = Tally("raft log, each bit turned")
    disk, states = _written(script())
    segments = _segments(disk)
    for path in segments:
        whole = bytes(disk.files[path].data)
        payloads, _size = scan(whole, path, last_segment=True)
        last = len(whole) - len(payloads[-1]) - HEADER_SIZE if path == segments[-1] else len(whole)
        for bit in range(0, len(whole) * 8, stride):
            if not POINTS.wanted(f"{path} bit {bit}"):
                continue
            damaged = disk.copy()
            damaged.files[path].data[bit // 8] ^= 1 << bit % 8
            before = bytes(damaged.files[path].data)
            try:
                found = _state_of(_recover(damaged)[1])
            except RaftError as error:
                require(path in str(error), f"the error names {path}: {error}")
                named = "damaged at offset" in str(error)
                require(named or bit // 8 >= last, f"the error names the offset: {error}")
                require(
                    bytes(damaged.files[path].data) == before, "a refused file is left as it is"
                )
                tally.take("refused")
                continue
            require(bit // 8 >= last, f"{path}: bit {bit} was repaired in silence")
            require(found in states, f"{path} bit {bit}: {found}")
            tally.take("prefix")
    return tally


def snapshot_damaged(stride: int = 1) -> Tally:
    """The newest snapshot cut at each byte, or with a bit turned: refused, and nothing deleted."""
    tally = Tally("raft snapshot, each byte cut and each bit turned")
    disk, _states = _written(script())
    (path,) = [name for name in disk.files if name.endswith(".snapshot")]
    size = len(disk.files[path].data)
    for point in range(0, size * 9, stride):
        if not POINTS.wanted(f"{path} at {point}"):
            continue
        damaged = disk.copy()
        if point < size:
            del damaged.files[path].data[point:]
        else:
            damaged.files[path].data[(point - size) // 8] ^= 1 << (point - size) % 8
        names = sorted(damaged.files)
        try:
            _recover(damaged)
        except RaftError as error:
            require(path in str(error), f"the error names {path}: {error}")
            require(sorted(damaged.files) == names, "nothing is deleted")
            tally.take("refused")
        else:
            require(False, f"{path}: damage at point {point} went unnoticed")
    return tally
