"""FindCoordinator (API 10), versions 0 to 5.

Request:
- Version 1 adds KeyType.
- Version 2 is the same as version 1.
- Version 3 is the first flexible version.
- Version 4 adds support for batching via CoordinatorKeys (KIP-699).
- Version 5 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).

Response:
- Version 1 adds throttle time and error messages.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Version 3 is the first flexible version.
- Version 4 adds support for batching via Coordinators (KIP-699).
- Version 5 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int8, int16, int32, string


class FindCoordinatorRequest(Message):
    api_key = ApiKey.FIND_COORDINATOR

    key: str = string("0-3")
    key_type: int = int8("1+")
    coordinator_keys: list[str] = array("string", "4+")


class Coordinator(Struct):
    key: str = string("4+")
    node_id: int = int32("4+")
    host: str = string("4+")
    port: int = int32("4+")
    error_code: int = int16("4+")
    error_message: str | None = string("4+", nullable="4+")


class FindCoordinatorResponse(Message):
    api_key = ApiKey.FIND_COORDINATOR

    throttle_time_ms: int = int32("1+")
    error_code: int = int16("0-3")
    error_message: str | None = string("1-3", nullable="1-3")
    node_id: int = int32("0-3")
    host: str = string("0-3")
    port: int = int32("0-3")
    coordinators: list[Coordinator] = array(Coordinator, "4+")
