"""EndTxn (API 26), versions 0 to 4.

Request:
- Version 1 is the same as version 0.
- Version 2 adds the support for new error code PRODUCER_FENCED.
- Version 3 enables flexible versions.
- Version 4 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).

Response:
- Starting in version 1, on quota violation, brokers send out responses before throttling.
- Version 2 adds the support for new error code PRODUCER_FENCED.
- Version 3 enables flexible versions.
- Version 4 adds support for new error code TRANSACTION_ABORTABLE (KIP-890).
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, boolean, int16, int32, int64, string


class EndTxnRequest(Message):
    api_key = ApiKey.END_TXN

    transactional_id: str = string("0+")
    producer_id: int = int64("0+")
    producer_epoch: int = int16("0+")
    committed: bool = boolean("0+")


class EndTxnResponse(Message):
    api_key = ApiKey.END_TXN

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("0+")
