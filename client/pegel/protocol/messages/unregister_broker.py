"""UnregisterBroker (API 64), version 0: forget a broker that will not come back."""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, int16, int32, string


class UnregisterBrokerRequest(Message):
    api_key = ApiKey.UNREGISTER_BROKER

    broker_id: int = int32("0+")


class UnregisterBrokerResponse(Message):
    api_key = ApiKey.UNREGISTER_BROKER

    throttle_time_ms: int = int32("0+")
    error_code: int = int16("0+")
    error_message: str | None = string("0+", None, nullable="0+")
