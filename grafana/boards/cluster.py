"""Cluster overview: is anything wrong, and how much is going on."""

from __future__ import annotations

from grafana.panels import CLUSTER as C
from grafana.panels import NODES as N
from grafana.panels import RATE, Dashboard, Panel, Row, q

ALERTS = "follow the alert's link to docs/runbook.md"


def _stat(title: str, expr: str, normal: str, act: str, **more: object) -> Panel:
    options = {"unit": "short", "width": 4, "height": 4} | more
    return Panel(title, (q(expr),), normal=normal, act=act, kind="stat", **options)  # type: ignore[arg-type]


CLUSTER = Dashboard(
    uid="pegel-cluster",
    title="Pegel / Cluster overview",
    about="Start here: health in one row, then load, latency and what every broker carries.",
    job="pegel",
    probe="pegel_node_info",
    panels=(
        Row("Health"),
        _stat(
            "Nodes up", f'sum(up{{{C}}})', "all nodes of the cluster.",
            "see which instance is red in the Nodes table; runbook: PegelBrokerDown.",
        ),
        _stat(
            "Active controllers", f"sum(pegel_controller_active{{{C}}})", "exactly 1.",
            "0: no majority of controllers (PegelNoActiveController). 2 for more than a scrape: "
            "PegelSeveralActiveControllers.",
            limits=((0, "red"), (1, "green"), (2, "red")),
        ),
        _stat(
            "Offline partitions", f"max(pegel_controller_offline_partitions{{{C}}})", "0.",
            "every replica that may lead is down; runbook: PegelOfflinePartitions.",
            limits=((1, "red"),),
        ),
        _stat(
            "Under min ISR", f"sum(pegel_under_min_isr_partitions{{{C}}})", "0.",
            "producers with acks=all are refused; runbook: PegelUnderMinIsr.",
            limits=((1, "red"),),
        ),
        _stat(
            "Under-replicated", f"sum(pegel_under_replicated_partitions{{{C}}})",
            "0; above it for moments while a broker restarts.",
            "one more failure may stop writes; runbook: PegelUnderReplicated.",
            limits=((1, "orange"),),
        ),
        _stat(
            "Fenced brokers", f'max(pegel_controller_brokers{{{C},state="fenced"}})', "0.",
            "a broker is dead, hung or cut off; runbook: PegelFencedBrokers.",
            limits=((1, "orange"),),
        ),
        Row("Load"),
        Panel(
            "Bytes in, by topic",
            (q(f"sum by (topic) (rate(pegel_topic_received_bytes_total{{{N}}}{RATE}))", "{{topic}}"),),
            "Bps", "follows your producers.",
            "a sudden drop: producers cannot reach or are refused; see Produce errors.", stack=True,
        ),
        Panel(
            "Bytes out to consumers, by topic",
            (q(f"sum by (topic) (rate(pegel_topic_sent_bytes_total{{{N}}}{RATE}))", "{{topic}}"),),
            "Bps", "bytes in times the number of groups that read.",
            "less than that: consumers lag; see the dashboard of consumer groups.", stack=True,
        ),
        Panel(
            "Records in, by topic",
            (q(f"sum by (topic) (rate(pegel_topic_received_records_total{{{N}}}{RATE}))", "{{topic}}"),),
            "cps", "follows your producers.", "compare with bytes in: the size of records changed.",
            stack=True,
        ),
        Panel(
            "Requests, by API",
            (q(f"sum by (api) (rate(pegel_requests_total{{{N}}}{RATE}))", "{{api}}"),),
            "reqps", "Produce, Fetch and FetchFollower make up nearly all.",
            "many Metadata or ApiVersions: clients reconnect in a loop.",
        ),
        Panel(
            "Produce: time until acknowledged",
            tuple(
                q(
                    f"histogram_quantile({quantile}, sum by (le) (rate("
                    f'pegel_request_duration_seconds_bucket{{{N},api="Produce"}}{RATE})))',
                    f"p{quantile * 100:g}",
                )
                for quantile in (0.5, 0.99, 0.999)
            ),
            "s", "milliseconds; p99 a few times p50.",
            "see which phase grew on the broker dashboard, then runbook: PegelSlowRequests.",
        ),
        Panel(
            "Errors, by API and code",
            (q(
                f"sum by (api, error) (rate(pegel_request_errors_total{{{N}}}{RATE}))",
                "{{api}} {{error}}", "no request has failed",
            ),),
            "cps", "none, or a burst of NOT_LEADER_OR_FOLLOWER while a leader moves.",
            "the code says what is wrong; runbook: PegelRequestErrors.",
        ),
        Row("Consumer groups"),
        Panel(
            "Lag in seconds, by group and topic",
            (q(f"max by (group, topic) (pegel_group_lag_seconds{{{N}}})", "{{group}} {{topic}}"),),
            "s", "below what your readers need.", "runbook: PegelLagGrowing, PegelStalledConsumer.",
        ),
        Panel(
            "Groups, by state",
            (q(f"sum by (state) (pegel_groups{{{N}}})", "{{state}}"),), "short",
            "Stable, and Empty for groups that you have stopped.",
            "PreparingRebalance that stays: a member does not come back from its work.",
        ),
        Panel(
            "Rebalances and lost members",
            (
                q(f"sum(rate(pegel_group_rebalances_total{{{N}}}{RATE}))", "rebalances"),
                q(f"sum(rate(pegel_group_heartbeat_expirations_total{{{N}}}{RATE}))", "members lost"),
                q(f"sum(rate(pegel_offset_commits_total{{{N}}}{RATE}))", "offsets committed"),
            ),
            "cps", "commits only.", "runbook: PegelRebalanceStorm.",
        ),
        Row("Every node"),
        Panel(
            "Leaders, by broker",
            (q(f"pegel_leader_partitions{{{N}}}", "{{instance}}"),), "short",
            "about the same on each broker.",
            "runbook: PegelPreferredLeaderImbalance.",
        ),
        Panel(
            "Share of the event loop in use",
            (q(f"rate(pegel_event_loop_busy_seconds_total{{{N}}}{RATE})", "{{instance}}"),),
            "percentunit", "below 0.7.",
            "a broker is one core: add brokers, or move leaders; runbook: PegelEventLoopSaturated.",
            limits=((0.7, "orange"), (0.9, "red")), maximum=1,
        ),
        Panel(
            "Memory",
            (q(f"process_resident_memory_bytes{{{N}}}", "{{instance}}"),), "bytes",
            "40 to 150 MB, level over hours.",
            "steady growth: many connections or partitions, else report it.",
        ),
        Panel(
            "Nodes",
            (q(f"max by (instance, node_id, roles, rack) (pegel_node_info{{{N}}})"),), "short",
            "one line for each node.", "a missing line: the node is down or not scraped.",
            kind="table", width=12,
        ),
        Panel(
            "Free disk",
            (q(f"pegel_log_dir_free_bytes{{{N}}} / pegel_log_dir_total_bytes{{{N}}}",
               "{{instance}} {{dir}}"),),
            "percentunit", "above 0.2.", "runbook: PegelDiskNearlyFull.", width=12,
            limits=((0, "red"), (0.05, "orange"), (0.2, "green")), maximum=1,
        ),
    ),
)  # fmt: skip
