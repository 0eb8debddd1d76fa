"""Fetch sessions (KIP-227): a broker remembers the partitions, the client sends what changed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from pegel.portions import AT_ONCE, FORGOTTEN_AT_ONCE
from pegel.protocol.messages.fetch import FetchPartition, FetchTopic, ForgottenTopic
from pegel.types import TopicPartition

_NO_SESSION = 0
_FIRST_EPOCH = 0
_MAX_EPOCH = 0x7FFFFFFF
_FORGOTTEN_AT_ONCE = FORGOTTEN_AT_ONCE


class Wanted(NamedTuple):
    """What to ask for one partition; everything that a broker remembers of it."""

    topic_id: uuid.UUID
    offset: int
    leader_epoch: int
    max_bytes: int


class FetchSession:
    """The client's side of one session with one broker.

    ``plan`` says what to send; ``accept`` or ``reset`` must follow with how it went.

    Attributes:
        behind: what one request could not name as it is wanted now; the next ones do.
    """

    def __init__(self) -> None:
        self.session_id = _NO_SESSION
        self.epoch = _FIRST_EPOCH
        self.behind: dict[TopicPartition, None] = {}
        self._known: dict[TopicPartition, Wanted] = {}
        # Of all that is wanted, where a request names the first: without a session each in turn.
        self._turn = 0

    def plan(
        self, wanted: Mapping[TopicPartition, Wanted]
    ) -> tuple[list[FetchTopic], list[ForgottenTopic]]:
        """Topics to send and to have forgotten; all of them when a session begins."""
        late, self.behind = self.behind, {}
        if self.epoch == _FIRST_EPOCH:
            self._known = self._first(wanted)
            return _topics(self._known), []
        changed: dict[TopicPartition, Wanted] = {}
        forgotten: dict[TopicPartition, Wanted] = {}
        if late:  # their turn comes first
            wanted = {tp: wanted[tp] for tp in late if tp in wanted} | dict(wanted)
        for tp, want in wanted.items():
            before = self._known.get(tp)
            if before == want:
                continue
            renamed = before is not None and before.topic_id != want.topic_id
            if len(changed) == AT_ONCE or (renamed and len(forgotten) == _FORGOTTEN_AT_ONCE):
                self.behind[tp] = None
                continue
            if before is not None and renamed:
                forgotten[tp] = before  # deleted and created again
            changed[tp] = want
        gone = (tp for tp in self._known if tp not in wanted)
        forgotten |= {
            tp: self._known[tp] for tp in islice(gone, _FORGOTTEN_AT_ONCE - len(forgotten))
        }
        for tp in forgotten:
            del self._known[tp]
        self._known.update(changed)
        return _topics(changed), _forgotten(forgotten)

    def _first(self, wanted: Mapping[TopicPartition, Wanted]) -> dict[TopicPartition, Wanted]:
        if len(wanted) <= AT_ONCE:
            return dict(wanted)
        every = list(wanted)
        begin = self._turn % len(every)
        every = every[begin:] + every[:begin]
        self.behind = dict.fromkeys(every[AT_ONCE:])
        return {tp: wanted[tp] for tp in every[:AT_ONCE]}

    def accept(self, session_id: int) -> None:
        """The broker answered; id 0 means that it keeps no session, and all is sent each time."""
        if session_id == _NO_SESSION:
            self._turn += len(self._known)
            self.reset(keep_id=False)
            return
        if self.epoch == _FIRST_EPOCH:
            self.session_id = session_id
        self.epoch = 1 if self.epoch == _MAX_EPOCH else self.epoch + 1

    def reset(self, *, keep_id: bool) -> None:
        """Begin anew. ``keep_id`` lets the broker drop the session that this one replaces."""
        if not keep_id:
            self.session_id = _NO_SESSION
        self.epoch = _FIRST_EPOCH
        self._known = {}


def _topics(wanted: Mapping[TopicPartition, Wanted]) -> list[FetchTopic]:
    topics: dict[str, FetchTopic] = {}
    for (name, partition), want in wanted.items():
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = FetchTopic(topic=name, topic_id=want.topic_id)
        topic.partitions.append(
            FetchPartition(
                partition=partition,
                current_leader_epoch=want.leader_epoch,
                fetch_offset=want.offset,
                partition_max_bytes=want.max_bytes,
            )
        )
    return list(topics.values())


def _forgotten(partitions: Mapping[TopicPartition, Wanted]) -> list[ForgottenTopic]:
    topics: dict[tuple[str, uuid.UUID], ForgottenTopic] = {}
    for (name, partition), before in partitions.items():
        topic = topics.setdefault(
            (name, before.topic_id), ForgottenTopic(topic=name, topic_id=before.topic_id)
        )
        topic.partitions.append(partition)
    return list(topics.values())
