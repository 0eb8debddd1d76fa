"""Heartbeat (API 12), versions 0 to 4.

Request:
- Version 1 and version 2 are the same as version 0.
- Version 4 is the first flexible version.

Response:
- Version 1 adds throttle time.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Version 4 is the first flexible version.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, int16, int32, string


class HeartbeatRequest(Message):
    api_key = ApiKey.HEARTBEAT

    group_id: str = string("0+")
    generation_id: int = int32("0+")
    member_id: str = string("0+")
    group_instance_id: str | None = string("3+", None, nullable="3+")


class HeartbeatResponse(Message):
    api_key = ApiKey.HEARTBEAT

    throttle_time_ms: int = int32("1+")
    error_code: int = int16("0+")
