"""The http listener of a node: which page is where, and who writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pegel.metrics.http import HttpRequest, HttpServer, Page, Route
from pegel.seams.clock import give_way
from pegel_broker.http import views
from pegel_broker.metrics.collector import NodeCollector

if TYPE_CHECKING:
    from pegel_broker.node import Node


def routes(node: Node) -> tuple[Mapping[str, Route], Mapping[str, Route]]:
    """By path: what the event loop answers itself, and what is written on a thread."""
    collector = NodeCollector(node, node.vitals, give_way)
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
        "/metrics": lambda request: _metrics(node, collector, request),
    }
    return quick, slow


def new_server(node: Node) -> HttpServer:
    quick, slow = routes(node)
    world = node.world
    return HttpServer(world.network, world.new_disk_queue, quick, slow, node.http_counters)


def _metrics(node: Node, collector: NodeCollector, request: HttpRequest) -> Page:
    # Loaded at the first scrape: a node should be up before it loads what only scrapes need.
    from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR

    from pegel.metrics.exposition import render, wants_openmetrics

    began = node.world.clock.monotonic()
    content_type, body = render(
        collector.readings(),
        openmetrics_format=wants_openmetrics(request.accept),
        others=(PROCESS_COLLECTOR, GC_COLLECTOR),
        pause=give_way,
    )
    node.vitals.last_scrape_seconds = node.world.clock.monotonic() - began
    return Page(200, content_type, body)
