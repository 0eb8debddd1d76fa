"""Produce requests and their answers, as plain data; what an error code asks a producer to do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from enum import Enum

from pegel.cluster import Cluster
from pegel.config import ProducerOptions
from pegel.errors import DeliveryTimeoutError, PegelError, broker_error
from pegel.metadata import ClusterView
from pegel.network.connection import Connection
from pegel.network.pool import Endpoint
from pegel.producer.accumulator import PartitionQueue
from pegel.producer.batch import ProducerBatch
from pegel.producer.idempotence import NO_SEQUENCE, ProducerIdentity
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from pegel.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from pegel.protocol.schema import NULL_UUID
from pegel.record import Codec

# From this version on topics are named by their id.
_TOPIC_ID_VERSION = 13
# How long one broker is waited for at first where any can answer, as a multiple of a stall.
_FIRST_TURN = 4


class Verdict(Enum):
    """What to do with a batch."""

    DONE = "acknowledged"
    RETRY = "send it again"
    MOVED = "send it again, to the new leader"
    OUT_OF_ORDER = "a retry if an earlier batch is to blame, else a new epoch"
    NEW_EPOCH = "the broker lost or replaced this producer's state"
    TOO_LARGE = "split it"
    FAILED = "give up"


_VERDICTS = {
    ErrorCode.NONE: Verdict.DONE,
    # Written by an earlier attempt, so long ago that the broker forgot where.
    ErrorCode.DUPLICATE_SEQUENCE_NUMBER: Verdict.DONE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: Verdict.MOVED,
    ErrorCode.FENCED_LEADER_EPOCH: Verdict.MOVED,
    ErrorCode.LEADER_NOT_AVAILABLE: Verdict.MOVED,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: Verdict.MOVED,
    ErrorCode.UNKNOWN_TOPIC_ID: Verdict.MOVED,
    ErrorCode.INCONSISTENT_TOPIC_ID: Verdict.MOVED,
    ErrorCode.KAFKA_STORAGE_ERROR: Verdict.MOVED,
    ErrorCode.NETWORK_EXCEPTION: Verdict.MOVED,
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER: Verdict.OUT_OF_ORDER,
    ErrorCode.UNKNOWN_PRODUCER_ID: Verdict.NEW_EPOCH,
    ErrorCode.INVALID_PRODUCER_EPOCH: Verdict.NEW_EPOCH,
    ErrorCode.MESSAGE_TOO_LARGE: Verdict.TOO_LARGE,
    ErrorCode.RECORD_LIST_TOO_LARGE: Verdict.TOO_LARGE,
}


def verdict(code: ErrorCode, *, idempotent: bool) -> Verdict:
    """What ``code`` means for a batch."""
    found = _VERDICTS.get(code)
    if found is None:
        return Verdict.RETRY if code.retriable else Verdict.FAILED
    if not idempotent and found in {Verdict.OUT_OF_ORDER, Verdict.NEW_EPOCH}:
        return Verdict.FAILED
    return found


def expired(
    batch: ProducerBatch, options: ProducerOptions, last_error: PegelError | None
) -> DeliveryTimeoutError:
    """Why a batch that is past its deadline has failed."""
    may = "may have been written" if batch.sequence != NO_SEQUENCE else "was not acknowledged"
    reason = f"; last error: {last_error}" if last_error else ""
    return DeliveryTimeoutError(
        f"{batch.topic}-{batch.partition}: no acknowledgement in {options.delivery_timeout:.3g} s, "
        f"the record {may}{reason}"
    )


def encode_all(
    batches: Mapping[tuple[str, int], tuple[PartitionQueue, ProducerBatch]],
    codec: Codec,
    level: int | None,
) -> dict[tuple[str, int], PegelError]:
    """Compress and encode batches; those that cannot be, and why.

    None is expected: what no record can hold is refused by ``pegel.producer.checks``. One that
    is overlooked there fails its own batch, and neither its partition nor the producer.
    """
    failed: dict[tuple[str, int], PegelError] = {}
    for key, (_, batch) in batches.items():
        try:
            batch.encode(codec, level)
        except Exception as error:
            failed[key] = PegelError(
                f"{batch.topic}-{batch.partition}: {len(batch)} records cannot be encoded: "
                f"{type(error).__name__}: {error}",
                retriable=False,
            )
    return failed


class BrokerState:
    """The requests of one broker that are unanswered, and whether it may get more."""

    __slots__ = ("connecting", "endpoint", "in_flight", "not_before")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight: list[InFlight] = []
        self.connecting: asyncio.Task[None] | None = None
        self.not_before = 0.0  # a broker over its quota asked for a pause until then

    def keeps_what_others_lead(self, view: ClusterView) -> bool:
        """Whether a batch is unanswered here whose partition moved on to another leader since."""
        for sent in self.in_flight:
            for key, (queue, _) in sent.batches.items():
                known = view.partition(*key)
                if known is None or known.leader in {-1, self.endpoint.node_id}:
                    continue
                if known.leader_epoch > queue.tried_epoch:
                    return True
        return False


class InFlight:
    """One produce request that has left."""

    __slots__ = ("batches", "broker", "connection", "deadline", "done", "names", "sent_at")

    def __init__(
        self,
        broker: BrokerState,
        connection: Connection,
        batches: dict[tuple[str, int], tuple[PartitionQueue, ProducerBatch]],
        sent_at: float,
        deadline: float,
    ) -> None:
        self.broker, self.connection = broker, connection
        self.batches = batches
        self.names: dict[uuid.UUID, str] = {}
        self.sent_at, self.deadline = sent_at, deadline
        self.done = False

    def build(self, view: ClusterView, *, acks: int, timeout: float) -> tuple[ProduceRequest, int]:
        """The request of batches that are encoded, and its version.

        Raises:
            UnsupportedVersionError: the broker does not speak Produce, or not for this codec.
        """
        topics: dict[str, TopicProduceData] = {}
        names_are_enough = False
        for (name, partition), (queue, batch) in self.batches.items():
            leader = view.partition(name, partition)
            queue.tried_epoch = -1 if leader is None else leader.leader_epoch
            data = topics.get(name)
            if data is None:
                known = view.topics.get(name)
                topic_id = NULL_UUID if known is None else known.topic_id
                names_are_enough = names_are_enough or topic_id == NULL_UUID
                self.names[topic_id] = name
                data = TopicProduceData(name=name, topic_id=topic_id)
                topics[name] = data
            records = batch.encoded
            data.partition_data.append(PartitionProduceData(index=partition, records=records))
        highest = _TOPIC_ID_VERSION - 1 if names_are_enough else None
        version = self.connection.version_for(ApiKey.PRODUCE, highest)
        request = ProduceRequest(
            transactional_id=None,
            acks=acks,
            timeout_ms=int(timeout * 1000),
            topic_data=list(topics.values()),
        )
        return request, version

    def answers(self, response: ProduceResponse) -> dict[tuple[str, int], PartitionProduceResponse]:
        """The answers by topic and partition; a broker may leave some out."""
        found: dict[tuple[str, int], PartitionProduceResponse] = {}
        for topic in response.responses:
            name = topic.name or self.names.get(topic.topic_id, "")
            for answer in topic.partition_responses:
                found[name, answer.index] = answer
        return found


async def ask_identity(
    cluster: Cluster, on_error: Callable[[PegelError], None]
) -> ProducerIdentity:
    """A producer id and epoch from any broker, asked for until one gives it.

    A broker that hangs gets its turn only, for an id that is given to nobody costs nothing. Turns
    grow, so that a cluster that is slow to give one is waited for in the end.

    Raises:
        PegelError: one that is not retriable; the others are told to ``on_error``.
    """
    options, attempts = cluster.options, 0
    turn = _FIRST_TURN * options.stall
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
    while True:
        try:
            response = await cluster.ask_any(
                request,
                InitProducerIdResponse,
                timeout=min(turn * len(cluster.metadata.endpoints()), options.request_timeout),
                patience=turn,
            )
            if response.error_code:
                raise broker_error(response.error_code, "producer id")
            return ProducerIdentity(response.producer_id, response.producer_epoch)
        except PegelError as error:
            on_error(error)
            if not error.retriable:
                raise
        await asyncio.sleep(cluster.retry_pause(attempts))
        attempts += 1
        turn = min(2 * turn, options.request_timeout)
