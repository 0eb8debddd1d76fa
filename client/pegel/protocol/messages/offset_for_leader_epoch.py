"""OffsetForLeaderEpoch (API 23), versions 2 to 4.

Request:
- Version 1 is the same as version 0.
- Version 2 adds the current leader epoch to support fencing.
- Version 3 adds ReplicaId (the default is -2 which conventionally represents a "debug" consumer
  which is allowed to see offsets beyond the high watermark). Followers will use this replicaId
  when using an older version of the protocol.
- Version 4 enables flexible versions.

Response:
- Version 1 added the leader epoch to the response.
- Version 2 added the throttle time.
- Version 3 is the same as version 2.
- Version 4 enables flexible versions.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, int64, string


class OffsetForLeaderPartition(Struct):
    partition: int = int32("0+")
    current_leader_epoch: int = int32("2+", -1)
    leader_epoch: int = int32("0+")


class OffsetForLeaderTopic(Struct):
    topic: str = string("0+")
    partitions: list[OffsetForLeaderPartition] = array(OffsetForLeaderPartition, "0+")


class OffsetForLeaderEpochRequest(Message):
    api_key = ApiKey.OFFSET_FOR_LEADER_EPOCH

    replica_id: int = int32("3+", -2)
    topics: list[OffsetForLeaderTopic] = array(OffsetForLeaderTopic, "0+")


class EpochEndOffset(Struct):
    error_code: int = int16("0+")
    partition: int = int32("0+")
    leader_epoch: int = int32("1+", -1)
    end_offset: int = int64("0+", -1)


class OffsetForLeaderTopicResult(Struct):
    topic: str = string("0+")
    partitions: list[EpochEndOffset] = array(EpochEndOffset, "0+")


class OffsetForLeaderEpochResponse(Message):
    api_key = ApiKey.OFFSET_FOR_LEADER_EPOCH

    throttle_time_ms: int = int32("2+")
    topics: list[OffsetForLeaderTopicResult] = array(OffsetForLeaderTopicResult, "0+")
