"""LeaveGroup (API 13), versions 0 to 5.

Request:
- Version 1 and 2 are the same as version 0.
- Version 3 defines batch processing scheme with group.instance.id + member.id for identity.
- Version 4 is the first flexible version.
- Version 5 adds the Reason field (KIP-800).

Response:
- Version 1 adds the throttle time.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Starting in version 3, we will make leave group request into batch mode and add
  group.instance.id.
- Version 4 is the first flexible version.
- Version 5 is the same as version 4.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, string


class MemberIdentity(Struct):
    member_id: str = string("3+")
    group_instance_id: str | None = string("3+", None, nullable="3+")
    reason: str | None = string("5+", None, nullable="5+")


class LeaveGroupRequest(Message):
    api_key = ApiKey.LEAVE_GROUP

    group_id: str = string("0+")
    member_id: str = string("0-2")
    members: list[MemberIdentity] = array(MemberIdentity, "3+")


class MemberResponse(Struct):
    member_id: str = string("3+")
    group_instance_id: str | None = string("3+", nullable="3+")
    error_code: int = int16("3+")


class LeaveGroupResponse(Message):
    api_key = ApiKey.LEAVE_GROUP

    throttle_time_ms: int = int32("1+")
    error_code: int = int16("0+")
    members: list[MemberResponse] = array(MemberResponse, "3+")
