"""InitProducerId (API 22), versions 0 to 5.

Request:
- Version 1 is the same as version 0.
- Version 2 is the first flexible version.
- Version 3 adds ProducerId and ProducerEpoch, allowing producers to try to resume after an
  INVALID_PRODUCER_EPOCH error.
- Version 4 adds the support for new error code PRODUCER_FENCED.
- Version 5 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).

Response:
- Starting in version 1, on quota violation, brokers send out responses before throttling.
- Version 2 is the first flexible version.
- Version 3 is the same as version 2.
- Version 4 adds the support for new error code PRODUCER_FENCED.
- Version 5 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, int16, int32, int64, string


class InitProducerIdRequest(Message):
    api_key = ApiKey.INIT_PRODUCER_ID

    transactional_id: str | None = string("0+", nullable="0+")
    transaction_timeout_ms: int = int32("0+")
    producer_id: int = int64("3+", -1)
    producer_epoch: int = int16("3+", -1)


class InitProducerIdResponse(Message):
    api_key = ApiKey.INIT_PRODUCER_ID

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("0+")
    producer_id: int = int64("0+", -1)
    producer_epoch: int = int16("0+")
