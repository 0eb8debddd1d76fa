"""Errors of the Raft package."""

from __future__ import annotations


class RaftError(Exception):
    """A message or a stored record that breaks the protocol; the text says which and where."""


class RaftClosedError(RaftError):
    """The runner was closed, or its disk failed, before the request was done."""


class NotLeaderError(RaftError):
    """This node does not lead, or stopped leading before the proposal was committed.

    ``leader_id`` is the leader last heard of, or None. A proposal that was already appended may
    still be committed by a later leader: the caller must not assume that it was dropped.
    """

    def __init__(self, leader_id: int | None) -> None:
        super().__init__(f"not the leader; the leader is {leader_id}")
        self.leader_id = leader_id
