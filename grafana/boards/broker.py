"""One broker: where requests spend their time, its event loop, disk, network and process."""

from __future__ import annotations

from grafana.panels import NODES as N
from grafana.panels import RATE, Dashboard, Panel, Row, q


def _quantiles(metric: str, matchers: str, by: str = "") -> tuple[object, ...]:
    grouped = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        q(
            f"histogram_quantile({quantile}, sum by ({grouped}) (rate("
            f"{metric}_bucket{{{matchers}}}{RATE})))",
            f"{legend}p{quantile * 100:g}",
        )
        for quantile in (0.5, 0.99)
    )


def _phases(api: str, normal: str, act: str) -> Panel:
    return Panel(
        f"{api}: mean time by phase",
        (q(
            f'sum by (phase) (rate(pegel_request_phase_seconds_total{{{N},api="{api}"}}{RATE}))'
            f' / on() group_left sum(rate(pegel_requests_total{{{N},api="{api}"}}{RATE}))',
            "{{phase}}",
        ),),
        "s", normal, act, stack=True,
    )  # fmt: skip


BROKER = Dashboard(
    uid="pegel-broker",
    title="Pegel / Broker",
    about="One broker, or several side by side: choose them by instance.",
    job="pegel",
    probe="pegel_node_info",
    panels=(
        Row("Requests"),
        _phases(
            "Produce",
            "remote is most: followers and the disk. local is well under a millisecond.",
            "queue or local grew: the event loop is busy. remote: a follower or a disk is slow. "
            "send: clients do not read.",
        ),
        _phases(
            "Fetch",
            "remote is most: consumers wait for data, up to their fetch.max.wait.ms.",
            "local grew: reads come from disk, not from the page cache.",
        ),
        _phases(
            "FetchFollower",
            "remote is most: a follower at the log's end waits up to replica.fetch.wait.max.ms.",
            "send grew: the follower or the network to it is slow.",
        ),
        Panel(
            "Time of a request, by API",
            (q(
                "histogram_quantile(0.99, sum by (le, api) (rate("
                f"pegel_request_duration_seconds_bucket{{{N}}}{RATE})))", "{{api}} p99",
            ),),
            "s", "Fetch and FetchFollower up to their waiting time, others milliseconds.",
            "look at the phases above; the log has a line slow_request with its reason.",
        ),
        Panel(
            "Slow requests",
            (q(f"sum by (api) (rate(pegel_slow_requests_total{{{N}}}{RATE}))", "{{api}}"),),
            "cps", "0.", "grep slow_request in the node's log: each line says why.",
            limits=((0.1, "orange"),),
        ),
        Panel(
            "Requests that wait",
            (
                q(f"sum by (type) (pegel_purgatory_size{{{N}}})", "purgatory: {{type}}"),
                q(f"sum(pegel_requests_in_flight{{{N}}})", "in flight"),
            ),
            "short", "fetch: one for each idle consumer and follower. produce: few.",
            "produce grows: a follower does not acknowledge; see replication.",
        ),
        Row("Event loop"),
        Panel(
            "Lag of the event loop",
            _quantiles("pegel_event_loop_lag_seconds", N, "instance"),  # type: ignore[arg-type]
            "s", "p99 below 25 ms.",
            "something blocks the loop, or the host has no CPU left; runbook: PegelEventLoopSaturated.",
            limits=((0.1, "orange"), (0.5, "red")),
        ),
        Panel(
            "Share of the event loop in use",
            (q(f"rate(pegel_event_loop_busy_seconds_total{{{N}}}{RATE})", "{{instance}}"),),
            "percentunit", "below 0.7.", "move leaders away from it, or add brokers.",
            limits=((0.7, "orange"), (0.9, "red")), maximum=1,
        ),
        Panel(
            "CPU of the process",
            (q(f"rate(process_cpu_seconds_total{{{N}}}{RATE})", "{{instance}}"),),
            "percentunit", "the event loop's share and a little for the disk threads.",
            "far above the loop's share: compression of pages, or a disk thread that spins.",
        ),
        Row("Log"),
        Panel(
            "Time of a write",
            _quantiles("pegel_log_append_duration_seconds", N, "instance"),  # type: ignore[arg-type]
            "s", "below 5 ms: a write goes to the page cache.",
            "the kernel throttles writers: the disk is behind; see unwritten bytes.",
        ),
        Panel(
            "Time of a sync",
            (q(
                "histogram_quantile(0.99, sum by (le, instance) (rate("
                f"pegel_log_flush_duration_seconds_bucket{{{N}}}{RATE})))", "{{instance}} p99",
                "nothing is synced by flush.messages or flush.ms, which is Kafka's default",
            ),),
            "s", "what the disk needs: 0.1 to 20 ms.", "runbook: PegelSlowFsync.",
        ),
        Panel(
            "Appended and not yet written",
            (q(f"pegel_log_unwritten_bytes{{{N}}}", "{{instance}} {{dir}}"),), "bytes",
            "near 0; short peaks.", "at 64 MiB producers are refused: the disk is too slow.",
            limits=((33554432, "orange"), (67108864, "red")),
        ),
        Panel(
            "Segments begun and removed",
            (
                q(f"sum(rate(pegel_log_segments_rolled_total{{{N}}}{RATE}))", "begun"),
                q(f"sum by (reason) (rate(pegel_log_segments_deleted_total{{{N}}}{RATE}))",
                  "removed: {{reason}}"),
            ),
            "cps", "as many removed as begun, over a day.", "none removed: look at retention.",
        ),
        Panel(
            "Damage found",
            (q(f"pegel_log_corrupt_batches_total{{{N}}}", "{{instance}}"),), "short",
            "0.", "runbook: PegelLogCorruption.", limits=((1, "red"),),
        ),
        Panel(
            "Opening the logs at the last start",
            (q(f"pegel_log_recovery_seconds{{{N}}}", "{{instance}}"),), "s",
            "well under a second after a clean stop.", "seconds after a crash: segments are read.",
        ),
        Row("Network and process"),
        Panel(
            "Connections",
            (q(f"pegel_connections{{{N}}}", "{{instance}} {{listener}}"),), "short",
            "steady.", "growth without end: a client leaks connections.",
        ),
        Panel(
            "Connections opened",
            (
                q(f"sum by (listener) (rate(pegel_connections_opened_total{{{N}}}{RATE}))",
                  "{{listener}} opened"),
                q(f"sum by (listener) (rate(pegel_connections_refused_total{{{N}}}{RATE}))",
                  "{{listener}} refused"),
                q(f"sum by (listener) (rate(pegel_protocol_errors_total{{{N}}}{RATE}))",
                  "{{listener}} closed for what they sent"),
            ),
            "cps", "a few a minute; nothing refused.",
            "many opened: clients reconnect in a loop. closed for what they sent: no Kafka client.",
        ),
        Panel(
            "Bytes on the network",
            (
                q(f"sum by (instance) (rate(pegel_network_receive_bytes_total{{{N}}}{RATE}))",
                  "{{instance}} in"),
                q(f"sum by (instance) (rate(pegel_network_transmit_bytes_total{{{N}}}{RATE}))",
                  "{{instance}} out"),
            ),
            "Bps", "in: producers and replication; out: consumers and followers.",
            "compare with topics to see who it is for.",
        ),
        Panel(
            "File descriptors in use",
            (q(f"process_open_fds{{{N}}} / process_max_fds{{{N}}}", "{{instance}}"),),
            "percentunit", "below 0.5.", "runbook: PegelFileDescriptors.",
            limits=((0.8, "orange"),), maximum=1, width=6,
        ),
        Panel(
            "Memory",
            (q(f"process_resident_memory_bytes{{{N}}}", "{{instance}}"),), "bytes",
            "40 to 150 MB, level over hours.", "steady growth: report it with the load.", width=6,
        ),
        Panel(
            "Writing a page of metrics",
            (q(f"pegel_metrics_last_scrape_seconds{{{N}}}", "{{instance}}"),), "s",
            "below 0.5 s.", "scrape less often, or host fewer replicas on a broker.", width=6,
        ),
        Panel(
            "Series left out",
            (q(f"pegel_metrics_series_dropped{{{N}}}", "{{instance}}"),), "short",
            "0.", "runbook: PegelDroppedSeries.", width=6, limits=((1, "orange"),),
        ),
    ),
)  # fmt: skip
