"""All logs of one broker, over one or more log directories."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_broker.log import maintenance, opening
from pegel_broker.log.checkpointing import DirectoryKeeper
from pegel_broker.log.checkpoints import (
    HIGH_WATERMARK_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINT_FILE,
    directory_name,
    encode_partition_metadata,
)
from pegel_broker.log.config import LogConfig
from pegel_broker.log.directory import LogDirectory
from pegel_broker.log.errors import LogDirectoryError, LogError
from pegel_broker.log.index import SegmentIndex
from pegel_broker.log.load import LoadedLog
from pegel_broker.log.partition_log import PartitionLog
from pegel_broker.log.refused import Refusal, RefusedLog
from pegel_broker.log.segment import Segment

_NO_ID = uuid.UUID(int=0)


class LogManager:
    """Owns the log directories of a broker and the logs in them.

    ``on_directory_offline(path, reason)`` is called once for a directory that has failed, after
    ``on_offline`` of each log in it.
    """

    def __init__(
        self, world: World, directories: Sequence[str], config: LogConfig | None = None
    ) -> None:
        """``config`` holds for a log found at start until ``update_config`` gives it its own."""
        assert directories, "a broker needs a log directory"
        self.config = LogConfig.from_values() if config is None else config
        self.on_directory_offline: Callable[[str, str], None] | None = None
        self._world = world
        self._paths = list(dict.fromkeys(path.rstrip("/") or "/" for path in directories))
        self._opened: list[opening.OpenedDirectory] = []
        self._keepers: list[DirectoryKeeper] = []
        self._logs: dict[tuple[str, int], PartitionLog] = {}
        self._deleting: dict[str, asyncio.Future[None]] = {}
        self._closed = False

    async def start(
        self,
        cluster_id: str,
        node_id: int,
        *,
        config_of: Callable[[str], LogConfig] | None = None,
        page_cache_lost: bool = False,
    ) -> None:
        """Lock and check every directory, then load and recover the logs in it.

        ``page_cache_lost`` says that the host went down since the last run: a tail that was never
        synced may then be missing or torn below the checkpointed high watermark.

        Raises:
            LogDirectoryError: another process holds a directory, or it is of another cluster or
                node. (A damaged log only takes itself offline: see ``PartitionLog.offline``.)
        """
        configs: Callable[[str], LogConfig] = config_of or (lambda _topic: self.config)
        identity = opening.Identity(cluster_id, node_id)
        now_ms, began = self._world.clock.wall_ms(), self._world.clock.monotonic()
        keepers = [
            DirectoryKeeper(
                LogDirectory(self._world, path, self._on_directory_offline), self._world.random
            )
            for path in self._paths
        ]
        jobs = []
        for keeper in keepers:
            directory = keeper.directory
            options = opening.OpenOptions(
                identity=identity,
                new_directory_id=uuid.UUID(int=keeper.next_unique(), version=4),
                gaps_of=lambda topic: configs(topic).compact_policy,
                index_interval_of=lambda topic: configs(topic).index_interval_bytes,
                page_cache_lost=page_cache_lost,
                now_ms=now_ms,
            )
            call = partial(opening.open_directory, directory.disk, directory.path, options)
            jobs.append(directory.writes.submit(call))
        results = await asyncio.gather(*jobs, return_exceptions=True)
        self._opened = [r for r in results if isinstance(r, opening.OpenedDirectory)]
        for error in results:
            if isinstance(error, BaseException):
                for opened in self._opened:
                    opened.lock.close()
                for keeper in keepers:
                    keeper.directory.close()
                raise error
        self._keepers = keepers
        for keeper, opened in zip(keepers, self._opened, strict=True):
            keeper.directory.stats.recovery_seconds = self._world.clock.monotonic() - began
            for found in opened.logs:
                self._adopt(keeper, found, configs(found.topic))
            keeper.on_gone(opened.checkpointed - keeper.logs.keys() - keeper.refused.keys())
            for path in opened.to_remove:
                keeper.directory.run("background", partial(keeper.directory.disk.remove_tree, path))

    def _adopt(self, keeper: DirectoryKeeper, found: opening.FoundLog, config: LogConfig) -> None:
        key = (found.topic, found.partition)
        if key in self._logs:
            other = self._logs[key].folder
            raise LogDirectoryError(found.folder, f"{other} holds the same partition")
        log: PartitionLog
        if isinstance(found.loaded, Refusal):
            log = RefusedLog(keeper, key, found.folder, config, found.loaded)
            keeper.refused[key] = found.loaded.checkpointed
        else:
            log = PartitionLog(keeper, *key, found.folder, config, found.loaded)
            keeper.logs[key] = log
            if log.epochs.dirty:
                keeper.mark_epochs(log)
        log.on_deleted = self._on_deleted
        self._logs[key] = log

    def await_room(self, resume: Callable[[], None]) -> bool:
        """As ``LogDirectory.await_room``, for the first directory that is behind."""
        return any(keeper.directory.await_room(resume) for keeper in self._keepers)

    @property
    def directories(self) -> list[LogDirectory]:
        """All log directories, offline ones too."""
        return [keeper.directory for keeper in self._keepers]

    def stalled_seconds(self) -> float:
        """For how long the slowest directory has answered nothing that it was asked for."""
        return max((d.stalled_seconds() for d in self.directories), default=0.0)

    @property
    def directory_ids(self) -> dict[str, uuid.UUID]:
        """The id in each directory's ``meta.properties``, by path."""
        return {opened.path: opened.directory_id for opened in self._opened}

    @property
    def was_clean(self) -> bool:
        """Whether the last run shut every directory down cleanly."""
        return all(opened.clean for opened in self._opened)

    @property
    def last_broker_epoch(self) -> int:
        """The broker epoch in the marks of a clean shutdown; -1 where there is none."""
        return max((opened.broker_epoch for opened in self._opened), default=-1)

    def get(self, topic: str, partition: int) -> PartitionLog | None:
        return self._logs.get((topic, partition))

    def logs(self) -> Iterable[PartitionLog]:
        """All logs, by topic and partition."""
        return [self._logs[key] for key in sorted(self._logs)]

    def create(
        self, topic: str, partition: int, topic_id: uuid.UUID, config: LogConfig | None = None
    ) -> PartitionLog:
        """The log of this partition, made (empty, at offset 0) where missing; usable at once.

        One that was refused stays as it is.

        Raises:
            LogError: INCONSISTENT_TOPIC_ID where a log of another topic of that name is there
                (delete it first), KAFKA_STORAGE_ERROR where no directory is online.
        """
        log = self._logs.get((topic, partition))
        if log is not None:
            if log.topic_id == _NO_ID and not isinstance(log, RefusedLog):
                log.topic_id = topic_id  # its partition.metadata was torn when it was made
                log.keeper.mark_id(log)
            if log.topic_id not in {topic_id, _NO_ID}:
                raise LogError(
                    ErrorCode.INCONSISTENT_TOPIC_ID,
                    f"{topic}-{partition} is of topic id {log.topic_id}, not {topic_id}",
                )
            if config is not None:
                log.update_config(config)
            return log
        online = [k for k in self._keepers if k.directory.offline is None]
        if not online:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, "no log directory is online")
        keeper = min(online, key=lambda k: len(k.logs))
        folder = f"{keeper.directory.path}/{directory_name(topic, partition)}"
        segment = Segment(folder, 0, self._world.clock.wall_ms())
        segment.index = SegmentIndex()
        loaded = LoadedLog(topic_id, 0, 0, 0, 0, [segment])
        log = PartitionLog(
            keeper, topic, partition, folder, config or self.config, loaded, ready=False
        )
        log.on_deleted = self._on_deleted
        self._logs[topic, partition] = keeper.logs[topic, partition] = log
        keeper.mark(HIGH_WATERMARK_FILE)
        keeper.mark(RECOVERY_POINT_FILE)
        make = partial(keeper.before_making, (topic, partition), lambda: self._make_files(log))
        before = self._deleting.get(folder)
        if before is None:
            make()
        else:
            before.add_done_callback(lambda _done: make())
        return log

    def _make_files(self, log: PartitionLog) -> None:
        directory = log.keeper.directory
        disk = directory.disk
        path = log.segments[0].path()
        metadata = f"{log.folder}/{PARTITION_METADATA_FILE}"
        data = encode_partition_metadata(log.topic_id)

        def make() -> None:
            disk.make_directories(log.folder)
            disk.open(path, create=True).close()
            if not disk.exists(metadata):
                # Not synced: it outlives the process, and the host once ``mark_id`` is done.
                file = disk.open(metadata, create=True)
                file.append([data])
                file.close()

        def made(_result: None) -> None:
            maintenance.note_gaps(log)
            log.set_ready()
            log.keeper.mark_id(log)

        # Not in the write queue, where appends to other logs would wait behind a thousand new ones.
        directory.run("background", make, made)

    def delete(self, topic: str, partition: int) -> asyncio.Future[None]:
        """Remove the log; a new one of the same name may be created at once."""
        log = self._logs.get((topic, partition))
        if log is None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return log.delete()

    def _on_deleted(self, log: PartitionLog, done: asyncio.Future[None]) -> None:
        """``log`` is going; its directory is free when ``done`` is."""
        key = (log.topic, log.partition)
        if self._logs.get(key) is log:
            del self._logs[key]
        log.keeper.logs.pop(key, None)
        log.keeper.refused.pop(key, None)
        self._deleting[log.folder] = done

        def free(_done: asyncio.Future[None]) -> None:
            if self._deleting.get(log.folder) is done:
                del self._deleting[log.folder]

        done.add_done_callback(free)

    def retention(self, now_ms: int) -> int:
        """Apply retention to every log; returns how many segments were removed."""
        return sum(log.retention(now_ms) for log in self.logs())

    def _on_directory_offline(self, directory: LogDirectory, reason: str) -> None:
        for keeper in self._keepers:
            if keeper.directory is directory:
                keeper.stop()
                for key in sorted(keeper.logs):
                    keeper.logs[key].fail(reason)
        if self.on_directory_offline is not None:
            self.on_directory_offline(directory.path, reason)

    async def close(self, *, broker_epoch: int = -1) -> None:
        """Write, sync and checkpoint everything, and mark the directories cleanly shut down.

        A directory that is offline, or fails now, gets no mark. ``broker_epoch`` is that of this
        life; -1 where no controller has registered it. Such a life has written nothing and leaves
        what it found: a clean end, or a loss that no controller has been told of, for which a mark
        without an epoch does not vouch (KIP-966 compares the epochs).
        """
        if self._closed:
            return
        self._closed = True
        if broker_epoch < 0 and self.was_clean:
            broker_epoch = self.last_broker_epoch
        for keeper, opened in zip(self._keepers, self._opened, strict=True):
            if keeper.directory.offline is None:
                await opening.close_directory(keeper, broker_epoch)
            keeper.stop()
            keeper.directory.close()
            opened.lock.close()
