"""A log whose files are damaged: offline from the start, and left as it was found."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from pegel_broker.log.checkpointing import DirectoryKeeper
from pegel_broker.log.config import LogConfig
from pegel_broker.log.errors import CorruptLogError
from pegel_broker.log.index import SegmentIndex
from pegel_broker.log.load import LoadedLog
from pegel_broker.log.partition_log import PartitionLog
from pegel_broker.log.segment import Segment


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is known of a log without its segments.

    ``topic_id`` is 0 where its file is torn or missing; ``checkpointed`` are the lines of the
    directory's checkpoint files that name the log, by file.
    """

    problem: CorruptLogError
    topic_id: uuid.UUID
    checkpointed: Mapping[str, int]


class RefusedLog(PartitionLog):
    """Holds its place: it has no offsets, epochs or bytes of its own, and nothing writes to it.

    It is not among ``DirectoryKeeper.logs``, whose state is checkpointed. What the checkpoints
    said of it they go on to say, and the mark of a clean shutdown names it as offline, so that
    every later start finds the same damage in the same way: by less, or with trust in the mark,
    the damaged part would be taken for whole, or for torn, and cut.
    """

    __slots__ = ()

    def __init__(
        self,
        keeper: DirectoryKeeper,
        key: tuple[str, int],
        folder: str,
        config: LogConfig,
        refusal: Refusal,
    ) -> None:
        nothing = Segment(folder, 0, 0)
        nothing.index = SegmentIndex()
        loaded = LoadedLog(refusal.topic_id, 0, 0, 0, 0, [nothing])
        super().__init__(keeper, *key, folder, config, loaded)
        self.fail(str(refusal.problem))
