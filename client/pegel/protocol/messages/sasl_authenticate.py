"""SaslAuthenticate (API 36), versions 0 to 2.

Request:
- Version 1 is the same as version 0.
- Version 2 adds flexible version support.

Response:
- Version 1 adds the session lifetime.
- Version 2 adds flexible version support.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, bytes_, int16, int64, string


class SaslAuthenticateRequest(Message):
    api_key = ApiKey.SASL_AUTHENTICATE

    auth_bytes: bytes = bytes_("0+", secret=True)


class SaslAuthenticateResponse(Message):
    api_key = ApiKey.SASL_AUTHENTICATE

    error_code: int = int16("0+")
    error_message: str | None = string("0+", nullable="0+")
    auth_bytes: bytes = bytes_("0+", secret=True)
    session_lifetime_ms: int = int64("1+")
