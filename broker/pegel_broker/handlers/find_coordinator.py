"""FindCoordinator: which broker coordinates a group. Any broker answers.

The internal topic is created when it is first asked for. Version 4 asks for many keys at once.
"""

from __future__ import annotations

import asyncio
import logging

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from pegel.protocol.schema import Message
from pegel_broker.coordinator.kinds import KINDS, CoordinatorKind
from pegel_broker.coordinator.service import internal_topic
from pegel_broker.handlers.context import Answer, Broker, Request
from pegel_broker.handlers.registry import handles
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcError

_log = logging.getLogger("pegel.broker")

CREATE_TIMEOUT = 10.0
MAX_KEYS = 10_000


@handles(ApiKey.FIND_COORDINATOR)
def find_coordinator(request: Request) -> Answer:
    message, broker = request.message, request.broker
    assert isinstance(message, FindCoordinatorRequest)
    kind = KINDS.get(message.key_type)
    if kind is not None and kind.topic not in broker.image.topics_by_name:
        return _create_then_respond(request, message, kind)
    return _respond(request, message, kind)


async def _create_then_respond(
    request: Request, message: FindCoordinatorRequest, kind: CoordinatorKind
) -> Message:
    await ensure_topic(request.broker, kind.topic)
    return _respond(request, message, kind)


async def ensure_topic(broker: Broker, name: str) -> None:
    """Have an internal topic created; many may ask at the same time, one request is sent."""
    creating = broker.creating.get(name)
    if creating is None:
        creating = broker.creating[name] = asyncio.ensure_future(_create(broker, name))
        creating.add_done_callback(lambda _: broker.creating.pop(name))
    await asyncio.shield(creating)


async def _create(broker: Broker, name: str) -> None:
    topic = internal_topic(name, broker.image, broker.node_id, broker.static_configs)
    assert topic is not None
    asked = m.CreateTopicsRequest((topic,), False, int(CREATE_TIMEOUT * 1000))
    try:
        answer = await broker.controllers.call("create_topics", asked, CREATE_TIMEOUT)
    except RpcError as error:
        _log.warning("%s is not created yet: %s", name, error)
        return
    assert isinstance(answer, m.CreateTopicsResponse)
    for result in answer.topics:
        if result.error and result.error != ErrorCode.TOPIC_ALREADY_EXISTS:
            _log.warning("%s is not created: %s", name, result.message)


def _respond(
    request: Request, message: FindCoordinatorRequest, kind: CoordinatorKind | None
) -> FindCoordinatorResponse:
    broker, version = request.broker, request.version
    if version < 4:
        found = _find(broker, kind, message.key)
        return FindCoordinatorResponse(
            error_code=found.error_code,
            error_message=found.error_message,
            node_id=found.node_id,
            host=found.host,
            port=found.port,
        )
    keys = message.coordinator_keys[:MAX_KEYS]
    return FindCoordinatorResponse(coordinators=[_find(broker, kind, key) for key in keys])


def _find(broker: Broker, kind: CoordinatorKind | None, key: str) -> Coordinator:
    if kind is None:
        error, leader = ErrorCode.INVALID_REQUEST, -1
        why = "this release coordinates consumer groups (key type 0) only"
    else:
        error, leader = broker.coordinators.locate(kind, key)
        why = error.message
    if error:
        return Coordinator(
            key=key, node_id=-1, host="", port=-1, error_code=error, error_message=why
        )
    node = broker.image.brokers[leader]
    return Coordinator(
        key=key, node_id=leader, host=node.host, port=node.port, error_code=0, error_message=None
    )
