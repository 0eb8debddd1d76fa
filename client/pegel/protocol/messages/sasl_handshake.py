"""SaslHandshake (API 17), versions 0 to 1.

Request:
- Version 1 supports SASL_AUTHENTICATE. NOTE: Version cannot be easily bumped due to incorrect
  client negotiation for clients <= 2.4. See https://issues.apache.org/jira/browse/KAFKA-9577.

Response:
- Version 1 is the same as version 0. NOTE: Version cannot be easily bumped due to incorrect
  client negotiation for clients <= 2.4. See https://issues.apache.org/jira/browse/KAFKA-9577.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, array, int16, string


class SaslHandshakeRequest(Message):
    api_key = ApiKey.SASL_HANDSHAKE

    mechanism: str = string("0+")


class SaslHandshakeResponse(Message):
    api_key = ApiKey.SASL_HANDSHAKE

    error_code: int = int16("0+")
    mechanisms: list[str] = array("string", "0+")
