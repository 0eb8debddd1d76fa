"""What any listener counts: plain integers, written on the event loop only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ListenerCounters:
    """Totals since the start: connections, and bytes of those that were accepted."""

    accepted: int = 0
    closed: int = 0
    refused: int = 0
    protocol_errors: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
