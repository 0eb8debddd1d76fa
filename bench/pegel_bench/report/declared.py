"""Every metric that a run of ``pegel bench --prometheus`` serves, declared once."""

from __future__ import annotations

from pegel.metrics import Catalogue
from pegel_bench.load.latencies import BUCKETS

BENCH = Catalogue("pegel_")

BENCH.begin("a run")
sent = BENCH.counter("bench_records_sent_total", "Records sent, warm-ups left out.")
acknowledged = BENCH.counter("bench_records_acked_total", "Records acknowledged.")
lost = BENCH.counter(
    "bench_records_lost_total", "Records acknowledged and not found in the log afterwards."
)
duplicated = BENCH.counter("bench_records_duplicated_total", "Offsets acknowledged twice.")
ack_duration = BENCH.histogram(
    "bench_ack_duration_seconds",
    "From the moment at which a request was to be sent to its acknowledgement.",
    BUCKETS, "acks",
)  # fmt: skip
end_to_end_duration = BENCH.histogram(
    "bench_end_to_end_duration_seconds",
    "From the moment at which a record was to be sent until a consumer has it.",
    BUCKETS, "acks",
)  # fmt: skip
target_rate = BENCH.gauge(
    "bench_target_rate", "Requests a second that are due; 0 in a closed loop, and between loads."
)
