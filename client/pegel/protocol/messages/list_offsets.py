"""ListOffsets (API 2), versions 1 to 10.

Request:
- Version 1 removes MaxNumOffsets.  From this version forward, only a single offset can be
  returned.
- Version 2 adds the isolation level, which is used for transactional reads.
- Version 3 is the same as version 2.
- Version 4 adds the current leader epoch, which is used for fencing.
- Version 5 is the same as version 4.
- Version 6 enables flexible versions.
- Version 7 enables listing offsets by max timestamp (KIP-734).
- Version 8 enables listing offsets by local log start offset (KIP-405).
- Version 9 enables listing offsets by last tiered offset (KIP-1005).
- Version 10 enables async remote list offsets support (KIP-1075).

Response:
- Version 1 removes the offsets array in favor of returning a single offset.
- Version 1 also adds the timestamp associated with the returned offset.
- Version 2 adds the throttle time.
- Starting in version 3, on quota violation, brokers send out responses before throttling.
- Version 4 adds the leader epoch, which is used for fencing.
- Version 5 adds a new error code, OFFSET_NOT_AVAILABLE.
- Version 6 enables flexible versions.
- Version 7 is the same as version 6 (KIP-734).
- Version 8 enables listing offsets by local log start offset. This is the earliest log start
  offset in the local log. (KIP-405).
- Version 9 enables listing offsets by last tiered offset (KIP-1005).
- Version 10 enables async remote list offsets support (KIP-1075).
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int8, int16, int32, int64, string


class ListOffsetsPartition(Struct):
    partition_index: int = int32("0+")
    current_leader_epoch: int = int32("4+", -1)
    timestamp: int = int64("0+")
    max_num_offsets: int = int32("0", 1)


class ListOffsetsTopic(Struct):
    name: str = string("0+")
    partitions: list[ListOffsetsPartition] = array(ListOffsetsPartition, "0+")


class ListOffsetsRequest(Message):
    api_key = ApiKey.LIST_OFFSETS

    replica_id: int = int32("0+")
    isolation_level: int = int8("2+")
    topics: list[ListOffsetsTopic] = array(ListOffsetsTopic, "0+")
    timeout_ms: int = int32("10+")


class ListOffsetsPartitionResponse(Struct):
    partition_index: int = int32("0+")
    error_code: int = int16("0+")
    old_style_offsets: list[int] = array("int64", "0")
    timestamp: int = int64("1+", -1)
    offset: int = int64("1+", -1)
    leader_epoch: int = int32("4+", -1)


class ListOffsetsTopicResponse(Struct):
    name: str = string("0+")
    partitions: list[ListOffsetsPartitionResponse] = array(ListOffsetsPartitionResponse, "0+")


class ListOffsetsResponse(Message):
    api_key = ApiKey.LIST_OFFSETS

    throttle_time_ms: int = int32("2+")
    topics: list[ListOffsetsTopicResponse] = array(ListOffsetsTopicResponse, "0+")
