"""CreateTopics (API 19), versions 2 to 7.

Request:
- Version 1 adds validateOnly.
- Version 4 makes partitions/replicationFactor optional even when assignments are not present
  (KIP-464).
- Version 5 is the first flexible version.
- Version 5 also returns topic configs in the response (KIP-525).
- Version 6 is identical to version 5 but may return a THROTTLING_QUOTA_EXCEEDED error in the
  response if the topics creation is throttled (KIP-599).
- Version 7 is the same as version 6.

Response:
- Version 1 adds a per-topic error message string.
- Version 2 adds the throttle time.
- Starting in version 3, on quota violation, brokers send out responses before throttling.
- Version 4 makes partitions/replicationFactor optional even when assignments are not present
  (KIP-464).
- Version 5 is the first flexible version.
- Version 5 also returns topic configs in the response (KIP-525).
- Version 6 is identical to version 5 but may return a THROTTLING_QUOTA_EXCEEDED error in the
  response if the topics creation is throttled (KIP-599).
- Version 7 returns the topic ID of the newly created topic if creation is successful.
"""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, int8, int16, int32, string, uuid_


class CreatableReplicaAssignment(Struct):
    partition_index: int = int32("0+")
    broker_ids: list[int] = array("int32", "0+")


class CreatableTopicConfig(Struct):
    name: str = string("0+")
    value: str | None = string("0+", nullable="0+")


class CreatableTopic(Struct):
    name: str = string("0+")
    num_partitions: int = int32("0+")
    replication_factor: int = int16("0+")
    assignments: list[CreatableReplicaAssignment] = array(CreatableReplicaAssignment, "0+")
    configs: list[CreatableTopicConfig] = array(CreatableTopicConfig, "0+")


class CreateTopicsRequest(Message):
    api_key = ApiKey.CREATE_TOPICS

    topics: list[CreatableTopic] = array(CreatableTopic, "0+")
    timeout_ms: int = int32("0+", 60000)
    validate_only: bool = boolean("1+")


class CreatableTopicConfigs(Struct):
    name: str = string("5+")
    value: str | None = string("5+", nullable="5+")
    read_only: bool = boolean("5+")
    config_source: int = int8("5+", -1)
    is_sensitive: bool = boolean("5+")


class CreatableTopicResult(Struct):
    name: str = string("0+")
    topic_id: uuid.UUID = uuid_("7+")
    error_code: int = int16("0+")
    error_message: str | None = string("1+", nullable="0+")
    topic_config_error_code: int = int16("5+", tag=0)
    num_partitions: int = int32("5+", -1)
    replication_factor: int = int16("5+", -1)
    configs: list[CreatableTopicConfigs] | None = array(CreatableTopicConfigs, "5+", nullable="5+")


class CreateTopicsResponse(Message):
    api_key = ApiKey.CREATE_TOPICS

    throttle_time_ms: int = int32("2+")
    topics: list[CreatableTopicResult] = array(CreatableTopicResult, "0+")
