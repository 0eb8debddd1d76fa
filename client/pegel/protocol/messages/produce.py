"""Produce (API 0), versions 3 to 13.

Request:
- Version 1 and 2 are the same as version 0.
- Version 3 adds the transactional ID, which is used for authorization when attempting to write
  transactional data.  Version 3 also adds support for Kafka Message Format v2.
- Version 4 is the same as version 3, but the requester must be prepared to handle a
  KAFKA_STORAGE_ERROR.
- Version 5 and 6 are the same as version 3.
- Starting in version 7, records can be produced using ZStandard compression.  See KIP-110.
- Version 9 enables flexible versions.
- Version 10 is the same as version 9 (KIP-951).
- Version 11 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).
- Version 12 is the same as version 11 (KIP-890). Note when produce requests are used in
  transaction, if transaction V2 (KIP_890 part 2) is enabled, the produce request will also
  include the function for a AddPartitionsToTxn call. If V2 is disabled, the client can't use
  produce request version higher than 11 within a transaction.
- Version 13 replaces topic names with topic IDs (KIP-516). May return UNKNOWN_TOPIC_ID error
  code.

Response:
- Version 1 added the throttle time.
- Version 2 added the log append time.
- Version 3 is the same as version 2.
- Version 4 added KAFKA_STORAGE_ERROR as a possible error code.
- Version 5 added LogStartOffset to filter out spurious OutOfOrderSequenceExceptions on the
  client.
- Version 8 added RecordErrors and ErrorMessage to include information about records that cause
  the whole batch to be dropped.  See KIP-467 for details.
- Version 9 enables flexible versions.
- Version 10 adds 'CurrentLeader' and 'NodeEndpoints' as tagged fields (KIP-951).
- Version 11 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).
- Version 12 is the same as version 10 (KIP-890).
- Version 13 replaces topic names with topic IDs (KIP-516). May return UNKNOWN_TOPIC_ID error
  code.
"""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import (
    Message,
    Records,
    Struct,
    array,
    int16,
    int32,
    int64,
    nested,
    records_,
    string,
    uuid_,
)


class PartitionProduceData(Struct):
    index: int = int32("0+")
    records: Records = records_("0+", nullable="0+")


class TopicProduceData(Struct):
    name: str = string("0-12")
    topic_id: uuid.UUID = uuid_("13+")
    partition_data: list[PartitionProduceData] = array(PartitionProduceData, "0+")


class ProduceRequest(Message):
    api_key = ApiKey.PRODUCE

    transactional_id: str | None = string("3+", None, nullable="3+")
    acks: int = int16("0+")
    timeout_ms: int = int32("0+")
    topic_data: list[TopicProduceData] = array(TopicProduceData, "0+")


class BatchIndexAndErrorMessage(Struct):
    batch_index: int = int32("8+")
    batch_index_error_message: str | None = string("8+", None, nullable="8+")


class LeaderIdAndEpoch(Struct):
    leader_id: int = int32("10+", -1)
    leader_epoch: int = int32("10+", -1)


class PartitionProduceResponse(Struct):
    index: int = int32("0+")
    error_code: int = int16("0+")
    base_offset: int = int64("0+")
    log_append_time_ms: int = int64("2+", -1)
    log_start_offset: int = int64("5+", -1)
    record_errors: list[BatchIndexAndErrorMessage] = array(BatchIndexAndErrorMessage, "8+")
    error_message: str | None = string("8+", None, nullable="8+")
    current_leader: LeaderIdAndEpoch = nested(LeaderIdAndEpoch, "10+", tag=0)


class TopicProduceResponse(Struct):
    name: str = string("0-12")
    topic_id: uuid.UUID = uuid_("13+")
    partition_responses: list[PartitionProduceResponse] = array(PartitionProduceResponse, "0+")


class NodeEndpoint(Struct):
    node_id: int = int32("10+")
    host: str = string("10+")
    port: int = int32("10+")
    rack: str | None = string("10+", None, nullable="10+")


class ProduceResponse(Message):
    api_key = ApiKey.PRODUCE

    responses: list[TopicProduceResponse] = array(TopicProduceResponse, "0+")
    throttle_time_ms: int = int32("1+")
    node_endpoints: list[NodeEndpoint] = array(NodeEndpoint, "10+", tag=0)
