"""CreatePartitions (API 37), versions 0 to 3.

Request:
- Version 1 is the same as version 0.
- Version 2 adds flexible version support.
- Version 3 is identical to version 2 but may return a THROTTLING_QUOTA_EXCEEDED error in the
  response if the partitions creation is throttled (KIP-599).

Response:
- Starting in version 1, on quota violation, brokers send out responses before throttling.
- Version 2 adds flexible version support.
- Version 3 is identical to version 2 but may return a THROTTLING_QUOTA_EXCEEDED error in the
  response if the partitions creation is throttled (KIP-599).
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, int16, int32, string


class CreatePartitionsAssignment(Struct):
    broker_ids: list[int] = array("int32", "0+")


class CreatePartitionsTopic(Struct):
    name: str = string("0+")
    count: int = int32("0+")
    assignments: list[CreatePartitionsAssignment] | None = array(
        CreatePartitionsAssignment, "0+", nullable="0+"
    )


class CreatePartitionsRequest(Message):
    api_key = ApiKey.CREATE_PARTITIONS

    topics: list[CreatePartitionsTopic] = array(CreatePartitionsTopic, "0+")
    timeout_ms: int = int32("0+")
    validate_only: bool = boolean("0+")


class CreatePartitionsTopicResult(Struct):
    name: str = string("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")


class CreatePartitionsResponse(Message):
    api_key = ApiKey.CREATE_PARTITIONS

    throttle_time_ms: int = int32("0+")
    results: list[CreatePartitionsTopicResult] = array(CreatePartitionsTopicResult, "0+")
