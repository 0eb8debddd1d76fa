"""Readings of partitions: consistent in themselves, and bounded in number."""

from __future__ import annotations

import threading
import uuid
from types import SimpleNamespace
from typing import Any, cast

from pegel_broker.metrics import declared as d
from pegel_broker.metrics import partitions
from pegel_broker.metrics.stats import ReplicationStats, TopicStats
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.isr import ReplicaProgress
from pegel_broker.replication.manager import ReplicaManager
from pegel_broker.replication.partition import Follower, Leader


def _hosted(topic: str, number: int, state: object, *, end: int = 10) -> HostedPartition:
    core = SimpleNamespace(topic=topic, partition=number, state=state, high_watermark=end)
    log = SimpleNamespace(
        log_start_offset=0, log_end_offset=end, segments=[SimpleNamespace(size=7)], offline=None,
        producers={},
    )  # fmt: skip
    return cast(
        HostedPartition,
        SimpleNamespace(core=core, log=log, min_insync_replicas=2, topic_id=uuid.UUID(int=number)),
    )


def _leader(isr: tuple[int, ...], **ends: int) -> Leader:
    state = Leader(1, 1, 0, (1, 2, 3), isr, replication_factor=3)
    state.followers = {int(k[1:]): ReplicaProgress(0.0, end) for k, end in ends.items()}
    return state


def _manager(hosted: list[HostedPartition], topics: int = 1) -> ReplicaManager:
    stats = {f"t{i}": TopicStats(f"t{i}") for i in range(topics)}
    fake: Any = SimpleNamespace(
        unsorted=lambda: list(hosted), topic_stats=stats, stats=ReplicationStats()
    )
    return cast(ReplicaManager, fake)


def _page(manager: ReplicaManager) -> dict[str, list[tuple[tuple[str, ...], float]]]:
    return {
        metric.name: [(tuple(labels), cast(float, value)) for labels, value in points]
        for metric, points in partitions.PartitionReadings(lambda: None).readings(manager)
    }


def test_what_a_broker_leads_and_follows() -> None:
    page = _page(
        _manager([
            _hosted("t0", 0, _leader((1, 2, 3), b2=10, b3=4)),
            _hosted("t0", 1, _leader((1, 2), b2=10, b3=-1)),
            _hosted("t0", 2, _leader((1,), b2=0, b3=0)),
            _hosted("t0", 3, Follower(2, 1)),
        ])
    )  # fmt: skip
    single = {name: points[0][1] for name, points in page.items() if points}
    assert single["pegel_leader_partitions"] == 3
    assert single["pegel_replica_partitions"] == 4
    assert single["pegel_under_replicated_partitions"] == 2
    assert single["pegel_under_min_isr_partitions"] == 1
    assert single["pegel_at_min_isr_partitions"] == 1
    assert single["pegel_replica_fetch_lag_max_records"] == 10
    assert dict(page["pegel_partition_isr_size"]) == {
        ("t0", "0"): 3, ("t0", "1"): 2, ("t0", "2"): 1,
    }  # fmt: skip
    assert dict(page["pegel_replica_fetch_lag_records"])["t0", "0"] == 6
    assert dict(page["pegel_partition_is_leader"])["t0", "3"] == 0


def test_too_many_replicas_switch_the_series_of_partitions_off_and_say_so() -> None:
    few = [_hosted("t0", n, Follower(2, 1)) for n in range(d.MAX_PARTITION_SERIES_REPLICAS)]
    assert len(_page(_manager(few))["pegel_partition_log_end_offset"]) == len(few)
    assert partitions.series_dropped(_manager(few)) == 0
    many = _manager([*few, _hosted("t0", len(few), Follower(2, 1))])
    page = _page(many)
    assert not [name for name in page if name.startswith("pegel_partition_")]
    assert page["pegel_replica_partitions"][0][1] == len(few) + 1  # the sums stay
    assert partitions.series_dropped(many) == 8 * (len(few) + 1)


def test_the_reader_gives_way_after_every_slice_of_replicas() -> None:
    read: list[int] = [0]

    class Counting(SimpleNamespace):
        @property
        def log(self) -> object:
            read[-1] += 1
            return self.hidden

    few = [_hosted("t0", n, Follower(2, 1)) for n in range(3 * partitions.SLICE + 7)]
    fakes = [Counting(core=h.core, hidden=h.log) for h in few]
    manager = _manager(cast(Any, fakes))
    list(partitions.PartitionReadings(lambda: read.append(0)).readings(manager))
    assert [count for count in read if count] == [*[partitions.SLICE] * 3, 7]


def test_partitions_are_in_order_whatever_was_created_first_and_come_and_go() -> None:
    hosted = [_hosted(topic, n, Follower(2, 1)) for topic in ("b", "a") for n in (10, 9)]
    readings = partitions.PartitionReadings(lambda: None)

    def shown() -> list[tuple[str, ...]]:
        page = readings.readings(_manager(hosted))
        found = next(points for metric, points in page if metric is d.partition_size)
        return [tuple(labels) for labels, _ in found]

    assert shown() == [("a", "9"), ("a", "10"), ("b", "9"), ("b", "10")]
    del hosted[0]
    assert shown() == [("a", "9"), ("a", "10"), ("b", "9")]


def test_too_many_topics_are_cut_and_counted() -> None:
    manager = _manager([], topics=d.MAX_TOPIC_SERIES + 5)
    assert len(_page(manager)["pegel_topic_received_bytes_total"]) == d.MAX_TOPIC_SERIES
    assert partitions.series_dropped(manager) == 5 * 8


def test_no_page_shows_a_high_watermark_beyond_its_log_end() -> None:
    """A writer moves both as fast as it can while the page is read from another thread."""
    hosted = _hosted("t0", 0, _leader((1, 2, 3), b2=0, b3=0), end=0)
    core: Any = hosted.core
    log: Any = hosted.log
    stop = threading.Event()

    def write() -> None:
        end = 0
        while not stop.is_set():
            end += 1
            log.log_end_offset = end
            core.high_watermark = end
            log.log_start_offset = end - 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20_000):
            found = partitions.Columns()
            found.add([hosted])
            assert found.log_start <= found.high_watermark <= found.log_end
    finally:
        stop.set()
        writer.join()
