"""DeleteGroups (API 42), versions 0 to 2.

Request:
- Version 1 is the same as version 0.
- Version 2 is the first flexible version.

Response:
- Starting in version 1, on quota violation, brokers send out responses before throttling.
- Version 2 is the first flexible version.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, string


class DeleteGroupsRequest(Message):
    api_key = ApiKey.DELETE_GROUPS

    groups_names: list[str] = array("string", "0+")


class DeletableGroupResult(Struct):
    group_id: str = string("0+")
    error_code: int = int16("0+")


class DeleteGroupsResponse(Message):
    api_key = ApiKey.DELETE_GROUPS

    throttle_time_ms: int = int32("0+")
    results: list[DeletableGroupResult] = array(DeletableGroupResult, "0+")
