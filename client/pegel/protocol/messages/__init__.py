"""The declared messages, by API key. A module is imported when its API is first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from pegel.protocol.api_keys import APIS
from pegel.protocol.schema import Message


class _Registry(Mapping[int, type[Message]]):
    """Message classes by API key; keys are known before any module is imported."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._loaded: dict[int, type[Message]] = {}

    def __getitem__(self, key: int) -> type[Message]:
        message = self._loaded.get(key)
        if message is None:
            info = APIS[key]
            module = importlib.import_module(f"{__name__}.{info.module}")
            loaded: type[Message] = getattr(module, info.name + self._suffix)
            self._loaded[key] = message = loaded
        return message

    def __iter__(self) -> Iterator[int]:
        return iter(APIS)

    def __len__(self) -> int:
        return len(APIS)

    def __contains__(self, key: object) -> bool:
        return key in APIS


REQUESTS: Mapping[int, type[Message]] = _Registry("Request")
RESPONSES: Mapping[int, type[Message]] = _Registry("Response")
