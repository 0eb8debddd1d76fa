"""The shell of a group's member: does what ``Membership`` decides, between the reader's batches.

The reader works on what it was handed, then comes back for more. Partitions are given back, and
the user's hooks run, only while the reader waits here ("at rest"): then everything that it was
handed is finished and can be committed. Heartbeats do not depend on that (``heart``).
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pegel.cluster import Cluster
from pegel.config import ConsumerOptions
from pegel.consumer.coordinator import Coordinator
from pegel.consumer.group_protocol import NO_GENERATION
from pegel.consumer.heart import Hearts, Identity, Pulse, leave_request
from pegel.consumer.membership import (
    Balance,
    Fail,
    GroupOptions,
    Join,
    Membership,
    Revoke,
    Sync,
    Take,
    Wait,
)
from pegel.consumer.offsets import AutoCommit, by_hand, commit_offsets, fetch_offsets
from pegel.consumer.subscription import UNKNOWN, PartitionState, Subscription
from pegel.errors import BrokerError, CommitFailedError, NoOffsetError, PegelError
from pegel.metrics.clients import ConsumerStats
from pegel.offsets import EARLIEST, LATEST
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.join_group import JoinGroupResponse
from pegel.protocol.messages.leave_group import LeaveGroupResponse
from pegel.protocol.messages.sync_group import SyncGroupResponse
from pegel.types import CommittedOffset, TopicPartition

_log = logging.getLogger("pegel.consumer")

Hook = Callable[[list[TopicPartition]], Awaitable[None] | None]
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the user wants to do when partitions come and go; plain or async functions."""

    assigned: Hook | None = None
    revoked: Hook | None = None
    lost: Hook | None = None


class GroupSession:
    """One consumer's membership of one group.

    Args:
        changed: called after the partitions of ``subscription`` changed.
        fail: called with what the reader must know; its next call raises it.
        stop: called with a partition that cannot be read, and why.
    """

    def __init__(
        self,
        cluster: Cluster,
        subscription: Subscription,
        options: ConsumerOptions,
        topics: Sequence[str],
        hooks: Hooks,
        hearts: Hearts,
        changed: Callable[[], None],
        fail: Callable[[Exception], None],
        stop: Callable[[PartitionState, PegelError], None],
        stats: ConsumerStats,
    ) -> None:
        assert options.group is not None
        self._cluster, self._subscription, self._options = cluster, subscription, options
        self._hooks, self._hearts = hooks, hearts
        self._changed, self._fail, self._stop, self._stats = changed, fail, stop, stats
        self._loop = asyncio.get_running_loop()
        self.core = Membership(
            GroupOptions(
                group=options.group,
                topics=tuple(sorted(topics)),
                assignors=options.assignors,
                session_timeout_ms=int(options.session_timeout * 1000),
                rebalance_timeout_ms=int(options.max_poll_interval * 1000),
                instance_id=options.instance_id,
                rack=options.rack or None,
            )
        )
        # A JoinGroup waits at the broker for the other members; commits must not stand behind it.
        self._purpose = f"group-{next(_numbers)}"
        self._joining = Coordinator(cluster, options.group, self._purpose)
        self._coordinator = Coordinator(cluster, options.group)
        self._pulse = Pulse(
            interval=options.heartbeat_interval,
            session_timeout=options.session_timeout,
            max_poll_interval=options.max_poll_interval,
            clock=cluster.clock,
            report=self._on_heartbeat,
        )
        self._auto = AutoCommit(self._start_commit, fail) if options.commit == "batch" else None
        self._wake = asyncio.Event()
        self._rest = asyncio.Event()
        self._rest.set()
        self.open = asyncio.Event()  # nothing is handed out while it is not set
        self.open.set()
        self.stable = asyncio.Event()
        self._stepped = asyncio.Event()
        # Whether partitions are to be given back once the reader is at rest.
        self.wants_rest = False
        self._balanced: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Join, in the background."""
        self._hearts.add(self.core.options.group, self._pulse)
        self._cluster.metadata.listen(self._on_metadata)
        self._task = self._loop.create_task(self._run())

    # What the reader says

    def came_back(self) -> None:
        """The reader waits for more: what it was handed is finished."""
        pulse = self._pulse
        if pulse.left is not None:  # the report of it may still be on its way
            generation, pulse.left = pulse.left, None
            self._on_heartbeat(generation, None)
        self._rest.set()
        pulse.polling = True

    def went_away(self, *, busy: bool) -> None:
        """The reader leaves, with something to work on (``busy``) or without."""
        self._pulse.last_poll = self._cluster.clock.monotonic()
        self._pulse.polling = False
        if busy:
            self._rest.clear()

    def touch(self) -> None:
        """The reader takes another record: it gets on."""
        self._pulse.last_poll = self._cluster.clock.monotonic()

    @property
    def failure(self) -> PegelError | None:
        """Why nothing is handed out any more: the partitions may be another's."""
        return self.core.failure

    async def stepped(self) -> None:
        """Return after the next step of the member, or a failure."""
        self._stepped.clear()
        await self._stepped.wait()

    async def ready(self) -> None:
        """Return when the reader may be handed something: nothing has to be given back first."""
        while self.wants_rest or not self.open.is_set():
            await self.stepped()

    async def rest(self) -> None:
        """The reader stops in the midst of a batch, so that partitions may be given back."""
        self.came_back()
        try:
            while self.wants_rest:
                await self.stepped()
        finally:
            self.went_away(busy=True)

    def finished(self, tp: TopicPartition, committed: CommittedOffset) -> None:
        """Everything before ``committed`` has been worked on."""
        if self._auto is not None and tp in self._subscription.states:
            self._auto.finished(tp, committed)

    # Offsets

    async def commit(
        self, offsets: Mapping[TopicPartition, CommittedOffset], timeout: float
    ) -> None:
        """Commit as this member, by hand.

        Raises:
            CommitFailedError: the group went on without it, or rebalances. Never to be tried again
                as it is: by then a partition may be another's, and be committed further on.
            PegelError: not committed.
        """
        try:
            async with by_hand(self._auto, offsets, timeout) as left:
                await self._commit(offsets, left)
        except CommitFailedError as error:
            error.retriable = False
            raise

    async def _commit(
        self, offsets: Mapping[TopicPartition, CommittedOffset], timeout: float
    ) -> None:
        """Retriable where this member goes on, for the partitions that it keeps."""
        who = self._identity()
        if who.generation == NO_GENERATION:
            raise CommitFailedError(
                f"group {who.group!r} took no commit: this consumer is not a member now; what was "
                "read since the last one will be read again, maybe by another member"
            )
        try:
            await commit_offsets(self._coordinator, offsets, who, timeout=timeout)
        except BrokerError as error:
            self.core.on_member_error(who.generation, error.code)
            self._woken()
            living = self._task is not None and not self._task.done()
            if error.code is ErrorCode.ILLEGAL_GENERATION and living:
                # On its way into the next generation it keeps what it has, and commits it there.
                error.retriable = self.core.generation != NO_GENERATION
            raise

    async def committed(
        self, partitions: Sequence[TopicPartition], timeout: float
    ) -> dict[TopicPartition, CommittedOffset]:
        return await fetch_offsets(self._coordinator, partitions, timeout=timeout)

    def _start_commit(
        self, offsets: Mapping[TopicPartition, CommittedOffset]
    ) -> asyncio.Task[None]:
        # What was given back meanwhile is another's: it may have committed more already.
        ours = {tp: o for tp, o in offsets.items() if tp in self.core.owned}
        return self._loop.create_task(self._commit_ours(ours))

    async def _commit_ours(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        if offsets:
            await self._commit(offsets, self._cluster.options.request_timeout)

    # The end

    async def close(self, timeout: float) -> None:
        """Commit what is finished, give everything back, leave; at most ``timeout`` seconds."""
        self._hearts.remove(self._pulse)
        self._pulse.identity = None
        if self._auto is not None:
            with suppress(PegelError):  # a group that rebalances takes it only from who goes along
                await self._auto.flush(timeout / 4)
            timeout *= 3 / 4
        if self._task is not None:
            self._cluster.metadata.unlisten(self._on_metadata)
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(timeout):
                await self._depart(timeout)
        except (TimeoutError, PegelError) as error:
            _log.warning("group %r: left without a word: %s", self.core.options.group, error)
        finally:
            if self._auto is not None:
                await self._auto.close()
            self._cluster.pool.drop_all(self._purpose)

    async def _depart(self, timeout: float) -> None:
        core = self.core
        if core.generation != NO_GENERATION and core.owned:
            await self._flush(timeout / 2)
            if core.owned:
                await self._call(self._hooks.revoked, core.owned)
        if core.member_id and core.options.instance_id is None:
            request = leave_request(
                core.options.group, core.member_id, None, "the consumer was closed"
            )
            await self._coordinator.ask(
                request, LeaveGroupResponse, lambda r: r.error_code, timeout=timeout / 2
            )

    # The member's life

    async def _run(self) -> None:
        while True:
            self._publish()
            self._stepped.set()
            try:
                if not await self._step():
                    return
            except PegelError as error:
                _log.info("group %r: %s", self.core.options.group, error)
                self._fail(error)
                self._stepped.set()
                await asyncio.sleep(self._cluster.retry_pause(20))

    async def _step(self) -> bool:
        """One step; False when there will be none after it."""
        core, timeout = self.core, self._cluster.options.request_timeout
        step = core.next_step()
        match step:
            case Wait():
                self.stable.set()
                self._stepped.set()
                self._wake.clear()
                await self._wake.wait()
            case Revoke():
                await self._revoke(step)
            case Join(request=request):
                joined = await self._joining.ask(
                    request, JoinGroupResponse, _error_of, timeout=timeout,
                    wait=self._options.max_poll_interval,
                )  # fmt: skip
                core.on_join(joined)
            case Balance(topics=topics):
                await self._balance(topics, timeout)
            case Sync(request=request):
                synced = await self._joining.ask(
                    request, SyncGroupResponse, _error_of, timeout=timeout,
                    wait=self._options.max_poll_interval,
                )  # fmt: skip
                core.on_sync(synced)
            case Take():
                await self._take(step, timeout)
            case Fail(error=error):
                self._fail(error)
                self._stepped.set()
                return False
        return True

    async def _revoke(self, step: Revoke) -> None:
        core = self.core
        self.stable.clear()
        if step.partitions:
            await self._at_rest()
            if core.next_step() != step:
                return  # lost while the reader was away
            self.open.clear()
            try:
                if not step.lost:
                    await self._flush(self._cluster.options.request_timeout)
                    if core.next_step() != step:
                        return  # the commit told that it is lost
                if self._auto is not None:
                    self._auto.forget(step.partitions)
                hook = self._hooks.lost if step.lost else self._hooks.revoked
                await self._call(hook, step.partitions)
                for tp in step.partitions:
                    self._subscription.remove(tp)
            finally:
                self.open.set()
                self._changed()
        core.on_revoked(step)

    async def _balance(self, topics: Sequence[str], timeout: float) -> None:
        response = await self._cluster.metadata.fetch(topics, timeout=timeout)
        counts = {t.name: len(t.partitions) for t in response.topics if t.name is not None}
        self._balanced = {topic: counts.get(topic, 0) for topic in topics}
        self._cluster.metadata.want(topics)
        self.core.on_counts(counts)

    async def _take(self, step: Take, timeout: float) -> None:
        self._subscription.add(step.added, None)
        if step.added:
            if self._hooks.assigned is not None:
                await self._at_rest()
                self.open.clear()
            try:
                await self._call(self._hooks.assigned, step.added)
            finally:
                self.open.set()
            await self._find_positions(step.added, timeout)
        self._stats.rebalances += 1
        self.core.on_taken(step)
        self._changed()

    async def _find_positions(self, partitions: Sequence[TopicPartition], timeout: float) -> None:
        """Where the group stopped; where it never was, where ``offset_reset`` says."""
        states = self._subscription.states
        # The hook may have sought already.
        unset = [tp for tp in partitions if tp in states and states[tp].position == UNKNOWN]
        found: dict[TopicPartition, CommittedOffset] = {}
        while self._options.commit != "none" and unset:
            try:
                found = await self.committed(unset, timeout)
                break
            except PegelError as error:
                self._fail(error)
                if not error.retriable:
                    raise
                await asyncio.sleep(self._cluster.retry_pause(20))
        set_positions(self._subscription, self._options, unset, found, self._stop)

    async def _flush(self, timeout: float) -> None:
        if self._auto is None:
            return
        try:
            await self._auto.flush(timeout)
        except PegelError as error:
            _log.warning("%s", error)

    async def _at_rest(self) -> None:
        while not self._rest.is_set():
            await self._rest.wait()

    async def _call(self, hook: Hook | None, partitions: Sequence[TopicPartition]) -> None:
        """A hook that fails is the reader's to know; the member goes on."""
        if hook is None or not partitions:
            return
        try:
            result = hook(list(partitions))
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            self._fail(error)

    def _identity(self) -> Identity:
        core = self.core
        return Identity(
            core.options.group, core.generation, core.member_id, core.options.instance_id
        )

    def _publish(self) -> None:
        self.wants_rest = self.core.gives_back
        self._pulse.identity = self._identity() if self.core.beats else None

    def _woken(self) -> None:
        self._publish()
        self._wake.set()

    def _on_heartbeat(self, generation: int, code: ErrorCode | None) -> None:
        if code is not None:
            self.core.on_member_error(generation, code)
        elif generation == self.core.generation:
            reason = "its reader did not come back in time"
            _log.warning("group %r: this member left: %s", self.core.options.group, reason)
            self.core.on_left(reason)
        self._woken()

    def _on_metadata(self) -> None:
        """Whoever shared out the partitions has to do it again when there are others."""
        if not self.core.is_leader:
            return
        topics = self._cluster.metadata.view.topics
        for name, count in self._balanced.items():
            if name in topics and len(topics[name].partitions) != count:
                self.core.request_rejoin(f"topic {name!r} has another number of partitions")
                self._woken()
                return


def set_positions(
    subscription: Subscription,
    options: ConsumerOptions,
    partitions: Sequence[TopicPartition],
    found: Mapping[TopicPartition, CommittedOffset],
    stop: Callable[[PartitionState, PegelError], None],
) -> None:
    """Begin at the committed offsets, else by ``offset_reset``; where it is "none", stop."""
    for tp in partitions:
        state = subscription.states.get(tp)
        if state is None or state.position != UNKNOWN:
            continue
        committed = found.get(tp)
        if committed is not None:
            state.seek(committed.offset, committed.leader_epoch)
        elif options.offset_reset == "none":
            stop(state, NoOffsetError(
                f"group {options.group!r} has no offset for {tp}: seek it, or set offset_reset "
                "to earliest or latest"
            ))  # fmt: skip
        else:
            state.request_reset(EARLIEST if options.offset_reset == "earliest" else LATEST)


def _error_of(response: JoinGroupResponse | SyncGroupResponse) -> int:
    return response.error_code
