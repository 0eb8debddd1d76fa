"""OffsetCommit (API 8), versions 2 to 9.

Request:
- Version 1 adds timestamp and group membership information, as well as the commit timestamp.
- Version 2 adds retention time.  It removes the commit timestamp added in version 1.
- Version 3 and 4 are the same as version 2.
- Version 5 removes the retention time, which is now controlled only by a broker configuration.
- Version 6 adds the leader epoch for fencing.
- Version 8 is the first flexible version.
- Version 9 is the first version that can be used with the new consumer group protocol
  (KIP-848). The request is the same as version 8.

Response:
- Versions 1 and 2 are the same as version 0.
- Version 3 adds the throttle time to the response.
- Starting in version 4, on quota violation, brokers send out responses before throttling.
- Versions 5 and 6 are the same as version 4.
- Version 7 offsetCommitRequest supports a new field called groupInstanceId to indicate member
  identity across restarts.
- Version 8 is the first flexible version.
- Version 9 is the first version that can be used with the new consumer group protocol
  (KIP-848). The response is the same as version 8 but can return STALE_MEMBER_EPOCH when the
  new consumer group protocol is used and GROUP_ID_NOT_FOUND when the group does not exist for
  both protocols.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, int64, string


class OffsetCommitRequestPartition(Struct):
    partition_index: int = int32("0+")
    committed_offset: int = int64("0+")
    committed_leader_epoch: int = int32("6+", -1)
    commit_timestamp: int = int64("1", -1)
    committed_metadata: str | None = string("0+", nullable="0+")


class OffsetCommitRequestTopic(Struct):
    name: str = string("0-9")
    partitions: list[OffsetCommitRequestPartition] = array(OffsetCommitRequestPartition, "0+")


class OffsetCommitRequest(Message):
    api_key = ApiKey.OFFSET_COMMIT

    group_id: str = string("0+")
    generation_id_or_member_epoch: int = int32("1+", -1)
    member_id: str = string("1+")
    group_instance_id: str | None = string("7+", None, nullable="7+")
    retention_time_ms: int = int64("2-4", -1)
    topics: list[OffsetCommitRequestTopic] = array(OffsetCommitRequestTopic, "0+")


class OffsetCommitResponsePartition(Struct):
    partition_index: int = int32("0+")
    error_code: int = int16("0+")


class OffsetCommitResponseTopic(Struct):
    name: str = string("0-9")
    partitions: list[OffsetCommitResponsePartition] = array(OffsetCommitResponsePartition, "0+")


class OffsetCommitResponse(Message):
    api_key = ApiKey.OFFSET_COMMIT

    throttle_time_ms: int = int32("3+")
    topics: list[OffsetCommitResponseTopic] = array(OffsetCommitResponseTopic, "0+")
