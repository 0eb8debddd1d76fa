"""The one table of what this broker serves. ApiVersions advertises exactly this."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pegel.protocol.api_keys import APIS, ApiInfo, ApiKey
from pegel_broker.handlers.context import Handler

_handlers: dict[int, Handler] = {}
_advertised: dict[int, ApiInfo] = {}


def handles(api_key: ApiKey, *, max_version: int | None = None) -> Callable[[Handler], Handler]:
    """Register a handler for every declared version of an API, up to ``max_version``."""

    def register(handler: Handler) -> Handler:
        assert api_key not in _handlers, f"{api_key.name} has two handlers"
        info = APIS[api_key]
        if max_version is not None:
            info = info._replace(max_version=min(info.max_version, max_version))
        _handlers[api_key] = handler
        _advertised[api_key] = info
        return handler

    return register


def handlers() -> Mapping[int, Handler]:
    return _handlers


def advertised() -> Mapping[int, ApiInfo]:
    """The APIs and versions that are served, by API key."""
    return _advertised
