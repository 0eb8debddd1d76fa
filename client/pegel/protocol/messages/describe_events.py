"""DescribeEvents (API 20000), version 0: Pegel's own, the history of the cluster's metadata.

Kafka has nothing like it. It is flexible from the start, so that tagged fields may be added.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, int64, string


class DescribeEventsRequest(Message):
    api_key = ApiKey.DESCRIBE_EVENTS

    # Events later than this one; 0 for all that are kept.
    after: int = int64("0+")
    # Only of this topic and its partition, with those of brokers; "" and -1 for everything.
    topic: str = string("0+")
    partition: int = int32("0+", -1)
    limit: int = int32("0+", 1_000)
    max_wait_ms: int = int32("0+")


class DescribedEvent(Struct):
    sequence: int = int64("0+")
    metadata_index: int = int64("0+", -1)
    at_ms: int = int64("0+", -1)
    kind: str = string("0+")
    broker_id: int = int32("0+", -1)
    topic: str = string("0+")
    partition: int = int32("0+", -1)
    reason: str = string("0+")
    detail: str = string("0+")
    leader: int = int32("0+", -1)
    old_leader: int = int32("0+", -1)
    leader_epoch: int = int32("0+", -1)
    isr: list[int] = array("int32", "0+")
    old_isr: list[int] = array("int32", "0+")
    eligible_leader_replicas: list[int] = array("int32", "0+")
    replicas: list[int] = array("int32", "0+")


class DescribeEventsResponse(Message):
    api_key = ApiKey.DESCRIBE_EVENTS

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")
    # The oldest event that is kept, and the one to ask on from.
    first: int = int64("0+", 1)
    last: int = int64("0+")
    events: list[DescribedEvent] = array(DescribedEvent, "0+")
