"""The pure controller: one method per RPC, each returns records and a response."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from random import Random
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel_controller.control import elections, handover, reassignment, replacement
from pegel_controller.control.brokers import BrokerControl, check_epoch
from pegel_controller.control.configs import plan_configs
from pegel_controller.control.credentials import plan_credentials
from pegel_controller.control.options import ControllerOptions, ControllerResult
from pegel_controller.control.recovery import Recoveries
from pegel_controller.control.tip import Tip
from pegel_controller.control.topics import (
    TopicError,
    by_folded_name,
    folded,
    plan_growth,
    plan_topic,
)
from pegel_controller.metadata import records as r
from pegel_controller.metadata.history import History
from pegel_controller.metadata.image import RESOURCE_BROKER, MetadataImage
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.credential_messages import (
    AlterCredentialsRequest,
    AlterCredentialsResponse,
)
from pegel_controller.rpc.reassignment_messages import AlterReassignmentsRequest
from pegel_controller.rpc.recovery_messages import ReportLogEndsRequest, ReportLogEndsResponse

T = TypeVar("T")
P = ParamSpec("P")
Handler = Callable[Concatenate["Controller", P], ControllerResult]


class NotActiveError(RuntimeError):
    """This controller does not lead: the caller must redirect."""


def _atomic(handler: Handler[P]) -> Handler[P]:
    """A handler that fails leaves the tip as it was: what it has applied will not be proposed."""

    @wraps(handler)
    def guarded(self: "Controller", /, *args: P.args, **kwargs: P.kwargs) -> ControllerResult:
        before = None if self._tip is None else self._tip.image
        try:
            return handler(self, *args, **kwargs)
        except Exception:
            if before is not None:
                self._tip = Tip(before, self.options.static_configs)
                self.brokers.on_failure(before)
            raise

    return guarded


class Controller:
    """Works on a speculative tip; each result is to be proposed as one entry, in order.

    Not active until `on_leadership`; `on_leadership_lost` drops the tip, as proposed
    records may never be committed.
    """

    def __init__(self, random: Random, options: ControllerOptions | None = None) -> None:
        self.options = options or ControllerOptions()
        self.committed = MetadataImage()
        self.history = History()
        self.brokers = BrokerControl(self.options)
        self.handovers = handover.Handovers()
        self.replacements = replacement.Replacements()
        self.recoveries = Recoveries(self.options.recovery_timeout)
        self._random = random
        self._tip: Tip | None = None
        self._next_balance = 0.0
        self._next_advance = 0.0

    @property
    def active(self) -> bool:
        return self._tip is not None

    @property
    def tip(self) -> Tip:
        """Raises `NotActiveError` while this controller does not lead."""
        if self._tip is None:
            raise NotActiveError("this controller is not the active one")
        return self._tip

    @_atomic
    def bootstrap(self, cluster_id: str) -> ControllerResult:
        """First entry of a new cluster: ELR on, with its cluster-wide min.insync.replicas."""
        return self._done(
            [
                r.ClusterIdRecord(cluster_id),
                r.FeatureRecord("eligible.leader.replicas.version", 1),
                r.ConfigRecord(RESOURCE_BROKER, "", "min.insync.replicas", "1"),
            ],
            None,
        )

    def on_leadership(self, now: float, image: MetadataImage) -> None:
        self.committed = image
        self._tip = Tip(image, self.options.static_configs)
        self.brokers.take_over(now, image)
        self.handovers.clear()
        self.replacements.clear()
        self.recoveries.clear()
        self._next_balance = now + self.options.balance_interval
        self._next_advance = now

    def on_leadership_lost(self) -> None:
        self._tip = None
        self.brokers.sessions = {}

    def replay(self, records: Sequence[r.Record], index: int) -> None:
        """A committed entry, on every controller, in order."""
        self.history.append(self.committed, records, index)
        self.committed = self.committed.apply(records, index)
        for record in records:
            self.brokers.replayed(record, index)

    def restore(self, image: MetadataImage, history: History) -> None:
        """A snapshot replaces the committed image and its history (never while active)."""
        assert self._tip is None
        self.committed, self.history = image, history

    def _done(self, records: list[r.Record], response: Wire | None) -> ControllerResult:
        self.tip.apply(records)
        return ControllerResult(tuple(records), response)

    @_atomic
    def note(self, record: r.Record) -> ControllerResult:
        """A record that this node's own shell wants committed."""
        return self._done([record], None)

    # -- brokers

    @_atomic
    def register_broker(self, now: float, request: m.RegisterBrokerRequest) -> ControllerResult:
        records, response = self.brokers.register(now, self.tip, request)
        return ControllerResult(tuple(records), response)

    @_atomic
    def heartbeat(self, now: float, request: m.HeartbeatRequest) -> ControllerResult:
        records, response = self.brokers.heartbeat(now, self.tip, self.committed, request)
        if len(self.handovers) and not response.error:
            asked = handover.wire(self.handovers.of(self.tip, request.broker_id))
            response = replace(response, hand_over=asked)
        if not response.error and (wanted := self.recoveries.wanted(self.tip, request.broker_id)):
            response = replace(response, ends_wanted=wanted)
        return ControllerResult(tuple(records), response)

    @_atomic
    def resign(self, now: float, request: m.ResignRequest) -> ControllerResult:
        """A live leader accepts no more writes: now another one may be elected."""
        error = check_epoch(self.tip, request.broker_id, request.broker_epoch)
        if error:
            return ControllerResult((), m.ResignResponse(error))
        known = self.tip.image.topics_by_id
        partitions = [
            ((topic_id, number), epoch)
            for topic_id, number, epoch in request.partitions
            if topic_id in known and 0 <= number < len(known[topic_id].partitions)
        ]
        records = self.handovers.resigned(self.tip, request.broker_id, partitions)
        for key, _ in partitions:
            records += reassignment.advance(self.tip, self.handovers, key)
        return ControllerResult(tuple(records), m.ResignResponse())

    def on_broker_connection_lost(self, now: float, broker_id: int) -> bool:
        """True: probe the broker's listener and report with `on_probe_result`."""
        session = self.brokers.sessions.get(broker_id)
        if self._tip is None or session is None:
            return False
        session.connection_lost = True
        return True

    @_atomic
    def on_probe_result(self, now: float, broker_id: int, refused: bool) -> ControllerResult:
        """Connection lost *and* refused: the process is dead, fence it now."""
        session = self.brokers.sessions.get(broker_id)
        broker = self.tip.image.brokers.get(broker_id)
        if not refused or session is None or not session.connection_lost or broker is None:
            return ControllerResult()
        del self.brokers.sessions[broker_id]
        if broker.fenced:
            return ControllerResult()
        return ControllerResult(tuple(self.brokers.fence(self.tip, broker_id, "killed")))

    def brokers_behind(self, index: int) -> list[int]:
        """Live brokers that have not applied `index`; a create answers when there are none."""
        return self.brokers.behind(self.tip, index)

    def on_metadata_applied(self, broker_id: int, index: int) -> None:
        """A broker says that it has applied everything up to there."""
        session = self.brokers.sessions.get(broker_id)
        if session is not None:
            session.applied_index = max(session.applied_index, index)

    @_atomic
    def unregister_broker(self, now: float, request: m.UnregisterBrokerRequest) -> ControllerResult:
        broker = self.tip.image.brokers.get(request.broker_id)
        if broker is None:
            message = f"Broker ID {request.broker_id} is not currently registered"
            code = ErrorCode.BROKER_ID_NOT_REGISTERED
            return ControllerResult((), m.UnregisterBrokerResponse(code, message))
        records: list[r.Record] = []
        if not broker.fenced:
            records += self.brokers.fence(self.tip, request.broker_id, "unregistered")
        gone = r.BrokerUnregisteredRecord(request.broker_id, broker.broker_epoch)
        self.tip.apply([gone])
        self.brokers.sessions.pop(request.broker_id, None)
        return ControllerResult((*records, gone), m.UnregisterBrokerResponse())

    @_atomic
    def update_offline_replicas(
        self, now: float, request: m.UpdateOfflineReplicasRequest
    ) -> ControllerResult:
        """Replicas whose log failed leave ISR and ELR at once."""
        error = check_epoch(self.tip, request.broker_id, request.broker_epoch)
        if error:
            return ControllerResult((), m.UpdateOfflineReplicasResponse(error))
        records = elections.offline_replicas(self.tip, request)
        return ControllerResult(tuple(records), m.UpdateOfflineReplicasResponse())

    # -- partitions

    @_atomic
    def report_log_ends(self, now: float, request: ReportLogEndsRequest) -> ControllerResult:
        """What replicas hold where nobody leads; the best may be elected now."""
        error = check_epoch(self.tip, request.broker_id, request.broker_epoch)
        if error:
            return ControllerResult((), ReportLogEndsResponse(error))
        records = self.recoveries.take(now, self.tip, request)
        return ControllerResult(tuple(records), ReportLogEndsResponse())

    @_atomic
    def alter_partition(self, now: float, request: m.AlterPartitionRequest) -> ControllerResult:
        error = check_epoch(self.tip, request.broker_id, request.broker_epoch)
        if error:
            return ControllerResult((), m.AlterPartitionResponse(error))
        records, results = elections.alter_partitions(self.tip, request, self.handovers)
        return ControllerResult(tuple(records), m.AlterPartitionResponse(partitions=tuple(results)))

    @_atomic
    def elect_leaders(self, now: float, request: m.ElectLeadersRequest) -> ControllerResult:
        records, response = elections.elect_leaders(
            self.tip, request, self.handovers, self.recoveries
        )
        return ControllerResult(tuple(records), response)

    @_atomic
    def alter_reassignments(
        self, now: float, request: AlterReassignmentsRequest
    ) -> ControllerResult:
        """Begin, change or cancel moves of replicas (KIP-455)."""
        records, response = reassignment.alter_all(self.tip, self.handovers, request)
        return ControllerResult(tuple(records), response)

    # -- topics and configs

    @_atomic
    def create_topics(self, now: float, request: m.CreateTopicsRequest) -> ControllerResult:
        room = self.options.partitions_per_request_max
        named = Counter(topic.name for topic in request.topics)
        taken = by_folded_name(self.tip.image)
        records: list[r.Record] = []
        results = []
        for topic in request.topics:
            try:
                if named[topic.name] > 1:
                    raise TopicError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
                topic_id, count, factor, made = plan_topic(
                    self.tip, topic, taken, room, self._random, self.options
                )
            except TopicError as e:
                result = m.CreateTopicResult(topic.name, error=e.code, message=e.message)
            else:
                room -= count
                shown = m.NO_UUID if request.validate_only else topic_id
                result = m.CreateTopicResult(topic.name, shown, 0, None, count, factor)
                if not request.validate_only:
                    records += made  # applied at once: each time costs a copy of all topics
                    taken[folded(topic.name)] = topic.name
            results.append(result)
        return self._done(records, m.CreateTopicsResponse(tuple(results)))

    @_atomic
    def delete_topics(self, now: float, request: m.DeleteTopicsRequest) -> ControllerResult:
        image = self.tip.image
        removed: dict[UUID, r.Record] = {}  # applied at once, as above
        results = []
        for item in request.topics:
            by_name = item.name is not None
            if item.name is not None:
                topic = image.topics_by_name.get(item.name)
            else:
                topic = image.topics_by_id.get(item.topic_id)
            if topic is None or topic.topic_id in removed:
                code = (
                    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if by_name else ErrorCode.UNKNOWN_TOPIC_ID
                )
                message = (
                    "This server does not host this topic-partition."
                    if by_name
                    else "This server does not host this topic ID."
                )
                results.append(m.DeleteTopicResult(item.name, item.topic_id, code, message))
                continue
            removed[topic.topic_id] = r.TopicRemovedRecord(topic.topic_id)
            results.append(m.DeleteTopicResult(topic.name, topic.topic_id))
        return self._done(list(removed.values()), m.DeleteTopicsResponse(tuple(results)))

    @_atomic
    def create_partitions(self, now: float, request: m.CreatePartitionsRequest) -> ControllerResult:
        room = self.options.partitions_per_request_max
        records: list[r.Record] = []
        results = []
        for topic in request.topics:
            made, error = _attempt(
                lambda t=topic, n=room: plan_growth(self.tip, t, n, self._random)  # type: ignore[misc]
            )
            if error is None and not request.validate_only:
                self.tip.apply(made or [])
                records += made or []
            room -= len(made or [])
            results.append(_topic_result(topic.name, error))
        return ControllerResult(tuple(records), m.CreatePartitionsResponse(tuple(results)))

    @_atomic
    def alter_configs(self, now: float, request: m.AlterConfigsRequest) -> ControllerResult:
        records: list[r.Record] = []
        results = []
        for resource in request.resources:
            code, message = 0, ""
            try:
                made = plan_configs(self.tip, resource, request.full)
            except TopicError as e:
                code, message = int(e.code), e.message
            else:
                if not request.validate_only:
                    before = self.tip.image
                    self.tip.apply(made)
                    records += [*made, *elections.adopt_minimum(self.tip, before, made)]
                    records += elections.elect_where_allowed(self.tip, made, self.recoveries)
            kind, name = resource.resource_type, resource.resource_name
            results.append(m.ConfigResourceResult(kind, name, code, message))
        return ControllerResult(tuple(records), m.AlterConfigsResponse(tuple(results)))

    @_atomic
    def alter_credentials(self, now: float, request: AlterCredentialsRequest) -> ControllerResult:
        records, results = plan_credentials(self.tip, request)
        return self._done(records, AlterCredentialsResponse(tuple(results)))

    @_atomic
    def allocate_producer_ids(
        self, now: float, request: m.AllocateProducerIdsRequest
    ) -> ControllerResult:
        error = check_epoch(self.tip, request.broker_id, request.broker_epoch)
        if error:
            return ControllerResult((), m.AllocateProducerIdsResponse(error))
        first, count = self.tip.image.next_producer_id, self.options.producer_id_block
        record = r.ProducerIdsRecord(request.broker_id, request.broker_epoch, first + count)
        return self._done([record], m.AllocateProducerIdsResponse(0, "", first, count))

    # -- time

    @_atomic
    def tick(self, now: float) -> ControllerResult:
        """Session expiry, recoveries, moves, replacements, and the balance of preferred leaders."""
        records = self.brokers.expire(now, self.tip)
        if now >= self._next_advance:
            self._next_advance = now + self.options.reassignment_check_interval
            records += self.recoveries.advance(now, self.tip)
            records += reassignment.advance_all(self.tip, self.handovers)
            records += self.replacements.plan(now, self.tip, self.handovers)
        if now >= self._next_balance:
            self._next_balance = now + self.options.balance_interval
            if elections.balances(self.tip):
                elections.balance(self.tip, self.options.balance_batch_max, self.handovers)
        return ControllerResult(tuple(records))

    def next_deadline(self) -> float | None:
        if self._tip is None:
            return None
        deadlines = [self._next_balance]
        session = self.brokers.next_deadline()
        if session is not None:
            deadlines.append(session)
        if self._tip.moving or self._tip.absent or self._tip.leaderless:
            deadlines.append(self._next_advance)
        return min(deadlines)


def _attempt(plan: Callable[[], T]) -> tuple[T | None, TopicError | None]:
    try:
        return plan(), None
    except TopicError as error:
        return None, error


def _topic_result(name: str, error: TopicError | None) -> m.TopicResult:
    return m.TopicResult(name) if error is None else m.TopicResult(name, error.code, error.message)
