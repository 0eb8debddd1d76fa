"""DescribeTopicPartitions (API 75), versions 0 to 0."""

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
    nested,
    string,
    uuid_,
)


class TopicRequest(Struct):
    name: str = string("0+")


class Cursor(Struct):
    topic_name: str = string("0+")
    partition_index: int = int32("0+")


class DescribeTopicPartitionsRequest(Message):
    api_key = ApiKey.DESCRIBE_TOPIC_PARTITIONS

    topics: list[TopicRequest] = array(TopicRequest, "0+")
    response_partition_limit: int = int32("0+", 2000)
    cursor: Cursor | None = nested(Cursor, "0+", None, nullable="0+")


class DescribeTopicPartitionsResponsePartition(Struct):
    error_code: int = int16("0+")
    partition_index: int = int32("0+")
    leader_id: int = int32("0+")
    leader_epoch: int = int32("0+", -1)
    replica_nodes: list[int] = array("int32", "0+")
    isr_nodes: list[int] = array("int32", "0+")
    eligible_leader_replicas: list[int] | None = array("int32", "0+", None, nullable="0+")
    last_known_elr: list[int] | None = array("int32", "0+", None, nullable="0+")
    offline_replicas: list[int] = array("int32", "0+")


class DescribeTopicPartitionsResponseTopic(Struct):
    error_code: int = int16("0+")
    name: str | None = string("0+", nullable="0+")
    topic_id: uuid.UUID = uuid_("0+")
    is_internal: bool = boolean("0+")
    partitions: list[DescribeTopicPartitionsResponsePartition] = array(
        DescribeTopicPartitionsResponsePartition, "0+"
    )
    topic_authorized_operations: int = int32("0+", -2147483648)


class DescribeTopicPartitionsResponse(Message):
    api_key = ApiKey.DESCRIBE_TOPIC_PARTITIONS

    throttle_time_ms: int = int32("0+")
    topics: list[DescribeTopicPartitionsResponseTopic] = array(
        DescribeTopicPartitionsResponseTopic, "0+"
    )
    next_cursor: Cursor | None = nested(Cursor, "0+", None, nullable="0+")
