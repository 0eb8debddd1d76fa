"""The write-ahead log under crashes, torn writes and damage; real files, no sleeping."""

from __future__ import annotations

from pathlib import Path

import pytest

from pegel.seams.disk import RealDisk
from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.log_view import Entry, EntryKind
from pegel_controller.raft.ready import HardState, Membership, Snapshot
from pegel_controller.raft.wal import Recovered, WriteAheadLog
from tests.support.memory_disk import MemoryDisk

DISK = RealDisk()


def _entry(index: int, term: int, size: int = 10) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, bytes([index % 251]) * size)


def _open(path: Path, segment_bytes: int = 1 << 20) -> tuple[WriteAheadLog, Recovered]:
    log = WriteAheadLog(DISK, str(path), segment_bytes)
    return log, log.recover()


def _segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.wal"))


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    log, found = _open(tmp_path)
    assert found == Recovered()
    log.append(None, [_entry(1, 1), _entry(2, 1), _entry(3, 1)], HardState(1, 2, 1), sync=True)
    log.append(2, [_entry(2, 3)], HardState(3, None, 1), sync=True)
    log.close()
    _, found = _open(tmp_path)
    assert found.entries == [_entry(1, 1), _entry(2, 3)]
    assert found.hard_state == HardState(3, None, 1)


def test_a_truncation_alone_survives(tmp_path: Path) -> None:
    log, _ = _open(tmp_path)
    log.append(None, [_entry(1, 1), _entry(2, 1)], None, sync=True)
    log.append(2, [], HardState(2), sync=True)
    log.close()
    assert _open(tmp_path)[1].entries == [_entry(1, 1)]


@pytest.mark.parametrize("batches", [2])
def test_every_torn_end_is_cut_to_the_last_whole_record(tmp_path: Path, batches: int) -> None:
    origin = tmp_path / "origin"
    log, _ = _open(origin)
    sizes, states = [], []
    for i in range(1, batches + 3):
        log.append(None, [_entry(i, 1)], HardState(1, 1, i - 1), sync=True)
        sizes.append(_segments(origin)[0].stat().st_size)
        states.append(i)
    log.close()
    data = _segments(origin)[0].read_bytes()
    for cut in range(sizes[-1 - batches], len(data) + 1):
        torn = tmp_path / f"cut-{cut}"
        torn.mkdir()
        (torn / _segments(origin)[0].name).write_bytes(data[:cut])
        again, found = _open(torn)
        whole = max(i for i, size in zip(states, sizes, strict=True) if size <= cut)
        # The entry may be whole although the hard state behind it is torn.
        assert len(found.entries) in {whole, whole + 1}
        assert found.entries == [_entry(i, 1) for i in range(1, len(found.entries) + 1)]
        assert found.hard_state.commit_index <= len(found.entries)
        following = len(found.entries) + 1
        again.append(None, [_entry(following, 1)], None, sync=True)
        again.close()
        assert len(_open(torn)[1].entries) == following


def test_damage_in_the_middle_is_refused_with_file_and_offset(tmp_path: Path) -> None:
    log, _ = _open(tmp_path)
    for i in range(1, 6):
        log.append(None, [_entry(i, 1)], None, sync=True)
    log.close()
    path = _segments(tmp_path)[0]
    whole = path.read_bytes()
    header = len(whole) - 5 * (len(whole) - 20) // 5
    for at in range(header, len(whole) - 40):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(RaftError, match=rf"{path.name} is damaged at offset \d+"):
            _open(tmp_path)
        assert path.read_bytes() == bytes(damaged), "a refused log is left as it is"


def test_segments_roll_and_go_once_a_snapshot_holds_them(tmp_path: Path) -> None:
    log, _ = _open(tmp_path, segment_bytes=200)
    for i in range(1, 31):
        log.append(None, [_entry(i, 1)], HardState(1, None, i), sync=True)
    assert len(_segments(tmp_path)) > 3
    snapshot = Snapshot(20, 1, Membership((1, 2, 3)), b"state")
    log.save_snapshot(snapshot)
    log.compact(20)
    log.close()
    again, found = _open(tmp_path, segment_bytes=200)
    assert found.snapshot == snapshot
    assert found.entries == [_entry(i, 1) for i in range(21, 31)]
    assert found.hard_state == HardState(1, None, 30)
    again.save_snapshot(Snapshot(25, 1, Membership((1,)), b"later"))
    again.close()
    assert len(list(tmp_path.glob("*.snapshot"))) == 1
    assert _open(tmp_path)[1].entries[0].index == 26


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    log, _ = _open(tmp_path, segment_bytes=100)
    for i in range(1, 20):
        log.append(None, [_entry(i, 1)], None, sync=True)
    log.close()
    _segments(tmp_path)[1].unlink()
    with pytest.raises(RaftError, match="lacks a segment"):
        _open(tmp_path)


def test_a_damaged_snapshot_is_refused_and_nothing_is_deleted(tmp_path: Path) -> None:
    log, _ = _open(tmp_path)
    log.append(None, [_entry(1, 1)], HardState(1, None, 1), sync=True)
    log.save_snapshot(Snapshot(1, 1, Membership((1,)), b"state" * 100))
    log.close()
    path = next(tmp_path.glob("*.snapshot"))
    whole = path.read_bytes()
    for at in (0, 5, 9, 17, 30, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(RaftError, match="damaged"):
            _open(tmp_path)
    assert path.exists()
    assert len(_segments(tmp_path)) == 1


def test_a_log_that_contradicts_an_installed_snapshot_is_dropped(tmp_path: Path) -> None:
    log, _ = _open(tmp_path)
    log.append(None, [_entry(i, 1) for i in range(1, 9)], HardState(1), sync=True)
    # The crash comes here: the leader's snapshot is saved, the log not yet cut.
    log.save_snapshot(Snapshot(5, 2, Membership((1, 2, 3)), b"leader's"))
    log.close()
    assert _open(tmp_path)[1].entries == []


def test_a_commit_index_without_its_entries_is_refused(tmp_path: Path) -> None:
    log, _ = _open(tmp_path)
    log.append(None, [_entry(1, 1)], HardState(1, None, 5), sync=True)
    log.close()
    with pytest.raises(RaftError, match="were committed"):
        _open(tmp_path)


def test_entries_behind_an_installed_snapshot_survive_a_restart(tmp_path: Path) -> None:
    """The log ends before the snapshot, reaches it with other terms, or goes on behind it."""
    for last, truncate, kept in ((3, 21, []), (30, 21, []), (22, None, [21, 22])):
        path = tmp_path / str(last)
        log, _ = _open(path)
        term = 2 if kept else 1
        log.append(None, [_entry(i, term) for i in range(1, last + 1)], HardState(1), sync=True)
        log.save_snapshot(Snapshot(20, 2, Membership((1, 2, 3)), b"leader's"))
        log.append(truncate, [], HardState(2, None, 20), sync=True, compacted=20)
        log.compact(20)
        first = 21 + len(kept)
        log.append(None, [_entry(first, 2)], HardState(2, None, first), sync=True)
        log.close()
        found = _open(path)[1]
        assert [e.index for e in found.entries] == [*kept, first]
        assert found.hard_state == HardState(2, None, first)


def test_a_crash_before_the_snapshots_mark_is_made_good(tmp_path: Path) -> None:
    for last in (3, 30):
        path = tmp_path / str(last)
        log, _ = _open(path)
        log.append(None, [_entry(i, 1) for i in range(1, last + 1)], HardState(1), sync=True)
        log.save_snapshot(Snapshot(20, 2, Membership((1, 2, 3)), b"leader's"))
        log.close()  # the crash: the log does not know of the snapshot
        log, found = _open(path)
        assert found.entries == []
        log.append(None, [_entry(21, 2)], HardState(2, None, 21), sync=True)
        log.close()
        assert [e.index for e in _open(path)[1].entries] == [21]


def test_what_a_restarted_node_begins_with_is_durable() -> None:
    """A killed process leaves what it wrote in the page cache alone; its successor answers for it,
    and a loss of power then took it (seed 73: a hole, where a sync had failed)."""
    disk = MemoryDisk()
    killed = WriteAheadLog(disk, "/raft", 1 << 20)
    killed.recover()
    killed.append(None, [_entry(1, 1)], HardState(1, 2, 0), sync=True)
    killed.append(None, [_entry(2, 1)], HardState(2, 3, 0), sync=False)
    found = WriteAheadLog(disk, "/raft", 1 << 20).recover()
    assert [e.index for e in found.entries] == [1, 2]
    disk.crash()
    assert WriteAheadLog(disk, "/raft", 1 << 20).recover() == found
