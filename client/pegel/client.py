"""The client: one object for writing, reading and administration of a cluster."""

from __future__ import annotations

import random
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

from pegel.admin.admin import Admin
from pegel.cluster import Cluster
from pegel.config import (
    Acks,
    AssignorName,
    ClientOptions,
    CommitMode,
    Compression,
    ConsumerOptions,
    IsolationLevel,
    OffsetReset,
    ProducerOptions,
    parse_bootstrap,
)
from pegel.consumer.consumer import Consumer
from pegel.consumer.group import Hook, Hooks
from pegel.consumer.heart import Heart, Hearts, HeartThread
from pegel.credentials import Credentials
from pegel.errors import ClosedError, PegelError
from pegel.producer.producer import Producer
from pegel.seams import Clock, Network
from pegel.seams.clock import RealClock
from pegel.seams.network import RealNetwork
from pegel.types import (
    Headers,
    RecordMetadata,
    SendResult,
    TopicPartition,
    check_partition_number,
    check_topic_name,
)


class AsyncClient:
    """A client of one cluster, for asyncio; works with Apache Kafka as well.

    Use it with ``async with``; it connects when first needed::

        async with pegel.AsyncClient("localhost:9092") as client:
            await client.create_topic("orders", partitions=6, replication=3)
            where = await client.send("orders", b"value", key=b"key")

    Args:
        bootstrap: ``"host:port,…"``: any brokers of the cluster; the others are found.
        credentials: who this client is, for brokers that ask: ``pegel.Scram256("alice", "…")``,
            ``Scram512`` or ``Plain``. A broker that refuses them fails each call at once
            (``AuthenticationError``).
        options: time-outs, back-offs and the client's name.
    """

    def __init__(
        self,
        bootstrap: str = "localhost:9092",
        *,
        credentials: Credentials | None = None,
        options: ClientOptions | None = None,
        network: Network | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._bootstrap = parse_bootstrap(bootstrap)
        self._owns_network = network is None
        self._hearts: Hearts | None = None
        self._cluster = Cluster(
            self._bootstrap,
            network=network or RealNetwork(),
            clock=clock or RealClock(),
            rng=rng or random.Random(),
            options=_with_credentials(options or ClientOptions(), credentials),
        )
        self.admin = Admin(self._cluster)
        self._producer: Producer | None = None
        self._closed = False

    def __del__(self) -> None:
        cluster = getattr(self, "_cluster", None)
        if cluster is None or self._closed or not cluster.pool.in_use:
            return
        warnings.warn(
            f"a client of {','.join(f'{h}:{p}' for h, p in self._bootstrap)} was not closed: "
            "use `with`, or close()",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

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
            try:
                if self._hearts is not None:
                    await self._hearts.close()
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
        values: Iterable[bytes | None],
        *,
        keys: Iterable[bytes | None] | None = None,
        partition: int | None = None,
        headers: Iterable[Headers] | None = None,
        timestamps: Iterable[int] | int | None = None,
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
        commit: CommitMode = "batch",
        isolation: IsolationLevel = "read_uncommitted",
        assignors: Sequence[AssignorName] = ("cooperative-sticky",),
        instance_id: str | None = None,
        on_assigned: Hook | None = None,
        on_revoked: Hook | None = None,
        on_lost: Hook | None = None,
        session_timeout: float = 45.0,
        heartbeat_interval: float = 1.0,
        max_poll_interval: float = 300.0,
        max_wait: float = 0.5,
        partition_fetch_bytes: int = 1024 * 1024,
        prefetch_bytes: int = 32 * 1024 * 1024,
        rack: str = "",
    ) -> Consumer:
        """A consumer of ``topics``, or of ``partitions`` (``ConsumerOptions`` explains the rest).

        With ``group`` and topics it shares their partitions with the group's other members, and
        begins where the group stopped. With ``group`` and partitions it keeps their offsets in
        the group. Otherwise, and where the group has no offset, it begins where ``offset_reset``
        says, unless told otherwise by a ``seek``.

        Args:
            on_assigned, on_revoked, on_lost: called with the partitions that come, that are given
                back (commit now, if you do so by hand), and that were taken away (too late to
                commit); plain or async functions, which run between two batches.

        Raises:
            ValueError: neither topics nor partitions, or both; an option that makes no sense.
            TypeError: a name that is no text, a partition that is no int.
        """
        self._check_open()
        if bool(topics) == bool(partitions):
            raise ValueError("give topics, or partitions=[(topic, partition), …]")
        options = ConsumerOptions(
            offset_reset=offset_reset,
            isolation=isolation,
            max_wait=max_wait,
            partition_fetch_bytes=partition_fetch_bytes,
            prefetch_bytes=prefetch_bytes,
            rack=rack,
            group=group,
            commit=commit,
            assignors=tuple(assignors),
            instance_id=instance_id,
            session_timeout=session_timeout,
            heartbeat_interval=heartbeat_interval,
            max_poll_interval=max_poll_interval,
        )
        assigned = [TopicPartition(*p) for p in partitions or ()]
        for name in (*topics, *(tp.topic for tp in assigned)):
            check_topic_name(name)
        for tp in assigned:
            check_partition_number(tp.partition)
        for what, hook in [
            ("on_assigned", on_assigned), ("on_revoked", on_revoked), ("on_lost", on_lost)
        ]:  # fmt: skip
            if hook is not None and not callable(hook):
                raise TypeError(f"{what} is a function of a list of partitions, not {hook!r}")
        hooks = Hooks(on_assigned, on_revoked, on_lost)
        hearts = self._member_hearts() if group is not None and topics else None
        return Consumer(self._cluster, topics, assigned, options, hooks, hearts)

    def _member_hearts(self) -> Hearts:
        if self._hearts is None:
            in_thread = self._cluster.options.heartbeat_thread and self._owns_network
            self._hearts = (
                HeartThread(self._new_cluster, self._cluster.random)
                if in_thread
                else Heart(self._cluster)
            )
        return self._hearts

    def _new_cluster(self, rng: random.Random) -> Cluster:
        """Connections and metadata for another event loop."""
        return Cluster(
            self._bootstrap,
            network=RealNetwork(),
            clock=RealClock(),
            rng=rng,
            options=self._cluster.options,
        )

    def _default_producer(self) -> Producer:
        self._check_open()
        if self._producer is None:
            self._producer = Producer(self._cluster, ProducerOptions())
        return self._producer

    def _check_open(self) -> None:
        self._cluster.pool.check_process()
        if self._closed:
            raise ClosedError("the client is closed")


def _with_credentials(options: ClientOptions, credentials: Credentials | None) -> ClientOptions:
    return options if credentials is None else replace(options, credentials=credentials)
