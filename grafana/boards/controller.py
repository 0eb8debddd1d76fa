"""Controller and Raft."""

from __future__ import annotations

from grafana.panels import CLUSTER as C
from grafana.panels import NODES as N
from grafana.panels import RATE, Dashboard, Panel, Row, q

CONTROLLER = Dashboard(
    uid="pegel-controller",
    title="Pegel / Controller and Raft",
    about="Who decides, how quickly, and what was decided.",
    job="pegel",
    probe="pegel_node_info",
    panels=(
        Row("Controller"),
        Panel(
            "Active controller",
            (q(f"pegel_controller_active{{{N}}}", "{{instance}}"),), "short",
            "1 on exactly one node.", "runbook: PegelNoActiveController.", maximum=2,
        ),
        Panel(
            "Brokers",
            (q(f"max by (state) (pegel_controller_brokers{{{C}}})", "{{state}}"),), "short",
            "all active.", "runbook: PegelFencedBrokers.", stack=True,
        ),
        Panel(
            "Topics and partitions",
            (
                q(f"max(pegel_controller_topics{{{C}}})", "topics"),
                q(f"max(pegel_controller_partitions{{{C}}})", "partitions"),
                q(f"max(pegel_controller_offline_partitions{{{C}}})", "offline partitions"),
            ),
            "short", "no partition offline.", "runbook: PegelOfflinePartitions.",
        ),
        Panel(
            "Changes of leader, by kind",
            (q(f"sum by (type) (increase(pegel_controller_leader_elections_total{{{N}}}[5m]))",
               "{{type}}"),),
            "short", "0, but for restarts (clean) and balancing (preferred).",
            "unclean: data was lost, runbook PegelUncleanElection. offline: nobody could lead.",
        ),
        Panel(
            "Share not led by the preferred leader",
            (q(f"max(pegel_controller_preferred_leader_imbalance{{{C}}})", "share"),),
            "percentunit", "0 within a minute of the last restart.",
            "runbook: PegelPreferredLeaderImbalance.", maximum=1, limits=((0.1, "orange"),),
        ),
        Panel(
            "Metadata applied",
            (q(f"pegel_metadata_last_applied_offset{{{N}}}", "{{instance}}"),), "short",
            "the same everywhere, within a scrape.",
            "one stays behind: it cannot reach the controller; it will be fenced.",
        ),
        Panel(
            "Metadata errors",
            (q(f"sum by (instance) (rate(pegel_metadata_errors_total{{{N}}}{RATE}))", "{{instance}}"),),
            "cps", "0.", "runbook: PegelMetadataErrors.", limits=((0.001, "orange"),),
        ),
        Panel(
            "Take-overs",
            (q(f"sum(increase(pegel_controller_failover_duration_seconds_count{{{N}}}[1h]))", "in an hour"),),
            "short", "0, but for restarts of the active controller.",
            "many: runbook PegelRaftLeaderFlapping.",
        ),
        Panel(
            "Time of a take-over",
            (q(
                "histogram_quantile(1, sum by (le) (increase("
                f"pegel_controller_failover_duration_seconds_bucket{{{N}}}[1h])))", "longest",
                "no controller had to take over in the last hour",
            ),),
            "s", "below 0.5 s after a crash, 2 s after a hang.", "see the logs around active_controller.",
        ),
        Row("Raft"),
        Panel(
            "Role",
            (q(f"pegel_raft_state{{{N}}} == 1", "{{instance}} {{state}}"),), "short",
            "one leader, the others followers.", "candidates: no majority can be reached.",
        ),
        Panel(
            "Term",
            (q(f"pegel_raft_term{{{N}}}", "{{instance}}"),), "short",
            "level, and the same everywhere.", "rising: runbook PegelRaftLeaderFlapping.",
            minimum=None,
        ),
        Panel(
            "Elections stood for, changes of leader",
            (
                q(f"sum by (instance) (rate(pegel_raft_elections_total{{{N}}}{RATE}))",
                  "{{instance}} stood"),
                q(f"sum by (instance) (rate(pegel_raft_leader_changes_total{{{N}}}{RATE}))",
                  "{{instance}} changes"),
            ),
            "cps", "0.", "runbook: PegelRaftLeaderFlapping.",
        ),
        Panel(
            "Time to commit",
            tuple(
                q(
                    f"histogram_quantile({quantile}, sum by (le) (rate("
                    f"pegel_raft_commit_duration_seconds_bucket{{{N}}}{RATE})))",
                    f"p{quantile * 100:g}", "no metadata changed in the interval",
                )
                for quantile in (0.5, 0.99)
            ),
            "s", "a sync of two disks: 1 to 30 ms.", "runbook: PegelSlowRaftCommit.",
        ),
        Panel(
            "Log, committed and last",
            (
                q(f"pegel_raft_commit_index{{{N}}}", "{{instance}} committed"),
                q(f"pegel_raft_last_log_index{{{N}}}", "{{instance}} last"),
            ),
            "short", "committed and last together, on all nodes.",
            "last runs ahead of committed: no majority acknowledges.", minimum=None,
        ),
        Panel(
            "Followers behind the leader",
            (q(f"pegel_raft_follower_lag_entries{{{N}}}", "controller {{follower}}"),), "short",
            "0.", "a controller is down or slow; a second one would stop the cluster.",
        ),
        Panel(
            "Size of the snapshot",
            (q(f"pegel_raft_snapshot_bytes{{{N}}}", "{{instance}}"),), "bytes",
            "some hundred bytes for each partition.", "growth without new topics: report it.",
        ),
    ),
)  # fmt: skip
