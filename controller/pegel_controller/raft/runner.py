"""The asyncio shell of Raft: its timer, its disk queue, its messages, and who waits for what."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from random import Random

from pegel.seams import World
from pegel_controller.raft import views
from pegel_controller.raft.errors import NotLeaderError, RaftClosedError, RaftError
from pegel_controller.raft.interfaces import RaftStateMachine, RaftStatus, RaftTransport
from pegel_controller.raft.log_view import EntryKind
from pegel_controller.raft.messages import decode, encode
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.ready import HardState, Ready, Snapshot
from pegel_controller.raft.stats import RaftStats
from pegel_controller.raft.views import FollowerView
from pegel_controller.raft.wal import WriteAheadLog
from pegel_controller.timer import DeadlineTimer


class RaftRunner:
    """Runs one Raft node: its timer, its write-ahead log and its messages.

    ``voters`` is the first configuration (node id to host and port); a log that exists wins over
    it. All methods are called on one event loop. ``on_fatal`` is called once if the disk fails:
    the node has stopped and must not be trusted to have stored anything since.
    """

    def __init__(
        self,
        world: World,
        node_id: int,
        directory: str,
        voters: Mapping[int, tuple[str, int]],
        transport: RaftTransport,
        options: RaftOptions,
        state_machine: RaftStateMachine,
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> None:
        if node_id < 0:
            raise ValueError(f"node id {node_id} is negative")
        self.node_id = node_id
        self.on_fatal = on_fatal
        self._world = world
        self._voters = dict(voters)
        self._transport = transport
        self._options = options
        self._state_machine = state_machine
        self._wal = WriteAheadLog(world.disk, directory, options.segment_bytes)
        self._queue = world.new_disk_queue(f"raft-{node_id}")
        self._node: RaftNode | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = DeadlineTimer(world.clock.monotonic, self._on_timer)
        self._pump_scheduled = False
        self._closed = False
        # Readys that wait for the sync under way; the next sync covers them all.
        self._waiting: list[Ready] = []
        self._syncing = False
        self._sync_began = 0.0
        self._unsaved_commit: HardState | None = None
        self._proposals: dict[int, tuple[int, asyncio.Future[int]]] = {}
        self._read_tokens: dict[int, asyncio.Future[None]] = {}
        self._reads_to_apply: list[tuple[int, asyncio.Future[None]]] = []
        self._told: tuple[int | None, int, bool] = (None, 0, False)
        self._leader_waiters: list[asyncio.Future[None]] = []
        self._applied_bytes = 0
        self._applied_index = 0  # what the state machine holds
        self._snapshotting = False
        self.stats = RaftStats()

    # -- what it is

    @property
    def term(self) -> int:
        return self._node.term if self._node else 0

    @property
    def leader_id(self) -> int | None:
        return self._node.leader_id if self._node else None

    @property
    def is_leader(self) -> bool:
        """True only after an entry of its own term is applied."""
        return bool(self._node and not self._closed and self._node.is_leader)

    def lease_valid(self, now: float) -> bool:
        """Whether a quorum was heard within the minimum election timeout before ``now``."""
        return bool(self._node and not self._closed and self._node.lease_valid(now))

    def status(self) -> RaftStatus:
        return views.status(self._require())

    def followers(self) -> dict[int, FollowerView]:
        """The other servers as this one knows them; empty unless it leads."""
        return views.followers(self._node)

    @property
    def running(self) -> bool:
        """Recovered, and not closed."""
        return self._node is not None and not self._closed

    def follower_lag(self) -> dict[int, int]:
        """Entries that each other server is not known to have; empty unless this one leads."""
        node = self._node
        last = node.log.last_index if node else 0
        return {peer: last - f.match_index for peer, f in self.followers().items()}

    def snapshot_bytes(self) -> int:
        """Size of the newest snapshot; 0 where there is none."""
        snapshot = self._node.snapshot if self._node else None
        return 0 if snapshot is None else len(snapshot.data)

    # -- life

    async def start(self) -> None:
        """Recover the log from disk and take part.

        Raises:
            RaftError: the log is damaged in the middle (names file and offset).
        """
        found = await self._queue.submit(self._wal.recover)
        # Its own generator: the order of elections must not depend on other users of the world's.
        random = Random(self._world.random.getrandbits(64))
        if found.snapshot is not None:
            snapshot = found.snapshot
            self._state_machine.restore(snapshot.index, snapshot.term, snapshot.data)
            self._applied_index = snapshot.index
        self._node = RaftNode(
            self.node_id,
            sorted(self._voters),
            random,
            self._options,
            self._world.clock.monotonic(),
            hard_state=found.hard_state,
            snapshot=found.snapshot,
            entries=found.entries,
        )
        self._schedule_pump()
        self._arm()

    async def close(self) -> None:
        """Fail what is pending with ``RaftClosedError`` and stop; safe to call twice."""
        if self._closed:
            return
        self._stop(RaftClosedError("this Raft node is closed"))
        commit, self._unsaved_commit = self._unsaved_commit, None

        def finish() -> None:
            if commit is not None:
                self._wal.append(None, (), commit, sync=True)
            self._wal.close()

        if self._node is not None:
            # A full or broken disk must not keep a node from ending: the commit index that is
            # lost with it is learnt again.
            with contextlib.suppress(OSError):
                await self._queue.submit(finish)
        self._queue.close()

    def _stop(self, error: Exception) -> None:
        self._closed = True
        self._timer.cancel()
        for _, future in self._proposals.values():
            _fail(future, error)
        for waiter in [*self._read_tokens.values(), *(f for _, f in self._reads_to_apply)]:
            _fail(waiter, error)
        for waiter in self._leader_waiters:
            _fail(waiter, error)
        self._proposals.clear()
        self._read_tokens.clear()
        self._reads_to_apply.clear()
        self._leader_waiters.clear()

    def _die(self, error: Exception) -> None:
        """The disk failed: what it holds now is unknown, so nothing more may leave this node."""
        if self._closed:
            return
        closed = RaftClosedError(f"the Raft log failed: {error}")
        closed.__cause__ = error
        self._stop(closed)
        if self.on_fatal is not None:
            self.on_fatal(error)

    # -- requests

    def propose_nowait(self, data: bytes) -> int:
        """Append and return the index at once; ``apply`` tells of its commit.

        Raises:
            NotLeaderError: this node does not lead.
            RaftError: ``pending_proposals_max`` are uncommitted.
        """
        node = self._require()
        if node.log.last_index - node.log.commit_index >= self._options.pending_proposals_max:
            raise RaftError("too many proposals wait for a quorum")
        now = self._world.clock.monotonic()
        index = node.propose(data, now)
        self.stats.on_proposed(index, now)
        self._schedule_pump()
        return index

    async def propose(self, data: bytes) -> int:
        """The entry's index, once committed and applied on this node.

        Raises:
            NotLeaderError: not, or no longer, the leader (the entry may still be committed).
            RaftClosedError: closed meanwhile.
        """
        return await self._appended(self.propose_nowait(data))

    async def change_membership(self, voters: Sequence[int], learners: Sequence[int]) -> int:
        """Add or remove one voter, or change the learners; the entry's index once committed.

        Raises:
            NotLeaderError, RaftClosedError: as ``propose``.
            RaftError: the change is not allowed, or another one is still in progress.
        """
        node = self._require()
        index = node.propose_membership(voters, learners, self._world.clock.monotonic())
        self._schedule_pump()
        return await self._appended(index)

    async def _appended(self, index: int) -> int:
        future: asyncio.Future[int] = self._loop.create_future()
        self._proposals[index] = (self.term, future)
        return await future

    async def read_barrier(self) -> None:
        """Return when all that was committed before the call is applied here (read index).

        Raises:
            NotLeaderError: leadership was not confirmed.
        """
        token = self._require().read_index(self._world.clock.monotonic())
        future = self._read_tokens.get(token)
        if future is None:
            future = self._read_tokens[token] = self._loop.create_future()
        self._schedule_pump()
        await asyncio.shield(future)

    async def transfer_leadership(self, to: int | None = None) -> None:
        """Hand over to ``to``, or to the voter that is furthest along.

        Raises:
            NotLeaderError: this node does not lead.
            RaftError: the target is no voter, or did not take over in an election timeout.
        """
        node = self._require()
        target = node.transfer_leadership(to, self._world.clock.monotonic())
        self._schedule_pump()
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._leader_waiters.append(waiter)
        try:
            async with asyncio.timeout(self._options.election_timeout_max):
                await waiter
        except TimeoutError:
            raise RaftError(f"node {target} did not take over in time") from None

    def step_down(self) -> None:
        """Lead no more in this term. Nothing where this node does not lead, or is closed."""
        if self._node is not None and not self._closed:
            self._node.step_down(self._world.clock.monotonic())
            self._schedule_pump()

    def on_message(self, peer_id: int, payload: bytes) -> None:
        """A payload of ``peer_id``. Raises RaftError where it does not decode."""
        if self._node is None or self._closed:
            return
        self._node.step(peer_id, decode(payload), self._world.clock.monotonic())
        self._schedule_pump()

    def on_peer_connected(self, peer_id: int) -> None:
        """The transport reaches ``peer_id`` again; the next heartbeat resumes what it lacks."""

    def on_peer_lost(self, peer_id: int) -> None:
        """The process of ``peer_id`` is known to be gone; elect at once if it led."""
        if self._node is not None and not self._closed:
            self._node.on_peer_lost(peer_id, self._world.clock.monotonic())
            self._schedule_pump()
            self._arm()

    def _require(self) -> RaftNode:
        if self._closed or self._node is None:
            raise RaftClosedError("this Raft node is not running")
        return self._node

    # -- time

    def _arm(self) -> None:
        assert self._node is not None
        self._timer.arm(self._node.next_deadline())

    def _on_timer(self) -> None:
        if self._closed:
            return
        assert self._node is not None
        now = self._world.clock.monotonic()
        if now >= self._node.next_deadline():
            self._node.tick(now)
            # A leader applies only what its own disk has: while that hangs it would lead for ever
            # and decide nothing, for its heartbeats need no disk.
            if self._syncing and now - self._sync_began > self._options.disk_stall_max:
                self._node.step_down(now)
            self._pump()
        self._arm()

    # -- effects

    def _schedule_pump(self) -> None:
        """Handle what the core wants once this turn of the loop has brought all its inputs."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self._closed:
            return
        assert self._node is not None
        while (ready := self._node.ready()) is not None:
            if ready.hard_state is not None:
                self.stats.on_hard_state(ready.hard_state, self.node_id)
            for envelope in ready.messages:
                self._transport.send(envelope.to, encode(envelope.message))
            self._waiting.append(ready)
        self._sync()
        self._tell()
        self._arm()

    def _sync(self) -> None:
        """Persist everything that waits with one sync, unless one is under way."""
        if self._syncing or not self._waiting or self._closed:
            return
        batch, self._waiting = self._waiting, []
        if not any(r.must_sync for r in batch):
            # Only commit indexes moved: they are saved with the next entries, or at the end.
            self._remember_commit(batch)
            self._finish(batch)
            return
        unsaved, self._unsaved_commit = self._unsaved_commit, None
        self._syncing = True
        self._sync_began = self._world.clock.monotonic()
        future = self._queue.submit(lambda: self._persist(batch, unsaved))
        future.add_done_callback(lambda done: self._persisted(done, batch))

    def _remember_commit(self, batch: Sequence[Ready]) -> None:
        for ready in batch:
            self._unsaved_commit = ready.hard_state or self._unsaved_commit

    def _persist(self, batch: Sequence[Ready], unsaved: HardState | None) -> None:
        """On the disk queue: the order within each Ready is its contract."""
        if unsaved is not None:
            self._wal.append(None, (), unsaved, sync=False)
        for position, ready in enumerate(batch):
            if ready.snapshot is not None:
                self._wal.save_snapshot(ready.snapshot)
            self._wal.append(
                ready.truncate_from,
                ready.entries,
                ready.hard_state,
                sync=position == len(batch) - 1,
                compacted=ready.snapshot.index if ready.snapshot is not None else None,
            )
            if ready.snapshot is not None:
                self._wal.compact(ready.snapshot.index)

    def _persisted(self, done: asyncio.Future[None], batch: Sequence[Ready]) -> None:
        self._syncing = False
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if error is not None:
            self._die(error if isinstance(error, Exception) else RaftError(repr(error)))
            return
        self._finish(batch)
        self._pump()

    def _finish(self, batch: Sequence[Ready]) -> None:
        """Everything of ``batch`` is durable: send, apply, and resolve who waited."""
        assert self._node is not None
        moved = False
        for ready in batch:
            for envelope in ready.messages_after_sync:
                self._transport.send(envelope.to, encode(envelope.message))
            if ready.entries:
                self._node.on_persisted(ready.entries[-1].index, ready.entries[-1].term)
            if ready.entries or ready.committed or ready.snapshot is not None or ready.reads:
                moved = True
                self._apply(ready)
            if self._closed:
                return
        if moved:  # else only answers to a leader left, which change nothing here
            self._resolve_reads()
            self._maybe_snapshot()
            self._schedule_pump()  # on_persisted may have moved the commit index

    def _apply(self, ready: Ready) -> None:
        assert self._node is not None
        if ready.snapshot is not None:
            snapshot = ready.snapshot
            self._state_machine.restore(snapshot.index, snapshot.term, snapshot.data)
            self._applied_bytes, self._applied_index = 0, snapshot.index
        for entry in ready.committed:
            if entry.kind is EntryKind.COMMAND:
                self._state_machine.apply(entry.index, entry.term, entry.data)
            self._applied_bytes += len(entry.data)
            waiting = self._proposals.pop(entry.index, None)
            if waiting is not None and not waiting[1].done():
                if waiting[0] == entry.term:
                    waiting[1].set_result(entry.index)
                else:
                    waiting[1].set_exception(NotLeaderError(self.leader_id))
        if ready.committed:
            self._applied_index = ready.committed[-1].index
            self.stats.on_applied(self._applied_index, self._world.clock.monotonic())
            self._node.on_applied(ready.committed[-1].index)
        for read in ready.reads:
            future = self._read_tokens.pop(read.token, None)
            if future is None:
                continue
            if read.index is None:
                _fail(future, NotLeaderError(self.leader_id))
            else:
                self._reads_to_apply.append((read.index, future))

    def _resolve_reads(self) -> None:
        assert self._node is not None
        applied = self._applied_index  # the core's runs ahead when it takes a snapshot
        for index, future in self._reads_to_apply:
            if index <= applied and not future.done():
                future.set_result(None)
        self._reads_to_apply = [(i, f) for i, f in self._reads_to_apply if not f.done()]

    def _tell(self) -> None:
        """Pass a change of leadership on, and fail what only a leader could finish."""
        assert self._node is not None
        now = (self._node.leader_id, self._node.term, self._node.is_leader)
        if now == self._told:
            return
        before, self._told = self._told, now
        self.stats.on_leader(before[0], now[0], now[1])
        # It may have taken proposals before an entry of its term was applied, so ``is_leader``
        # does not tell. A newer term of its own means that it lost one in between.
        if before[0] == self.node_id and before[:2] != now[:2]:
            error = NotLeaderError(now[0])
            for index, (term, future) in sorted(self._proposals.items()):
                if term < now[1] or now[0] != self.node_id:
                    _fail(future, error)
                    del self._proposals[index]
        if now[0] not in {None, self.node_id}:
            for waiter in self._leader_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._leader_waiters.clear()
        self._state_machine.on_leader_change(*now)

    # -- snapshots

    def _maybe_snapshot(self) -> None:
        node, options = self._node, self._options
        assert node is not None
        behind = node.applied_index - node.log.snapshot_index
        if self._snapshotting or behind == 0:
            return
        if (
            behind < options.snapshot_after_entries
            and self._applied_bytes < options.snapshot_after_bytes
        ):
            return
        index = node.applied_index
        term = node.log.term_at(index)
        assert term is not None
        snapshot = Snapshot(index, term, node.membership_at(index), self._state_machine.snapshot())
        self._snapshotting, self._applied_bytes = True, 0
        self._queue.submit(lambda: self._wal.save_snapshot(snapshot)).add_done_callback(
            lambda done: self._snapshot_saved(done, snapshot)
        )

    def _snapshot_saved(self, done: asyncio.Future[None], snapshot: Snapshot) -> None:
        self._snapshotting = False
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if error is not None:
            self._die(error if isinstance(error, Exception) else RaftError(repr(error)))
            return
        assert self._node is not None
        if self._node.log.snapshot_index < snapshot.index:  # a leader's may have come meanwhile
            self._node.compact(snapshot)
            self._queue.submit(lambda: self._wal.compact(snapshot.index))


def _fail(future: asyncio.Future[int] | asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever waits still gets it; nobody waiting is no error
