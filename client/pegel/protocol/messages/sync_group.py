"""SyncGroup (API 14), versions 0 to 5.

Request:
- Versions 1 and 2 are the same as version 0.
- Version 4 is the first flexible version.

Response:
- Version 1 adds throttle time.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Version 4 is the first flexible version.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, bytes_, int16, int32, string


class SyncGroupRequestAssignment(Struct):
    member_id: str = string("0+")
    assignment: bytes = bytes_("0+")


class SyncGroupRequest(Message):
    api_key = ApiKey.SYNC_GROUP

    group_id: str = string("0+")
    generation_id: int = int32("0+")
    member_id: str = string("0+")
    group_instance_id: str | None = string("3+", None, nullable="3+")
    protocol_type: str | None = string("5+", None, nullable="5+")
    protocol_name: str | None = string("5+", None, nullable="5+")
    assignments: list[SyncGroupRequestAssignment] = array(SyncGroupRequestAssignment, "0+")


class SyncGroupResponse(Message):
    api_key = ApiKey.SYNC_GROUP

    throttle_time_ms: int = int32("1+")
    error_code: int = int16("0+")
    protocol_type: str | None = string("5+", None, nullable="5+")
    protocol_name: str | None = string("5+", None, nullable="5+")
    assignment: bytes = bytes_("0+")
