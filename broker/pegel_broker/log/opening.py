"""Opening and closing a whole log directory: lock, identity, clean-shutdown mark, all its logs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pegel.seams.disk import Disk, Lock, LockedError
from pegel_broker.log.checkpointing import DirectoryKeeper
from pegel_broker.log.checkpoints import (
    CLEAN_SHUTDOWN_FILE,
    CLEANER_FILE,
    DELETED_DIRECTORY_SUFFIX,
    HIGH_WATERMARK_FILE,
    LEADER_EPOCH_FILE,
    LOCK_FILE,
    LOG_START_FILE,
    META_PROPERTIES_FILE,
    OFFSET_INDEX_SUFFIX,
    RECOVERY_POINT_FILE,
    CheckpointError,
    decode_clean_shutdown,
    decode_offsets,
    decode_properties,
    decode_uuid,
    encode_clean_shutdown,
    encode_epochs,
    encode_offsets,
    encode_properties,
    encode_uuid,
    parse_directory_name,
)
from pegel_broker.log.errors import CorruptLogError, LogDirectoryError, LogError
from pegel_broker.log.load import LoadedLog, LoadOptions, load_log, read_topic_id
from pegel_broker.log.maintenance import close_writer, write_snapshot
from pegel_broker.log.refused import Refusal
from pegel_broker.log.segment import read_if_there, save_unsaved, take_unsaved
from pegel_broker.log.stored_log import StoredLog


class Identity(NamedTuple):
    """Whose the directory must be."""

    cluster_id: str
    node_id: int


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """``gaps_of`` and ``index_interval_of`` answer for a topic's name."""

    identity: Identity
    new_directory_id: uuid.UUID
    gaps_of: Callable[[str], bool]
    index_interval_of: Callable[[str], int]
    page_cache_lost: bool
    now_ms: int


@dataclass(slots=True)
class FoundLog:
    """A log that was loaded, or refused."""

    topic: str
    partition: int
    folder: str
    loaded: LoadedLog | Refusal


@dataclass(slots=True)
class OpenedDirectory:
    """``to_remove``: directories of deleted logs that a crash left behind."""

    path: str
    lock: Lock
    directory_id: uuid.UUID
    clean: bool
    broker_epoch: int = -1
    logs: list[FoundLog] = field(default_factory=list)
    to_remove: list[str] = field(default_factory=list)
    checkpointed: set[tuple[str, int]] = field(default_factory=set)  # named by a checkpoint file


def open_directory(disk: Disk, path: str, options: OpenOptions) -> OpenedDirectory:
    """Lock the directory and load its logs; blocking.

    Raises:
        LogDirectoryError: held by another process, of another cluster or node, or unreadable.
    """
    try:
        disk.make_directories(path)
        try:
            lock = disk.lock(f"{path}/{LOCK_FILE}")
        except LockedError as error:
            raise LogDirectoryError(path, f"it is used by {error.advice}") from None
        try:
            return _open_locked(disk, path, options, lock)
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise LogDirectoryError(path, f"{type(error).__name__}: {error}") from error


def _open_locked(disk: Disk, path: str, options: OpenOptions, lock: Lock) -> OpenedDirectory:
    directory_id = _check_identity(disk, path, options)
    mark = read_if_there(disk, f"{path}/{CLEAN_SHUTDOWN_FILE}")
    opened = OpenedDirectory(path, lock, directory_id, mark is not None)
    were_offline: frozenset[tuple[str, int]] = frozenset()
    if mark is not None:
        opened.broker_epoch, were_offline = decode_clean_shutdown(mark)
    checkpoints = {
        name: _read_offsets(disk, path, name)
        for name in (RECOVERY_POINT_FILE, HIGH_WATERMARK_FILE, LOG_START_FILE, CLEANER_FILE)
    }
    opened.checkpointed.update(*checkpoints.values())
    for name in disk.list_directory(path):
        folder = f"{path}/{name}"
        if name.endswith(DELETED_DIRECTORY_SUFFIX):
            opened.to_remove.append(folder)
            continue
        parsed = parse_directory_name(name)
        if parsed is None:
            continue
        topic = parsed[0]
        named = {file: rows[parsed] for file, rows in checkpoints.items() if parsed in rows}
        load_options = LoadOptions(
            clean=opened.clean and parsed not in were_offline,
            log_start_offset=named.get(LOG_START_FILE, 0),
            recovery_point=named.get(RECOVERY_POINT_FILE, 0),
            high_watermark=named.get(HIGH_WATERMARK_FILE, 0),
            cleaned_offset=named.get(CLEANER_FILE, 0),
            # After a clean shutdown the cluster expects everything of this broker.
            page_cache_lost=options.page_cache_lost and not opened.clean,
            gaps=options.gaps_of(topic),
            index_interval_bytes=options.index_interval_of(topic),
            now_ms=options.now_ms,
        )
        loaded: LoadedLog | Refusal
        try:
            loaded = load_log(disk, folder, load_options)
        except CorruptLogError as error:
            loaded = Refusal(error, read_topic_id(disk, folder), named)
        opened.logs.append(FoundLog(*parsed, folder, loaded))
    _lower_high_watermarks(disk, path, checkpoints[HIGH_WATERMARK_FILE], opened.logs)
    if mark is not None:
        # From now on the files change; the mark must not outlive a crash of the host.
        disk.remove(f"{path}/{CLEAN_SHUTDOWN_FILE}")
        disk.sync_directory(path)
    return opened


def _check_identity(disk: Disk, path: str, options: OpenOptions) -> uuid.UUID:
    """The directory's id; a fresh directory is given its identity."""
    file = f"{path}/{META_PROPERTIES_FILE}"
    cluster_id, node_id = options.identity
    data = read_if_there(disk, file)
    if data is None:
        if any(parse_directory_name(name) for name in disk.list_directory(path)):
            raise LogDirectoryError(path, f"it holds logs but no {META_PROPERTIES_FILE}")
        properties = {
            "version": "1",
            "cluster.id": cluster_id,
            "node.id": str(node_id),
            "directory.id": encode_uuid(options.new_directory_id),
        }
        disk.write_file(file, encode_properties(properties))
        return options.new_directory_id
    try:
        properties = decode_properties(data)
        if properties.get("version") != "1":
            raise CheckpointError(f"version {properties.get('version')!r} is not 1")
        directory_id = decode_uuid(properties.get("directory.id", ""))
    except CheckpointError as error:
        raise LogDirectoryError(path, f"{META_PROPERTIES_FILE}: {error}") from error
    if properties.get("cluster.id") != cluster_id:
        raise LogDirectoryError(
            path, f"it is of cluster {properties.get('cluster.id')!r}, not {cluster_id!r}"
        )
    if properties.get("node.id") != str(node_id):
        raise LogDirectoryError(path, f"it is of node {properties.get('node.id')}, not {node_id}")
    return directory_id


def _read_offsets(disk: Disk, path: str, name: str) -> dict[tuple[str, int], int]:
    data = read_if_there(disk, f"{path}/{name}")
    if data is None:
        return {}
    try:
        return decode_offsets(data)
    except CheckpointError as error:
        raise LogDirectoryError(path, f"{name}: {error}") from error


def _lower_high_watermarks(
    disk: Disk, path: str, checkpointed: dict[tuple[str, int], int], logs: list[FoundLog]
) -> None:
    """Have the checkpoint name no offset that the crash of a host took, before any log grows.

    Whoever starts next on this boot would miss it below the high watermark: a torn end of what is
    written from now on would pass for damage.
    """
    rows = dict(checkpointed)
    for log in logs:
        key = (log.topic, log.partition)
        if isinstance(log.loaded, LoadedLog) and key in rows:
            rows[key] = min(rows[key], log.loaded.high_watermark)
    if rows != checkpointed:
        content = encode_offsets([(*key, at) for key, at in sorted(rows.items())])
        disk.write_file(f"{path}/{HIGH_WATERMARK_FILE}", content)


async def close_directory(keeper: DirectoryKeeper, broker_epoch: int) -> None:
    """Bring everything of the directory to stable storage, then set the clean-shutdown mark."""
    logs = [log for _key, log in sorted(keeper.logs.items()) if log.offline is None]
    waiting = [log.truncation.done for log in logs if log.truncation is not None]
    await asyncio.gather(*waiting, return_exceptions=True)
    try:
        await asyncio.gather(*(log.flush() for log in logs))
    except LogError:
        return  # the directory went offline
    directory = keeper.directory
    if directory.offline is not None:
        return
    keeper.write_files()
    for name in (HIGH_WATERMARK_FILE, LOG_START_FILE, RECOVERY_POINT_FILE):
        keeper.mark(name)
    for log in logs:
        log.recovery_point = log.log_end_offset
    keeper.write_checkpoints()
    finals = [(log, _final_files(log)) for log in logs]
    mark = encode_clean_shutdown(broker_epoch, keeper.offline_logs())
    disk = directory.disk
    done = asyncio.get_running_loop().create_future()

    def finish() -> None:
        for log, write in finals:
            for segment in log.segments:
                close_writer(segment)
            write(disk)
        disk.write_file(f"{directory.path}/{CLEAN_SHUTDOWN_FILE}", mark)

    def on_done(future: asyncio.Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            directory.fail(f"{type(error).__name__}: {error}")
        done.set_result(None)

    def write_finals(_future: object) -> None:
        directory.writes.submit(finish).add_done_callback(on_done)

    # After what is in the background queue, in the write queue, which owns the writers.
    directory.background.submit(lambda: None).add_done_callback(write_finals)
    await done


def _final_files(log: StoredLog) -> Callable[[Disk], None]:
    """Writes what the log's files lack: active index, producer snapshot, leader epochs."""
    active = log.segments[-1]
    assert active.index is not None
    active.index.add_time_entry()
    unsaved = take_unsaved(active.index)
    end = log.log_end_offset
    snapshot = None
    if end > max(log.snapshots, default=0):
        snapshot = log.producers.encode_snapshot()
    epochs = encode_epochs(log.epochs.entries()) if log.epochs.dirty else None

    def write(disk: Disk) -> None:
        changed = False
        if active.size and (
            unsaved[1] or unsaved[3] or not disk.exists(active.path(OFFSET_INDEX_SUFFIX))
        ):
            save_unsaved(disk, active, unsaved, sync=True)
            changed = True
        if snapshot is not None:
            write_snapshot(disk, log.folder, end, snapshot)
            changed = True
        if epochs is not None:
            disk.write_file(f"{log.folder}/{LEADER_EPOCH_FILE}", epochs)
        if changed:
            disk.sync_directory(log.folder)

    return write
