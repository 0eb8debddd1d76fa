"""Every API that is advertised answers in each of its versions, to the emptiest request."""

from __future__ import annotations

import pytest

import pegel_broker.handlers  # noqa: F401 (registers them)
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.codec import decode_response
from pegel.protocol.messages import REQUESTS, RESPONSES
from pegel.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from pegel_broker.handlers.registry import advertised
from tests.support.node import NodeUnderTest, run


@pytest.mark.parametrize("api_key", sorted(advertised()), ids=lambda k: ApiKey(k).name)
def test_each_version_is_answered(api_key: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        info = advertised()[api_key]
        for version in range(info.min_version, info.max_version + 1):
            client = await node.connect()
            sent = await client.send(REQUESTS[ApiKey(api_key)](), version)
            if api_key != ApiKey.PRODUCE:  # an empty one is acks=0
                frame = await client.frame()
                assert int.from_bytes(frame[:4], "big") == sent
                response = decode_response(RESPONSES[ApiKey(api_key)], version, frame)
                assert response.api_key == api_key
            # And it left the connection in order.
            answer = await client.ask(ApiVersionsRequest(), 0, ApiVersionsResponse)
            assert answer.error_code == 0
            client.close()

    run(main)
