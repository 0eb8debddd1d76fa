"""DescribeCluster (API 60), versions 0 to 2.

Request:
- Version 1 adds EndpointType for KIP-919 support.
- Version 2 adds IncludeFencedBrokers for KIP-1073 support.

Response:
- Version 1 adds the EndpointType field, and makes MISMATCHED_ENDPOINT_TYPE and
  UNSUPPORTED_ENDPOINT_TYPE valid top-level response error codes.
- Version 2 adds IsFenced field to Brokers for KIP-1073 support.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, int8, int16, int32, string


class DescribeClusterRequest(Message):
    api_key = ApiKey.DESCRIBE_CLUSTER

    include_cluster_authorized_operations: bool = boolean("0+")
    endpoint_type: int = int8("1+", 1)
    include_fenced_brokers: bool = boolean("2+")


class DescribeClusterBroker(Struct):
    broker_id: int = int32("0+")
    host: str = string("0+")
    port: int = int32("0+")
    rack: str | None = string("0+", None, nullable="0+")
    is_fenced: bool = boolean("2+")


class DescribeClusterResponse(Message):
    api_key = ApiKey.DESCRIBE_CLUSTER

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")
    endpoint_type: int = int8("1+", 1)
    cluster_id: str = string("0+")
    controller_id: int = int32("0+", -1)
    brokers: list[DescribeClusterBroker] = array(DescribeClusterBroker, "0+")
    cluster_authorized_operations: int = int32("0+", -2147483648)
