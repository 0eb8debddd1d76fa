"""What a replica fetcher follows, and what its next request says of it (KIP-227).

The follower's side of a fetch session: the leader remembers what it was asked, so a request names
only what changed since the last one. ``fetch_session.py`` is the leader's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

from pegel.portions import AT_ONCE, FORGOTTEN_AT_ONCE
from pegel.protocol.messages.fetch import FetchPartition, FetchTopic, ForgottenTopic

if TYPE_CHECKING:
    from pegel_broker.replication.hosted import HostedPartition

Key = tuple[UUID, int]
NAMED_MAX = AT_ONCE
FORGOTTEN_MAX = FORGOTTEN_AT_ONCE
_LAST_EPOCH = 0x7FFFFFFF


@dataclass(slots=True)
class Following:
    """One partition and what the leader was last asked for it."""

    hosted: HostedPartition
    epoch: int
    asked: tuple[int, int, int, int] | None = None
    leader_high_watermark: int = 0
    truncating: bool = False
    delayed: bool = False


class Followed:
    """The partitions of one fetcher and its session. ``max_bytes``: for each partition.

    Attributes:
        partitions: all that is followed.
        dirty: those of which the next request may have to say something.
        session_id: 0 until the leader has given one.
    """

    __slots__ = ("_forgotten", "_max_bytes", "dirty", "partitions", "session_epoch", "session_id")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._forgotten: dict[Key, None] = {}
        self.partitions: dict[Key, Following] = {}
        self.dirty: dict[Key, None] = {}
        self.session_id = 0
        self.session_epoch = 0

    def add(self, key: Key, following: Following) -> None:
        before = self.partitions.get(key)
        if before is not None and before.asked is not None:
            self._forgotten[key] = None  # unless it is named again first
        self.partitions[key] = following
        self.dirty[key] = None

    def remove(self, key: Key) -> bool:
        """Whether it was followed."""
        if self.partitions.pop(key, None) is None:
            return False
        self.dirty.pop(key, None)
        self._forgotten[key] = None
        return True

    def reset(self) -> None:
        """The session is over: the next request begins one."""
        self.session_id = self.session_epoch = 0

    def on_answered(self, session_id: int) -> None:
        """The leader took the last request."""
        if session_id and not self.session_id:
            self.session_id = session_id
        if self.session_id:
            self.session_epoch = 1 if self.session_epoch == _LAST_EPOCH else self.session_epoch + 1

    def take(self) -> tuple[list[FetchTopic], list[ForgottenTopic]]:
        """What the next request names, and what it leaves out from now on.

        Everything for a new session, else what changed since the last request; more than
        ``NAMED_MAX`` in several requests.
        """
        if self.session_id == 0:
            self.session_epoch = 0
            self._forgotten.clear()
            for known in self.partitions.values():
                known.asked = None
            self.dirty = dict.fromkeys(self.partitions)
        keys = list(islice(self.dirty, NAMED_MAX))
        if len(keys) == len(self.dirty):
            self.dirty.clear()
        named: dict[UUID, list[FetchPartition]] = {}
        for key in keys:
            self.dirty.pop(key, None)
            following = self.partitions.get(key)
            if following is None:
                continue
            if following.truncating or following.delayed:
                # Left out of the session until it is ready again.
                if following.asked is not None:
                    self._forgotten[key] = None
                following.asked = None
                continue
            asked = _claim(following)
            if asked == following.asked:
                continue
            following.asked = asked
            self._forgotten.pop(key, None)  # else a later request would leave it out again
            offset, epoch, last_epoch, log_start = asked
            named.setdefault(key[0], []).append(
                FetchPartition(
                    partition=key[1],
                    current_leader_epoch=epoch,
                    fetch_offset=offset,
                    last_fetched_epoch=last_epoch,
                    log_start_offset=log_start,
                    partition_max_bytes=self._max_bytes,
                )
            )
        forgotten: dict[UUID, list[int]] = {}
        for topic_id, partition in list(islice(self._forgotten, FORGOTTEN_MAX)):
            forgotten.setdefault(topic_id, []).append(partition)
            del self._forgotten[topic_id, partition]
        return (
            [FetchTopic(topic_id=t, partitions=p) for t, p in named.items()],
            [ForgottenTopic(topic_id=t, partitions=p) for t, p in forgotten.items()],
        )


def _claim(following: Following) -> tuple[int, int, int, int]:
    """Fetch offset, leader epoch, epoch of the last batch, log start."""
    log = following.hosted.log
    offset, start = log.log_end_offset, log.log_start_offset
    last_epoch = log.epoch_for_offset(offset - 1) if offset > start else -1
    return offset, following.epoch, last_epoch, start
