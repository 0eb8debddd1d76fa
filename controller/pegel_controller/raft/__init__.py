"""Raft for the controllers: consensus on the metadata log (Ongaro, 2014)."""

from __future__ import annotations

from pegel_controller.raft.errors import NotLeaderError, RaftClosedError, RaftError
from pegel_controller.raft.interfaces import RaftStateMachine, RaftStatus, RaftTransport
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.runner import RaftRunner

__all__ = [
    "NotLeaderError",
    "RaftClosedError",
    "RaftError",
    "RaftOptions",
    "RaftRunner",
    "RaftStateMachine",
    "RaftStatus",
    "RaftTransport",
]
