"""Single questions over blocking sockets: who leads, where a log ends, what stands in it."""

from __future__ import annotations

import socket
import struct
import time
from typing import TypeVar

from pegel.config import parse_bootstrap
from pegel.errors import ConnectionFailedError, PegelError, broker_error
from pegel.protocol.codec import decode_response, encode_request
from pegel.protocol.messages.fetch import FetchResponse, PartitionData
from pegel.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from pegel.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from pegel.protocol.schema import Message
from pegel_bench.load.wire import CLIENT_ID, FETCH_VERSION, fetch_frame

M = TypeVar("M", bound=Message)
Address = tuple[str, int]

_METADATA_VERSION = 9
_LIST_OFFSETS_VERSION = 6
_LATEST = -1
_TIMEOUT = 10.0


class Asker:
    """Asks the brokers of one cluster, one question at a time. Times in seconds."""

    def __init__(self, bootstrap: str, timeout: float = _TIMEOUT) -> None:
        self._bootstrap = parse_bootstrap(bootstrap)
        self._timeout = timeout
        self._links: dict[Address, socket.socket] = {}
        self._leaders: dict[tuple[str, int], Address] = {}

    def leaders(self, topic: str, partitions: int, wait: float = 30.0) -> list[Address]:
        """The address of each partition's leader, once there is one for all.

        Raises:
            ConnectionFailedError: nobody answers.
            PegelError: there are partitions without a leader for longer than ``wait``.
        """
        deadline = time.monotonic() + wait
        problem = "no partition is known"
        while True:
            response = self._metadata(topic)
            brokers = {b.node_id: (b.host, b.port) for b in response.brokers}
            found: dict[int, Address] = {}
            for entry in response.topics:
                for p in entry.partitions:
                    if not p.error_code and p.leader_id in brokers:
                        found[p.partition_index] = brokers[p.leader_id]
            if all(n in found for n in range(partitions)):
                self._leaders |= {(topic, n): address for n, address in found.items()}
                return [found[n] for n in range(partitions)]
            problem = f"{partitions - len(found)} of {partitions} partitions have no leader"
            if time.monotonic() > deadline:
                raise PegelError(f"topic {topic}: {problem} after {wait:g} s")
            time.sleep(0.02)

    def broker_count(self) -> int:
        """Brokers that the first one to answer knows. Raises ConnectionFailedError."""
        return len(self._metadata(None).brokers)

    def addresses(self) -> list[Address]:
        """Where each broker listens. Raises ConnectionFailedError."""
        return sorted((b.host, b.port) for b in self._metadata(None).brokers)

    def in_sync(self, topic: str) -> bool:
        """Whether all replicas of the topic are in sync, as far as a broker tells."""
        try:
            topics = self._metadata(topic).topics
        except PegelError:
            return False
        return bool(topics) and all(
            len(p.isr_nodes) == len(p.replica_nodes) for t in topics for p in t.partitions
        )

    def _metadata(self, topic: str | None) -> MetadataResponse:
        request = MetadataRequest(
            topics=[] if topic is None else [MetadataRequestTopic(name=topic)],
            allow_auto_topic_creation=False,
        )
        last: Exception | None = None
        for address in self._bootstrap:
            try:
                return self.ask(address, request, _METADATA_VERSION, MetadataResponse)
            except (OSError, PegelError) as error:
                last = error
        where = ", ".join(f"{h}:{p}" for h, p in self._bootstrap)
        raise ConnectionFailedError(f"no broker answers at {where}: {last}")

    def end_offset(self, topic: str, partition: int) -> int:
        """The high watermark. Raises OSError, PegelError."""
        request = ListOffsetsRequest(
            replica_id=-1,
            topics=[
                ListOffsetsTopic(
                    name=topic,
                    partitions=[ListOffsetsPartition(partition_index=partition, timestamp=_LATEST)],
                )
            ],
        )
        address = self._leader(topic, partition)
        response = self.ask(address, request, _LIST_OFFSETS_VERSION, ListOffsetsResponse)
        found = response.topics[0].partitions[0]
        if found.error_code:
            raise broker_error(found.error_code, f"{topic}-{partition}")
        return found.offset

    def fetch(self, topic: str, partition: int, offset: int, max_bytes: int) -> memoryview:
        """Record batches from ``offset`` on; empty where there are none within 100 ms.

        Raises:
            OSError, PegelError.
        """
        frame = fetch_frame(
            topic, {partition: offset}, max_wait_ms=100, partition_max_bytes=max_bytes
        )
        answer = self._exchange(self._leader(topic, partition), frame)
        response = decode_response(FetchResponse, FETCH_VERSION, answer)
        if response.error_code:
            raise broker_error(response.error_code, f"{topic}-{partition}")
        data = response.responses[0].partitions[0]
        if data.error_code:
            self._leaders.pop((topic, partition), None)
            raise broker_error(data.error_code, f"{topic}-{partition} at offset {offset}")
        return records_of(data)

    def _leader(self, topic: str, partition: int) -> Address:
        if (topic, partition) not in self._leaders:
            self.leaders(topic, partition + 1)
        return self._leaders[topic, partition]

    def ask(self, address: Address, request: Message, version: int, response_type: type[M]) -> M:
        """One request, one response. Raises OSError, PegelError."""
        frame = b"".join(encode_request(request, version, 1, CLIENT_ID))
        return decode_response(response_type, version, self._exchange(address, frame))

    def _exchange(self, address: Address, frame: bytes) -> memoryview:
        link = self._links.get(address)
        try:
            if link is None:
                link = socket.create_connection(address, timeout=self._timeout)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links[address] = link
            link.sendall(frame)
            size = struct.unpack(">i", _exactly(link, 4))[0]
            return memoryview(_exactly(link, size))
        except OSError:
            self._links.pop(address, None)
            if link is not None:
                link.close()
            raise

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()


def records_of(data: PartitionData) -> memoryview:
    """The record batches of one partition in a fetch response."""
    records = data.records
    assert records is None or isinstance(records, bytes | memoryview)
    return memoryview(records or b"")


def _exactly(link: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        piece = link.recv_into(view[got:])
        if not piece:
            raise ConnectionResetError("the broker closed the connection")
        got += piece
    return data
