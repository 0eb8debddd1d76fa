"""DescribeGroups (API 15), versions 0 to 5.

Request:
- Versions 1 and 2 are the same as version 0.
- Starting in version 3, authorized operations can be requested.
- Starting in version 4, the response will include group.instance.id info for members.
- Version 5 is the first flexible version.

Response:
- Version 1 added throttle time.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Starting in version 3, brokers can send authorized operations.
- Starting in version 4, the response will optionally include group.instance.id info for
  members.
- Version 5 is the first flexible version.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, bytes_, int16, int32, string


class DescribeGroupsRequest(Message):
    api_key = ApiKey.DESCRIBE_GROUPS

    groups: list[str] = array("string", "0+")
    include_authorized_operations: bool = boolean("3+")


class DescribedGroupMember(Struct):
    member_id: str = string("0+")
    group_instance_id: str | None = string("4+", None, nullable="4+")
    client_id: str = string("0+")
    client_host: str = string("0+")
    member_metadata: bytes = bytes_("0+")
    member_assignment: bytes = bytes_("0+")


class DescribedGroup(Struct):
    error_code: int = int16("0+")
    group_id: str = string("0+")
    group_state: str = string("0+")
    protocol_type: str = string("0+")
    protocol_data: str = string("0+")
    members: list[DescribedGroupMember] = array(DescribedGroupMember, "0+")
    authorized_operations: int = int32("3+", -2147483648)


class DescribeGroupsResponse(Message):
    api_key = ApiKey.DESCRIBE_GROUPS

    throttle_time_ms: int = int32("1+")
    groups: list[DescribedGroup] = array(DescribedGroup, "0+")
