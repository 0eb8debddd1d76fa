"""Applications that use Pegel's client and serve its metrics."""

from __future__ import annotations

from grafana.panels import NODES as N
from grafana.panels import RATE, Dashboard, Panel, Row, q

CLIENTS = Dashboard(
    uid="pegel-clients",
    title="Pegel / Clients",
    about="What `pegel.metrics.clients` counts in applications that serve it.",
    job="pegel-clients",
    probe="pegel_producer_records_total",
    panels=(
        Row("Producers"),
        Panel(
            "Records acknowledged",
            (q(f"sum by (instance) (rate(pegel_producer_records_total{{{N}}}{RATE}))", "{{instance}}"),),
            "cps", "what the application sends.", "less: see errors, then the brokers' Produce panel.", width=6,
        ),
        Panel(
            "Records that failed, by error",
            (q(
                f"sum by (instance, error) (rate(pegel_producer_errors_total{{{N}}}{RATE}))",
                "{{instance}} {{error}}", "no record failed",
            ),),
            "cps", "none.", "they were not written: the application must send them again.", width=6,
        ),
        *(
            Panel(
                f"Time until acknowledged, p{quantile * 100:g}",
                (q(
                    f"histogram_quantile({quantile}, sum by (le, instance) (rate("
                    f"pegel_producer_ack_duration_seconds_bucket{{{N}}}{RATE})))", "{{instance}}",
                ),),
                "s", "milliseconds, linger included.",
                "above what brokers report: the network, or an event loop that is busy here.",
                width=6,
            )
            for quantile in (0.99,)
        ),
        Panel(
            "Size of batches",
            (q(
                "histogram_quantile(0.5, sum by (le, instance) (rate("
                f"pegel_producer_batch_bytes_bucket{{{N}}}{RATE})))", "{{instance}} p50",
            ),),
            "bytes", "kilobytes under load.", "small batches cost brokers: raise linger_ms.", width=6,
        ),
        Row("Consumers"),
        Panel(
            "Records read",
            (q(f"sum by (instance) (rate(pegel_consumer_records_total{{{N}}}{RATE}))", "{{instance}}"),),
            "cps", "as many as are written.", "less: see lag.", width=6,
        ),
        Panel(
            "From written to read, p99",
            (q(
                "histogram_quantile(0.99, sum by (le, instance) (rate("
                f"pegel_consumer_end_to_end_duration_seconds_bucket{{{N}}}{RATE})))", "{{instance}}",
            ),),
            "s", "milliseconds where the group keeps up; it counts from the record's timestamp.",
            "seconds: the group lags.", width=6,
        ),
        Panel(
            "Records behind",
            (q(f"sum by (instance) (pegel_consumer_lag_records{{{N}}})", "{{instance}}"),), "short",
            "near 0.", "runbook: PegelLagGrowing.", width=6,
        ),
        Panel(
            "Rebalances",
            (q(f"sum by (instance) (rate(pegel_consumer_rebalances_total{{{N}}}{RATE}))", "{{instance}}"),),
            "cps", "0, but when members come and go.", "runbook: PegelRebalanceStorm.", width=6,
        ),
    ),
)  # fmt: skip
