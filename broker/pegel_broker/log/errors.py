"""What can be wrong with a log, each with the Kafka error code that a client is told."""

from __future__ import annotations

from pegel.protocol.errors import ErrorCode


class LogError(Exception):
    """An append, read or look-up was refused; nothing was changed.

    Attributes:
        code: what the client is told.
        message: one sentence for people.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class RejectedRecordsError(LogError):
    """INVALID_RECORD for single records of a batch; none of it was appended (KIP-467).

    Attributes:
        records: (index in the batch, what is wrong with it) of each.
    """

    def __init__(self, records: list[tuple[int, str]]) -> None:
        super().__init__(
            ErrorCode.INVALID_RECORD,
            f"One or more records have been rejected: {records[0][1]}",
        )
        self.records = records


class CorruptLogError(LogError):
    """A file of a log is damaged where it may not be; the replica goes offline, unrepaired.

    Attributes:
        path: the damaged file.
        position: byte offset of the damage in that file.
    """

    def __init__(self, path: str, position: int, problem: str) -> None:
        super().__init__(
            ErrorCode.KAFKA_STORAGE_ERROR, f"{path}: damaged at byte {position}: {problem}"
        )
        self.path = path
        self.position = position


class LogDirectoryError(LogError):
    """A log directory cannot be used: locked, of another cluster or node, or failed."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(ErrorCode.KAFKA_STORAGE_ERROR, f"log directory {path}: {problem}")
        self.path = path
        self.problem = problem
