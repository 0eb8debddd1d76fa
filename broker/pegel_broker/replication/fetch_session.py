"""Incremental fetch sessions (KIP-227): what a fetcher asked last, so that it need not repeat it.

Pure. A session remembers each partition's request and what was last answered for it; a later
request names only what changed, and so does the response.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.results import FetchItem, PartitionFetchResult

NO_SESSION = 0
FINAL_EPOCH = -1
INITIAL_EPOCH = 0
MAX_SESSION_ID = 0x7FFFFFFF
STALE_AFTER = 120.0  # Kafka's min.incremental.fetch.session.eviction.ms

Key = tuple[str, UUID, int]


class SessionError(Exception):
    """The request does not fit a session; ``code`` is one of Kafka's FETCH_SESSION_… errors."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.message)
        self.code = code


@dataclass(slots=True)
class _Answered:
    """What the last response said of a partition; -2 for nothing yet."""

    item: FetchItem
    high_watermark: int = -2
    log_start_offset: int = -2


@dataclass(slots=True)
class FetchSession:
    """``epoch`` is that of the next request."""

    session_id: int
    epoch: int
    partitions: dict[Key, _Answered] = field(default_factory=dict)
    privileged: bool = False
    by_id: bool = False
    used_at: float = 0.0


class SessionRequest(NamedTuple):
    """A request with its session resolved; ``session`` is None for a fetch without one.

    ``named`` is what the request itself names, of an increment what it changes.
    """

    named: Sequence[FetchItem]
    session: FetchSession | None
    incremental: bool

    @property
    def items(self) -> Sequence[FetchItem]:
        """All that is asked for. Costs as much as the session holds: who follows a thousand
        partitions asks a watch instead (``StandingFetch``)."""
        if self.session is None or not self.incremental:
            return self.named
        return [known.item for known in self.session.partitions.values()]

    @property
    def session_id(self) -> int:
        return self.session.session_id if self.session is not None else NO_SESSION

    def visible(
        self, items: Iterable[FetchItem], results: Iterable[PartitionFetchResult]
    ) -> list[tuple[FetchItem, PartitionFetchResult]]:
        """What the response carries of what was read: all of it, or in an increment what is new."""
        pairs = list(zip(items, results, strict=True))
        session = self.session
        if session is None:
            return pairs
        chosen: list[tuple[FetchItem, PartitionFetchResult]] = []
        for item, result in pairs:
            known = session.partitions.get((item.topic, item.topic_id, item.partition))
            changed = known is not None and _note(known, result)
            if changed or not self.incremental:
                chosen.append((item, result))
            if known is not None and result.size:
                # Who got data goes to the end: the next response starts with the others.
                key = (item.topic, item.topic_id, item.partition)
                session.partitions[key] = session.partitions.pop(key)
        return chosen


def _note(known: _Answered, result: PartitionFetchResult) -> bool:
    """Remember the answer; whether it says anything that the last one did not."""
    changed = bool(
        result.size
        or result.error
        or result.diverging is not None
        or result.preferred_read_replica >= 0
        or result.high_watermark != known.high_watermark
        or result.log_start_offset != known.log_start_offset
    )
    if result.error:
        known.high_watermark = -2  # say it again once it works
    else:
        known.high_watermark = result.high_watermark
        known.log_start_offset = result.log_start_offset
    return changed


class FetchSessionCache:
    """At most ``max_sessions``: a new one pushes out one that was not used for ``STALE_AFTER``.

    Else a follower's may push out the least recently used of a client. Times are seconds.
    """

    def __init__(self, random: Random, max_sessions: int = 1_000) -> None:
        self._random = random
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def resolve(
        self,
        session_id: int,
        epoch: int,
        items: Sequence[FetchItem],
        forgotten: Iterable[Key],
        *,
        follower: bool,
        now: float,
        by_id: bool = False,
    ) -> SessionRequest:
        """What this request asks for; ``by_id``: it names topics by their ids (KIP-516).

        Raises:
            SessionError: an unknown session, or a request out of turn.
        """
        if epoch in {FINAL_EPOCH, INITIAL_EPOCH}:
            if session_id != NO_SESSION:
                self._sessions.pop(session_id, None)
            if epoch == FINAL_EPOCH:
                return SessionRequest(items, None, False)
            return SessionRequest(items, self._open(items, follower, by_id, now), False)
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if epoch != session.epoch:
            raise SessionError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if by_id != session.by_id:
            raise SessionError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        self._sessions.move_to_end(session_id)
        session.used_at = now
        session.epoch = 1 if epoch == MAX_SESSION_ID else epoch + 1
        partitions = session.partitions
        for key in forgotten:
            partitions.pop(key, None)
        for item in items:
            key = (item.topic, item.topic_id, item.partition)
            known = partitions.get(key)
            if known is None:
                partitions[key] = _Answered(item)
            else:
                known.item = item
        return SessionRequest(items, session, True)

    def _open(
        self, items: Sequence[FetchItem], follower: bool, by_id: bool, now: float
    ) -> FetchSession | None:
        """A new session, or None where there is no room for one (the fetch works without)."""
        if len(self._sessions) >= self._max_sessions and not self._evict(follower, now):
            return None
        session_id = self._random.randint(1, MAX_SESSION_ID)
        while session_id in self._sessions:
            session_id = self._random.randint(1, MAX_SESSION_ID)
        session = FetchSession(session_id, 1, privileged=follower, by_id=by_id, used_at=now)
        for item in items:
            session.partitions[item.topic, item.topic_id, item.partition] = _Answered(item)
        self._sessions[session_id] = session
        return session

    def _evict(self, follower: bool, now: float) -> bool:
        oldest = next(iter(self._sessions.values()), None)
        if oldest is not None and now - oldest.used_at > STALE_AFTER:
            del self._sessions[oldest.session_id]
            return True
        if not follower:
            return False
        for session_id, session in self._sessions.items():
            if not session.privileged:
                del self._sessions[session_id]
                return True
        return False
