"""RemoveRaftVoter (API 81), version 0 (KIP-853). Flexible from version 0."""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, int16, int32, string, uuid_


class RemoveRaftVoterRequest(Message):
    api_key = ApiKey.REMOVE_RAFT_VOTER

    cluster_id: str | None = string("0+", None, nullable="0+")
    voter_id: int = int32("0+")
    voter_directory_id: uuid.UUID = uuid_("0+")


class RemoveRaftVoterResponse(Message):
    api_key = ApiKey.REMOVE_RAFT_VOTER

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")
