"""AddPartitionsToTxn (API 24), versions 0 to 3.

Request:
- Version 1 is the same as version 0.
- Version 2 adds the support for new error code PRODUCER_FENCED.
- Version 3 enables flexible versions.
- Versions 3 and below will be exclusively used by clients and versions 4 and above will be used
  by brokers.

Response:
- Starting in version 1, on quota violation brokers send out responses before throttling.
- Version 2 adds the support for new error code PRODUCER_FENCED.
- Version 3 enables flexible versions.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, int64, string


class AddPartitionsToTxnTopic(Struct):
    name: str = string("0+")
    partitions: list[int] = array("int32", "0+")


class AddPartitionsToTxnTransaction(Struct):
    pass


class AddPartitionsToTxnRequest(Message):
    api_key = ApiKey.ADD_PARTITIONS_TO_TXN

    v3_and_below_transactional_id: str = string("0-3")
    v3_and_below_producer_id: int = int64("0-3")
    v3_and_below_producer_epoch: int = int16("0-3")
    v3_and_below_topics: list[AddPartitionsToTxnTopic] = array(AddPartitionsToTxnTopic, "0-3")


class AddPartitionsToTxnPartitionResult(Struct):
    partition_index: int = int32("0+")
    partition_error_code: int = int16("0+")


class AddPartitionsToTxnTopicResult(Struct):
    name: str = string("0+")
    results_by_partition: list[AddPartitionsToTxnPartitionResult] = array(
        AddPartitionsToTxnPartitionResult, "0+"
    )


class AddPartitionsToTxnResult(Struct):
    pass


class AddPartitionsToTxnResponse(Message):
    api_key = ApiKey.ADD_PARTITIONS_TO_TXN

    throttle_time_ms: int = int32("0+")
    results_by_topic_v3_and_below: list[AddPartitionsToTxnTopicResult] = array(
        AddPartitionsToTxnTopicResult, "0-3"
    )
