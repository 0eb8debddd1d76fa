"""Every metric of the exporter, declared once."""

from __future__ import annotations

from pegel.metrics import Catalogue

EXPORTER = Catalogue("")

EXPORTER.begin("cluster")
brokers = EXPORTER.gauge("kafka_brokers", "Live brokers.")
broker_info = EXPORTER.gauge("kafka_broker_info", "Always 1; a live broker.", "id", "address")

EXPORTER.begin("topics")
_PARTITION = ("topic", "partition")
partitions = EXPORTER.gauge("kafka_topic_partitions", "Partitions of the topic.", "topic")
current_offset = EXPORTER.gauge(
    "kafka_topic_partition_current_offset", "Offset of the next record.", *_PARTITION
)
oldest_offset = EXPORTER.gauge("kafka_topic_partition_oldest_offset", "First offset.", *_PARTITION)
leader = EXPORTER.gauge("kafka_topic_partition_leader", "Id of the leader.", *_PARTITION)
replicas = EXPORTER.gauge("kafka_topic_partition_replicas", "Replicas.", *_PARTITION)
in_sync = EXPORTER.gauge("kafka_topic_partition_in_sync_replica", "Replicas in sync.", *_PARTITION)
preferred = EXPORTER.gauge(
    "kafka_topic_partition_leader_is_preferred", "1 where the preferred replica leads.", *_PARTITION
)
under_replicated = EXPORTER.gauge(
    "kafka_topic_partition_under_replicated_partition",
    "1 where fewer replicas are in sync than there are.",
    *_PARTITION,
)

EXPORTER.begin("consumer groups")
_GROUP = ("consumergroup", "topic")
members = EXPORTER.gauge("kafka_consumergroup_members", "Members of the group.", "consumergroup")
group_offset = EXPORTER.gauge(
    "kafka_consumergroup_current_offset",
    "Committed offset; -1 where the group has none on a partition of a topic that it reads.",
    *_GROUP, "partition",
)  # fmt: skip
group_lag = EXPORTER.gauge(
    "kafka_consumergroup_lag", "Records that it has not read; -1 where it committed none.",
    *_GROUP, "partition",
)  # fmt: skip
group_offset_sum = EXPORTER.gauge(
    "kafka_consumergroup_current_offset_sum", "Sum of the committed offsets.", *_GROUP
)
group_lag_sum = EXPORTER.gauge("kafka_consumergroup_lag_sum", "Sum of the lag.", *_GROUP)
group_lag_seconds = EXPORTER.gauge(
    "kafka_consumergroup_lag_seconds",
    "Age of the oldest record that the group has not read; 0 where it has read all.",
    *_GROUP, "partition",
)  # fmt: skip
group_lag_seconds_max = EXPORTER.gauge(
    "kafka_consumergroup_lag_seconds_max", "The largest of its partitions.", *_GROUP
)
group_catch_up = EXPORTER.gauge(
    "kafka_consumergroup_catch_up_seconds",
    "How long until it has caught up at its present speed; absent while its lag does not shrink.",
    *_GROUP,
)

EXPORTER.begin("exporter")
refresh_seconds = EXPORTER.gauge(
    "pegel_exporter_refresh_duration_seconds", "How long the last look at the cluster took."
)
refreshed_at = EXPORTER.gauge(
    "pegel_exporter_last_refresh_timestamp_seconds", "When that was, in Unix time; 0 for never."
)
refresh_errors = EXPORTER.counter(
    "pegel_exporter_refresh_errors_total", "Questions that the cluster did not answer."
)
