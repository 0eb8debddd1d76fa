"""Partition logs in Apache Kafka's directory layout: append, read, recover, retain.

``LogManager`` is the entrance; a ``PartitionLog`` is one replica's log. Pure cores:
``leader_epochs``, ``producer_state``, ``index``, ``recovery``, ``retention``, ``checkpoints``.
"""

from pegel_broker.log.config import LogConfig
from pegel_broker.log.errors import CorruptLogError, LogDirectoryError, LogError
from pegel_broker.log.manager import LogManager
from pegel_broker.log.partition_log import PartitionLog
from pegel_broker.log.results import AppendResult, ReadResult, TimestampOffset

__all__ = [
    "AppendResult",
    "CorruptLogError",
    "LogConfig",
    "LogDirectoryError",
    "LogError",
    "LogManager",
    "PartitionLog",
    "ReadResult",
    "TimestampOffset",
]
