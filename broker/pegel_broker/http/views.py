"""What the http listener shows of a node: plain data, read at the moment of the request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pegel_broker.replication.partition import Follower, Leader

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from pegel_broker.http.server import Answer
    from pegel_broker.node import Node


def _json(status: int, value: object) -> Answer:
    return status, "application/json", json.dumps(value, indent=1).encode() + b"\n"


def health(node: Node) -> Answer:
    """200 while the process can work: it has not failed."""
    if node.failed.done():
        return _json(503, {"status": "failed", "reason": str(node.failed.result())})
    return _json(200, {"status": "ok"})


def readiness(node: Node) -> Answer:
    """200 once a broker is unfenced and serves, or a controller knows a leader."""
    ready = node.ready.is_set() and not (node.session is not None and node.session.fenced)
    return _json(200 if ready else 503, {"ready": ready})


def node_view(node: Node) -> Answer:
    """Everything that a person debugging one node asks first."""
    config = node.config
    view: dict[str, object] = {
        "node_id": config.node_id,
        "roles": sorted(config.roles),
        "rack": config.rack,
        "data_dir": config.data_dir,
    }
    if node.controller is not None:
        status = node.controller.status()
        view["controller"] = {
            "active": node.controller.active, "role": status.role, "term": status.term,
            "leader_id": status.leader_id, "commit_index": status.commit_index,
            "applied_index": status.applied_index, "snapshot_index": status.snapshot_index,
            "voters": list(status.voters),
        }  # fmt: skip
    if node.session is not None and node.replicas is not None:
        view["broker"] = {
            "cluster_id": node.session.image.cluster_id,
            "broker_epoch": node.session.broker_epoch,
            "fenced": node.session.fenced,
            "metadata_index": node.session.image.index,
            "connections": node.listener.connections if node.listener else 0,
            "partitions": list(_partitions(node)),
        }
    return _json(200, view)


def _partitions(node: Node) -> Iterator[dict[str, object]]:
    assert node.replicas is not None
    for hosted in node.replicas.all_hosted():
        state = hosted.core.state
        entry: dict[str, object] = {
            "topic": hosted.core.topic,
            "partition": hosted.core.partition,
            "leader_epoch": state.epoch,
            "log_start_offset": hosted.log.log_start_offset,
            "log_end_offset": hosted.log.log_end_offset,
            "high_watermark": hosted.core.high_watermark,
            "offline": hosted.log.offline,
        }
        if isinstance(state, Leader):
            entry |= {"role": "leader", "isr": list(state.isr), "replicas": list(state.replicas)}
        elif isinstance(state, Follower):
            entry |= {"role": "follower", "leader": state.leader_id}
        else:
            entry |= {"role": "none"}
        yield entry


def metrics(node: Node) -> Answer:
    """Prometheus text format. Nothing is counted twice: values are read where they live."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(node))
    return 200, "text/plain; version=0.0.4", generate_latest(registry)


class _Collector:
    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        node = self._node
        ready = GaugeMetricFamily("pegel_node_ready", "Whether this node serves.")
        ready.add_metric([], float(node.ready.is_set()))
        yield ready
        if node.controller is not None:
            status = node.controller.status()
            for name, text, value in (
                ("active", "Whether this is the active controller.", node.controller.active),
                ("raft_term", "The Raft term.", status.term),
                ("raft_commit_index", "The committed end of the metadata log.",
                 status.commit_index),
            ):  # fmt: skip
                gauge = GaugeMetricFamily(f"pegel_controller_{name}", text)
                gauge.add_metric([], float(value))
                yield gauge
        if node.replicas is None or node.listener is None:
            return
        counters, network = node.replicas.counters, node.listener.counters
        for name, text, total in (
            ("produce_batches", "Record batches appended as a leader.", counters.appended_batches),
            ("produce_records", "Records appended as a leader.", counters.appended_records),
            ("produce_bytes", "Bytes appended as a leader.", counters.appended_bytes),
            ("replicated_bytes", "Bytes appended as a follower.", counters.replicated_bytes),
            ("isr_shrinks", "Times that an ISR was to shrink.", counters.isr_shrinks),
            ("isr_expands", "Times that an ISR was to grow.", counters.isr_expands),
            ("requests", "Requests received.", network.requests),
            ("connections_accepted", "Connections accepted.", network.accepted),
            ("protocol_errors", "Connections closed for what they sent.", network.protocol_errors),
        ):
            counter = CounterMetricFamily(f"pegel_broker_{name}", text)
            counter.add_metric([], float(total))
            yield counter
        hosted = node.replicas.all_hosted()
        leaders = [h for h in hosted if isinstance(h.core.state, Leader)]
        under = sum(
            len(h.core.state.isr) < h.core.state.replication_factor
            for h in leaders
            if isinstance(h.core.state, Leader)
        )
        for name, text, number in (
            ("partitions", "Replicas on this broker.", len(hosted)),
            ("leaders", "Partitions that this broker leads.", len(leaders)),
            ("under_replicated_partitions", "Led partitions with replicas out of sync.", under),
            ("connections", "Open client connections.", node.listener.connections),
        ):
            gauge = GaugeMetricFamily(f"pegel_broker_{name}", text)
            gauge.add_metric([], float(number))
            yield gauge
