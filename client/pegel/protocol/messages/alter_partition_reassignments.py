"""AlterPartitionReassignments (API 45), versions 0 and 1 (KIP-455).

Replicas of null cancel what is under way. Version 1 lets a caller insist that the number of
replicas stays as it is. Flexible from version 0.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, int16, int32, string


class ReassignablePartition(Struct):
    partition_index: int = int32("0+")
    replicas: list[int] | None = array("int32", "0+", None, nullable="0+")


class ReassignableTopic(Struct):
    name: str = string("0+")
    partitions: list[ReassignablePartition] = array(ReassignablePartition, "0+")


class AlterPartitionReassignmentsRequest(Message):
    api_key = ApiKey.ALTER_PARTITION_REASSIGNMENTS

    timeout_ms: int = int32("0+", 60000)
    allow_replication_factor_change: bool = boolean("1+", True)
    topics: list[ReassignableTopic] = array(ReassignableTopic, "0+")


class ReassignablePartitionResponse(Struct):
    partition_index: int = int32("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")


class ReassignableTopicResponse(Struct):
    name: str = string("0+")
    partitions: list[ReassignablePartitionResponse] = array(ReassignablePartitionResponse, "0+")


class AlterPartitionReassignmentsResponse(Message):
    api_key = ApiKey.ALTER_PARTITION_REASSIGNMENTS

    throttle_time_ms: int = int32("0+")
    allow_replication_factor_change: bool = boolean("1+", True)
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")
    responses: list[ReassignableTopicResponse] = array(ReassignableTopicResponse, "0+")
