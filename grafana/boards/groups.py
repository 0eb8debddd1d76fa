"""Consumer groups: lag in records and in seconds, as ``pegel exporter`` sees it."""

from __future__ import annotations

from grafana.panels import CLUSTER as C
from grafana.panels import NODES as N
from grafana.panels import RATE, Dashboard, Panel, Row, q

G = f'{N},consumergroup=~"$group",topic=~"$topic"'

GROUPS = Dashboard(
    uid="pegel-groups",
    title="Pegel / Consumer groups",
    about="Needs `pegel exporter`; works for any Kafka-compatible cluster.",
    job="pegel-exporter",
    probe="kafka_brokers",
    extra=(
        ("group", "Group", f"label_values(kafka_consumergroup_members{{{C}}}, consumergroup)"),
        ("topic", "Topic", f"label_values(kafka_topic_partitions{{{C}}}, topic)"),
    ),
    panels=(
        Row("Lag"),
        Panel(
            "Lag in seconds, by group and topic",
            (q(f"kafka_consumergroup_lag_seconds_max{{{G}}}", "{{consumergroup}} {{topic}}"),), "s",
            "below what your readers need: the age of the oldest record that was not read.",
            "runbook: PegelLagGrowing.",
        ),
        Panel(
            "Lag in records, by group and topic",
            (q(f"kafka_consumergroup_lag_sum{{{G}}}", "{{consumergroup}} {{topic}}"),), "short",
            "rises and falls with the load.",
            "rises only: add consumers, up to the number of partitions, or make them quicker.",
        ),
        Panel(
            "Time to catch up",
            (q(
                f"kafka_consumergroup_catch_up_seconds{{{G}}}", "{{consumergroup}} {{topic}}",
                "no group has lag that shrinks",
            ),),
            "s", "empty, or falling: how long at the present speed.",
            "rising: the group will not catch up without more consumers.",
        ),
        Row("Speed"),
        Panel(
            "Records read",
            (q(
                "sum by (consumergroup, topic) (rate("
                f"kafka_consumergroup_current_offset_sum{{{G}}}{RATE}))",
                "{{consumergroup}} {{topic}}",
            ),),
            "cps", "as many as are written.", "0 with lag: runbook PegelStalledConsumer.",
        ),
        Panel(
            "Records written",
            (q(
                f'sum by (topic) (rate(kafka_topic_partition_current_offset{{{N},topic=~"$topic"}}'
                f"{RATE}))", "{{topic}}",
            ),),
            "cps", "follows the producers.", "compare with records read.",
        ),
        Panel(
            "Members",
            (q(f'kafka_consumergroup_members{{{N},consumergroup=~"$group"}}', "{{consumergroup}}"),),
            "short", "as many as you started.",
            "fewer: some died or cannot join. It jumps: runbook PegelRebalanceStorm.",
        ),
        Row("Partitions"),
        Panel(
            "Furthest behind",
            (q(f"topk(15, kafka_consumergroup_lag{{{G}}})"),), "short",
            "partitions of a topic lag about the same.",
            "one far above: its consumer is stuck, or its keys are skewed.", kind="table", width=12,
        ),
        Panel(
            "Groups that nobody is a member of",
            (q(
                f'kafka_consumergroup_members{{{N},consumergroup=~"$group"}} == 0',
                silent="every group has members",
            ),),
            "short", "only groups that you have stopped.", "start its consumers.", kind="table",
            width=12,
        ),
        Row("The cluster, as clients see it"),
        Panel(
            "Brokers", (q(f"kafka_brokers{{{N}}}", "brokers"),), "short", "all of them.",
            "runbook: PegelBrokerDown.", width=6,
        ),
        Panel(
            "Under-replicated partitions",
            (q(f"sum(kafka_topic_partition_under_replicated_partition{{{N}}})", "partitions"),),
            "short", "0.", "runbook: PegelUnderReplicated.", width=6,
        ),
        Panel(
            "Age and cost of these figures",
            (
                q(f"time() - pegel_exporter_last_refresh_timestamp_seconds{{{N}}}", "age"),
                q(f"pegel_exporter_refresh_duration_seconds{{{N}}}", "cost"),
            ),
            "s", "the age stays below two intervals.", "the exporter cannot reach the cluster.",
            width=6,
        ),
        Panel(
            "Questions without an answer",
            (q(f"rate(pegel_exporter_refresh_errors_total{{{N}}}{RATE})", "{{instance}}"),), "cps",
            "0.", "the exporter cannot reach the cluster: its log says why.", width=6,
        ),
    ),
)  # fmt: skip
