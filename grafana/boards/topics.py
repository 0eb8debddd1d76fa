"""Topics and replication."""

from __future__ import annotations

from grafana.panels import CLUSTER as C
from grafana.panels import NODES as N
from grafana.panels import RATE, Dashboard, Panel, Row, q

T = f'{N},topic=~"$topic"'

TOPICS = Dashboard(
    uid="pegel-topics",
    title="Pegel / Topics and replication",
    about="What each topic takes and gives, and whether every replica keeps up.",
    job="pegel",
    probe="pegel_node_info",
    extra=(("topic", "Topic", f"label_values(pegel_topic_received_bytes_total{{{C}}}, topic)"),),
    panels=(
        Row("Replication"),
        Panel(
            "Under-replicated partitions",
            (q(f"pegel_under_replicated_partitions{{{N}}}", "{{instance}}"),), "short",
            "0.", "runbook: PegelUnderReplicated.", limits=((1, "orange"),),
        ),
        Panel(
            "At and under min ISR",
            (
                q(f"sum(pegel_at_min_isr_partitions{{{N}}})", "at: one more loss stops acks=all"),
                q(f"sum(pegel_under_min_isr_partitions{{{N}}})", "under: acks=all is refused"),
            ),
            "short", "0.", "runbook: PegelUnderMinIsr.", limits=((1, "red"),),
        ),
        Panel(
            "Slowest follower",
            (q(f"pegel_replica_fetch_lag_max_records{{{N}}}", "{{instance}}"),), "short",
            "a few batches under load, 0 without.",
            "it grows: the follower is slow or dead; it leaves the ISR after replica.lag.time.max.ms.",
        ),
        Panel(
            "ISR changes",
            (
                q(f"sum(rate(pegel_isr_shrinks_total{{{N}}}{RATE}))", "shrinks"),
                q(f"sum(rate(pegel_isr_expands_total{{{N}}}{RATE}))", "expands"),
            ),
            "cps", "0, but for restarts.", "runbook: PegelIsrFlapping.",
        ),
        Panel(
            "Replication bytes",
            (
                q(f"sum by (instance) (rate(pegel_replication_received_bytes_total{{{N}}}{RATE}))",
                  "{{instance}} in"),
                q(f"sum by (instance) (rate(pegel_replication_sent_bytes_total{{{N}}}{RATE}))",
                  "{{instance}} out"),
            ),
            "Bps", "bytes in of the topics, times replicas less one.",
            "far more: a broker catches up, or replicas move.",
        ),
        Panel(
            "Committed data lost",
            (q(f"sum(increase(pegel_high_watermark_backwards_total{{{N}}}[1h]))", "truncations"),),
            "short", "0.", "runbook: PegelHighWatermarkWentBack.", limits=((1, "red"),),
        ),
        Row("Topics"),
        Panel(
            "Bytes in",
            (q(f"sum by (topic) (rate(pegel_topic_received_bytes_total{{{T}}}{RATE}))", "{{topic}}"),),
            "Bps", "follows the producers.", "a drop to 0: see failed batches.", stack=True,
        ),
        Panel(
            "Bytes out",
            (q(f"sum by (topic) (rate(pegel_topic_sent_bytes_total{{{T}}}{RATE}))", "{{topic}}"),),
            "Bps", "bytes in times the groups that read.", "less: consumers lag.", stack=True,
        ),
        Panel(
            "Batches, by acknowledgement",
            (q(f"sum by (acks) (rate(pegel_topic_produce_requests_total{{{T}}}{RATE}))",
               "acks={{acks}}"),),
            "cps", "acks=all for what must not be lost.",
            "acks 0 or 1 where you did not expect them: find that producer.",
        ),
        Panel(
            "Failed batches and reads",
            (
                q(f"sum by (topic) (rate(pegel_topic_failed_produce_requests_total{{{T}}}{RATE}))",
                  "{{topic}} produce"),
                q(f"sum by (topic) (rate(pegel_topic_failed_fetch_requests_total{{{T}}}{RATE}))",
                  "{{topic}} fetch"),
            ),
            "cps", "0, but while leaders move.", "see the codes on the cluster overview.",
        ),
        Panel(
            "Size on disk, all replicas",
            (q(f"sum by (topic) (pegel_partition_size_bytes{{{T}}})", "{{topic}}"),), "bytes",
            "level once retention works.", "growth without end: look at retention.ms and .bytes.",
            stack=True,
        ),
        Panel(
            "Duplicates of idempotent producers",
            (q(f"sum(rate(pegel_duplicate_batches_total{{{N}}}{RATE}))", "batches"),), "cps",
            "0, but after a leader moved.", "steady: acknowledgements are lost on the way back.",
        ),
        Row("Partitions"),
        Panel(
            "Partitions that are not whole",
            (q(
                f"pegel_partition_isr_size{{{T}}} < on (cluster, topic) group_left "
                f"max by (cluster, topic) (pegel_partition_isr_size{{{T}}})",
                silent="every ISR has the same size",
            ),),
            "short", "empty.", "each line is a partition with a replica out of sync, and its leader.",
            kind="table", width=12,
        ),
        Panel(
            "Largest partitions",
            (q(f"topk(10, max by (topic, partition) (pegel_partition_size_bytes{{{T}}}))"),),
            "bytes", "partitions of a topic have about the same size.",
            "one far above the others: the keys are skewed.", kind="table", width=12,
        ),
        Panel(
            "Log end, by partition",
            (q(f"max by (topic, partition) (pegel_partition_log_end_offset{{{T}}})",
               "{{topic}}-{{partition}}"),),
            "short", "rises.", "stands still while others rise: no producer chooses it.",
            width=12, minimum=None,
        ),
        Panel(
            "Followers behind, by partition",
            (q(f"max by (topic, partition) (pegel_replica_fetch_lag_records{{{T}}})",
               "{{topic}}-{{partition}}"),),
            "short", "near 0.", "a partition whose follower is stuck stands out here.", width=12,
        ),
    ),
)  # fmt: skip
