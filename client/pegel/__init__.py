"""Pegel: a Kafka-compatible partitioned, replicated log in Python.

The names of the client are here; they are loaded when first used, so that importing the package
(as every broker process does) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pegel.client import AsyncClient
    from pegel.config import ClientOptions, ConsumerOptions, ProducerOptions
    from pegel.consumer.consumer import Consumer
    from pegel.credentials import Plain, Scram256, Scram512
    from pegel.errors import (
        AuthenticationError,
        AuthorizationError,
        BrokerError,
        BufferFullError,
        ClosedError,
        CommitFailedError,
        ConnectionFailedError,
        CorruptResponseError,
        DeliveryTimeoutError,
        GroupError,
        GroupNotEmptyError,
        GroupNotFoundError,
        InvalidTopicError,
        LogTruncationError,
        NoOffsetError,
        OffsetOutOfRangeError,
        PegelError,
        ProducerFencedError,
        RecordTooLargeError,
        RequestTimeoutError,
        TopicExistsError,
        TopicNotFoundError,
        UnsupportedFeatureError,
        UnsupportedVersionError,
    )
    from pegel.producer.producer import Producer
    from pegel.protocol.errors import ErrorCode
    from pegel.sync.client import Client
    from pegel.types import (
        CommittedOffset,
        ConsumerBatch,
        ConsumerRecord,
        OffsetRange,
        RecordMetadata,
        SendResult,
        TopicPartition,
    )

_HOMES = {
    "pegel.client": ("AsyncClient",),
    "pegel.config": ("ClientOptions", "ConsumerOptions", "ProducerOptions"),
    "pegel.consumer.consumer": ("Consumer",),
    "pegel.credentials": ("Plain", "Scram256", "Scram512"),
    "pegel.errors": (
        "AuthenticationError",
        "AuthorizationError",
        "BrokerError",
        "BufferFullError",
        "ClosedError",
        "CommitFailedError",
        "CommitFailedError",
        "ConnectionFailedError",
        "CorruptResponseError",
        "DeliveryTimeoutError",
        "GroupError",
        "GroupNotEmptyError",
        "GroupNotFoundError",
        "GroupError",
        "GroupNotEmptyError",
        "GroupNotFoundError",
        "GroupNotEmptyError",
        "GroupNotFoundError",
        "GroupNotFoundError",
        "InvalidTopicError",
        "LogTruncationError",
        "NoOffsetError",
        "NoOffsetError",
        "OffsetOutOfRangeError",
        "PegelError",
        "ProducerFencedError",
        "RecordTooLargeError",
        "RequestTimeoutError",
        "TopicExistsError",
        "TopicNotFoundError",
        "UnsupportedFeatureError",
        "UnsupportedVersionError",
    ),
    "pegel.producer.producer": ("Producer",),
    "pegel.protocol.errors": ("ErrorCode",),
    "pegel.sync.client": ("Client",),
    "pegel.types": (
        "CommittedOffset",
        "ConsumerBatch",
        "ConsumerRecord",
        "OffsetRange",
        "RecordMetadata",
        "SendResult",
        "TopicPartition",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "AuthorizationError",
    "BrokerError",
    "BufferFullError",
    "Client",
    "ClientOptions",
    "ClosedError",
    "CommitFailedError",
    "CommittedOffset",
    "ConnectionFailedError",
    "Consumer",
    "ConsumerBatch",
    "ConsumerOptions",
    "ConsumerRecord",
    "CorruptResponseError",
    "DeliveryTimeoutError",
    "ErrorCode",
    "GroupError",
    "GroupNotEmptyError",
    "GroupNotFoundError",
    "InvalidTopicError",
    "LogTruncationError",
    "NoOffsetError",
    "OffsetOutOfRangeError",
    "OffsetRange",
    "PegelError",
    "Plain",
    "Producer",
    "ProducerFencedError",
    "ProducerOptions",
    "RecordMetadata",
    "RecordTooLargeError",
    "RequestTimeoutError",
    "Scram256",
    "Scram512",
    "SendResult",
    "TopicExistsError",
    "TopicNotFoundError",
    "TopicPartition",
    "UnsupportedFeatureError",
    "UnsupportedVersionError",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
