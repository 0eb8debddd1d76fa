"""JoinGroup (API 11), versions 0 to 9.

Request:
- Version 1 adds RebalanceTimeoutMs. Version 2 and 3 are the same as version 1.
- Version 6 is the first flexible version.
- Version 7 is the same as version 6.
- Version 8 adds the Reason field (KIP-800).
- Version 9 is the same as version 8.

Response:
- Version 1 is the same as version 0.
- Version 2 adds throttle time.
- Starting in version 3, on quota violation, brokers send out responses before throttling.
- Starting in version 4, the client needs to issue a second request to join group with assigned
  id.
- Version 5 is bumped to apply group.instance.id to identify member across restarts.
- Version 6 is the first flexible version.
- Version 8 is the same as version 7.
- Version 9 adds the SkipAssignment field.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, bytes_, int16, int32, string


class JoinGroupRequestProtocol(Struct):
    name: str = string("0+")
    metadata: bytes = bytes_("0+")


class JoinGroupRequest(Message):
    api_key = ApiKey.JOIN_GROUP

    group_id: str = string("0+")
    session_timeout_ms: int = int32("0+")
    rebalance_timeout_ms: int = int32("1+", -1)
    member_id: str = string("0+")
    group_instance_id: str | None = string("5+", None, nullable="5+")
    protocol_type: str = string("0+")
    protocols: list[JoinGroupRequestProtocol] = array(JoinGroupRequestProtocol, "0+")
    reason: str | None = string("8+", None, nullable="8+")


class JoinGroupResponseMember(Struct):
    member_id: str = string("0+")
    group_instance_id: str | None = string("5+", None, nullable="5+")
    metadata: bytes = bytes_("0+")


class JoinGroupResponse(Message):
    api_key = ApiKey.JOIN_GROUP

    throttle_time_ms: int = int32("2+")
    error_code: int = int16("0+")
    generation_id: int = int32("0+", -1)
    protocol_type: str | None = string("7+", None, nullable="7+")
    protocol_name: str | None = string("0+", nullable="7+")
    leader: str = string("0+")
    skip_assignment: bool = boolean("9+")
    member_id: str = string("0+")
    members: list[JoinGroupResponseMember] = array(JoinGroupResponseMember, "0+")
