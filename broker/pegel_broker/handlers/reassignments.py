"""AlterPartitionReassignments and ListPartitionReassignments (KIP-455), UnregisterBroker."""

from __future__ import annotations

from collections.abc import Sequence

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from pegel.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)
from pegel.protocol.messages.unregister_broker import (
    UnregisterBrokerRequest,
    UnregisterBrokerResponse,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import handles
from pegel_broker.handlers.topics import ask
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.reassignment_messages import (
    AlterReassignmentsRequest,
    AlterReassignmentsResponse,
    ReassignablePartition,
)

UNREGISTER_TIMEOUT_MS = 30_000


@handles(ApiKey.ALTER_PARTITION_REASSIGNMENTS)
async def alter_reassignments(request: Request) -> AlterPartitionReassignmentsResponse:
    message = request.message
    assert isinstance(message, AlterPartitionReassignmentsRequest)
    allow = message.allow_replication_factor_change if request.version >= 1 else True
    wanted = tuple(
        ReassignablePartition(
            t.name, p.partition_index, None if p.replicas is None else tuple(p.replicas)
        )
        for t in message.topics
        for p in t.partitions
    )
    asked = AlterReassignmentsRequest(wanted, allow, message.timeout_ms)
    answer = await ask(
        request.broker, "alter_reassignments", asked, message.timeout_ms, AlterReassignmentsResponse
    )
    if isinstance(answer, ErrorCode):
        return AlterPartitionReassignmentsResponse(
            allow_replication_factor_change=allow, error_code=answer, error_message=answer.message
        )
    by_topic: dict[str, list[ReassignablePartitionResponse]] = {}
    for result in answer.partitions:
        by_topic.setdefault(result.topic, []).append(
            ReassignablePartitionResponse(
                partition_index=result.partition,
                error_code=result.error,
                error_message=result.message,
            )
        )
    return AlterPartitionReassignmentsResponse(
        allow_replication_factor_change=allow,
        responses=[
            ReassignableTopicResponse(name=topic, partitions=partitions)
            for topic, partitions in by_topic.items()
        ],
    )


@handles(ApiKey.LIST_PARTITION_REASSIGNMENTS)
def list_reassignments(request: Request) -> ListPartitionReassignmentsResponse:
    """From this broker's metadata: whoever began a move was answered once all had applied it."""
    message, image = request.message, request.broker.image
    assert isinstance(message, ListPartitionReassignmentsRequest)
    if message.topics is None:
        wanted: dict[str, Sequence[int]] = {
            name: range(len(t.partitions)) for name, t in image.topics_by_name.items()
        }
    else:
        wanted = {t.name: t.partition_indexes for t in message.topics}
    found = []
    for name in sorted(wanted):
        ongoing = [
            OngoingPartitionReassignment(
                partition_index=number,
                replicas=list(state.replicas),
                adding_replicas=list(state.adding),
                removing_replicas=list(state.removing),
            )
            for number in wanted[name]
            if (state := image.partition(name, number)) is not None and state.reassigning
        ]
        if ongoing:
            found.append(OngoingTopicReassignment(name=name, partitions=ongoing))
    return ListPartitionReassignmentsResponse(topics=found)


@handles(ApiKey.UNREGISTER_BROKER)
async def unregister_broker(request: Request) -> UnregisterBrokerResponse:
    message = request.message
    assert isinstance(message, UnregisterBrokerRequest)
    answer = await ask(
        request.broker, "unregister_broker", m.UnregisterBrokerRequest(message.broker_id),
        UNREGISTER_TIMEOUT_MS, m.UnregisterBrokerResponse,
    )  # fmt: skip
    if isinstance(answer, ErrorCode):
        return UnregisterBrokerResponse(error_code=answer, error_message=answer.message)
    return UnregisterBrokerResponse(
        error_code=answer.error, error_message=answer.message if answer.error else None
    )
