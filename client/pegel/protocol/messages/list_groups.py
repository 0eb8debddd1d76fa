"""ListGroups (API 16), versions 0 to 5.

Request:
- Version 1 and 2 are the same as version 0.
- Version 3 is the first flexible version.
- Version 4 adds the StatesFilter field (KIP-518).
- Version 5 adds the TypesFilter field (KIP-848).

Response:
- Version 1 adds the throttle time.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Version 3 is the first flexible version.
- Version 4 adds the GroupState field (KIP-518).
- Version 5 adds the GroupType field (KIP-848).
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, string


class ListGroupsRequest(Message):
    api_key = ApiKey.LIST_GROUPS

    states_filter: list[str] = array("string", "4+")
    types_filter: list[str] = array("string", "5+")


class ListedGroup(Struct):
    group_id: str = string("0+")
    protocol_type: str = string("0+")
    group_state: str = string("4+")
    group_type: str = string("5+")


class ListGroupsResponse(Message):
    api_key = ApiKey.LIST_GROUPS

    throttle_time_ms: int = int32("1+")
    error_code: int = int16("0+")
    groups: list[ListedGroup] = array(ListedGroup, "0+")
