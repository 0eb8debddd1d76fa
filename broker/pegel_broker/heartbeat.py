"""A broker's session with the active controller: registration, heartbeats, lease, metadata."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from pegel.logs import Event
from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel.seams.beat import next_beat
from pegel_controller.metadata import MetadataDelta, MetadataImage, decode_records, decode_snapshot
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel, ControllerUnavailableError
from pegel_controller.rpc.framing import RpcError, RpcRefusedError
from pegel_controller.rpc.recovery_messages import LogEnd, ReportLogEndsRequest, Wanted

_log = logging.getLogger("pegel.broker")

# While it waits to serve a broker asks often; a start-up should not wait for an interval.
EAGER_INTERVAL = 0.010
# While the controller asks for log ends: there may be more, or some logs do not stand still yet.
LOG_ENDS_INTERVAL = 0.050
REGISTER_TIMEOUT = 5.0
REGISTER_RETRY = 0.100
# A controller that does not answer within this time is taken for hung.
HEARTBEAT_TIMEOUT = 0.600
# A broker whose disk answers no write, or no read, for so long asks to be fenced, so that others
# lead: it can acknowledge nothing, or serve only what it has in memory. It keeps its session, and
# is back with the first answer.
DISK_STALL_MAX = 10.0
METADATA_WAIT_MS = 10_000
METADATA_TIMEOUT = 15.0


class BrokerSession:
    """Follows the metadata log and keeps the registration alive.

    ``on_metadata(delta, image)`` is called for every change, in order. ``on_lease(until)`` says
    how long (monotonic seconds) this broker may act as a leader; ``on_lost()`` that it may not,
    whatever it was told before: fenced, about to ask for that, or no longer registered.
    ``on_hand_over(partitions)`` stops writes to partitions that others are to lead, and returns
    all that wait for that. ``log_ends(wanted)`` says how far logs go that nobody appends to, of
    partitions that nobody leads. ``disk_stalled()`` says for how many seconds the disk has answered
    nothing; ``holds_back()`` whether the controller has yet to learn something before it may
    elect this broker. ``on_failed(reason)`` is called where the session cannot go on.
    """

    def __init__(
        self,
        world: World,
        channel: ControllerChannel,
        registration: m.RegisterBrokerRequest,
        interval: float,
        on_metadata: Callable[[MetadataDelta, MetadataImage], None],
        on_lease: Callable[[float], None],
        on_lost: Callable[[], None],
        on_hand_over: Callable[[tuple[m.HandOver, ...]], tuple[m.HandOver, ...]],
        disk_stalled: Callable[[], float] = lambda: 0.0,
        holds_back: Callable[[], bool] = lambda: False,
        arriving: Callable[[], bool] = lambda: False,
        log_ends: Callable[[tuple[Wanted, ...]], tuple[LogEnd, ...]] = lambda _wanted: (),
    ) -> None:
        self.image = MetadataImage()
        self.broker_epoch = -1
        self.fenced = True
        self.unfenced = asyncio.Event()
        self.caught_up = asyncio.Event()
        self._world = world
        self._channel = channel
        self._registration = registration
        self._interval = interval
        self._on_metadata = on_metadata
        self._on_lease = on_lease
        self._on_lost = on_lost
        self._on_hand_over = on_hand_over
        self._disk_stalled = disk_stalled
        self._holds_back = holds_back
        self._arriving = arriving
        self._log_ends = log_ends
        self._applied_index = self.image.index
        # What was fetched, and how far the log went when this session began to fetch.
        self._fetched = self.image
        self._history_end: int | None = None
        self._wants_shutdown = False
        # It has asked to be fenced and not yet heard that it is: a lease would be a mistake.
        self._yields = False
        self._may_leave = asyncio.Event()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.on_failed: Callable[[str], None] = lambda _reason: None

    @property
    def incarnation(self) -> uuid.UUID:
        return self._registration.incarnation

    @property
    def applied_index(self) -> int:
        """Up to where this broker serves what the metadata say: a create waits for that."""
        if not self._arriving():
            self._applied_index = self.image.index
        return self._applied_index

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._follow(), name="metadata"),
            asyncio.create_task(self._beat(), name="heartbeats"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A session with half of it gone looks alive and is not: it ends, and the node with it.

        What the metadata said may be taken in part. To go on would be to lead by roles that nobody
        gave, and to tell the controller that they are taken.
        """
        if task.cancelled() or (error := task.exception()) is None:
            return
        what = f"the task {task.get_name()} of this broker failed"
        _log.critical(what, exc_info=error)
        for other in self._tasks:
            other.cancel()
        self._on_lost()
        self.on_failed(f"{what}: {type(error).__name__}: {error}")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """Send a heartbeat now: a new controller does not know this broker yet."""
        self._wake.set()

    async def shut_down(self, timeout: float) -> bool:
        """Ask the controller to move every leader away; whether it has, in time."""
        self._wants_shutdown = True
        self.wake()
        try:
            async with asyncio.timeout(timeout):
                await self._may_leave.wait()
        except TimeoutError:
            return False
        return True

    # -- registration and heartbeats

    async def _beat(self) -> None:
        while True:
            self._wake.clear()
            try:
                if self.broker_epoch < 0:
                    await self._register()
                interval = await self._heartbeat()
            except RpcError as error:
                _log.info("no heartbeat: %s", error)
                interval = EAGER_INTERVAL * 5
            try:
                async with asyncio.timeout(interval):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _register(self) -> None:
        while True:
            try:
                response = await self._channel.call(
                    "register_broker", self._registration, REGISTER_TIMEOUT
                )
            except ControllerUnavailableError:
                self._channel.drop()  # it hangs: another may be active by now
                raise
            assert isinstance(response, m.RegisterBrokerResponse)
            if not response.error:
                self.broker_epoch = response.broker_epoch
                broker, epoch = self._registration.broker_id, response.broker_epoch
                _log.info(Event("registered", broker=broker, broker_epoch=epoch))
                return
            _log.info("not registered yet: %s", response.message)
            await asyncio.sleep(REGISTER_RETRY)

    async def _heartbeat(self) -> float:
        """One heartbeat; the time until the next."""
        sent_at = self._world.clock.monotonic()
        wants_fence = self._wants_fence()
        if wants_fence and not self.fenced:
            # Others are elected as soon as the controller reads this: no append may come after.
            self._yields = True
            self._on_lost()
        request = m.HeartbeatRequest(
            self._registration.broker_id, self.broker_epoch, self.applied_index,
            wants_fence=wants_fence, wants_shutdown=self._wants_shutdown,
        )  # fmt: skip
        try:
            response = await self._channel.call("heartbeat", request, HEARTBEAT_TIMEOUT)
        except ControllerUnavailableError:
            self._channel.drop()
            raise
        assert isinstance(response, m.HeartbeatResponse)
        if response.error in {ErrorCode.STALE_BROKER_EPOCH, ErrorCode.BROKER_ID_NOT_REGISTERED}:
            _log.warning("the registration is gone (error %d): registering again", response.error)
            self.broker_epoch = -1
            self._set_fenced(True)
            self._on_lost()
            return 0.0
        if response.should_shut_down:
            self._may_leave.set()
        if response.caught_up:
            self.caught_up.set()
        self._set_fenced(response.fenced)
        if response.lease_ms > 0 and not wants_fence:
            # The call may have been repeated: its first sending is the safe side.
            self._on_lease(sent_at + response.lease_ms / 1000)
        resigned = self._on_hand_over(response.hand_over)
        if resigned:
            resign = m.ResignRequest(self._registration.broker_id, self.broker_epoch, resigned)
            await self._channel.call("resign", resign, HEARTBEAT_TIMEOUT)
        if response.ends_wanted:
            await self._report_log_ends(response.ends_wanted)
            return LOG_ENDS_INTERVAL
        if wants_fence and not self._wants_shutdown:
            return self._until_next_beat()
        if self._wants_shutdown or (self.fenced and not self._may_leave.is_set()):
            return EAGER_INTERVAL
        return self._until_next_beat()

    async def _report_log_ends(self, wanted: tuple[Wanted, ...]) -> None:
        """Partitions wait for a leader: what cannot be answered yet is asked for again soon."""
        ends = self._log_ends(wanted)
        if ends:
            request = ReportLogEndsRequest(self._registration.broker_id, self.broker_epoch, ends)
            await self._channel.call("report_log_ends", request, HEARTBEAT_TIMEOUT)

    def _until_next_beat(self) -> float:
        now = self._world.clock.monotonic()
        return next_beat(now, self._interval) - now

    def _wants_fence(self) -> bool:
        """Whether this broker is not to lead: its disk hangs and somebody else could, or it is
        fenced and the controller does not yet know what it cannot lead.

        Once asked for, a fence is asked for until it is heard of, whatever the disk does: the
        request before may have been read, or may yet be.
        """
        if self._yields or (self.fenced and self._holds_back()):
            return True
        stalled = self._disk_stalled()
        if stalled < DISK_STALL_MAX:
            return False
        own = self._registration.broker_id
        others = any(b.eligible for i, b in self.image.brokers.items() if i != own)
        if others and not self.fenced:
            _log.warning("the disk has not answered for %.1f s: others are to lead", stalled)
        return others

    def _set_fenced(self, fenced: bool) -> None:
        if fenced != self.fenced:
            self.fenced = fenced
            broker = self._registration.broker_id
            _log.info(Event("fenced_here" if fenced else "unfenced_here", broker=broker))
        if fenced:
            self._yields = False
            self.unfenced.clear()
            self._on_lost()
        else:
            self.unfenced.set()

    # -- metadata

    async def _follow(self) -> None:
        while True:
            request = m.MetadataFetchRequest(
                self._registration.broker_id, self._fetched.index, METADATA_WAIT_MS,
                applied_index=self.applied_index,
            )  # fmt: skip
            try:
                response = await self._channel.call("metadata_fetch", request, METADATA_TIMEOUT)
            except ControllerUnavailableError:
                continue
            except (RpcError, RpcRefusedError) as error:
                _log.info("no metadata: %s", error)
                await asyncio.sleep(EAGER_INTERVAL)
                continue
            assert isinstance(response, m.MetadataFetchResponse)
            self._take(response)

    def _take(self, response: m.MetadataFetchResponse) -> None:
        new = self._fetched
        if response.snapshot is not None:
            new = decode_snapshot(response.snapshot)
        for entry in response.entries:
            if entry.index > new.index:
                new = new.apply(decode_records(entry.data), entry.index)
        self._fetched = new
        if self._history_end is None:
            self._history_end = response.commit_index
        old = self.image
        # The log's past is taken as a whole: in its midst, topics that this broker holds may not
        # exist yet, and their files would be taken for strays.
        if new is old or new.index < self._history_end or not self._knows_this_life(new):
            return
        self.image = new
        delta = MetadataDelta.between(old, new)
        self._on_metadata(delta, new)
        if self.fenced:
            self.wake()

    def _knows_this_life(self, image: MetadataImage) -> bool:
        """Whether the metadata speaks of this process, and not of one that ended before it.

        Until its registration is committed a restarted broker may be named as the leader of
        partitions that it led before. Taking that role with a log that lost its end would give
        the old leader epoch a new start, and later a truncation in the wrong place.
        """
        broker = image.brokers.get(self._registration.broker_id)
        return broker is not None and broker.incarnation == self._registration.incarnation
