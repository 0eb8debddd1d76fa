"""SaslHandshake and SaslAuthenticate: the log-in of a connection."""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from pegel.protocol.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from pegel_broker.handlers.context import Answer, Request
from pegel_broker.handlers.registry import handles


@handles(ApiKey.SASL_HANDSHAKE)
def sasl_handshake(request: Request) -> SaslHandshakeResponse:
    message = request.message
    assert isinstance(message, SaslHandshakeRequest)
    if request.session is None:
        return SaslHandshakeResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE)
    return request.session.shake(message.mechanism, request.version)


@handles(ApiKey.SASL_AUTHENTICATE)
def sasl_authenticate(request: Request) -> Answer:
    message = request.message
    assert isinstance(message, SaslAuthenticateRequest)
    if request.session is None:
        return SaslAuthenticateResponse(
            error_code=ErrorCode.ILLEGAL_SASL_STATE,
            error_message="this listener asks for no authentication",
        )
    return request.session.authenticate(bytes(message.auth_bytes))
