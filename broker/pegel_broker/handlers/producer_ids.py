"""InitProducerId: an identity for an idempotent producer (KIP-98, KIP-360).

A producer that lost track asks with its identity and gets the same id with the next epoch.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import handles
from pegel_controller.rpc.framing import RpcError


@handles(ApiKey.INIT_PRODUCER_ID)
async def init_producer_id(request: Request) -> InitProducerIdResponse:
    message = request.message
    assert isinstance(message, InitProducerIdRequest)
    if message.transactional_id is not None:
        # Transactions have no coordinator here yet; FindCoordinator is not advertised either.
        return InitProducerIdResponse(
            error_code=ErrorCode.INVALID_REQUEST, producer_id=-1, producer_epoch=-1
        )
    try:
        producer_id = await request.broker.producer_ids.next()
    except RpcError:
        return InitProducerIdResponse(
            error_code=ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, producer_id=-1, producer_epoch=-1
        )
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)
