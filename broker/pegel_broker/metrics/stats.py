"""What the data path counts in: plain numbers in slotted objects, written on the event loop only.

A reader on another thread sees each number whole; two of them may be a request apart.
"""

from __future__ import annotations

from collections.abc import Callable

from pegel.metrics import Histogram
from pegel.metrics.histogram import SECONDS, SHORT_SECONDS
from pegel.protocol.schema import Message


class ApiStats:
    """Requests of one API. Phases in seconds."""

    __slots__ = (
        "count", "count_errors", "duration", "errors", "local", "name", "patience", "queue",
        "remote", "send", "slow", "throttle",
    )  # fmt: skip

    def __init__(self, name: str, patience: float = 0.0) -> None:
        """``patience``: how long a request may wait and not count as slow, in seconds."""
        self.name = name
        self.patience = patience
        self.count = 0
        self.slow = 0
        # How the codes in its responses are counted: found when there is one.
        self.count_errors: Callable[[Message, dict[int, int]], None] | None = None
        self.queue = self.local = self.remote = self.throttle = self.send = 0.0
        self.duration = Histogram(SECONDS)
        self.errors: dict[int, int] = {}  # by error code


class TopicStats:
    """One topic on one broker. ``produced`` is by acks: 0, 1, all (-1 is the last)."""

    __slots__ = (
        "failed_fetch", "failed_produce", "name", "produced", "received_bytes", "received_records",
        "sent_bytes",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.received_bytes = 0
        self.received_records = 0
        self.sent_bytes = 0
        self.produced = [0, 0, 0]
        self.failed_produce = 0
        self.failed_fetch = 0


class LogStats:
    """All log directories of one broker."""

    __slots__ = (
        "append", "corrupt", "deleted", "duplicates", "flush", "recovery_seconds", "rolled",
    )  # fmt: skip

    def __init__(self) -> None:
        self.append = Histogram(SHORT_SECONDS)
        self.flush = Histogram(SHORT_SECONDS)
        self.rolled = 0
        self.deleted = {"retention_time": 0, "retention_size": 0, "log_start": 0}
        self.corrupt = 0
        self.duplicates = 0
        self.recovery_seconds = 0.0


class ReplicationStats:
    """Replication as leader and as follower."""

    __slots__ = (
        "duplicates", "high_watermark_backwards", "isr_expands", "isr_shrinks", "metadata_errors",
        "received_bytes", "sent_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.isr_shrinks = 0
        self.isr_expands = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.duplicates = 0
        self.high_watermark_backwards = 0
        self.metadata_errors = 0
