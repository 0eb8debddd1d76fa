"""A look at a cluster, as the metrics that kafka_exporter has for it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as read_text

from pegel.exporter.collect import GroupLag, PartitionFacts, Snapshot
from pegel.exporter.readings import readings
from pegel.metrics.exposition import render


def _page(found: Snapshot) -> dict[tuple[str, ...], float]:
    _, body = render(readings(found))
    return {
        (s.name, *(v for _, v in sorted(s.labels.items()))): s.value
        for family in read_text(body.decode())
        for s in family.samples
    }


def test_topics_and_groups() -> None:
    found = Snapshot(
        brokers={1: "a:1", 2: "b:2"},
        topics={"orders": {
            0: PartitionFacts(1, (1, 2), (1, 2), 5, 100),
            1: PartitionFacts(1, (2, 1), (1,), 0, 50),
            2: PartitionFacts(-1, (2,), (), None, None),
        }},
        members={"billing": 2},
        lags={("billing", "orders"): {
            0: GroupLag(90, 10, 2.5), 1: GroupLag(50, 0, 0.0), 2: GroupLag(-1, -1, None),
        }},
        catch_up={("billing", "orders"): 4.0},
    )  # fmt: skip
    page = _page(found)
    assert page["kafka_brokers",] == 2
    assert page["kafka_topic_partitions", "orders"] == 3
    assert page["kafka_topic_partition_current_offset", "0", "orders"] == 100
    assert page["kafka_topic_partition_oldest_offset", "0", "orders"] == 5
    assert ("kafka_topic_partition_leader", "2", "orders") not in page
    assert page["kafka_topic_partition_leader_is_preferred", "0", "orders"] == 1
    assert page["kafka_topic_partition_leader_is_preferred", "1", "orders"] == 0
    assert page["kafka_topic_partition_under_replicated_partition", "1", "orders"] == 1
    assert page["kafka_consumergroup_members", "billing"] == 2
    assert page["kafka_consumergroup_lag", "billing", "0", "orders"] == 10
    assert page["kafka_consumergroup_lag", "billing", "2", "orders"] == -1
    assert page["kafka_consumergroup_current_offset_sum", "billing", "orders"] == 139
    assert page["kafka_consumergroup_lag_sum", "billing", "orders"] == 10
    assert page["kafka_consumergroup_lag_seconds_max", "billing", "orders"] == 2.5
    assert page["kafka_consumergroup_catch_up_seconds", "billing", "orders"] == 4.0


def test_a_cluster_that_does_not_answer_shows_no_old_figures() -> None:
    assert set(_page(Snapshot())) == {("kafka_brokers",)}
