"""Metadata (API 3), versions 0 to 13.

Response:
- Version 1 adds fields for the rack of each broker, the controller id, and whether or not the
  topic is internal.
- Version 2 adds the cluster ID field.
- Version 3 adds the throttle time.
- Version 4 is the same as version 3.
- Version 5 adds a per-partition offline_replicas field. This field specifies the list of
  replicas that are offline.
- Starting in version 6, on quota violation, brokers send out responses before throttling.
- Version 7 adds the leader epoch to the partition metadata.
- Starting in version 8, brokers can send authorized operations for topic and cluster.
- Version 9 is the first flexible version.
- Version 10 adds topicId.
- Version 11 deprecates ClusterAuthorizedOperations. This is now exposed by the DescribeCluster
  API (KIP-700).
- Version 12 supports topicId.
- Version 13 supports top-level error code in the response.
"""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, int16, int32, string, uuid_


class MetadataRequestTopic(Struct):
    topic_id: uuid.UUID = uuid_("10+")
    name: str | None = string("0+", nullable="10+")


class MetadataRequest(Message):
    api_key = ApiKey.METADATA

    topics: list[MetadataRequestTopic] | None = array(MetadataRequestTopic, "0+", nullable="1+")
    allow_auto_topic_creation: bool = boolean("4+", True)
    include_cluster_authorized_operations: bool = boolean("8-10")
    include_topic_authorized_operations: bool = boolean("8+")


class MetadataResponseBroker(Struct):
    node_id: int = int32("0+")
    host: str = string("0+")
    port: int = int32("0+")
    rack: str | None = string("1+", None, nullable="1+")


class MetadataResponsePartition(Struct):
    error_code: int = int16("0+")
    partition_index: int = int32("0+")
    leader_id: int = int32("0+")
    leader_epoch: int = int32("7+", -1)
    replica_nodes: list[int] = array("int32", "0+")
    isr_nodes: list[int] = array("int32", "0+")
    offline_replicas: list[int] = array("int32", "5+")


class MetadataResponseTopic(Struct):
    error_code: int = int16("0+")
    name: str | None = string("0+", nullable="12+")
    topic_id: uuid.UUID = uuid_("10+")
    is_internal: bool = boolean("1+")
    partitions: list[MetadataResponsePartition] = array(MetadataResponsePartition, "0+")
    topic_authorized_operations: int = int32("8+", -2147483648)


class MetadataResponse(Message):
    api_key = ApiKey.METADATA

    throttle_time_ms: int = int32("3+")
    brokers: list[MetadataResponseBroker] = array(MetadataResponseBroker, "0+")
    cluster_id: str | None = string("2+", None, nullable="2+")
    controller_id: int = int32("1+", -1)
    topics: list[MetadataResponseTopic] = array(MetadataResponseTopic, "0+")
    cluster_authorized_operations: int = int32("8-10", -2147483648)
    error_code: int = int16("13+")
