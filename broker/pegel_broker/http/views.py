"""What the http listener shows of a node: plain data, read at the moment of the request.

All but ``health`` and ``readiness`` are written on a thread beside the event loop, under the rules
of ``metrics.collector``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pegel.metrics.http import HttpRequest, Page, json_page
from pegel.seams.clock import give_way
from pegel_broker.metrics.partitions import Columns
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.partition import Follower, Leader

if TYPE_CHECKING:
    from pegel_broker.metrics.group_lag import GroupLag
    from pegel_broker.node import Node

Entry = dict[str, object]
# The thread gives way to the event loop after so many partitions.
_SLICE = 50


def health(node: Node) -> Page:
    """200 while the process can work: it has not failed."""
    if node.failed.done():
        return json_page({"status": "failed", "reason": str(node.failed.result())}, 503)
    return json_page({"status": "ok"})


def readiness(node: Node) -> Page:
    """200 once a broker has caught up with the metadata and is unfenced, or a controller knows a
    leader; else 503 with what is missing."""
    session = node.session
    missing = ""
    if node.stopping:
        missing = "it is stopping"
    elif session is not None and not session.caught_up.is_set():
        missing = "it has not caught up with the metadata"
    elif session is not None and session.fenced:
        missing = "the controller has fenced it"
    elif not node.ready.is_set():
        missing = "it is starting"
    if missing:
        return json_page({"ready": False, "reason": missing}, 503)
    # One damaged replica must not take the node away from those who use the others.
    failed = len(node.replicas.offline) if node.replicas is not None else 0
    return json_page({"ready": True} | ({"offline_replicas": failed} if failed else {}))


def node_view(node: Node) -> Page:
    """Everything that a person debugging one node asks first."""
    config = node.config
    head: Entry = {
        "node_id": config.node_id,
        "roles": sorted(config.roles),
        "rack": config.rack,
        "data_dir": config.data_dir,
        "ready": node.ready.is_set(),
    }
    if node.controller is not None and node.controller.raft.running:
        head["controller"] = _controller(node)
    session, replicas = node.session, node.replicas
    if session is None or replicas is None:
        return json_page(head)
    head["log_directories"] = _directories(node)
    broker: Entry = {
        "cluster_id": session.image.cluster_id,
        "broker_epoch": session.broker_epoch,
        "fenced": session.fenced,
        "metadata_index": session.image.index,
        "connections": node.listener.connections if node.listener else 0,
        "requests_in_flight": node.listener.accounting.in_flight if node.listener else 0,
    }
    return _with_list(head, "broker", broker, "partitions", _entries(replicas.unsorted()))


def partitions_view(node: Node, request: HttpRequest) -> Page:
    """The replicas of this node; ``?topic=T`` for one topic only."""
    hosted = [] if node.replicas is None else node.replicas.unsorted()
    topic = request.parameter("topic")
    if topic:
        hosted = [one for one in hosted if one.core.topic == topic]
    return _with_list({"node_id": node.config.node_id}, "", {}, "partitions", _entries(hosted))


def groups_view(node: Node) -> Page:
    """The consumer groups that this node coordinates, with their lag by topic."""
    lag = node.group_lag
    head: Entry = {"node_id": node.config.node_id}
    now = node.world.clock.wall_ms() / 1000
    entries = iter(()) if lag is None else _group_entries(lag, now)
    return _with_list(head, "", {}, "groups", entries)


def _group_entries(lag: GroupLag, now: float) -> Iterator[Entry]:
    topics: dict[str, dict[str, Entry]] = {}
    for (group_id, topic), found in lag.lags.items():
        topics.setdefault(group_id, {})[topic] = {
            "lag_records": found.records, "lag_seconds": found.seconds(now),
            "catch_up_seconds": found.catch_up,
        }  # fmt: skip
    for group in sorted(lag.groups(), key=lambda one: one.group_id):
        yield {
            "group": group.group_id, "state": group.state.value, "generation": group.generation,
            "protocol": group.protocol_name, "members": len(group.members),
            "topics": topics.get(group.group_id, {}),
        }  # fmt: skip


def quorum_view(node: Node) -> Page:
    """The controllers as this one sees them."""
    controller = node.controller
    if controller is None or not controller.raft.running:
        return json_page({"error": "this node is no controller"}, 404)
    stats = controller.raft.stats
    view = _controller(node) | {
        "node_id": node.config.node_id,
        "cluster_id": controller.image.cluster_id,
        "elections": stats.elections,
        "leader_changes": stats.leader_changes,
        "snapshot_bytes": controller.raft.snapshot_bytes(),
        "follower_lag": {str(k): v for k, v in controller.raft.follower_lag().items()},
        "brokers": [
            {
                "id": b.node_id, "host": b.host, "port": b.port, "rack": b.rack,
                "fenced": b.fenced, "shutting_down": b.shutting_down, "epoch": b.broker_epoch,
            }
            for _, b in sorted(controller.image.brokers.items())
        ],
    }  # fmt: skip
    return json_page(view)


def _controller(node: Node) -> Entry:
    assert node.controller is not None
    status = node.controller.status()
    return {
        "active": node.controller.active, "role": status.role, "term": status.term,
        "leader_id": status.leader_id, "commit_index": status.commit_index,
        "applied_index": status.applied_index, "snapshot_index": status.snapshot_index,
        "last_index": status.last_index, "voters": list(status.voters),
    }  # fmt: skip


def _directories(node: Node) -> list[Entry]:
    if node.logs is None:
        return []
    found: list[Entry] = []
    for directory in node.logs.directories:
        total, free = node.vitals.disk_usage.get(directory.path, (-1, -1))
        found.append({
            "path": directory.path, "offline": directory.offline, "total_bytes": total,
            "free_bytes": free, "unwritten_bytes": directory.unwritten_bytes,
        })  # fmt: skip
    return found


def _entries(hosted: Iterable[HostedPartition]) -> Iterator[Entry]:
    for one in sorted(hosted, key=lambda h: h.key):
        yield _entry(one)


def _entry(hosted: HostedPartition) -> Entry:
    found, state = Columns(), hosted.core.state
    found.add([hosted])
    entry: Entry = {
        "topic": hosted.core.topic,
        "partition": hosted.core.partition,
        "leader_epoch": state.epoch,
        "log_start_offset": found.log_start[0],
        "log_end_offset": found.log_end[0],
        "high_watermark": found.high_watermark[0],
        "size_bytes": found.size[0],
        "segments": found.segments[0],
        "offline": hosted.log.offline,
    }
    if isinstance(state, Leader):
        ends = {str(i): p.log_end_offset for i, p in list(state.followers.items())}
        return entry | {
            "role": "leader", "isr": list(state.isr), "replicas": list(state.replicas),
            "follower_end_offsets": ends,
        }  # fmt: skip
    if isinstance(state, Follower):
        return entry | {"role": "follower", "leader": state.leader_id}
    return entry | {"role": "none"}


def _with_list(head: Entry, inner: str, fields: Entry, name: str, entries: Iterator[Entry]) -> Page:
    """A document with one long list, written an entry a line and in slices.

    The list is ``name``, in the object ``inner`` beside ``fields``, or beside ``head``.
    """
    lines = []
    for number, entry in enumerate(entries, 1):
        lines.append(json.dumps(entry))
        if number % _SLICE == 0:
            give_way()
    marker = "\0"
    document = head | ({inner: fields | {name: marker}} if inner else {name: marker})
    text = json.dumps(document, indent=1).replace(
        json.dumps(marker), "[\n" + ",\n".join(lines) + "]" if lines else "[]"
    )
    return Page(200, "application/json", text.encode() + b"\n")
