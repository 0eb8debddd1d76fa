"""The exporter's loop: look, keep what was found, serve it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from pegel.errors import PegelError
from pegel.exporter import declared as d
from pegel.exporter.collect import ClusterWatch, Snapshot
from pegel.exporter.readings import readings
from pegel.metrics import Reading
from pegel.metrics.exposition import Writer, wants_openmetrics
from pegel.metrics.http import HttpRequest, HttpServer, Page, text_page
from pegel.seams import Clock, DiskQueue, Network
from pegel.seams.clock import give_way

_log = logging.getLogger("pegel.exporter")


class Exporter:
    """Looks every ``interval`` seconds and serves the newest look."""

    def __init__(
        self,
        watch: ClusterWatch,
        clock: Clock,
        network: Network,
        new_queue: Callable[[str], DiskQueue],
        interval: float,
    ) -> None:
        self._watch = watch
        self._clock = clock
        self._interval = interval
        self._found = Snapshot()
        self._failures = 0
        self._took = 0.0
        self._looked_at = 0.0
        self._writer = Writer(pause=give_way)
        self._server = HttpServer(
            network, new_queue, {"/healthz": self._health, "/": self._index},
            {"/metrics": self._metrics},
        )  # fmt: skip

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address bound. Raises OSError."""
        return await self._server.start(host, port)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(max(0.0, self._interval - self._took))

    async def refresh(self) -> bool:
        """One look; whether the cluster answered. Without an answer nothing old is shown."""
        began = self._clock.monotonic()
        try:
            self._found = await self._watch.look()
            self._looked_at = self._clock.wall_ms() / 1000
            return True
        except PegelError as error:
            _log.warning("the cluster does not answer: %s", error)
            self._failures += 1
            self._found = Snapshot()
            return False
        finally:
            self._took = self._clock.monotonic() - began

    async def close(self) -> None:
        await self._server.close()

    # -- pages

    def _readings(self) -> Iterator[Reading]:
        yield from readings(self._found)
        yield d.refresh_seconds, [((), self._took)]
        yield d.refreshed_at, [((), self._looked_at)]
        yield d.refresh_errors, [((), self._failures + self._watch.errors)]

    def _metrics(self, request: HttpRequest) -> Page:
        kind, body = self._writer.page(
            self._readings(), openmetrics_format=wants_openmetrics(request.accept)
        )
        return Page(200, kind, body)

    def _health(self, _request: HttpRequest) -> Page:
        ok = bool(self._found.brokers)
        return text_page("ok\n" if ok else "the cluster does not answer\n", 200 if ok else 503)

    @staticmethod
    def _index(_request: HttpRequest) -> Page:
        return text_page("pegel exporter: see /metrics\n")
