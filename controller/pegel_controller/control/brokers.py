"""Broker life cycle: register → fenced → unfenced → controlled shutdown → fenced."""

from dataclasses import dataclass

from pegel.protocol.errors import ErrorCode
from pegel_controller.control.options import ControllerOptions
from pegel_controller.control.tip import Tip
from pegel_controller.metadata.image import BrokerState, MetadataImage
from pegel_controller.metadata.records import (
    BrokerFencedRecord,
    BrokerRegisteredRecord,
    BrokerShutdownRequestedRecord,
    BrokerUnfencedRecord,
    Record,
)
from pegel_controller.rpc.messages import (
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterBrokerRequest,
    RegisterBrokerResponse,
)

NEVER = 2**62
LONG_AGO = 0.0  # of a monotonic clock


@dataclass(slots=True)
class Session:
    """Soft state of one broker; a new active controller starts it afresh.

    `serve_from_index`: Raft index of its registration or of its last fence, whichever came later:
    below it a broker may take itself for the leader of what others lead by now, so that it gets no
    lease. `shutdown_index`: that of its request to shut down. `unfenced_index`: that at which it
    was last unfenced; a wish to be fenced that knows less was on its way since before, and the
    broker has a lease by now. NEVER until committed.
    """

    deadline: float
    serve_from_index: int = NEVER
    shutdown_index: int = NEVER
    unfenced_index: int = NEVER
    applied_index: int = -1
    connection_lost: bool = False


class BrokerControl:
    """Decides on registrations, heartbeats and fencing."""

    def __init__(self, options: ControllerOptions) -> None:
        self.options = options
        self.sessions: dict[int, Session] = {}

    def take_over(self, now: float, image: MetadataImage) -> None:
        """Unfenced brokers get the grace; every lease an older controller gave ends in it."""
        self.sessions = {
            node_id: Session(
                now + self.options.takeover_grace,
                image.index,
                image.index if broker.shutting_down else NEVER,
                image.index,
            )
            for node_id, broker in sorted(image.brokers.items())
            if not broker.fenced
        }

    def on_failure(self, image: MetadataImage) -> None:
        """A handler failed, and `image` is the tip again: what was to be fenced will be, later.

        A broker that is not fenced always has a session: without one nobody would miss it.
        """
        for node_id, broker in sorted(image.brokers.items()):
            if not broker.fenced:
                self.sessions.setdefault(node_id, Session(LONG_AGO))

    def register(
        self, now: float, tip: Tip, request: RegisterBrokerRequest
    ) -> tuple[list[Record], RegisterBrokerResponse]:
        cluster_id = tip.image.cluster_id
        if request.cluster_id and request.cluster_id != cluster_id:
            return [], RegisterBrokerResponse(
                ErrorCode.INCONSISTENT_CLUSTER_ID,
                f"Expected cluster ID {cluster_id}, but got cluster ID {request.cluster_id}",
            )
        old = tip.image.brokers.get(request.broker_id)
        session = self.sessions.get(request.broker_id)
        records: list[Record] = []
        if old is not None:
            if old.incarnation == request.incarnation:
                if session is not None:
                    session.deadline = now + self.options.session_timeout
                    session.connection_lost = False
                    return [], RegisterBrokerResponse(0, "", old.broker_epoch, cluster_id)
            elif session is not None and now < session.deadline:
                return [], RegisterBrokerResponse(
                    ErrorCode.DUPLICATE_BROKER_REGISTRATION,
                    f"Another broker is registered with that broker id. If the broker "
                    f"{request.broker_id} was recently restarted this should self-resolve "
                    "once the heartbeat manager expires the broker's session.",
                )
            if not old.fenced:
                records += self.fence(tip, request.broker_id, "restarted")
            emptied = not set(old.log_dirs) <= set(request.log_dirs)
            if emptied or _lost_data(old, request):
                lost = tip.without(request.broker_id, "page cache lost", lost=True, emptied=emptied)
                tip.apply(lost)
                records += lost
        epoch = tip.image.last_broker_epoch + 1
        registered = BrokerRegisteredRecord(
            request.broker_id,
            epoch,
            request.incarnation,
            request.host,
            request.port,
            request.rack,
            request.boot_id,
            request.log_dirs,
            request.advertised_http_port,
        )
        tip.apply([registered])
        self.sessions[request.broker_id] = Session(now + self.options.session_timeout)
        return [*records, registered], RegisterBrokerResponse(0, "", epoch, cluster_id)

    def heartbeat(
        self, now: float, tip: Tip, committed: MetadataImage, request: HeartbeatRequest
    ) -> tuple[list[Record], HeartbeatResponse]:
        broker_id = request.broker_id
        error = check_epoch(tip, broker_id, request.broker_epoch)
        if error:
            return [], HeartbeatResponse(error)
        session = self.sessions.get(broker_id)
        if session is None:
            # A fenced broker. The fence may still be on its way into the log.
            known = committed.brokers.get(broker_id)
            fence_committed = known is not None and known.fenced
            session = Session(now, committed.index if fence_committed else NEVER)
            self.sessions[broker_id] = session
        session.deadline = now + self.options.session_timeout
        session.connection_lost = False
        session.applied_index = max(session.applied_index, request.applied_index)
        caught_up = request.applied_index >= session.serve_from_index
        broker = tip.image.brokers[broker_id]
        records: list[Record] = []
        done = False
        if request.wants_shutdown:
            records, done = self._shut_down(tip, broker_id)
        elif request.wants_fence and not broker.fenced:
            if request.applied_index >= session.unfenced_index:
                records = self.fence(tip, broker_id, "disk stalled")
        elif broker.fenced and not request.wants_fence and caught_up and not broker.shutting_down:
            session.unfenced_index = NEVER
            unfenced = BrokerUnfencedRecord(broker_id, broker.broker_epoch)
            tip.apply([unfenced])
            changes = tip.revive(broker_id)
            tip.apply(changes)
            records = [unfenced, *changes]
        fenced = tip.image.brokers[broker_id].fenced
        # No lease beyond a proposed fence: another leader may be on its way.
        lease_ms = 0 if fenced else int(self.options.lease * 1000)
        return records, HeartbeatResponse(0, "", caught_up, fenced, done, lease_ms)

    def _shut_down(self, tip: Tip, broker_id: int) -> tuple[list[Record], bool]:
        """Leaders move first; done once every live broker has applied that."""
        broker = tip.image.brokers[broker_id]
        if broker.fenced:
            return [], True
        if not broker.shutting_down:
            asked = BrokerShutdownRequestedRecord(broker_id, broker.broker_epoch)
            tip.apply([asked])
            changes = tip.without(broker_id, "shutdown")
            tip.apply(changes)
            return [asked, *changes], False
        if self.behind(tip, self.sessions[broker_id].shutdown_index):
            return [], False
        return self.fence(tip, broker_id, "shutdown"), True

    def behind(self, tip: Tip, index: int) -> list[int]:
        """Unfenced brokers that have not yet applied `index`."""
        return [
            node_id
            for node_id, broker in sorted(tip.image.brokers.items())
            if not broker.fenced
            and (node_id not in self.sessions or self.sessions[node_id].applied_index < index)
        ]

    def fence(self, tip: Tip, broker_id: int, reason: str) -> list[Record]:
        """Applies to the tip and returns: the fence and all changes that follow from it."""
        fenced = BrokerFencedRecord(broker_id, tip.image.brokers[broker_id].broker_epoch, reason)
        tip.apply([fenced])
        changes = tip.without(broker_id, reason)
        tip.apply(changes)
        session = self.sessions.get(broker_id)
        if session is not None:
            session.serve_from_index = NEVER
        return [fenced, *changes]

    def expire(self, now: float, tip: Tip) -> list[Record]:
        """Fences every broker whose session ran out."""
        records: list[Record] = []
        for broker_id in sorted(self.sessions):
            if now < self.sessions[broker_id].deadline:
                continue
            del self.sessions[broker_id]
            broker = tip.image.brokers.get(broker_id)
            if broker is not None and not broker.fenced:
                records += self.fence(tip, broker_id, "hung")
        return records

    def replayed(self, record: Record, index: int) -> None:
        """Notes at which index a registration, fence, unfencing or wish to leave was committed."""
        if (
            isinstance(record, BrokerRegisteredRecord | BrokerFencedRecord)
            and record.node_id in self.sessions
        ):
            self.sessions[record.node_id].serve_from_index = index
        elif isinstance(record, BrokerUnfencedRecord) and record.node_id in self.sessions:
            self.sessions[record.node_id].unfenced_index = index
        elif isinstance(record, BrokerShutdownRequestedRecord) and record.node_id in self.sessions:
            self.sessions[record.node_id].shutdown_index = index

    def applied_indexes(self) -> dict[int, int]:
        """The metadata index that each broker with a session has applied."""
        return {i: s.applied_index for i, s in sorted(self.sessions.items())}

    def next_deadline(self) -> float | None:
        return min((s.deadline for s in self.sessions.values()), default=None)


def check_epoch(tip: Tip, broker_id: int, broker_epoch: int) -> int:
    """0, BROKER_ID_NOT_REGISTERED or STALE_BROKER_EPOCH."""
    broker = tip.image.brokers.get(broker_id)
    if broker is None:
        return ErrorCode.BROKER_ID_NOT_REGISTERED
    return 0 if broker.broker_epoch == broker_epoch else ErrorCode.STALE_BROKER_EPOCH


def _lost_data(old: BrokerState, request: RegisterBrokerRequest) -> bool:
    """Acknowledged data may be gone: the host booted anew, and not after a clean end."""
    return not request.clean_shutdown and (not request.boot_id or request.boot_id != old.boot_id)
