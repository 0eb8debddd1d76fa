"""Fetch (API 1), versions 4 to 17.

Request:
- Version 1 is the same as version 0. Starting in Version 2, the requester must be able to
  handle Kafka Log Message format version 1.
- Version 3 adds MaxBytes.  Starting in version 3, the partition ordering in the request is now
  relevant.  Partitions will be processed in the order they appear in the request.
- Version 4 adds IsolationLevel.  Starting in version 4, the requestor must be able to handle
  Kafka log message format version 2.
- Version 5 adds LogStartOffset to indicate the earliest available offset of partition data that
  can be consumed.
- Version 6 is the same as version 5.
- Version 7 adds incremental fetch request support.
- Version 8 is the same as version 7.
- Version 9 adds CurrentLeaderEpoch, as described in KIP-320.
- Version 10 indicates that we can use the ZStd compression algorithm, as described in KIP-110.
- Version 12 adds flexible versions support as well as epoch validation through the
  `LastFetchedEpoch` field.
- Version 13 replaces topic names with topic IDs (KIP-516). May return UNKNOWN_TOPIC_ID error
  code.
- Version 14 is the same as version 13 but it also receives a new error called
  OffsetMovedToTieredStorageException(KIP-405).
- Version 15 adds the ReplicaState which includes new field ReplicaEpoch and the ReplicaId.
  Also, deprecate the old ReplicaId field and set its default value to -1. (KIP-903).
- Version 16 is the same as version 15 (KIP-951).
- Version 17 adds directory id support from KIP-853.

Response:
- Version 1 adds throttle time. Version 2 and 3 are the same as version 1.
- Version 4 adds features for transactional consumption.
- Version 5 adds LogStartOffset to indicate the earliest available offset of partition data that
  can be consumed.
- Starting in version 6, we may return KAFKA_STORAGE_ERROR as an error code.
- Version 7 adds incremental fetch request support.
- Starting in version 8, on quota violation, brokers send out responses before throttling.
- Version 9 is the same as version 8.
- Version 10 indicates that the response data can use the ZStd compression algorithm, as
  described in KIP-110.
- Version 12 adds support for flexible versions, epoch detection through the `TruncationOffset`
  field, and leader discovery through the `CurrentLeader` field.
- Version 13 replaces the topic name field with topic ID (KIP-516).
- Version 14 is the same as version 13 but it also receives a new error called
  OffsetMovedToTieredStorageException (KIP-405).
- Version 15 is the same as version 14 (KIP-903).
- Version 16 adds the 'NodeEndpoints' field (KIP-951).
- Version 17 no changes to the response (KIP-853).
"""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import (
    Message,
    Records,
    Struct,
    array,
    int8,
    int16,
    int32,
    int64,
    nested,
    records_,
    string,
    uuid_,
)


class ReplicaState(Struct):
    replica_id: int = int32("15+", -1)
    replica_epoch: int = int64("15+", -1)


class FetchPartition(Struct):
    partition: int = int32("0+")
    current_leader_epoch: int = int32("9+", -1)
    fetch_offset: int = int64("0+")
    last_fetched_epoch: int = int32("12+", -1)
    log_start_offset: int = int64("5+", -1)
    partition_max_bytes: int = int32("0+")
    replica_directory_id: uuid.UUID = uuid_("17+", tag=0)


class FetchTopic(Struct):
    topic: str = string("0-12")
    topic_id: uuid.UUID = uuid_("13+")
    partitions: list[FetchPartition] = array(FetchPartition, "0+")


class ForgottenTopic(Struct):
    topic: str = string("7-12")
    topic_id: uuid.UUID = uuid_("13+")
    partitions: list[int] = array("int32", "7+")


class FetchRequest(Message):
    api_key = ApiKey.FETCH

    cluster_id: str | None = string("12+", None, nullable="12+", tag=0)
    replica_id: int = int32("0-14", -1)
    replica_state: ReplicaState = nested(ReplicaState, "15+", tag=1)
    max_wait_ms: int = int32("0+")
    min_bytes: int = int32("0+")
    max_bytes: int = int32("3+", 2147483647)
    isolation_level: int = int8("4+")
    session_id: int = int32("7+")
    session_epoch: int = int32("7+", -1)
    topics: list[FetchTopic] = array(FetchTopic, "0+")
    forgotten_topics_data: list[ForgottenTopic] = array(ForgottenTopic, "7+")
    rack_id: str = string("11+")


class EpochEndOffset(Struct):
    epoch: int = int32("12+", -1)
    end_offset: int = int64("12+", -1)


class LeaderIdAndEpoch(Struct):
    leader_id: int = int32("12+", -1)
    leader_epoch: int = int32("12+", -1)


class SnapshotId(Struct):
    end_offset: int = int64("0+", -1)
    epoch: int = int32("0+", -1)


class AbortedTransaction(Struct):
    producer_id: int = int64("4+")
    first_offset: int = int64("4+")


class PartitionData(Struct):
    partition_index: int = int32("0+")
    error_code: int = int16("0+")
    high_watermark: int = int64("0+")
    last_stable_offset: int = int64("4+", -1)
    log_start_offset: int = int64("5+", -1)
    diverging_epoch: EpochEndOffset = nested(EpochEndOffset, "12+", tag=0)
    current_leader: LeaderIdAndEpoch = nested(LeaderIdAndEpoch, "12+", tag=1)
    snapshot_id: SnapshotId = nested(SnapshotId, "12+", tag=2)
    aborted_transactions: list[AbortedTransaction] | None = array(
        AbortedTransaction, "4+", nullable="4+"
    )
    preferred_read_replica: int = int32("11+", -1)
    records: Records = records_("0+", nullable="0+")


class FetchableTopicResponse(Struct):
    topic: str = string("0-12")
    topic_id: uuid.UUID = uuid_("13+")
    partitions: list[PartitionData] = array(PartitionData, "0+")


class NodeEndpoint(Struct):
    node_id: int = int32("16+")
    host: str = string("16+")
    port: int = int32("16+")
    rack: str | None = string("16+", None, nullable="16+")


class FetchResponse(Message):
    api_key = ApiKey.FETCH

    throttle_time_ms: int = int32("1+")
    error_code: int = int16("7+")
    session_id: int = int32("7+")
    responses: list[FetchableTopicResponse] = array(FetchableTopicResponse, "0+")
    node_endpoints: list[NodeEndpoint] = array(NodeEndpoint, "16+", tag=0)
