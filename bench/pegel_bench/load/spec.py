"""What one worker process is told to do, and what it reports: both travel as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

# Latencies are counted in microseconds up to two minutes, with three significant digits.
HIGHEST_LATENCY_US = 120_000_000
SIGNIFICANT_DIGITS = 3


@dataclass(slots=True, kw_only=True)
class LoadSpec:
    """One load: sizes in bytes, times in seconds.

    Attributes:
        kind: "produce", "consume", "end-to-end" or "probe".
        driver: "raw" (pre-encoded batches over plain sockets), "pegel", "librdkafka".
        batch_bytes: librdkafka's batch.size; the others send ``batch_records`` at once.
        rate: requests a second at fixed times (open loop); 0 sends as soon as ``in_flight`` allows.
        in_flight: unanswered requests of one connection, for the closed loop.
        connections: connections to each leader.
        fetch_bytes: most bytes of one partition in a fetch.
        pids: processes of the brokers, whose CPU time is read around the measurement.
        client_settings: of librdkafka, by its own names; they win over those of the load.
        drain: longest wait for what is unanswered at the end.
        max_bytes: stop the measurement early after so many record bytes; 0 means never.
    """

    kind: str = "produce"
    driver: str = "raw"
    bootstrap: str
    topic: str
    partitions: int = 1
    acks: int = -1
    record_bytes: int = 100
    batch_records: int = 1
    batch_bytes: int = 1_000_000
    compression: str = "none"
    rate: float = 0.0
    in_flight: int = 5
    connections: int = 1
    seconds: float = 3.0
    warm_up: float = 1.0
    warm_up_bytes: int = 0
    max_bytes: int = 0
    drain: float = 30.0
    seed: int = 0
    verify: bool = True
    worker: int = 0
    workers: int = 1
    fetch_bytes: int = 1024 * 1024
    pids: list[int] = field(default_factory=list)
    client_settings: dict[str, str] = field(default_factory=dict)

    @property
    def own_partitions(self) -> list[int]:
        """The partitions that are this worker's alone."""
        return list(range(self.worker, self.partitions, self.workers))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class LoadResult:
    """What one worker measured. ``histogram`` is HdrHistogram's base64 form, in microseconds.

    Attributes:
        seconds: from the first measured send to the last measured answer.
        sent, acknowledged, failed, lost, doubled: records.
        behind_ms: how late the generator itself sent, at its 99th percentile.
        broker_cpu_seconds: of ``LoadSpec.pids``, while it was measured.
        sent_rate: requests a second that really left, in an open loop.
        notes: what a reader of the figures must know.
        errors: error name → requests.
    """

    seconds: float = 0.0
    requests: int = 0
    sent: int = 0
    acknowledged: int = 0
    bytes: int = 0
    failed: int = 0
    lost: int = 0
    doubled: int = 0
    verified: bool = False
    behind_ms: float = 0.0
    sent_rate: float = 0.0
    cpu_seconds: float = 0.0
    broker_cpu_seconds: float = 0.0
    histogram: str = ""
    second_histogram: str = ""
    errors: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    # Of a probe: (monotonic seconds of an acknowledgement, how long it took).
    series: list[tuple[float, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def records_in(batch_bytes: int, record_bytes: int) -> int:
    """How many records of this size make a batch of at most ``batch_bytes``; at least one."""
    overhead = 12 if record_bytes >= 64 else 10
    return max(1, (batch_bytes - 61) // (record_bytes + overhead))
