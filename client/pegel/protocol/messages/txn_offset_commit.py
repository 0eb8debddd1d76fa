"""TxnOffsetCommit (API 28), versions 0 to 4.

Request:
- Version 1 is the same as version 0.
- Version 2 adds the committed leader epoch.
- Version 3 adds the member.id, group.instance.id and generation.id.
- Version 4 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).

Response:
- Starting in version 1, on quota violation, brokers send out responses before throttling.
- Version 2 is the same as version 1.
- Version 3 adds illegal generation, fenced instance id, and unknown member id errors.
- Version 4 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, int64, string


class TxnOffsetCommitRequestPartition(Struct):
    partition_index: int = int32("0+")
    committed_offset: int = int64("0+")
    committed_leader_epoch: int = int32("2+", -1)
    committed_metadata: str | None = string("0+", nullable="0+")


class TxnOffsetCommitRequestTopic(Struct):
    name: str = string("0+")
    partitions: list[TxnOffsetCommitRequestPartition] = array(TxnOffsetCommitRequestPartition, "0+")


class TxnOffsetCommitRequest(Message):
    api_key = ApiKey.TXN_OFFSET_COMMIT

    transactional_id: str = string("0+")
    group_id: str = string("0+")
    producer_id: int = int64("0+")
    producer_epoch: int = int16("0+")
    generation_id: int = int32("3+", -1)
    member_id: str = string("3+")
    group_instance_id: str | None = string("3+", None, nullable="3+")
    topics: list[TxnOffsetCommitRequestTopic] = array(TxnOffsetCommitRequestTopic, "0+")


class TxnOffsetCommitResponsePartition(Struct):
    partition_index: int = int32("0+")
    error_code: int = int16("0+")


class TxnOffsetCommitResponseTopic(Struct):
    name: str = string("0+")
    partitions: list[TxnOffsetCommitResponsePartition] = array(
        TxnOffsetCommitResponsePartition, "0+"
    )


class TxnOffsetCommitResponse(Message):
    api_key = ApiKey.TXN_OFFSET_COMMIT

    throttle_time_ms: int = int32("0+")
    topics: list[TxnOffsetCommitResponseTopic] = array(TxnOffsetCommitResponseTopic, "0+")
