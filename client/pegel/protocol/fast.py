"""Hand-written decoding of the hottest request: Produce of one partition, version 9 or later.

An idempotent client that batches sends exactly this shape, thousands of times a second. Anything
else in it (a transaction, a second partition, tagged fields, odd lengths) answers ``None`` and
takes the compiled decoder, which alone judges whether such bytes are valid.
"""

from __future__ import annotations

import struct

from pegel.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from pegel.protocol.schema import NULL_UUID
from pegel.protocol.wire import read_unsigned_varint, read_uuid

# Transactional id (0: null), acks, timeout, number of topics plus one.
_HEAD = struct.Struct(">BhiB")
# Number of partitions plus one, partition index.
_PARTITION = struct.Struct(">Bi")
# No tagged fields in partition, topic and request.
_END = b"\0\0\0"

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
