"""The http listener of a node: which page is where, and who writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pegel.metrics.http import HttpRequest, HttpServer, Page, Route
from pegel.seams.clock import give_way
from pegel_broker.http import views
from pegel_broker.metrics.collector import NodeCollector

if TYPE_CHECKING:
    from pegel.metrics.exposition import Writer
    from pegel_broker.node import Node


# What ``prometheus_client`` loads, some milliseconds each: at one go the loop would wait for all.
_NEEDED = (
    "html", "http.client", "http.server", "urllib.request", "wsgiref.simple_server", "ssl",
    "prometheus_client",
)  # fmt: skip

# How long a node that has failed waits for its last scrape: as long as the usual interval of them.
LAST_PAGE_SECONDS = 60.0
_ANSWER_SECONDS = 0.2


def routes(node: Node) -> tuple[Mapping[str, Route], Mapping[str, Route]]:
    """By path: what the event loop answers itself, and what is written on a thread."""
    metrics = _MetricsPage(node)
    quick: dict[str, Route] = {
        "/healthz": lambda _request: views.health(node),
        "/readyz": lambda _request: views.readiness(node),
    }
    slow: dict[str, Route] = {
        "/": lambda _request: views.node_view(node),
        "/v1/node": lambda _request: views.node_view(node),
        "/v1/partitions": lambda request: views.partitions_view(node, request),
        "/v1/groups": lambda _request: views.groups_view(node),
        "/v1/quorum": lambda _request: views.quorum_view(node),
        "/metrics": metrics.write,
    }
    return quick, slow


def new_server(node: Node) -> HttpServer:
    quick, slow = routes(node)
    world = node.world
    return HttpServer(world.network, world.new_disk_queue, quick, slow, node.http_counters)


async def last_page(node: Node) -> None:
    """Keep a node that has failed up until it was scraped once more: what is wrong with it
    (``log_dir_offline``) would else be known from its log only.

    Ends at once where the node has not failed, or nobody scrapes, and as soon as the process is
    told to stop.
    """
    vitals, clock = node.vitals, node.world.clock
    if not node.failed.done():
        return
    before, end = vitals.pages, clock.monotonic() + LAST_PAGE_SECONDS
    while before == vitals.pages > 0 and not node.hurried and clock.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(_ANSWER_SECONDS)
    if vitals.pages > before:
        await asyncio.sleep(_ANSWER_SECONDS)  # it is on its way


class _MetricsPage:
    """What it is written with is loaded at the first scrape: a node should be up before it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._collector = NodeCollector(node, node.vitals, give_way)
        self._writer: Writer | None = None

    def write(self, request: HttpRequest) -> Page:
        """On the thread of the pages, one at a time."""
        for name in () if self._writer else _NEEDED:
            import_module(name)
            give_way()
        from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR

        from pegel.metrics.exposition import Writer, wants_openmetrics

        clock, vitals = self._node.world.clock, self._node.vitals
        began = clock.monotonic()
        if self._writer is None:
            self._writer = Writer((PROCESS_COLLECTOR, GC_COLLECTOR), give_way)
        content_type, body = self._writer.page(
            self._collector.readings(), openmetrics_format=wants_openmetrics(request.accept)
        )
        vitals.last_scrape_seconds = clock.monotonic() - began
        vitals.pages += 1
        return Page(200, content_type, body)
