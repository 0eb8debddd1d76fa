"""The client: one object for writing, reading and administration of a cluster."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType

from pegel.admin.admin import Admin
from pegel.cluster import Cluster
from pegel.config import (
    Acks,
    ClientOptions,
    Compression,
    ConsumerOptions,
    IsolationLevel,
    OffsetReset,
    ProducerOptions,
    parse_bootstrap,
)
from pegel.consumer.consumer import Consumer
from pegel.errors import ClosedError, PegelError, UnsupportedFeatureError
from pegel.producer.producer import Producer
from pegel.seams import Clock, Network
from pegel.seams.clock import RealClock
from pegel.seams.network import RealNetwork
from pegel.types import Headers, RecordMetadata, SendResult, TopicPartition


class AsyncClient:
    """A client of one cluster, for asyncio; works with Apache Kafka as well.

    Use it with ``async with``; it connects when first needed::

        async with pegel.AsyncClient("localhost:9092") as client:
            await client.create_topic("orders", partitions=6, replication=3)
            where = await client.send("orders", b"value", key=b"key")

    Args:
        bootstrap: ``"host:port,…"``: any brokers of the cluster; the others are found.
        options: time-outs, back-offs and the client's name.
    """

    def __init__(
        self,
        bootstrap: str = "localhost:9092",
        *,
        options: ClientOptions | None = None,
        network: Network | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._cluster = Cluster(
            parse_bootstrap(bootstrap),
            network=network or RealNetwork(),
            clock=clock or RealClock(),
            rng=rng or random.Random(),
            options=options or ClientOptions(),
        )
        self.admin = Admin(self._cluster)
        self._producer: Producer | None = None
        self._closed = False

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except PegelError as closing:
            if error is None:
                raise
            error.add_note(f"and on closing the client: {closing}")

    async def close(self) -> None:
        """Flush what ``send`` and ``send_many`` of this object left, and close all connections."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._producer is not None:
                await self._producer.close()
        finally:
            await self._cluster.close()

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replication: int = -1,
        config: Mapping[str, str | int | float | bool] | None = None,
        timeout: float | None = None,
    ) -> uuid.UUID:
        """Create a topic; as ``admin.create_topic``."""
        return await self.admin.create_topic(
            name, partitions=partitions, replication=replication, config=config, timeout=timeout
        )

    async def delete_topic(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a topic and its records; as ``admin.delete_topic``."""
        await self.admin.delete_topic(name, timeout=timeout)

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
        timeout: float | None = None,
    ) -> RecordMetadata:
        """Write one record with acks="all", idempotently; as ``Producer.send``."""
        return await self._default_producer().send(
            topic,
            value,
            key=key,
            partition=partition,
            headers=headers,
            timestamp=timestamp,
            timeout=timeout,
        )

    async def send_many(
        self,
        topic: str,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        partition: int | None = None,
        headers: Sequence[Headers] | None = None,
        timestamps: Sequence[int] | int | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Write many records with acks="all", idempotently; as ``Producer.send_many``."""
        return await self._default_producer().send_many(
            topic,
            values,
            keys=keys,
            partition=partition,
            headers=headers,
            timestamps=timestamps,
            timeout=timeout,
        )

    def producer(
        self,
        *,
        acks: Acks = "all",
        idempotent: bool | None = None,
        compression: Compression = "none",
        compression_level: int | None = None,
        linger_ms: float = 0.0,
        batch_bytes: int = 512 * 1024,
        buffer_bytes: int = 64 * 1024 * 1024,
        delivery_timeout: float = 120.0,
    ) -> Producer:
        """A producer with its own settings (``ProducerOptions`` explains them)."""
        self._check_open()
        options = ProducerOptions(
            acks=acks,
            idempotent=idempotent,
            compression=compression,
            compression_level=compression_level,
            linger_ms=linger_ms,
            batch_bytes=batch_bytes,
            buffer_bytes=max(buffer_bytes, batch_bytes),
            delivery_timeout=delivery_timeout,
        )
        return Producer(self._cluster, options)

    def consumer(
        self,
        *topics: str,
        group: str | None = None,
        partitions: Sequence[TopicPartition | tuple[str, int]] | None = None,
        offset_reset: OffsetReset = "latest",
        isolation: IsolationLevel = "read_uncommitted",
        max_wait: float = 0.5,
        partition_fetch_bytes: int = 1024 * 1024,
        prefetch_bytes: int = 32 * 1024 * 1024,
        rack: str = "",
    ) -> Consumer:
        """A consumer of all partitions of ``topics``, or of ``partitions``.

        It begins where ``offset_reset`` says unless told otherwise by a ``seek``.

        Raises:
            UnsupportedFeatureError: with ``group``, which this release cannot do yet.
            ValueError: neither topics nor partitions, or both.
        """
        self._check_open()
        if group is not None:
            raise UnsupportedFeatureError(
                "consumer groups are not there yet: read a whole topic with consumer(topic), or "
                "name its partitions with partitions=[(topic, 0), …] and keep offsets yourself"
            )
        if bool(topics) == bool(partitions):
            raise ValueError("give topics, or partitions=[(topic, partition), …]")
        options = ConsumerOptions(
            offset_reset=offset_reset,
            isolation=isolation,
            max_wait=max_wait,
            partition_fetch_bytes=partition_fetch_bytes,
            prefetch_bytes=prefetch_bytes,
            rack=rack,
        )
        assigned = [TopicPartition(*p) for p in partitions or ()]
        return Consumer(self._cluster, topics, assigned, options)

    def _default_producer(self) -> Producer:
        self._check_open()
        if self._producer is None:
            self._producer = Producer(self._cluster, ProducerOptions())
        return self._producer

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client is closed")
