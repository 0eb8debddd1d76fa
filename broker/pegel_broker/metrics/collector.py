"""Reads a node's numbers for one page of metrics.

Runs on a thread beside the event loop. What the loop owns is read without a lock: a dictionary is
copied in one step first, a state object is taken once, and of two offsets the smaller is read
first, so that no page shows a high watermark beyond its log end. Nothing here waits for the loop
or for a disk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING

from pegel.metrics import Histogram, Metric, Point, Reading
from pegel.protocol.errors import ErrorCode
from pegel_broker.metrics import declared as d
from pegel_broker.metrics import partitions
from pegel_broker.metrics.stats import ApiStats
from pegel_broker.network.session import LoginCounters
from pegel_controller.metadata import MetadataImage
from pegel_controller.metadata.image import NO_LEADER
from pegel_controller.node import ControllerNode

if TYPE_CHECKING:
    from pegel_broker.metrics.vitals import Vitals
    from pegel_broker.network.listener import ClientListener
    from pegel_broker.node import Node

_EMPTY: Sequence[str] = ()
# So many partitions of the metadata are looked at without giving way.
IMAGE_SLICE = 2_000
STARTING, RECOVERING, RUNNING, FENCED, LEAVING = 1, 2, 3, 4, 6


def one(metric: Metric, value: float | Histogram) -> Reading:
    return metric, [(_EMPTY, value)]


def by_label(metric: Metric, values: Iterable[tuple[str, float]]) -> Reading:
    return metric, [((label,), value) for label, value in values]


class NodeCollector:
    """Every reading of ``node``, in the order of the declarations.

    ``pause`` lets other threads run.
    """

    def __init__(self, node: Node, vitals: Vitals, pause: Callable[[], None]) -> None:
        self._node = node
        self._pause = pause
        self._partitions = partitions.PartitionReadings(pause)
        self._vitals = vitals
        self._image: MetadataImage | None = None
        self._image_facts = (0, 0, 0.0)
        self._build = (version("pegel"), ".".join(map(str, sys.version_info[:3])))

    def readings(self) -> Iterator[Reading]:
        node = self._node
        yield from self._process()
        if node.failed.done():  # nothing else of it is true any more
            if node.replicas is not None:
                yield from self._logs()
            return
        yield from _listeners(node)
        if node.listener is not None:
            yield from _requests(node.listener, node)
        if node.replicas is not None:
            yield from self._partitions.readings(node.replicas)
            yield from self._logs()
            yield from _groups(node)
        if node.controller is not None:
            yield from _raft(node.controller)
            yield from self._controller(node.controller)
        yield one(d.metadata_applied, self._metadata_index())
        if node.replicas is not None:
            yield one(d.metadata_errors, node.replicas.stats.metadata_errors)

    # -- process

    def _process(self) -> Iterator[Reading]:
        node, vitals = self._node, self._vitals
        config = node.config
        yield d.build_info, [(self._build, 1.0)]
        roles = ",".join(sorted(config.roles))
        yield d.node_info, [((str(config.node_id), roles, config.rack or ""), 1.0)]
        yield one(d.broker_state, self.broker_state())
        yield one(d.start_time, vitals.started_at)
        yield one(d.loop_lag, vitals.lag)
        yield one(d.loop_busy, vitals.busy_seconds())
        dropped = 0 if node.replicas is None else partitions.series_dropped(node.replicas)
        if node.group_lag is not None:
            dropped += 3 * node.group_lag.dropped
        yield one(d.series_dropped, dropped)
        yield one(d.scrape_duration, vitals.last_scrape_seconds)

    def broker_state(self) -> int:
        node = self._node
        if node.logs is None:
            return 0 if node.replicas is None and node.channel is None else STARTING
        if node.session is None:
            return RECOVERING
        if node.stopping:
            return LEAVING
        if not node.ready.is_set():
            return STARTING
        return FENCED if node.session.fenced else RUNNING

    def _metadata_index(self) -> int:
        node = self._node
        if node.session is not None:
            return node.session.image.index
        return 0 if node.controller is None else node.controller.image.index

    # -- log directories

    def _logs(self) -> Iterator[Reading]:
        node = self._node
        assert node.logs is not None
        directories = node.logs.directories
        stats = [directory.stats for directory in directories]
        yield d.append_duration, [(_EMPTY, _merged([s.append for s in stats]))]
        yield d.flush_duration, [(_EMPTY, _merged([s.flush for s in stats]))]
        yield one(d.segments_rolled, sum(s.rolled for s in stats))
        yield by_label(
            d.segments_deleted,
            [(reason, sum(s.deleted[reason] for s in stats)) for reason in d.DELETE_REASONS],
        )
        yield one(d.recovery_seconds, max((s.recovery_seconds for s in stats), default=0.0))
        yield one(d.corrupt_batches, sum(s.corrupt for s in stats))
        usage = self._vitals.disk_usage.copy()
        yield by_label(d.dir_free, [(path, float(free)) for path, (_, free) in usage.items()])
        yield by_label(d.dir_total, [(path, float(total)) for path, (total, _) in usage.items()])
        offline = [(x.path, float(x.offline is not None)) for x in directories]
        if node.controller is not None:
            offline.append((f"{node.config.data_dir}/raft", float(self._vitals.raft_offline)))
        yield by_label(d.dir_offline, offline)
        yield by_label(d.unwritten_bytes, [(x.path, x.unwritten_bytes) for x in directories])
        assert node.replicas is not None
        yield one(d.duplicate_batches, node.replicas.stats.duplicates)
        yield one(d.producer_ids, self._partitions.producers)

    # -- controller

    def _controller(self, controller: ControllerNode) -> Iterator[Reading]:
        image = controller.image
        active = controller.active
        yield one(d.controller_active, float(active))
        brokers = list(image.brokers.values())
        counts = {
            "active": sum(b.eligible for b in brokers),
            "fenced": sum(b.fenced for b in brokers),
            "shutting_down": sum(not b.fenced and b.shutting_down for b in brokers),
        }
        yield by_label(d.controller_brokers, counts.items())
        if image is not self._image:  # it never changes: one look at each
            self._image, self._image_facts = image, _image_facts(image, self._pause)
        total, offline, imbalance = self._image_facts
        yield one(d.controller_topics, len(image.topics_by_id))
        yield one(d.controller_partitions, total)
        yield one(d.controller_offline, offline)
        yield one(d.controller_imbalance, imbalance)
        yield by_label(
            d.controller_elections,
            [(kind, controller.stats.elections[kind]) for kind in d.ELECTION_TYPES],
        )
        yield one(d.controller_failover, controller.stats.failover)


def _image_facts(image: MetadataImage, pause: Callable[[], None]) -> tuple[int, int, float]:
    """Partitions, those without a leader, and the share not led by the preferred leader.

    ``pause`` is called every ``IMAGE_SLICE`` partitions.
    """
    found = list(chain.from_iterable(topic.partitions for topic in image.topics_by_id.values()))
    offline = moved = 0
    for begin in range(0, len(found), IMAGE_SLICE):
        some = found[begin : begin + IMAGE_SLICE]
        offline += sum([partition.leader == NO_LEADER for partition in some])
        moved += sum([partition.leader != partition.preferred_leader for partition in some])
        pause()
    total = len(found)
    return total, offline, moved / total if total else 0.0


def _merged(histograms: Sequence[Histogram]) -> Histogram:
    if len(histograms) == 1:
        return histograms[0]
    merged = Histogram(d.append_duration.buckets)
    for one_of in histograms:
        merged.counts = [a + b for a, b in zip(merged.counts, one_of.counts, strict=True)]
        merged.total += one_of.total
    return merged


def _listeners(node: Node) -> Iterator[Reading]:
    """The two or three that a node of these roles has."""
    counted = {"http": node.http_counters}
    if node.controller is not None:
        counted["controller"] = node.controller.listener_counters
    if node.listener is not None:
        counted["client"] = node.listener.counters
    # What has ended is read first: never more of it than what was accepted.
    ended = {name: counters.closed for name, counters in counted.items()}
    yield by_label(d.connections, [(n, c.accepted - ended[n]) for n, c in counted.items()])
    for metric, name in (
        (d.connections_opened, "accepted"), (d.connections_closed, "closed"),
        (d.connections_refused, "refused"), (d.protocol_errors, "protocol_errors"),
        (d.received_bytes, "received_bytes"), (d.transmitted_bytes, "sent_bytes"),
    ):  # fmt: skip
        yield by_label(metric, [(n, getattr(c, name)) for n, c in counted.items()])


def _requests(listener: ClientListener, node: Node) -> Iterator[Reading]:
    """The APIs that were asked for at least once, and those that matter always."""
    accounting = listener.accounting
    door = LoginCounters() if listener.door is None else listener.door.counters
    yield by_label(d.logins, [("successful", door.successful), ("failed", door.failed)])
    apis = [stats for stats in accounting.all() if stats.count or stats.name in _ALWAYS]
    yield by_label(d.requests, [(stats.name, stats.count) for stats in apis])
    yield d.request_errors, _errors(apis)
    yield d.request_duration, [((stats.name,), stats.duration) for stats in apis]
    yield d.request_phase, _phases(apis)
    yield by_label(d.slow_requests, [(stats.name, stats.slow) for stats in apis])
    yield one(d.in_flight, accounting.in_flight)
    if node.replicas is not None:
        waiting = node.replicas.purgatory.by_kind()
        yield by_label(d.purgatory, [(kind, waiting[kind]) for kind in d.PURGATORIES])


# A counter that begins when its first event has happened hides that event from increase().
_ALWAYS = {"Produce", "Fetch", "FetchFollower", "Metadata", "ListOffsets", "OffsetCommit"}


def _errors(apis: Iterable[ApiStats]) -> Iterator[Point]:
    for stats in apis:
        for code, count in list(stats.errors.items()):
            yield (stats.name, ErrorCode(code).name), count


def _phases(apis: Iterable[ApiStats]) -> Iterator[Point]:
    for stats in apis:
        for phase in d.PHASES:
            yield (stats.name, phase), max(0.0, getattr(stats, phase))


def _groups(node: Node) -> Iterator[Reading]:
    assert node.coordinators is not None
    counters = node.coordinators.group_counters
    yield by_label(d.groups, [(s, counters.groups_by_state[s]) for s in d.GROUP_STATES])
    yield one(d.group_rebalances, counters.rebalances)
    yield one(d.group_rebalance_duration, counters.rebalance_duration)
    yield one(d.offset_commits, counters.offset_commits)
    yield one(d.heartbeat_expirations, counters.heartbeat_expirations)
    lags = {} if node.group_lag is None else node.group_lag.lags
    yield d.group_lag, [(key, lag.records) for key, lag in lags.items()]
    now = node.world.clock.wall_ms() / 1000
    for metric, values in (
        (d.group_lag_seconds, [(key, lag.seconds(now)) for key, lag in lags.items()]),
        (d.group_catch_up, [(key, lag.catch_up) for key, lag in lags.items()]),
    ):
        yield metric, [(key, seconds) for key, seconds in values if seconds is not None]


def _raft(controller: ControllerNode) -> Iterator[Reading]:
    raft, stats = controller.raft, controller.raft.stats
    if not raft.running:
        return
    status = raft.status()
    yield by_label(d.raft_state, [(s, float(s == status.role)) for s in d.RAFT_STATES])
    yield one(d.raft_term, status.term)
    yield one(d.raft_leader, -1 if status.leader_id is None else status.leader_id)
    yield one(d.raft_last, status.last_index)
    yield one(d.raft_commit, status.commit_index)
    yield one(d.raft_snapshot_bytes, raft.snapshot_bytes())
    yield one(d.raft_elections, stats.elections)
    yield one(d.raft_leader_changes, stats.leader_changes)
    yield one(d.raft_commit_duration, stats.commit)
    lag = raft.follower_lag()
    yield by_label(d.raft_follower_lag, [(str(peer), entries) for peer, entries in lag.items()])
