"""What every driver can do, and what it hands back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

DEADLINE_S = 30.0
Pair = tuple[bytes | None, bytes]


@dataclass(frozen=True)
class Received:
    """One consumed record; ``timestamp`` in milliseconds."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class Driver(Protocol):
    """What each client library is asked to do."""

    name: str

    def create_topic(
        self, topic: str, partitions: int, replication: int, config: dict[str, str] | None = None
    ) -> None: ...

    def delete_topic(self, topic: str) -> None: ...

    def grow_topic(self, topic: str, partitions: int) -> None: ...

    def produce(
        self,
        topic: str,
        partition: int,
        records: Iterable[Pair],
        *,
        acks: int = -1,
        idempotent: bool = False,
        compression: str | None = None,
        timestamp: int | None = None,
    ) -> list[int]:
        """Send all, wait for all; offsets in order (-1 where acks=0 tells none).

        ``records`` is drawn from while records before it are under way, so a generator can do
        something to the cluster in the middle. ``timestamp`` in milliseconds, for all of them.
        """
        ...

    def consume(self, topic: str, partition: int, offset: int, count: int) -> list[Received]: ...

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int | None:
        """First offset with a timestamp not before ``timestamp`` (ms), None past the end."""
        ...

    def topic_config(self, topic: str) -> dict[str, str]: ...

    def set_topic_config(self, topic: str, key: str, value: str) -> None: ...

    def topic_names(self) -> list[str]: ...

    def partition_count(self, topic: str) -> int: ...

    def broker_ids(self) -> list[int]: ...
