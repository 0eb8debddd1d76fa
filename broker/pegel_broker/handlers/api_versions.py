"""ApiVersions: what this broker speaks.

A client may open with a version that is too new: the answer is then in version 0 and names what
is spoken (KIP-511). The client's name and version are checked from version 3 on.
"""

from __future__ import annotations

import functools
import re

from pegel.network.connection import CLIENT_NAME
from pegel.protocol.api_keys import FIRST_OWN_KEY, ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import advertised, handles

# KIP-511: what a client may call itself.
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


@handles(ApiKey.API_VERSIONS)
def api_versions(request: Request) -> ApiVersionsResponse:
    message = request.message
    assert isinstance(message, ApiVersionsRequest)
    if request.version >= 3 and not (
        _SOFTWARE.fullmatch(message.client_software_name)
        and _SOFTWARE.fullmatch(message.client_software_version)
    ):
        return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
    return spoken(ErrorCode.NONE, own=message.client_software_name == CLIENT_NAME)


# librdkafka before 2.10 takes a broker without Produce 0 for one that knows no compression. As in
# Kafka these versions are named and, if one is really sent, refused by closing the connection.
_NAMED_FROM = {ApiKey.PRODUCE: 0}


def spoken(error: ErrorCode, *, own: bool = False) -> ApiVersionsResponse:
    """Every API that has a handler, with its versions; ``own``: Pegel's client asks.

    Other clients are not told of keys that Kafka does not have: some index arrays by them.
    """
    return ApiVersionsResponse(error_code=error, api_keys=_spoken(own))


@functools.cache
def _spoken(own: bool) -> list[ApiVersion]:
    return [
        ApiVersion(
            api_key=key,
            min_version=_NAMED_FROM.get(info.key, info.min_version),
            max_version=info.max_version,
        )
        for key, info in sorted(advertised().items())
        if own or key < FIRST_OWN_KEY
    ]
