"""DeleteTopics (API 20), versions 1 to 6.

Request:
- Versions 0, 1, 2, and 3 are the same.
- Version 4 is the first flexible version.
- Version 5 adds ErrorMessage in the response and may return a THROTTLING_QUOTA_EXCEEDED error
  in the response if the topics deletion is throttled (KIP-599).
- Version 6 reorganizes topics, adds topic IDs and allows topic names to be null.

Response:
- Version 1 adds the throttle time.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Starting in version 3, a TOPIC_DELETION_DISABLED error code may be returned.
- Version 4 is the first flexible version.
- Version 5 adds ErrorMessage in the response and may return a THROTTLING_QUOTA_EXCEEDED error
  in the response if the topics deletion is throttled (KIP-599).
- Version 6 adds topic ID to responses. An UNSUPPORTED_VERSION error code will be returned when
  attempting to delete using topic IDs when IBP < 2.8. UNKNOWN_TOPIC_ID error code will be
  returned when IBP is at least 2.8, but the topic ID was not found.
"""

from __future__ import annotations

import uuid

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, int16, int32, string, uuid_


class DeleteTopicState(Struct):
    name: str | None = string("6+", None, nullable="6+")
    topic_id: uuid.UUID = uuid_("6+")


class DeleteTopicsRequest(Message):
    api_key = ApiKey.DELETE_TOPICS

    topics: list[DeleteTopicState] = array(DeleteTopicState, "6+")
    topic_names: list[str] = array("string", "0-5")
    timeout_ms: int = int32("0+")


class DeletableTopicResult(Struct):
    name: str | None = string("0+", nullable="6+")
    topic_id: uuid.UUID = uuid_("6+")
    error_code: int = int16("0+")
    error_message: str | None = string("5+", None, nullable="5+")


class DeleteTopicsResponse(Message):
    api_key = ApiKey.DELETE_TOPICS

    throttle_time_ms: int = int32("1+")
    responses: list[DeletableTopicResult] = array(DeletableTopicResult, "0+")
