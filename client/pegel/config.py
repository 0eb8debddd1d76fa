"""Options of clients, producers and consumers: typed, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pegel.credentials import Credentials
from pegel.record import Codec

Acks = Literal[0, 1, -1, "all"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
OffsetReset = Literal["earliest", "latest", "none"]
IsolationLevel = Literal["read_uncommitted", "read_committed"]

CommitMode = Literal["batch", "manual", "none"]
AssignorName = Literal["range", "roundrobin", "sticky", "cooperative-sticky"]

DEFAULT_PORT = 9092
# The largest frame that brokers take, less the room for a request around its records.
MAX_BATCH_BYTES = 95 * 1024 * 1024


def parse_bootstrap(text: str) -> tuple[tuple[str, int], ...]:
    """``"host:port,…"`` as pairs; the port defaults to 9092, IPv6 addresses stand in brackets.

    Raises:
        ValueError: no address, or a port that is none.
    """
    addresses: list[tuple[str, int]] = []
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        host, port = part, str(DEFAULT_PORT)
        if part.startswith("["):
            host, _, rest = part[1:].partition("]")
            port = rest[1:] if rest.startswith(":") else port
        elif part.count(":") == 1:
            host, _, port = part.partition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{part!r} is not an address; write host:port, such as localhost:9092")
        addresses.append((host, int(port)))
    if not addresses:
        raise ValueError("no bootstrap address; write host:port, such as localhost:9092")
    return tuple(addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """What all parts of a client share; times in seconds.

    Attributes:
        request_timeout: longest wait for one response.
        connect_timeout: longest wait for a connection and its handshake.
        metadata_max_age: the cluster's metadata is read again when older than this.
        retry_backoff, retry_backoff_max: first and longest pause before a retry. The first is
            short because a failed-over partition is back within a fraction of a second.
        reconnect_backoff_max: longest pause before a broker that does not answer is tried again.
        stall: a request unanswered for so long makes the client look for a new leader.
        topic_grace: how long a topic may be unknown before that is an error; a topic that was
            created a moment ago is not known to every broker of an Apache Kafka cluster.
        auto_create_topics: ask the broker to create an unknown topic that is written to.
        heartbeat_thread: send the heartbeats of group members from a thread, so that code which
            blocks the event loop costs no session. ``False`` where nothing else runs on the loop.
        credentials: who this client is, for brokers that ask.
    """

    client_id: str = "pegel"
    request_timeout: float = 30.0
    connect_timeout: float = 10.0
    metadata_max_age: float = 300.0
    retry_backoff: float = 0.02
    retry_backoff_max: float = 1.0
    reconnect_backoff_max: float = 1.0
    stall: float = 0.25
    topic_grace: float = 2.0
    auto_create_topics: bool = False
    heartbeat_thread: bool = True
    credentials: Credentials | None = None

    def __post_init__(self) -> None:
        _check_texts(self, "client_id")


# The size of a text in Kafka's protocol and records is an int16.
TEXT_MAX_BYTES = 32_767


def _check_texts(options: object, *names: str) -> None:
    """What is sent again and again as text must be some: a request could not be written."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} is text, not {type(value).__name__}: {value!r}")
        if value is not None and (size := len(value.encode())) > TEXT_MAX_BYTES:
            raise ValueError(f"{name} has at most {TEXT_MAX_BYTES} bytes, not {size}")


# Lowest and highest level; the ranges of Kafka's producer (KIP-390), gzip's with 0 (stored).
_LEVELS = {"gzip": (0, 9), "lz4": (0, 17), "zstd": (-131_072, 22)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """How a producer writes.

    Attributes:
        acks: 0 (no acknowledgement), 1 (the leader has it), "all" (every in-sync replica has it).
        idempotent: no duplicates and no reordering by retries; needs acks="all". ``None`` means
            wherever acks allows it.
        compression_level: gzip 0 to 9, lz4 0 to 17, zstd -131072 to 22; more is smaller and
            slower. ``None``: the codec's default.
        linger_ms: how long a batch that is not full waits for more records.
        batch_bytes: a batch is full at this size; keep it below ``max.message.bytes``.
        request_bytes: most record bytes in one request.
        buffer_bytes: records held in memory until acknowledged; above it, sends wait.
        delivery_timeout: seconds from the call until a record is acknowledged or has failed.
        max_in_flight: unanswered requests per broker; brokers remember five batches.
    """

    acks: Acks = "all"
    idempotent: bool | None = None
    compression: Compression = "none"
    compression_level: int | None = None
    linger_ms: float = 0.0
    batch_bytes: int = 512 * 1024
    request_bytes: int = 4 * 1024 * 1024
    buffer_bytes: int = 64 * 1024 * 1024
    delivery_timeout: float = 120.0
    max_in_flight: int = 5

    def __post_init__(self) -> None:
        if self.acks not in {0, 1, -1, "all"}:
            raise ValueError(f'acks is 0, 1 or "all", not {self.acks!r}')
        if self.compression not in {"none", "gzip", "snappy", "lz4", "zstd"}:
            raise ValueError(
                f"compression is none, gzip, snappy, lz4 or zstd, not {self.compression!r}"
            )
        self._check_level()
        if self.idempotent and self.required_acks != -1:
            raise ValueError('an idempotent producer needs acks="all"')
        if not 1 <= self.max_in_flight <= 5 and self.is_idempotent:
            raise ValueError("an idempotent producer has 1 to 5 requests in flight")
        if not 0 < self.batch_bytes <= MAX_BATCH_BYTES:
            raise ValueError(f"batch_bytes is between 1 and {MAX_BATCH_BYTES}")
        if self.buffer_bytes < self.batch_bytes:
            raise ValueError("buffer_bytes is at least batch_bytes")
        if self.linger_ms < 0:
            raise ValueError(f"linger_ms is 0 or more, not {self.linger_ms!r}")
        if self.delivery_timeout <= 0 or self.max_in_flight < 1:
            raise ValueError("delivery_timeout is more than 0, and max_in_flight at least 1")

    def _check_level(self) -> None:
        level = self.compression_level
        if level is None:
            return
        low_and_high = _LEVELS.get(self.compression)
        if low_and_high is None:
            raise ValueError(f"compression {self.compression!r} has no compression_level")
        low, high = low_and_high
        if type(level) is not int or not low <= level <= high:
            raise ValueError(
                f"compression_level of {self.compression} is {low} to {high}, not {level!r}"
            )

    @property
    def required_acks(self) -> int:
        """As on the wire: 0, 1, or -1 for all."""
        return -1 if self.acks == "all" else self.acks

    @property
    def is_idempotent(self) -> bool:
        """Whether retries neither double nor reorder: as chosen, else wherever acks allows it."""
        return self.required_acks == -1 if self.idempotent is None else self.idempotent

    @property
    def codec(self) -> Codec:
        """``compression`` as batches name it."""
        return Codec[self.compression.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """How a consumer reads.

    Attributes:
        offset_reset: where to go on when a position is not in the log: its first record, its
            end, or nowhere (an error).
        isolation: "read_committed" leaves out records of aborted and of open transactions.
        max_wait: seconds for which a broker may hold a fetch that found too little.
        min_bytes: what is not too little.
        fetch_bytes, partition_fetch_bytes: most bytes of a response, and of one partition in it;
            a batch that is larger comes alone.
        prefetch_bytes: bytes fetched ahead of the reader; above it, fetching stops.
        rack: read from an in-sync replica in this rack where there is one (KIP-392).
        group: share the topics with the other members of this group, and keep offsets there.
        commit: "batch" commits each batch soon after the reader came back from it; "manual" only
            what ``commit()`` is called for; "none" keeps no offsets in the group at all: it only
            shares out partitions, which then begin where ``offset_reset`` or a hook says.
        assignors: ways to share out partitions, the preferred first; all members must have one
            in common. All cooperative: members keep reading while the group rebalances.
        instance_id: makes a static member (KIP-345): a restart within ``session_timeout`` gets
            its partitions back without a rebalance.
        session_timeout: seconds without a heartbeat after which a member is taken for dead.
        heartbeat_interval: seconds between heartbeats, which also tell of a rebalance.
        max_poll_interval: seconds that a reader may take for one batch, and a rebalance waits
            for it. A reader that takes longer loses its partitions to the others.
    """

    offset_reset: OffsetReset = "latest"
    isolation: IsolationLevel = "read_uncommitted"
    max_wait: float = 0.5
    min_bytes: int = 1
    fetch_bytes: int = 16 * 1024 * 1024
    partition_fetch_bytes: int = 1024 * 1024
    prefetch_bytes: int = 32 * 1024 * 1024
    rack: str = ""
    group: str | None = None
    commit: CommitMode = "batch"
    assignors: tuple[AssignorName, ...] = ("cooperative-sticky",)
    instance_id: str | None = None
    session_timeout: float = 45.0
    heartbeat_interval: float = 1.0
    max_poll_interval: float = 300.0

    def __post_init__(self) -> None:
        _check_texts(self, "group", "instance_id", "rack")
        self._check_group()
        if self.offset_reset not in {"earliest", "latest", "none"}:
            raise ValueError(f"offset_reset is earliest, latest or none, not {self.offset_reset!r}")
        if self.isolation not in {"read_uncommitted", "read_committed"}:
            raise ValueError(
                f"isolation is read_uncommitted or read_committed, not {self.isolation!r}"
            )
        if min(self.fetch_bytes, self.partition_fetch_bytes, self.prefetch_bytes) <= 0:
            raise ValueError("fetch_bytes, partition_fetch_bytes and prefetch_bytes are positive")

        if self.max_wait < 0 or self.min_bytes < 0:
            raise ValueError("max_wait and min_bytes are not negative")

    def _check_group(self) -> None:
        if self.group == "":
            raise ValueError("a group has a name")
        known = get_args(AssignorName)
        if not self.assignors or any(name not in known for name in self.assignors):
            raise ValueError(
                f"assignors are one or more of {', '.join(known)}, not {self.assignors!r}"
            )
        if self.commit not in {"batch", "manual", "none"}:
            raise ValueError(f"commit is batch, manual or none, not {self.commit!r}")
        if self.instance_id is not None and not (self.group and self.instance_id):
            raise ValueError("an instance_id is not empty, and needs a group")
        if not 0 < self.heartbeat_interval < self.session_timeout:
            raise ValueError("heartbeat_interval is positive and below session_timeout")
        if self.max_poll_interval <= 0:
            raise ValueError("max_poll_interval is positive")

    @property
    def isolation_level(self) -> int:
        """As on the wire."""
        return 1 if self.isolation == "read_committed" else 0
