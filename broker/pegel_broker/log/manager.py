"""All logs of one broker, over one or more log directories."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence

from pegel.seams import World
from pegel_broker.log.config import LogConfig
from pegel_broker.log.partition_log import PartitionLog


class LogManager:
    """Owns the log directories of a broker and the logs in them.

    ``on_directory_offline(path, reason)`` is called once for a directory that has failed, after
    ``on_offline`` of each log in it.
    """

    on_directory_offline: Callable[[str, str], None] | None

    def __init__(
        self, world: World, directories: Sequence[str], config: LogConfig | None = None
    ) -> None:
        """``config`` holds for a log found at start until ``update_config`` gives it its own."""

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
        raise NotImplementedError

    def get(self, topic: str, partition: int) -> PartitionLog | None:
        raise NotImplementedError

    def logs(self) -> Iterable[PartitionLog]:
        """All logs, by topic and partition."""
        raise NotImplementedError

    def create(
        self, topic: str, partition: int, topic_id: uuid.UUID, config: LogConfig | None = None
    ) -> PartitionLog:
        """The log of this partition, made (empty, at offset 0) where missing; usable at once.

        Raises:
            LogError: INCONSISTENT_TOPIC_ID where a log of another topic of that name is there
                (delete it first), KAFKA_STORAGE_ERROR where no directory is online.
        """
        raise NotImplementedError

    def delete(self, topic: str, partition: int) -> asyncio.Future[None]:
        """Remove the log; a new one of the same name may be created at once."""
        raise NotImplementedError

    async def close(self, *, broker_epoch: int = -1) -> None:
        """Write, sync and checkpoint everything, and mark the directories cleanly shut down."""
        raise NotImplementedError
