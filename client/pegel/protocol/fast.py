"""The hottest messages, by hand: Produce of one partition, version 9 or later, and its answer.

An idempotent client that batches sends exactly this shape, thousands of times a second. Anything
else (a transaction, a second partition, tagged fields, odd lengths, an error that names a leader)
answers ``None`` and takes the compiled coder, which alone judges whether such bytes are valid.
"""

from __future__ import annotations

import struct

from pegel.protocol.messages.produce import (
    LeaderIdAndEpoch,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from pegel.protocol.schema import NULL_UUID, Buffer
from pegel.protocol.wire import COPY_BELOW, append_unsigned_varint, read_unsigned_varint, read_uuid

# Size of the frame, API key, version, correlation id, length of the client id.
_REQUEST = struct.Struct(">ihhih")

# Transactional id (0: null), acks, timeout, number of topics plus one.
_HEAD = struct.Struct(">BhiB")
# Number of partitions plus one, partition index.
_PARTITION = struct.Struct(">Bi")
# No tagged fields in partition, topic and request.
_END = b"\0\0\0"
# Size of the frame, correlation id, no tagged fields, number of topics plus one.
_RESPONSE = struct.Struct(">iiBB")
# Number of partitions plus one; index, error, base offset, append time, log start; no record
# errors (1), no message (0), no tagged fields in partition and topic; throttle time, no tagged
# fields.
_ANSWER = struct.Struct(">BihqqqIiB")
_ANSWER_MIDDLE = 0x01_00_00_00

_new = object.__new__


def decode_produce(b: memoryview, p: int, version: int) -> ProduceRequest | None:
    """The request whose body begins at ``p``, or ``None`` to leave it to the compiled decoder."""
    try:
        transactional, acks, timeout_ms, topics = _HEAD.unpack_from(b, p)
        p += 8
        if transactional != 0 or topics != 2:
            return None
        topic = _new(TopicProduceData)
        if version >= 13:
            topic.name = ""
            topic.topic_id, p = read_uuid(b, p)
        else:
            end = p + b[p]
            if not 1 <= b[p] < 0x80 or end > len(b):
                return None
            topic.name = str(b[p + 1 : end], "utf-8")
            topic.topic_id = NULL_UUID
            p = end
        partitions, index = _PARTITION.unpack_from(b, p)
        size, p = read_unsigned_varint(b, p + 5)
    except (struct.error, IndexError, ValueError):
        return None
    end = p + size - 1
    if partitions != 2 or size == 0 or len(b) != end + 3 or b[end:] != _END:
        return None
    partition = _new(PartitionProduceData)
    partition.index = index
    partition.records = b[p:end]
    topic.partition_data = [partition]
    request = _new(ProduceRequest)
    request.transactional_id = None
    request.acks = acks
    request.timeout_ms = timeout_ms
    request.topic_data = [topic]
    return request


def encode_produce(
    message: ProduceRequest, version: int, correlation_id: int, client_id: bytes
) -> list[Buffer] | None:
    """The frame of a request, or ``None`` to leave it to the compiled encoder."""
    topics = message.topic_data
    if not topics or len(topics) != 1 or message.transactional_id is not None:
        return None
    topic = topics[0]
    if not topic.partition_data or len(topic.partition_data) != 1:
        return None
    partition = topic.partition_data[0]
    records = partition.records
    if type(records) is not bytearray and type(records) is not bytes:
        return None
    name = _topic_name(topic, version)
    if name is None:
        return None
    size = len(records)
    length = bytearray()
    append_unsigned_varint(length, size + 1)
    rest = len(client_id) + len(name) + len(length) + size
    pieces = (
        # What is counted besides: header 10 + 1, head 8, partition 5, end 3.
        _REQUEST.pack(rest + 27, 0, version, correlation_id, len(client_id)),
        client_id,
        b"\0",
        _HEAD.pack(0, message.acks, message.timeout_ms, 2),
        name,
        _PARTITION.pack(2, partition.index),
        length,
    )
    if size < COPY_BELOW:
        return [b"".join((*pieces, records, _END))]
    return [b"".join(pieces), records, _END]


def _topic_name(topic: TopicProduceData | TopicProduceResponse, version: int) -> bytes | None:
    """A topic's id, from version 13 on, or its name, unless its length takes two bytes."""
    if version >= 13:
        return topic.topic_id.bytes
    name = topic.name.encode()
    return bytes((len(name) + 1,)) + name if len(name) <= 0x7E else None


def encode_produce_response(
    message: ProduceResponse, version: int, correlation_id: int
) -> list[Buffer] | None:
    """The frame of a response, or ``None`` to leave it to the compiled encoder."""
    topics = message.responses
    if not topics or len(topics) != 1 or message.node_endpoints:
        return None
    topic = topics[0]
    if not topic.partition_responses or len(topic.partition_responses) != 1:
        return None
    answer = topic.partition_responses[0]
    leader = answer.current_leader
    if (
        answer.record_errors
        or answer.error_message is not None
        or leader.leader_id != -1
        or leader.leader_epoch != -1
    ):
        return None
    name = _topic_name(topic, version)
    if name is None:
        return None
    body = _ANSWER.pack(
        2, answer.index, answer.error_code, answer.base_offset, answer.log_append_time_ms,
        answer.log_start_offset, _ANSWER_MIDDLE, message.throttle_time_ms, 0,
    )  # fmt: skip
    head = _RESPONSE.pack(6 + len(name) + len(body), correlation_id, 0, 2)
    return [b"".join((head, name, body))]


def decode_produce_response(b: memoryview, version: int) -> ProduceResponse | None:
    """The response in a frame, or ``None`` to leave it to the compiled decoder."""
    try:
        if b[4] != 0 or b[5] != 2:
            return None
        topic = _new(TopicProduceResponse)
        if version >= 13:
            topic.name = ""
            topic.topic_id, p = read_uuid(b, 6)
        else:
            p = 6 + b[6]
            if not 1 <= b[6] < 0x80:
                return None
            topic.name = str(b[7:p], "utf-8")
            topic.topic_id = NULL_UUID
        if len(b) != p + _ANSWER.size:
            return None
        partitions, index, error, base, time, start, middle, throttle, end = _ANSWER.unpack_from(
            b, p
        )
    except (struct.error, IndexError, ValueError):
        return None
    if partitions != 2 or middle != _ANSWER_MIDDLE or end != 0:
        return None
    answer = _new(PartitionProduceResponse)
    answer.index, answer.error_code, answer.base_offset = index, error, base
    answer.log_append_time_ms, answer.log_start_offset = time, start
    answer.record_errors = []
    answer.error_message = None
    answer.current_leader = LeaderIdAndEpoch()
    topic.partition_responses = [answer]
    response = _new(ProduceResponse)
    response.responses = [topic]
    response.throttle_time_ms = throttle
    response.node_endpoints = []
    return response
