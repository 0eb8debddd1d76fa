"""DescribeQuorum (API 55), versions 0 to 2 (KIP-595).

Version 1 adds when a replica last fetched and was last caught up (KIP-836), version 2 directory
ids, error messages and the controllers' addresses (KIP-853). Flexible from version 0.
"""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, int64, string, uint16, uuid_


class PartitionData(Struct):
    partition_index: int = int32("0+")


class TopicData(Struct):
    topic_name: str = string("0+")
    partitions: list[PartitionData] = array(PartitionData, "0+")


class DescribeQuorumRequest(Message):
    api_key = ApiKey.DESCRIBE_QUORUM

    topics: list[TopicData] = array(TopicData, "0+")


class ReplicaState(Struct):
    replica_id: int = int32("0+")
    replica_directory_id: uuid.UUID = uuid_("2+")
    log_end_offset: int = int64("0+")
    last_fetch_timestamp: int = int64("1+", -1)
    last_caught_up_timestamp: int = int64("1+", -1)


class QuorumPartitionData(Struct):
    partition_index: int = int32("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("2+", None, nullable="2+")
    leader_id: int = int32("0+")
    leader_epoch: int = int32("0+")
    high_watermark: int = int64("0+")
    current_voters: list[ReplicaState] = array(ReplicaState, "0+")
    observers: list[ReplicaState] = array(ReplicaState, "0+")


class QuorumTopicData(Struct):
    topic_name: str = string("0+")
    partitions: list[QuorumPartitionData] = array(QuorumPartitionData, "0+")


class Listener(Struct):
    name: str = string("2+")
    host: str = string("2+")
    port: int = uint16("2+")


class Node(Struct):
    node_id: int = int32("2+")
    listeners: list[Listener] = array(Listener, "2+")


class DescribeQuorumResponse(Message):
    api_key = ApiKey.DESCRIBE_QUORUM

    error_code: int = int16("0+")
    error_message: str | None = string("2+", None, nullable="2+")
    topics: list[QuorumTopicData] = array(QuorumTopicData, "0+")
    nodes: list[Node] = array(Node, "2+")
