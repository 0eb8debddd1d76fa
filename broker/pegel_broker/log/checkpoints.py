"""The small text files of Kafka's log directories: their names, and their bytes both ways."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterable, Mapping

RECOVERY_POINT_FILE = "recovery-point-offset-checkpoint"
HIGH_WATERMARK_FILE = "replication-offset-checkpoint"
LOG_START_FILE = "log-start-offset-checkpoint"
CLEANER_FILE = "cleaner-offset-checkpoint"
META_PROPERTIES_FILE = "meta.properties"
LOCK_FILE = ".lock"
CLEAN_SHUTDOWN_FILE = ".kafka_cleanshutdown"
LEADER_EPOCH_FILE = "leader-epoch-checkpoint"
PARTITION_METADATA_FILE = "partition.metadata"
# Ours: in a log that is, or once was, compacted. A start does not know the policy yet.
COMPACTED_FILE = "compaction"
LOG_SUFFIX = ".log"
OFFSET_INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
TRANSACTION_INDEX_SUFFIX = ".txnindex"
SNAPSHOT_SUFFIX = ".snapshot"
DELETED_DIRECTORY_SUFFIX = "-delete"

_VERSION = "0"
_MAX_DIRECTORY_NAME = 255
_DIRECTORY = re.compile(r"([a-zA-Z0-9._-]+)-(\d+)\Z")
_SEGMENT = re.compile(r"(\d{20})(\.\w+)\Z")
_PROPERTY_SPECIAL = re.compile(r"([\\:=#! ])")
_PROPERTY_ESCAPES = re.compile(r"\\(.)")


class CheckpointError(ValueError):
    """A file whose text is not of its format."""


def encode_offsets(offsets: Iterable[tuple[str, int, int]]) -> bytes:
    """A checkpoint of (topic, partition, offset): version, count, a line for each."""
    lines = [f"{topic} {partition} {offset}" for topic, partition, offset in offsets]
    return "\n".join((_VERSION, str(len(lines)), *lines, "")).encode()


def decode_offsets(data: bytes) -> dict[tuple[str, int], int]:
    """Raises CheckpointError."""
    offsets: dict[tuple[str, int], int] = {}
    for row in _rows(data, 3):
        offsets[row[0], _integer(row[1])] = _integer(row[2])
    return offsets


def encode_epochs(entries: Iterable[tuple[int, int]]) -> bytes:
    """A ``leader-epoch-checkpoint`` of (epoch, start offset)."""
    lines = [f"{epoch} {start}" for epoch, start in entries]
    return "\n".join((_VERSION, str(len(lines)), *lines, "")).encode()


def decode_epochs(data: bytes) -> list[tuple[int, int]]:
    """Raises CheckpointError."""
    return [(_integer(row[0]), _integer(row[1])) for row in _rows(data, 2)]


def _rows(data: bytes, width: int) -> list[list[str]]:
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CheckpointError("not text") from error
    if len(lines) < 2 or lines[0].strip() != _VERSION:
        raise CheckpointError("not a checkpoint of version 0")
    rows = [line.split() for line in lines[2:] if line.strip()]
    if len(rows) != _integer(lines[1]) or any(len(row) != width for row in rows):
        raise CheckpointError("cut short, or with rows of a wrong width")
    return rows


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise CheckpointError(f"{text!r} is not a number") from error


def encode_partition_metadata(topic_id: uuid.UUID) -> bytes:
    return f"version: 0\ntopic_id: {encode_uuid(topic_id)}".encode()


def decode_partition_metadata(data: bytes) -> uuid.UUID:
    """Raises CheckpointError."""
    fields = dict(
        line.split(": ", 1) for line in data.decode("utf-8", "replace").splitlines() if ": " in line
    )
    if fields.get("version") != "0" or "topic_id" not in fields:
        raise CheckpointError("not a partition.metadata of version 0")
    return decode_uuid(fields["topic_id"].strip())


def encode_uuid(value: uuid.UUID) -> str:
    """Kafka's text form: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(value.bytes).decode().rstrip("=")


def decode_uuid(text: str) -> uuid.UUID:
    """Raises CheckpointError."""
    try:
        return uuid.UUID(bytes=base64.urlsafe_b64decode(text + "=="))
    except ValueError as error:
        raise CheckpointError(f"{text!r} is not an id") from error


def encode_properties(properties: Mapping[str, str]) -> bytes:
    """Java properties, keys sorted."""
    rows = (
        f"{key}={_PROPERTY_SPECIAL.sub(_escaped, value)}"
        for key, value in sorted(properties.items())
    )
    return "\n".join(("#", *rows, "")).encode()


def _escaped(match: re.Match[str]) -> str:
    return "\\" + match.group(1)


def decode_properties(data: bytes) -> dict[str, str]:
    """Raises CheckpointError."""
    properties = {}
    for line in data.decode("utf-8", "replace").splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#!":
            continue
        key, separator, value = stripped.partition("=")
        if not separator:
            raise CheckpointError(f"line {stripped!r} has no '='")
        properties[key.strip()] = _PROPERTY_ESCAPES.sub(r"\1", value.strip())
    return properties


def encode_clean_shutdown(broker_epoch: int, offline: Iterable[tuple[str, int]] = ()) -> bytes:
    """Kafka's mark; where there are ``offline`` logs it names them: they were not shut down."""
    content: dict[str, object] = {"version": 0, "brokerEpoch": broker_epoch}
    names = [directory_name(*key) for key in offline]
    if names:
        content["offline"] = names
    return json.dumps(content, separators=(",", ":")).encode()


def decode_clean_shutdown(data: bytes) -> tuple[int, frozenset[tuple[str, int]]]:
    """The broker epoch of the last run (-1 where the mark does not say), and its offline logs."""
    try:
        content = json.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return -1, frozenset()
    epoch, names = content.get("brokerEpoch"), content.get("offline")
    keys = [
        parse_directory_name(name)
        for name in (names if isinstance(names, list) else ())
        if isinstance(name, str)
    ]
    return epoch if isinstance(epoch, int) else -1, frozenset(k for k in keys if k is not None)


def directory_name(topic: str, partition: int) -> str:
    return f"{topic}-{partition}"


def parse_directory_name(name: str) -> tuple[str, int] | None:
    """Topic and partition of a log's directory; None for any other name."""
    match = _DIRECTORY.match(name)
    return (match.group(1), int(match.group(2))) if match else None


def deleted_directory_name(topic: str, partition: int, unique: str) -> str:
    """As Kafka: ``topic-partition.unique-delete``, the topic cut so that the name is legal."""
    suffix = f"-{partition}.{unique}{DELETED_DIRECTORY_SUFFIX}"
    return topic[: _MAX_DIRECTORY_NAME - len(suffix)] + suffix


def segment_name(base_offset: int, suffix: str = LOG_SUFFIX) -> str:
    return f"{base_offset:020d}{suffix}"


def parse_segment_name(name: str) -> tuple[int, str] | None:
    """Base offset and suffix of a file of a log; None for any other name."""
    match = _SEGMENT.match(name)
    return (int(match.group(1)), match.group(2)) if match else None
