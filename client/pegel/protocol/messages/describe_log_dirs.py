"""DescribeLogDirs (API 35), versions 1 to 4.

Request:
- Version 1 is the same as version 0.
- Version 2 is the first flexible version.
- Version 3 is the same as version 2 (new field in response).
- Version 4 is the same as version 2 (new fields in response).

Response:
- Starting in version 1, on quota violation, brokers send out responses before throttling.
- Version 2 is the first flexible version.
- Version 3 adds the top-level ErrorCode field.
- Version 4 adds the TotalBytes and UsableBytes fields.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, int16, int32, int64, string


class DescribableLogDirTopic(Struct):
    topic: str = string("0+")
    partitions: list[int] = array("int32", "0+")


class DescribeLogDirsRequest(Message):
    api_key = ApiKey.DESCRIBE_LOG_DIRS

    topics: list[DescribableLogDirTopic] | None = array(DescribableLogDirTopic, "0+", nullable="0+")


class DescribeLogDirsPartition(Struct):
    partition_index: int = int32("0+")
    partition_size: int = int64("0+")
    offset_lag: int = int64("0+")
    is_future_key: bool = boolean("0+")


class DescribeLogDirsTopic(Struct):
    name: str = string("0+")
    partitions: list[DescribeLogDirsPartition] = array(DescribeLogDirsPartition, "0+")


class DescribeLogDirsResult(Struct):
    error_code: int = int16("0+")
    log_dir: str = string("0+")
    topics: list[DescribeLogDirsTopic] = array(DescribeLogDirsTopic, "0+")
    total_bytes: int = int64("4+", -1)
    usable_bytes: int = int64("4+", -1)


class DescribeLogDirsResponse(Message):
    api_key = ApiKey.DESCRIBE_LOG_DIRS

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("3+")
    results: list[DescribeLogDirsResult] = array(DescribeLogDirsResult, "0+")
