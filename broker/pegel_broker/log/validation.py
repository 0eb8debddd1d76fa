"""What a leader refuses of a client's batch, from its header and checksum alone."""

from __future__ import annotations

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import HEADER_SIZE, BatchHeader, check_batch, read_header
from pegel.record.compression import CorruptBatchError
from pegel.record.decode import decode_batch
from pegel_broker.log.config import LogConfig
from pegel_broker.log.errors import LogError, RejectedRecordsError
from pegel_broker.log.results import Buffer

NO_TIMESTAMP = -1


def check_client_batch(records: Buffer, config: LogConfig, now_ms: int) -> BatchHeader:
    """The header of the one batch in ``records``, if it may be appended.

    Raises:
        LogError: CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
            INVALID_TIMESTAMP.
        RejectedRecordsError: records without a key for a compacted topic.
    """
    size = len(records)
    if size < HEADER_SIZE:
        raise LogError(ErrorCode.CORRUPT_MESSAGE, f"{size} bytes are no record batch")
    if size > config.max_message_bytes:
        raise LogError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"The record batch size is {size} bytes which exceeds the maximum configured value "
            f"of {config.max_message_bytes}.",
        )
    if size > config.segment_bytes:
        raise LogError(
            ErrorCode.RECORD_LIST_TOO_LARGE,
            f"Message batch size is {size} bytes which exceeds the maximum configured segment "
            f"size of {config.segment_bytes}.",
        )
    header = read_header(records)
    try:
        check_batch(records, 0, header, client=True)
    except CorruptBatchError as error:
        raise LogError(error.code, str(error)) from error
    if header.size != size:
        raise LogError(ErrorCode.INVALID_RECORD, "a produce request holds one batch a partition")
    if not config.log_append_time and header.max_timestamp != NO_TIMESTAMP:
        if header.max_timestamp - now_ms > config.timestamp_after_max_ms:
            raise _bad_timestamp(header.max_timestamp, now_ms)
        if now_ms - header.base_timestamp > config.timestamp_before_max_ms:
            raise _bad_timestamp(header.base_timestamp, now_ms)
    if config.compact_policy:
        _check_keys(records)
    return header


def _check_keys(records: Buffer) -> None:
    """Compaction keeps the last record of each key: one without could never be kept."""
    try:
        keys = decode_batch(records, check=False).keys
    except CorruptBatchError as error:
        raise LogError(error.code, str(error)) from error
    if None in keys:
        message = "Compacted topic cannot accept message without key."
        raise RejectedRecordsError([(i, message) for i, key in enumerate(keys) if key is None])


def _bad_timestamp(timestamp: int, now_ms: int) -> LogError:
    return LogError(
        ErrorCode.INVALID_TIMESTAMP,
        f"Timestamp {timestamp} of message is out of range: it is {timestamp - now_ms} ms from "
        "the time of the broker",
    )
