"""The settings of one log, read from the effective configuration of its topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pegel_controller.config import LONG_MAX, TOPIC_CONFIGS, Value, parse

__all__ = ["LONG_MAX", "LogConfig"]

DEFAULT_PRODUCER_ID_EXPIRATION_MS = 86_400_000
_KEYS = (
    "cleanup.policy", "delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms",
    "index.interval.bytes", "max.compaction.lag.ms", "max.message.bytes",
    "message.timestamp.after.max.ms", "message.timestamp.before.max.ms", "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms", "retention.bytes", "retention.ms",
    "segment.bytes", "segment.index.bytes", "segment.ms",
)  # fmt: skip
_DEFAULTS: Mapping[str, Value] = {
    key: parse(TOPIC_CONFIGS[key], TOPIC_CONFIGS[key].default) for key in _KEYS
}


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Sizes in bytes, times in ms; -1 stands for no limit in the two retention settings."""

    flush_messages: int
    flush_ms: int
    index_interval_bytes: int
    max_message_bytes: int
    retention_bytes: int
    retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    segment_ms: int
    file_delete_delay_ms: int
    timestamp_after_max_ms: int
    timestamp_before_max_ms: int
    log_append_time: bool
    delete_policy: bool
    compact_policy: bool
    producer_id_expiration_ms: int
    delete_retention_ms: int
    min_cleanable_dirty_ratio: float
    min_compaction_lag_ms: int
    max_compaction_lag_ms: int

    @classmethod
    def from_values(cls, values: Mapping[str, Value] | None = None) -> LogConfig:
        """Build from parsed values by Kafka's key names; a key left out has its default."""
        given = {} if values is None else values

        def number(key: str) -> int:
            value = given.get(key, _DEFAULTS[key])
            assert isinstance(value, int), f"{key} must be a number, not {value!r}"
            return value

        policy = given.get("cleanup.policy", _DEFAULTS["cleanup.policy"])
        policies = policy.split(",") if isinstance(policy, str) else list(policy)  # type: ignore[arg-type]
        expiration = given.get("producer.id.expiration.ms", DEFAULT_PRODUCER_ID_EXPIRATION_MS)
        assert isinstance(expiration, int)
        stamp = given.get("message.timestamp.type", _DEFAULTS["message.timestamp.type"])
        ratio = given.get("min.cleanable.dirty.ratio", _DEFAULTS["min.cleanable.dirty.ratio"])
        assert isinstance(ratio, int | float)
        return cls(
            flush_messages=number("flush.messages"),
            flush_ms=number("flush.ms"),
            index_interval_bytes=number("index.interval.bytes"),
            max_message_bytes=number("max.message.bytes"),
            retention_bytes=number("retention.bytes"),
            retention_ms=number("retention.ms"),
            segment_bytes=number("segment.bytes"),
            segment_index_bytes=number("segment.index.bytes"),
            segment_ms=number("segment.ms"),
            file_delete_delay_ms=number("file.delete.delay.ms"),
            timestamp_after_max_ms=number("message.timestamp.after.max.ms"),
            timestamp_before_max_ms=number("message.timestamp.before.max.ms"),
            log_append_time=stamp == "LogAppendTime",
            delete_policy="delete" in policies,
            compact_policy="compact" in policies,
            producer_id_expiration_ms=expiration,
            delete_retention_ms=number("delete.retention.ms"),
            min_cleanable_dirty_ratio=float(ratio),
            min_compaction_lag_ms=number("min.compaction.lag.ms"),
            max_compaction_lag_ms=number("max.compaction.lag.ms"),
        )

    @property
    def flushes(self) -> bool:
        """Whether appends are synced by number or by time, as most topics are not."""
        return self.flush_messages != LONG_MAX or self.flush_ms != LONG_MAX
