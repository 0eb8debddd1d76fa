"""The replica fetcher: follows every partition that one other broker leads, over one connection.

One round: ask for what changed since the last request (a fetch session), append what came, wait
until it is stable, ask again. A follower's fetch offset claims that it holds everything before,
so it never asks beyond what its own disk queue has confirmed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pegel.errors import ConnectionFailedError, PegelError
from pegel.logs import Event
from pegel.network.connection import Connection
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import (
    FetchRequest,
    FetchResponse,
    PartitionData,
    ReplicaState,
)
from pegel.protocol.schema import Message
from pegel_broker.log.errors import LogError
from pegel_broker.network.sasl import BrokerCredentials
from pegel_broker.replication.followed import Followed, Following, Key
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.partition import Follower
from pegel_broker.replication.throttle import CatchUpPace, Quickest, RateLimit

if TYPE_CHECKING:
    from pegel_broker.replication.manager import ReplicaManager

_log = logging.getLogger("pegel.broker")

CONNECT_TIMEOUT = 2.0
REQUEST_TIMEOUT = 10.0
BACK_OFF_MIN = 0.010
BACK_OFF_MAX = 0.500
# One partition's error: its leader and this broker do not agree yet.
PARTITION_BACK_OFF = 0.050
# Partitions that arrive together (a new topic, a failover) share one new session.
INTERRUPT_DELAY = 0.002
# The turn of a paced fetcher is not to be held by a leader that has nothing, or that hangs.
PACED_WAIT_MS = 20
PACED_REQUEST_TIMEOUT = 2.0
# A limit that is raised, or a move that is cancelled, is noticed after this long at most.
REST_MAX = 1.0
REST_MIN = 0.001


# None: nobody waits for it any longer.
_Answer = Message | ConnectionFailedError | None


@dataclass(frozen=True, slots=True)
class Paced:
    """What all paced fetchers of a broker share: KIP-73's limit, and whose turn it is.

    One works at a time, its rest included: a broker that takes replicas from many leaders must
    not keep all of them busy.
    """

    limit: RateLimit
    turn: asyncio.Lock
    pace: CatchUpPace
    # Log end offsets of all that they copy, summed up, and records that are still to come.
    standing: Callable[[], tuple[int, int]]


class ReplicaFetcher:
    """Follows partitions led by ``leader_id`` until ``close``.

    With ``paced`` it is for replicas that are behind by design, and that nobody waits for.
    """

    def __init__(self, manager: ReplicaManager, leader_id: int, paced: Paced | None = None) -> None:
        self.leader_id = leader_id
        self._manager = manager
        self._paced = paced
        self._quickest = Quickest()
        self._loop = asyncio.get_running_loop()
        self._followed = Followed(manager.options.fetch_max_bytes)
        # Appended to, and not yet known to be stable.
        self._appended: dict[Key, Following] = {}
        self._connection: Connection | None = None
        self._taken = 0
        self._round_began = 0.0
        self._answered_at = 0.0
        self._changed = asyncio.Event()  # there may be something to ask for
        self._answer: asyncio.Future[_Answer] | None = None  # of the request in flight
        self._may_wait = True  # the request in flight, at the leader
        self._interrupt_timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(
            self._run(), name=f"replica-fetcher-{leader_id}{'' if paced is None else '-paced'}"
        )

    def __len__(self) -> int:
        return len(self._followed.partitions)

    def add(self, hosted: HostedPartition) -> None:
        """Follow ``hosted`` in its current leader epoch."""
        key = (hosted.topic_id, hosted.core.partition)
        following = Following(hosted, hosted.core.state.epoch)
        self._followed.add(key, following)
        # What it has appended for another leader or fetcher may not be claimed before it is stable.
        self._appended[key] = following
        self._changed.set()
        self._on_change()
        truncation = hosted.log.truncation
        if truncation is not None:
            # For an earlier leader. The log end that is about to be cut off may not be claimed.
            following.truncating = True
            truncation.done.add_done_callback(lambda _: self._on_truncated(key, following))
        # The request in flight may wait for half a second: a new one has to take its place.
        self._interrupt_soon()

    def _interrupt_soon(self) -> None:
        if self._interrupt_timer is None:
            self._interrupt_timer = self._loop.call_later(
                INTERRUPT_DELAY, self._interrupt_if_unsent
            )

    def _interrupt_if_unsent(self) -> None:
        self._interrupt_timer = None
        if self._manager.arrivals:
            self._interrupt_soon()  # more is on its way: one new session for all of it
        elif self._followed.dirty and self._may_wait:
            self._give_up()

    def remove(self, hosted: HostedPartition) -> None:
        key = (hosted.topic_id, hosted.core.partition)
        if self._followed.remove(key):
            self._on_change()
            self._changed.set()

    def _on_change(self) -> None:
        if self._paced is not None:
            self._paced.pace.on_change()

    def on_stable(self, hosted: HostedPartition) -> None:
        """Everything appended to the follower's log may be claimed."""
        key = (hosted.topic_id, hosted.core.partition)
        if (
            key in self._followed.partitions
            and hosted.log.stable_offset == hosted.log.log_end_offset
        ):
            self._touch(key)

    async def close(self) -> None:
        self._task.cancel()
        if self._interrupt_timer is not None:
            self._interrupt_timer.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._disconnect()

    def _touch(self, key: Key) -> None:
        self._followed.dirty[key] = None
        self._changed.set()

    # -- rounds

    async def _run(self) -> None:
        back_off = BACK_OFF_MIN
        while True:
            await self._wait_for_work()
            try:
                connection = await self._connect()
                if self._unstable():
                    continue  # a partition came meanwhile
                if connection is not None:
                    if self._paced is None:
                        await self._round(connection)
                    else:
                        async with self._paced.turn:
                            await self._pay_off(self._paced.limit)
                            if not self._followed.partitions or self._unstable():
                                continue  # one went or came while this waited for its turn
                            await self._round(connection)
                            await self._rest(self._paced)
                    back_off = BACK_OFF_MIN
                    continue
            except (PegelError, OSError) as error:
                _log.debug("fetching from broker %d: %s", self.leader_id, error)
            except Exception:
                _log.exception("fetching from broker %d failed", self.leader_id)
            self._disconnect()
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, BACK_OFF_MAX)

    async def _wait_for_work(self) -> None:
        """Until a partition can be asked for, and none waits for its own disk."""
        while not self._followed.partitions or self._unstable():
            self._changed.clear()
            await self._changed.wait()
        self._changed.clear()

    def _unstable(self) -> list[Key]:
        """Partitions whose appends the disk has not confirmed: the next request claims them."""
        waiting = []
        for key, following in self._appended.items():
            log = following.hosted.log
            if (
                log.offline is None
                and not log.deleted
                and self._followed.partitions.get(key) is following
                and not following.truncating
                and log.stable_offset < log.log_end_offset
            ):
                waiting.append(key)
        if not waiting:
            self._appended.clear()
        return waiting

    async def _rest(self, paced: Paced) -> None:
        """After a round of a paced fetcher: its limit is KIP-73's where one is set."""
        now = self._manager.clock.monotonic()
        taken, self._taken = self._taken, 0
        limit, pace = paced.limit, paced.pace
        if limit.limited:
            limit.take(now, taken)
            await self._pay_off(limit)
        elif taken >= pace.slice_bytes // 2:
            took, held = now - self._round_began, now - self._answered_at
            if pace.review_due(now):
                pace.review(now, *paced.standing())
            quickest = self._quickest.of(now, took, pace.slice_bytes)
            await asyncio.sleep(pace.rest(took, quickest, held))
        # Else it has all there was: to join the ISR it has to stay close.

    async def _pay_off(self, limit: RateLimit) -> None:
        """Until what was taken beyond KIP-73's limit is paid for, by whichever fetcher it was.

        A batch is taken whole, so one round may owe minutes.
        """
        while self._followed.partitions:
            rest = limit.wait(self._manager.clock.monotonic())
            if rest <= 0:
                return
            await asyncio.sleep(min(max(rest, REST_MIN), REST_MAX))

    def standing(self) -> tuple[int, int]:
        """Log end offsets of what it follows, summed up, and records behind the leader."""
        logs = [(f.hosted.log.log_end_offset, f) for f in self._followed.partitions.values()]
        lag = sum(max(0, f.leader_high_watermark - end) for end, f in logs)
        return sum(end for end, _ in logs), lag

    async def _connect(self) -> Connection | None:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self._disconnect()
        broker = self._manager.image.brokers.get(self.leader_id)
        if broker is None:
            return None
        manager = self._manager
        self._connection = await Connection.open(
            manager.world.network, manager.world.clock, broker.host, broker.port,
            client_id=f"broker-{manager.node_id}-fetcher", timeout=CONNECT_TIMEOUT,
            credentials=BrokerCredentials.of(manager.image),
        )  # fmt: skip
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._followed.reset()

    async def _round(self, connection: Connection) -> None:
        """One request and its response."""
        self._round_began = self._manager.clock.monotonic()
        # One future for the answer, its failure, the time-out and whoever interrupts: a task that
        # waits for several would be the most expensive part of a round.
        answer = self._answer = self._loop.create_future()
        patience = REQUEST_TIMEOUT if self._paced is None else PACED_REQUEST_TIMEOUT
        timer = self._loop.call_later(patience, self._give_up)
        try:
            connection.send_to(partial(_settle, answer), self._build())
            response = await answer
        finally:
            timer.cancel()
            self._answer = None
        if response is None:
            # Interrupted, or the leader hangs. Responses come in order, so a new connection.
            self._disconnect()
            return
        if isinstance(response, ConnectionFailedError):
            raise response
        self._answered_at = self._manager.clock.monotonic()
        assert isinstance(response, FetchResponse)
        if response.error_code:
            _log.debug("fetch session of broker %d: error %d", self.leader_id, response.error_code)
            self._followed.reset()
            return
        self._followed.on_answered(response.session_id)
        for topic in response.responses:
            for data in topic.partitions:
                key = (topic.topic_id, data.partition_index)
                following = self._followed.partitions.get(key)
                if following is not None:
                    self._take(key, following, data)

    def _give_up(self) -> None:
        """Wait no longer for the request in flight."""
        if self._answer is not None:
            _settle(self._answer, None)

    def _build(self) -> FetchRequest:
        options, manager, paced = self._manager.options, self._manager, self._paced
        topics, forgotten = self._followed.take()
        wait = options.fetch_wait_max_ms if paced is None else PACED_WAIT_MS
        # Not before all is named: until then requests follow one another, and none is given up for
        # what the next one says anyway.
        self._may_wait = not self._followed.dirty
        return FetchRequest(
            replica_state=ReplicaState(
                replica_id=manager.node_id, replica_epoch=manager.broker_epoch()
            ),
            max_wait_ms=wait if self._may_wait else 0,
            min_bytes=1,
            max_bytes=options.fetch_response_max_bytes if paced is None else paced.pace.slice_bytes,
            session_id=self._followed.session_id,
            session_epoch=self._followed.session_epoch,
            topics=topics,
            forgotten_topics_data=forgotten,
        )

    # -- one partition of a response

    def _take(self, key: Key, following: Following, data: PartitionData) -> None:
        hosted = following.hosted
        state = hosted.core.state
        if (
            not isinstance(state, Follower)
            or state.epoch != following.epoch
            or following.truncating
            or following.asked is None
            or following.asked[0] != hosted.log.log_end_offset
        ):
            return  # asked before something changed: it is asked again
        try:
            if data.error_code:
                self._on_error(key, following, data)
            elif data.diverging_epoch.epoch >= 0:
                offset = self._truncation_offset(hosted, data)
                self._truncate(key, following, offset, restart=False)
            else:
                self._append(key, following, data)
        except LogError as error:
            _log.warning("following %s-%d: %s", *hosted.key, error)
            self._delay(key, following)

    def _append(self, key: Key, following: Following, data: PartitionData) -> None:
        hosted = following.hosted
        log = hosted.log
        records = data.records
        if records is not None:
            assert isinstance(records, memoryview)
            if len(records):
                appended = log.append_as_follower(records)
                self._taken += appended.bytes
                self._manager.stats.received_bytes += appended.bytes
                self._appended[key] = following
                self._touch(key)
        following.leader_high_watermark = data.high_watermark
        high_watermark = min(data.high_watermark, log.log_end_offset)
        if high_watermark > hosted.core.high_watermark:
            hosted.core.high_watermark = high_watermark
            hosted.on_high_watermark()
        if self._paced is not None and log.log_end_offset >= data.high_watermark:
            # It will join the ISR with its next fetch: from then on writes wait for it.
            self._manager.on_caught_up(hosted)
        if data.log_start_offset > log.log_start_offset:
            log.delete_records_before(min(data.log_start_offset, hosted.core.high_watermark))
            self._touch(key)  # whoever deletes records waits to be told (KIP-107)

    def _on_error(self, key: Key, following: Following, data: PartitionData) -> None:
        hosted = following.hosted
        if data.error_code == ErrorCode.OFFSET_OUT_OF_RANGE and data.log_start_offset >= 0:
            # Retention at the leader has overtaken this replica: nothing here is of use.
            _log.info(Event(
                "restarted", partition=hosted.name, epoch=following.epoch,
                offset=data.log_start_offset, reason="the leader has deleted what follows here",
            ))  # fmt: skip
            self._truncate(key, following, data.log_start_offset, restart=True)
            return
        _log.debug("following %s-%d: error %d", *hosted.key, data.error_code)
        self._delay(key, following)

    def _delay(self, key: Key, following: Following) -> None:
        """Ask again a little later; the metadata may tell more until then."""
        following.delayed = True
        self._touch(key)

        def again() -> None:
            following.delayed = False
            if self._followed.partitions.get(key) is following:
                self._touch(key)
                self._interrupt_if_unsent()

        self._loop.call_later(PARTITION_BACK_OFF, again)

    def _truncation_offset(self, hosted: HostedPartition, data: PartitionData) -> int:
        """Where the two logs part, as far as one answer tells; the next round may go further."""
        epoch, end = data.diverging_epoch.epoch, data.diverging_epoch.end_offset
        own_epoch, own_end = hosted.log.end_offset_for_epoch(epoch)
        if own_epoch < 0:
            return min(end, hosted.log.log_end_offset)
        return min(end, own_end)

    def _truncate(self, key: Key, following: Following, offset: int, *, restart: bool) -> None:
        hosted = following.hosted
        log, core = hosted.log, hosted.core
        if not restart and offset < core.high_watermark:
            # Only an unclean election may lose what was committed.
            self._manager.stats.high_watermark_backwards += 1
            _log.warning(Event(
                "truncated_committed", partition=hosted.name, epoch=core.state.epoch,
                offset=offset, high_watermark=core.high_watermark,
            ))  # fmt: skip
        following.truncating = True
        self._touch(key)
        before = log.log_end_offset
        done = log.truncate_fully_and_start_at(offset) if restart else log.truncate_to(offset)

        def finished(future: asyncio.Future[None]) -> None:
            self._on_truncated(key, following)
            error = None if future.cancelled() else future.exception()
            if error is not None:
                _log.warning("truncating %s-%d: %s", *hosted.key, error)
                return
            hosted.on_truncated(before, restarted=restart)

        done.add_done_callback(finished)

    def _on_truncated(self, key: Key, following: Following) -> None:
        following.truncating = False
        if self._followed.partitions.get(key) is following:
            self._touch(key)
            self._interrupt_if_unsent()


def _settle(answer: asyncio.Future[_Answer], outcome: _Answer) -> None:
    """The first word counts: an answer, a failure, or that nobody waits any longer."""
    if not answer.done():
        answer.set_result(outcome)
