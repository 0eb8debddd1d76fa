"""Requests made once and sent many times, over plain sockets.

The raw driver must cost so little that the broker is what is measured: a request is a few bytes of
head, a batch that was encoded before the run, and a fixed tail; of an answer only three fields are
read. The versions (Produce 9, Fetch 12) are spoken by Pegel and by every Apache Kafka since 2.7.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from dataclasses import dataclass

from pegel.protocol.codec import encode_request
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from pegel.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from pegel.record import Codec
from pegel.record.batch import read_header
from pegel.record.encode import encode_batch

PRODUCE_VERSION = 9
FETCH_VERSION = 12
CLIENT_ID = "pegel-bench"
CONNECT_TIMEOUT = 10.0
# Different batches per partition, so that a batch in a wrong place is noticed by its checksum.
VARIANTS = 4

_INT32 = struct.Struct(">i")
_ERROR_AND_OFFSET = struct.Struct(">hq")
_CORRELATION_AT = 8  # in a request: size, API key, version, then this


@dataclass(slots=True)
class Prepared:
    """One produce request: everything but its correlation id."""

    partition: int
    head: bytearray
    body: bytes
    records: int
    record_bytes: int
    crc: int

    def frame(self, correlation_id: int) -> list[bytes]:
        """Buffers to send; the batch itself is not copied."""
        _INT32.pack_into(self.head, _CORRELATION_AT, correlation_id)
        return [bytes(self.head), self.body]


def prepare(
    topic: str,
    partition: int,
    *,
    acks: int,
    records: int,
    record_bytes: int,
    compression: str,
    seed: int,
    timeout_ms: int = 30_000,
) -> list[Prepared]:
    """``VARIANTS`` requests with random values of ``record_bytes`` each."""
    made = []
    for variant in range(VARIANTS):
        rng = random.Random(f"{seed}/{partition}/{variant}")
        values = values_of(rng, records, record_bytes)
        batch = bytes(
            encode_batch(
                values, timestamps=int(time.time() * 1000), codec=Codec[compression.upper()]
            )
        )
        topic_data = TopicProduceData(
            name=topic, partition_data=[PartitionProduceData(index=partition, records=batch)]
        )
        request = ProduceRequest(
            transactional_id=None, acks=acks, timeout_ms=timeout_ms, topic_data=[topic_data]
        )
        whole = b"".join(encode_request(request, PRODUCE_VERSION, 0, CLIENT_ID))
        at = whole.index(batch)
        made.append(
            Prepared(
                partition,
                bytearray(whole[:at]),
                whole[at:],
                records,
                records * record_bytes,
                read_header(batch).crc,
            )
        )
    return made


def values_of(rng: random.Random, records: int, record_bytes: int) -> list[bytes]:
    """Random values: half noise, half text, so that compression finds what it would in logs."""
    noise = rng.randbytes(max(1, record_bytes // 2) * min(records, 1024))
    text = b"level=info service=checkout region=eu-central-1 status=200 path=/orders "
    values = []
    half = record_bytes // 2
    for i in range(records):
        at = (i * half) % max(1, len(noise) - half)
        value = noise[at : at + half] + text * (1 + (record_bytes - half) // len(text))
        values.append(value[:record_bytes])
    return values


def answer_offset(topic: str) -> int:
    """Where error code and base offset stand in the answer to a request of one partition."""
    # Correlation id, tags, topics + 1, name length + 1, name, partitions + 1, index.
    return 4 + 1 + 1 + 1 + len(topic.encode()) + 1 + 4


def read_answer(frame: memoryview, at: int) -> tuple[int, int]:
    """Error code and base offset."""
    error, offset = _ERROR_AND_OFFSET.unpack_from(frame, at)
    return error, offset


def fetch_frame(
    topic: str, offsets: dict[int, int], *, max_wait_ms: int, partition_max_bytes: int
) -> bytes:
    """One Fetch without a session, whole."""
    request = FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=1,
        max_bytes=64 * 1024 * 1024,
        session_id=0,
        session_epoch=-1,
        topics=[
            FetchTopic(
                topic=topic,
                partitions=[
                    FetchPartition(
                        partition=p, fetch_offset=o, partition_max_bytes=partition_max_bytes
                    )
                    for p, o in offsets.items()
                ],
            )
        ],
    )
    return b"".join(encode_request(request, FETCH_VERSION, 1, CLIENT_ID))


def connect(address: tuple[str, int]) -> socket.socket:
    """A non-blocking socket without Nagle's delay. Raises OSError."""
    link = socket.create_connection(address, timeout=CONNECT_TIMEOUT)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    return link


def error_name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code}"


class Receiver:
    """Cuts what arrives into frames; the answers of a produce load are small."""

    __slots__ = ("_buffer", "_filled", "_view")

    def __init__(self, size: int = 256 * 1024) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._filled = 0

    def receive(self, link: socket.socket) -> list[memoryview] | None:
        """Whole frames that are there now, valid until the next call; None once closed.

        A frame larger than the buffer makes the buffer grow.
        """
        try:
            got = link.recv_into(self._view[self._filled :])
        except BlockingIOError:
            return []
        except OSError:
            return None
        if got == 0:
            return None
        self._filled += got
        frames: list[memoryview] = []
        start, end, view = 0, self._filled, self._view
        while end - start >= 4:
            size = _INT32.unpack_from(view, start)[0]
            if end - start - 4 < size:
                if size + 4 > len(view):
                    self._grow(size + 4, start)
                    return frames
                break
            frames.append(view[start + 4 : start + 4 + size])
            start += 4 + size
        if start:
            rest = end - start
            if rest:
                # The frames handed out must stay: what is left goes to a new buffer.
                fresh = bytearray(len(view))
                fresh[:rest] = view[start:end]
                self._buffer, self._view = fresh, memoryview(fresh)
            self._filled = rest
        return frames

    def _grow(self, size: int, start: int) -> None:
        fresh = bytearray(max(size, 2 * len(self._buffer)))
        rest = self._filled - start
        fresh[:rest] = self._view[start : self._filled]
        self._buffer, self._view, self._filled = fresh, memoryview(fresh), rest
