"""A bench run: throughput and latency, by acknowledgement mode."""

from __future__ import annotations

from grafana.panels import NODES as N
from grafana.panels import RATE, Dashboard, Panel, Row, q

BENCH = Dashboard(
    uid="pegel-bench",
    title="Pegel / Bench",
    about="What `pegel bench --prometheus PORT` sends while it runs. Latencies count from the "
    "intended send time, so a stalled cluster cannot hide behind a stalled generator.",
    job="pegel-bench",
    probe="pegel_bench_records_sent_total",
    panels=(
        Row("Throughput"),
        Panel(
            "Records",
            (
                q(f"sum(rate(pegel_bench_records_sent_total{{{N}}}{RATE}))", "sent"),
                q(f"sum(rate(pegel_bench_records_acked_total{{{N}}}{RATE}))", "acknowledged"),
            ),
            "cps", "acknowledged follows sent.", "it falls behind: the cluster is overloaded.",
            width=12,
        ),
        Panel(
            "Lost and duplicated",
            (
                q(f"sum(pegel_bench_records_lost_total{{{N}}})", "lost"),
                q(f"sum(pegel_bench_records_duplicated_total{{{N}}})", "duplicated"),
            ),
            "short", "0 with acks=all and idempotence.",
            "lost with acks=all is a broken promise: keep the data directories and report it.",
            width=12, limits=((1, "red"),),
        ),
        Row("Latency"),
        *(
            Panel(
                f"Time until acknowledged, p{quantile * 100:g}",
                (q(
                    f"histogram_quantile({quantile}, sum by (le, acks) (rate("
                    f"pegel_bench_ack_duration_seconds_bucket{{{N}}}{RATE})))", "acks={{acks}}",
                ),),
                "s", "acks=all a little above acks=1.",
                "compare with the phases on the broker dashboard.",
            )
            for quantile in (0.5, 0.99, 0.999)
        ),
        *(
            Panel(
                f"Time until a consumer has it, p{quantile * 100:g}",
                (q(
                    f"histogram_quantile({quantile}, sum by (le, acks) (rate("
                    f"pegel_bench_end_to_end_duration_seconds_bucket{{{N}}}{RATE})))",
                    "acks={{acks}}", "only `pegel bench end-to-end` consumes what it writes",
                ),),
                "s", "a little above the time until acknowledged: a fetch more.",
                "much above it: fetches wait for bytes (fetch.min.bytes), or the brokers are busy.",
            )
            for quantile in (0.5, 0.99, 0.999)
        ),
        Panel(
            "Requests that are due each second",
            (q(f"sum(pegel_bench_target_rate{{{N}}})", "due"),), "reqps",
            "what was asked for; 0 in a closed loop and between loads.",
            "sent lags behind it: this machine is too slow for that rate, and the notes of the "
            "run say so.", width=12,
        ),
    ),
)  # fmt: skip
