"""Adding and removing controllers while the cluster runs, and who takes part now (KIP-853).

A new controller first follows as a learner: its vote would only make quorums larger while it lacks
the log (Ongaro, 2014, section 4.2.1). Its address goes into the metadata log before, so that every
controller and broker knows where it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pegel.protocol.errors import ErrorCode
from pegel_controller.metadata import records as r
from pegel_controller.raft.errors import NotLeaderError, RaftError
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcRefusedError
from pegel_controller.rpc.hello import HelloRequest
from pegel_controller.rpc.quorum_messages import (
    AddVoterRequest,
    ChangeVoterResponse,
    RemoveVoterRequest,
)

if TYPE_CHECKING:
    from pegel_controller.node import ControllerNode

_log = logging.getLogger("pegel.controller")

MAX_WAIT = 60.0
POLL_INTERVAL = 0.020
# A controller that answers nothing for this long after a removal was asked for is taken for dead.
ANSWERS_WITHIN = 2.0


Change = AddVoterRequest | RemoveVoterRequest


class _RefusedError(Exception):
    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Membership:
    """Serves one ``ControllerNode`` while it is active; one change at a time."""

    def __init__(self, node: ControllerNode) -> None:
        self._node = node
        self._asked: Change | None = None
        self._task: asyncio.Task[ChangeVoterResponse] | None = None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def change(self, request: Change) -> ChangeVoterResponse:
        """Carry one change out, or say what is in its way.

        The same request, sent again because its connection broke, waits for the same change.
        """
        if self._task is None or self._task.done():
            self._asked = request
            self._task = asyncio.create_task(self._change(request), name="voter-change")
        elif request != self._asked:
            message = "Another change of the voters is under way; wait for its end."
            return ChangeVoterResponse(ErrorCode.REQUEST_TIMED_OUT, message)
        return await asyncio.shield(self._task)

    async def _change(self, request: Change) -> ChangeVoterResponse:
        ours = self._node.image.cluster_id
        if request.cluster_id is not None and request.cluster_id != ours:
            message = f"This is cluster {ours}, not {request.cluster_id}."
            return ChangeVoterResponse(ErrorCode.INCONSISTENT_CLUSTER_ID, message)
        wait = min(max(request.timeout_ms, 0) / 1000, MAX_WAIT)
        deadline = self._node.world.clock.monotonic() + wait
        try:
            if isinstance(request, AddVoterRequest):
                await self._add(request, deadline)
            else:
                await self._remove(request)
        except _RefusedError as error:
            return ChangeVoterResponse(error.code, error.message)
        except NotLeaderError:
            raise self._node.not_controller() from None
        except RaftError as error:
            return ChangeVoterResponse(ErrorCode.REQUEST_TIMED_OUT, f"{error}; try again")
        return ChangeVoterResponse()

    async def _add(self, request: AddVoterRequest, deadline: float) -> None:
        raft, new = self._node.raft, request.node_id
        status = raft.status()
        if new in status.voters:
            message = f"Controller {new} votes already; voters are {_names(status.voters)}."
            raise _RefusedError(ErrorCode.DUPLICATE_VOTER, message)
        await self._node.record(r.ControllerRegisteredRecord(new, request.host, request.port))
        if new not in status.learners:
            await raft.change_membership(status.voters, (*status.learners, new))
        while not self._has_caught_up(new):
            if self._node.world.clock.monotonic() >= deadline:
                status = raft.status()
                learners = tuple(x for x in status.learners if x != new)
                await raft.change_membership(status.voters, learners)
                await self._node.record(r.ControllerUnregisteredRecord(new))
                raise _RefusedError(
                    ErrorCode.REQUEST_TIMED_OUT,
                    f"Controller {new} at {request.host}:{request.port} did not catch up in time: "
                    "is it running there, with --controllers naming those that vote now?",
                )
            await asyncio.sleep(POLL_INTERVAL)
        status = raft.status()
        learners = tuple(x for x in status.learners if x != new)
        await raft.change_membership((*status.voters, new), learners)
        _log.info("controller %d at %s:%d votes from now on", new, request.host, request.port)

    def _has_caught_up(self, node_id: int) -> bool:
        raft = self._node.raft
        if not self._node.active:
            raise NotLeaderError(raft.leader_id)
        follower = raft.followers().get(node_id)
        return follower is not None and follower.match_index >= raft.status().commit_index

    async def _remove(self, request: RemoveVoterRequest) -> None:
        raft, gone = self._node.raft, request.node_id
        status = raft.status()
        if gone not in status.voters:
            message = f"Controller {gone} does not vote; voters are {_names(status.voters)}."
            raise _RefusedError(ErrorCode.VOTER_NOT_FOUND, message)
        left = tuple(voter for voter in status.voters if voter != gone)
        if not left:
            message = f"Controller {gone} is the last one: add another controller first."
            raise _RefusedError(ErrorCode.INVALID_REQUEST, message)
        needed = len(left) // 2 + 1
        alive = await self._answering(left, needed)
        if len(alive) < needed:
            dead = _names(sorted(set(left) - set(alive)))
            raise _RefusedError(
                ErrorCode.INVALID_REQUEST,
                f"Without controller {gone} only {len(alive)} of {len(left)} controllers would "
                f"answer, and {needed} are needed: remove {dead} instead, or start it again.",
            )
        if gone == self._node.node_id:
            # Somebody else is to do it: this one's leadership would end with its vote.
            await raft.transfer_leadership(max(alive - {gone}))
            raise self._node.not_controller()
        status = raft.status()  # time has gone by
        left = tuple(voter for voter in status.voters if voter != gone)
        await raft.change_membership(left, status.learners)
        await self._node.record(r.ControllerUnregisteredRecord(gone))
        _log.info("controller %d votes no more", gone)

    async def _answering(self, voters: Sequence[int], needed: int) -> set[int]:
        """Who answers from now on, ``needed`` of them or all. To count a dead one could cost the
        quorum, and a new leader takes all for heard before it has heard anybody."""
        clock = self._node.world.clock
        asked_at = clock.monotonic()
        while True:
            alive = self._heard_since(asked_at, voters)
            if len(alive) >= needed or clock.monotonic() >= asked_at + ANSWERS_WITHIN:
                return alive
            await asyncio.sleep(POLL_INTERVAL)
            if not self._node.active:
                raise NotLeaderError(self._node.raft.leader_id)

    def _heard_since(self, asked_at: float, voters: Sequence[int]) -> set[int]:
        heard = self._node.raft.followers()
        return {
            voter
            for voter in voters
            if voter == self._node.node_id
            or (
                self._node.links.connected(voter)
                and voter in heard
                and heard[voter].heard_at > asked_at
            )
        }

    # -- who takes part

    def describe(self) -> m.StatusResponse:
        """Voters and observers with how far each has followed, as this leader knows them.

        Brokers that do not vote are observers of the metadata log, up to what they have applied.
        """
        node, raft = self._node, self._node.raft
        status, now = raft.status(), node.world.clock.monotonic()
        followers = raft.followers()

        def shown(node_id: int, is_voter: bool) -> m.VoterStatus:
            host, port = node.controllers.get(node_id, ("", -1))
            if node_id == node.node_id:
                return m.VoterStatus(node_id, host, port, status.last_index, 0, is_voter, 0)
            view = followers.get(node_id)
            if view is None:
                return m.VoterStatus(node_id, host, port, is_voter=is_voter)
            return m.VoterStatus(
                node_id, host, port, view.match_index, _ago(now, view.heard_at), is_voter,
                _ago(now, view.caught_up_at),
            )  # fmt: skip

        observers = [shown(learner, False) for learner in status.learners]
        for broker_id, applied in node.controller.brokers.applied_indexes().items():
            if broker_id not in status.voters and broker_id not in status.learners:
                ago = 0 if applied >= node.feed.index else -1
                observers.append(m.VoterStatus(broker_id, "", -1, applied, 0, False, ago))
        return m.StatusResponse(
            leader_id=-1 if status.leader_id is None else status.leader_id,
            term=status.term,
            commit_index=status.commit_index,
            voters=tuple(shown(voter, True) for voter in status.voters),
            observers=tuple(observers),
            cluster_id=node.image.cluster_id,
        )


def refused_if_unknown(node: ControllerNode, hello: HelloRequest) -> None:
    """A controller that nobody has named may not send Raft messages. Raises RpcRefusedError.

    Only the active controller knows all of them: what others lack may be the entries that name the
    caller, and the caller may be the leader that would send them. So whoever belongs to the cluster
    takes messages of it, as Raft has it (Ongaro, 2014, section 4.1).
    """
    if hello.node_id in node.controllers:
        return
    if node.active or not hello.cluster_id or hello.cluster_id != node.cluster_id():
        raise RpcRefusedError(
            ErrorCode.INVALID_REQUEST, f"node {hello.node_id} is none of the controllers"
        )


def _ago(now: float, at: float) -> int:
    return -1 if at == float("-inf") else max(0, int((now - at) * 1000))


def _names(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))
