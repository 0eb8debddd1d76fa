"""AddRaftVoter (API 80), versions 0 and 1 (KIP-853).

Version 1 can answer before the new voters are committed. Flexible from version 0.
"""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import (
    Message,
    Struct,
    array,
    boolean,
    int16,
    int32,
    string,
    uint16,
    uuid_,
)


class Listener(Struct):
    name: str = string("0+")
    host: str = string("0+")
    port: int = uint16("0+")


class AddRaftVoterRequest(Message):
    api_key = ApiKey.ADD_RAFT_VOTER

    cluster_id: str | None = string("0+", None, nullable="0+")
    timeout_ms: int = int32("0+")
    voter_id: int = int32("0+")
    voter_directory_id: uuid.UUID = uuid_("0+")
    listeners: list[Listener] = array(Listener, "0+")
    ack_when_committed: bool = boolean("1+", True)


class AddRaftVoterResponse(Message):
    api_key = ApiKey.ADD_RAFT_VOTER

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")
