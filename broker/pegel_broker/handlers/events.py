"""DescribeEvents: the history of the cluster's metadata, from the active controller."""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.describe_events import (
    DescribedEvent,
    DescribeEventsRequest,
    DescribeEventsResponse,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import handles
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcError

WAIT_MS_MAX = 30_000
FORWARD_TIMEOUT = 5.0


@handles(ApiKey.DESCRIBE_EVENTS)
async def describe_events(request: Request) -> DescribeEventsResponse:
    message, broker = request.message, request.broker
    assert isinstance(message, DescribeEventsRequest)
    wait_ms = min(max(message.max_wait_ms, 0), WAIT_MS_MAX)
    asked = m.EventsRequest(message.after, message.topic, message.partition, message.limit, wait_ms)
    try:
        found = await broker.controllers.call("events", asked, wait_ms / 1000 + FORWARD_TIMEOUT)
    except RpcError as error:
        return DescribeEventsResponse(
            error_code=ErrorCode.REQUEST_TIMED_OUT,
            error_message=f"the active controller does not answer: {error}",
        )
    assert isinstance(found, m.EventsResponse)
    return DescribeEventsResponse(
        first=found.first,
        last=found.last,
        events=[
            DescribedEvent(
                sequence=e.sequence, metadata_index=e.index, at_ms=e.at_ms, kind=e.kind,
                broker_id=e.broker, topic=e.topic, partition=e.partition, reason=e.reason,
                detail=e.detail, leader=e.leader, old_leader=e.old_leader,
                leader_epoch=e.leader_epoch, isr=list(e.isr), old_isr=list(e.old_isr),
                eligible_leader_replicas=list(e.elr), replicas=list(e.replicas),
            )
            for e in found.events
        ],
    )  # fmt: skip
