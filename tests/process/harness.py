"""A writer that never gives up, a reader of everything, and one raw connection to a broker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pegel
from pegel.errors import PegelError
from pegel.producer.batch import Delivery
from pegel.protocol.codec import decode_response, encode_request
from pegel.protocol.messages import RESPONSES
from pegel.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from pegel.protocol.schema import Message
from pegel.record.encode import encode_batch
from pegel.testing import LocalCluster
from pegel.testing.delivery import History, Sent, Verdict, judge

# Bounds a test that fails; nothing is asserted about time.
WAIT = 45.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def in_sync(cluster: LocalCluster, topic: str, partition: int = 0) -> list[int]:
    """The ISR as the leader knows it."""
    view = cluster.view(cluster.leader_of(topic, partition))
    for entry in view["broker"]["partitions"]:
        if (entry["topic"], entry["partition"], entry["role"]) == (topic, partition, "leader"):
            return sorted(entry["isr"])
    return []


def until_in_sync(cluster: LocalCluster, topic: str, replicas: int = 3) -> None:
    def settled() -> bool:
        with contextlib.suppress(OSError):
            return len(in_sync(cluster, topic)) == replicas
        return False

    until(settled, f"{topic} with {replicas} in sync")


def create(
    cluster: LocalCluster, topic: str, *, preferred: int | None = None, **config: object
) -> None:
    """One partition on every broker, two of them to be in sync; ``preferred`` is to lead it."""
    others = [node for node in sorted(cluster.nodes) if node != preferred]
    assignment = None if preferred is None else {0: [preferred, *others]}

    async def main() -> None:
        settings = {"min.insync.replicas": min(2, len(cluster.nodes))} | {
            key.replace("_", "."): str(value) for key, value in config.items()
        }
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.admin.create_topic(
                topic, partitions=1, replication=len(cluster.nodes), config=settings,
                assignment=assignment,
            )  # fmt: skip

    asyncio.run(main())


class Writer:
    """Writes numbered values with acks=all, several in flight, from a thread of its own."""

    def __init__(self, cluster: LocalCluster, topic: str, history: History | None = None) -> None:
        self.history = History() if history is None else history
        self.errors: list[BaseException] = []
        self._bootstrap, self._topic = cluster.bootstrap, topic
        self._name = f"writer-{len(self.history.sent)}"
        self._ends = False
        self._acknowledged = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        self.more(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join(WAIT)
        assert not self._thread.is_alive(), "the writer hangs"

    def more(self, count: int) -> None:
        """Wait for so many acknowledgements of values that are sent from now on."""
        first = len(self.history.sent)

        def written() -> bool:
            if self.errors:
                return True
            sent = list(self.history.sent.values())[first : first + count]
            return len(sent) == count and all(one.acknowledged for one in sent)

        until(written, f"{count} more writes acknowledged")

    async def _run(self) -> None:
        running: set[asyncio.Task[None]] = set()
        async with (
            pegel.AsyncClient(self._bootstrap) as client,
            client.producer(acks="all", delivery_timeout=WAIT) as producer,
        ):
            number = 0
            while not self._ends and not self.errors:
                value = b"%s/%d" % (self._name.encode(), number)
                sent = self.history.send(Sent(value, self._name, (self._topic, 0), number))
                number += 1
                delivery = await producer.send_soon(self._topic, value, partition=0)
                task = asyncio.create_task(self._await(delivery, sent))
                running.add(task)
                task.add_done_callback(running.discard)
                if len(running) >= 8:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0.001)
            if running:
                await asyncio.wait(running)

    async def _await(self, delivery: Delivery, sent: Sent) -> None:
        try:
            where = await delivery
        except (PegelError, TimeoutError) as error:
            self.errors.append(error)
        else:
            sent.offset, sent.acknowledged = where.offset, True


def verdict(cluster: LocalCluster, history: History) -> Verdict:
    """Read every topic of the history from its start, and judge."""

    async def main() -> None:
        topics = sorted({sent.place for sent in history.sent.values()})
        async with (
            pegel.AsyncClient(cluster.bootstrap) as client,
            client.consumer(partitions=topics, offset_reset="earliest") as reader,
        ):
            for start in (await reader.beginning_offsets()).items():
                history.log_starts[start[0].topic, start[0].partition] = start[1]
            ends = await reader.end_offsets()
            for place in topics:
                history.final[place] = []
            while not reader.reached(ends):
                batch = await reader.next_batch(timeout=WAIT)
                assert batch is not None, "the log cannot be read to its end"
                for offset, value in zip(batch.offsets, batch.values, strict=True):
                    history.final[batch.topic, batch.partition].append((offset, value or b""))

    asyncio.run(main())
    return judge(history)


def assert_nothing_lost(cluster: LocalCluster, writer: Writer) -> Verdict:
    found = verdict(cluster, writer.history)
    assert not found.lines, "\n".join(found.lines[:20])
    assert not writer.errors, writer.errors
    assert found.acknowledged == found.sent > 0
    return found


class RawConnection:
    """A blocking socket to one broker, whose answers are read when the test wants them."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=WAIT)

    def send(self, message: Message, version: int) -> None:
        self._socket.sendall(b"".join(encode_request(message, version, 1, "raw")))

    def receive(self, message: type[Message], version: int) -> Message:
        """Raises EOFError where the broker closed."""
        (size,) = struct.unpack(">i", self._exactly(4))
        return decode_response(message, version, memoryview(self._exactly(size)))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def close(self) -> None:
        self._socket.close()


PRODUCE_VERSION = 9


def send_produce(connection: RawConnection, topic: str, value: bytes, acks: int) -> None:
    data = encode_batch([value], timestamps=int(time.time() * 1000))
    part = PartitionProduceData(index=0, records=memoryview(data))
    request = ProduceRequest(
        acks=acks, timeout_ms=5_000,
        topic_data=[TopicProduceData(name=topic, partition_data=[part])],
    )  # fmt: skip
    connection.send(request, PRODUCE_VERSION)


def receive_produce(connection: RawConnection) -> PartitionProduceResponse:
    response = connection.receive(RESPONSES[0], PRODUCE_VERSION)  # type: ignore[index]
    assert isinstance(response, ProduceResponse)
    return response.responses[0].partition_responses[0]


@contextlib.contextmanager
def raw(address: str) -> Iterator[RawConnection]:
    connection = RawConnection(address)
    try:
        yield connection
    finally:
        connection.close()
