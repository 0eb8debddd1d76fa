"""When a log directory writes its checkpoint files, and syncs by time: one timer for all its logs.

Nothing runs while nothing changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from random import Random
from typing import TYPE_CHECKING

from pegel_broker.log.checkpoints import (
    CLEANER_FILE,
    HIGH_WATERMARK_FILE,
    LEADER_EPOCH_FILE,
    LOG_START_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINT_FILE,
    encode_epochs,
    encode_offsets,
    encode_partition_metadata,
)
from pegel_broker.log.directory import LogDirectory

if TYPE_CHECKING:
    from pegel_broker.log.stored_log import StoredLog

# Kafka: replica.high.watermark.checkpoint.interval.ms.
CHECKPOINT_INTERVAL = 5.0
# Small files of logs that are written in one go, and for how many times as long nothing more of
# them is: the device's journal is everybody's.
FILES_AT_ONCE = 8
REST_FACTOR = 2

_CONTENT: dict[str, Callable[[StoredLog], int | None]] = {
    # Recovery takes what it lacks below this for damage: a follower that catches up knows of a
    # high watermark beyond what its disk has.
    HIGH_WATERMARK_FILE: lambda log: min(log.high_watermark, log.written_offset),
    RECOVERY_POINT_FILE: lambda log: log.recovery_point,
    # Kafka names only logs that start within their first segment.
    LOG_START_FILE: lambda log: (
        log.log_start_offset if log.log_start_offset > log.segments[0].base_offset else None
    ),
    CLEANER_FILE: lambda log: log.cleaned_offset if log.cleaned_offset > 0 else None,
}


class DirectoryKeeper:
    """The logs of one directory and what of them is to be checkpointed."""

    def __init__(self, directory: LogDirectory, random: Random) -> None:
        self.directory = directory
        self._random = random
        self.logs: dict[tuple[str, int], StoredLog] = {}
        # Lines of the checkpoint files, by file, that stay as they are: of logs that were refused.
        self.refused: dict[tuple[str, int], Mapping[str, int]] = {}
        self._dirty_files: dict[str, None] = {}
        # Logs that are gone, and that the checkpoint files may still name.
        self._named: dict[tuple[str, int], None] = {}
        self._to_make: list[Callable[[], None]] = []
        self._make_handle: asyncio.Handle | None = None
        self._dirty_epochs: dict[StoredLog, None] = {}
        self._dirty_ids: dict[StoredLog, None] = {}
        self._files_handle: asyncio.Handle | None = None
        self._batches_in_flight = 0  # of small files
        self._renames: list[tuple[str, str, Callable[[bool], None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flush_due: dict[StoredLog, float] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_timer_at = float("inf")  # uvloop's handles do not all tell
        self._loop = asyncio.get_running_loop()

    # --- checkpoint files ---

    def mark(self, file_name: str) -> None:
        """Have this checkpoint file written within ``CHECKPOINT_INTERVAL``."""
        self._dirty_files[file_name] = None
        if self._timer is None:
            self._timer = self._loop.call_later(CHECKPOINT_INTERVAL, self.write_checkpoints)

    def write_checkpoints(
        self,
        done: Callable[[None], None] | None = None,
        lowered: dict[StoredLog, int] | None = None,
    ) -> None:
        """Write the dirty ones now. ``lowered`` caps the offsets of logs about to be truncated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        names = sorted(self._dirty_files)
        self._dirty_files.clear()
        whole = set(names) >= set(_CONTENT)
        here = self.logs.keys() | self.refused.keys()
        unnamed = [key for key in self._named if key not in here] if whole else []
        contents = [(f"{self.directory.path}/{n}", self._encode(n, lowered or {})) for n in names]
        disk = self.directory.disk

        def write() -> None:
            for path, data in contents:
                disk.write_file(path, data)

        def written(_result: None) -> None:
            for key in unnamed:
                self._named.pop(key, None)
            if done is not None:
                done(None)

        if contents or done is not None:
            self.directory.run("background", write, written)

    def offline_logs(self) -> list[tuple[str, int]]:
        """Those that are damaged, whether a start found that or a read."""
        failed = [key for key, log in self.logs.items() if log.offline is not None]
        return sorted([*failed, *self.refused])

    def on_gone(self, keys: Iterable[tuple[str, int]]) -> None:
        """Logs that checkpoint files name are not here, or not here any more."""
        self._named.update(dict.fromkeys(keys))

    def before_making(self, key: tuple[str, int], make: Callable[[], None]) -> None:
        """Call ``make`` for a new log once no checkpoint names an earlier one of its name.

        After a crash the new log would else be found to lack what the old one had synced. All that
        come in one turn of the loop wait for one write: each names every log.
        """
        if key not in self._named:
            make()
            return
        del self._named[key]
        if not self._to_make:
            self._make_handle = self._loop.call_soon(self._write_before_making)
        self._to_make.append(make)

    def _write_before_making(self) -> None:
        waiting, self._to_make = self._to_make, []

        def written(_result: None) -> None:
            for make in waiting:
                make()

        for name in _CONTENT:
            self.mark(name)
        self.write_checkpoints(written)

    def _encode(self, file_name: str, lowered: dict[StoredLog, int]) -> bytes:
        value_of = _CONTENT[file_name]
        rows = [(*k, lines[file_name]) for k, lines in self.refused.items() if file_name in lines]
        for (topic, partition), log in self.logs.items():
            value = value_of(log)
            if value is not None:
                rows.append((topic, partition, min(value, lowered.get(log, value))))
        return encode_offsets(sorted(rows))

    # --- small files of each log: its leader epochs, its topic's id ---

    def mark_epochs(self, log: StoredLog) -> None:
        """Have the log's ``leader-epoch-checkpoint`` written soon, see ``_write_some_files``."""
        self._dirty_epochs[log] = None
        self._schedule_files()

    def mark_id(self, log: StoredLog) -> None:
        """Have the log's ``partition.metadata`` written and synced, as ``mark_epochs``."""
        self._dirty_ids[log] = None
        self._schedule_files()

    def _schedule_files(self) -> None:
        if self._files_handle is None:
            self._files_handle = self._loop.call_soon(self._write_some_files)

    def _write_some_files(self) -> None:
        """A few at once; where there are more, the rest after a rest.

        Each is two syncs, and all other writes of the device wait for those. A topic of a thousand
        partitions has thousands.
        """
        self._files_handle = None
        if self._batches_in_flight and self._marked(FILES_AT_ONCE + 1) > FILES_AT_ONCE:
            return  # told when they are written
        began = self._loop.time()

        def written(_result: None) -> None:
            self._batches_in_flight -= 1
            marked = self._marked(FILES_AT_ONCE + 1)
            if marked > FILES_AT_ONCE and self._files_handle is None:
                rest = REST_FACTOR * (self._loop.time() - began)
                self._files_handle = self._loop.call_later(rest, self._write_some_files)
            elif marked:
                self._schedule_files()

        if self._write_files(FILES_AT_ONCE, written):
            self._batches_in_flight += 1

    def write_files(self) -> None:
        """Write all that are marked, now."""
        self._write_files(len(self._dirty_ids) + len(self._dirty_epochs), None)

    def _marked(self, most: int) -> int:
        """How many could be written, counted up to ``most``: there may be thousands."""
        ready = (log for log in chain(self._dirty_ids, self._dirty_epochs) if log.ready)
        return sum(1 for _ in islice(ready, most))

    def _write_files(self, most: int, done: Callable[[None], None] | None) -> bool:
        """Queue up to ``most`` of those whose directories are there; whether there are any."""
        contents: list[tuple[StoredLog, str, bytes]] = []
        for marked in (self._dirty_epochs, self._dirty_ids):
            taken: list[StoredLog] = []
            for log in marked:
                if len(contents) >= most:
                    break
                if not log.ready and not log.deleted:
                    continue
                taken.append(log)
                if log.deleted or log.offline is not None:
                    continue
                if marked is self._dirty_ids:
                    data = encode_partition_metadata(log.topic_id)
                    contents.append((log, PARTITION_METADATA_FILE, data))
                elif log.epochs.dirty:
                    log.epochs.dirty = False
                    contents.append((log, LEADER_EPOCH_FILE, encode_epochs(log.epochs.entries())))
            for log in taken:
                del marked[log]
        if not contents:
            return False
        disk = self.directory.disk

        def write() -> None:
            for log, name, data in contents:
                if not log.deleted:
                    disk.write_file(f"{log.folder}/{name}", data)

        self.directory.run("background", write, done)
        return True

    # --- directories that are going ---

    def rename_away(self, folder: str, target: str, done: Callable[[bool], None]) -> None:
        """Rename a log's directory; all those of one turn of the event loop share one sync.

        ``done(there)`` is called when that is on stable storage, unless it failed.
        """
        self._renames.append((folder, target, done))
        if len(self._renames) == 1:
            self._loop.call_soon(self._rename)

    def _rename(self) -> None:
        renames, self._renames = self._renames, []
        disk, path = self.directory.disk, self.directory.path

        def rename() -> list[bool]:
            there = [disk.exists(folder) for folder, _target, _done in renames]
            for (folder, target, _done), is_there in zip(renames, there, strict=True):
                if is_there:
                    disk.rename(folder, target)
            if any(there):
                disk.sync_directory(path)
            return there

        def renamed(there: list[bool]) -> None:
            for (_folder, _target, done), is_there in zip(renames, there, strict=True):
                done(is_there)

        self.directory.run("background", rename, renamed)

    # --- flush.ms ---

    def flush_within(self, log: StoredLog, seconds: float) -> None:
        """Have the log synced at most ``seconds`` from now, unless that is due earlier anyway."""
        now = self._loop.time()
        due = min(self._flush_due.get(log, now + seconds), now + seconds)
        self._flush_due[log] = due
        if self._flush_timer is None or due < self._flush_timer_at:
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            self._arm_flush(due)

    def _flush(self) -> None:
        now = self._loop.time()
        self._flush_timer = None
        for log in [log for log, due in self._flush_due.items() if due <= now]:
            del self._flush_due[log]
            log.request_sync()
        if self._flush_due:
            self._arm_flush(min(self._flush_due.values()))

    def _arm_flush(self, due: float) -> None:
        self._flush_timer = self._loop.call_at(due, self._flush)
        self._flush_timer_at = due

    def forget(self, log: StoredLog) -> None:
        """``log`` is removed."""
        self._flush_due.pop(log, None)
        self._dirty_epochs.pop(log, None)
        self._dirty_ids.pop(log, None)
        self.directory.forget(log)

    def next_unique(self) -> int:
        """128 random bits, for the name of a directory that is being removed."""
        return self._random.getrandbits(128)

    def stop(self) -> None:
        """Cancel the timers."""
        for timer in (self._timer, self._flush_timer, self._files_handle, self._make_handle):
            if timer is not None:
                timer.cancel()
        self._timer = self._flush_timer = self._files_handle = self._make_handle = None
