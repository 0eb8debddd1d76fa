"""Latencies in an HDR histogram, and in the buckets of the Prometheus page."""

from __future__ import annotations

from bisect import bisect_left

from hdrh.histogram import HdrHistogram

from pegel_bench.load.spec import HIGHEST_LATENCY_US, SIGNIFICANT_DIGITS

# Upper bounds in seconds of the buckets of ``bench_*_duration_seconds``.
BUCKETS = (
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Latencies:
    """Takes seconds; keeps three significant digits of microseconds."""

    __slots__ = ("_record", "buckets", "histogram", "total")

    def __init__(self) -> None:
        self.histogram = HdrHistogram(1, HIGHEST_LATENCY_US, SIGNIFICANT_DIGITS)
        self._record = self.histogram.record_value
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self._record(min(max(int(seconds * 1e6), 1), HIGHEST_LATENCY_US))
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def clear(self) -> None:
        """Forget everything, as at the end of a warm-up."""
        self.histogram.reset()
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def encode(self) -> str:
        return encode(self.histogram)


def encode(histogram: HdrHistogram) -> str:
    """HdrHistogram's own base64 form; empty where nothing was recorded."""
    return histogram.encode().decode() if histogram.get_total_count() else ""


def merge(encoded: list[str]) -> HdrHistogram:
    """The sum of encoded histograms."""
    total = HdrHistogram(1, HIGHEST_LATENCY_US, SIGNIFICANT_DIGITS)
    for text in encoded:
        if text:
            total.add(HdrHistogram.decode(text))
    return total


def percentiles_ms(histogram: HdrHistogram) -> dict[str, float]:
    """``p50``, ``p90``, ``p99``, ``p99.9`` and ``max`` in milliseconds; empty without a value."""
    if not histogram.get_total_count():
        return {}
    found = {f"p{p:g}": histogram.get_value_at_percentile(p) / 1000 for p in PERCENTILES}
    found["max"] = histogram.get_max_value() / 1000
    return found


def curve_ms(histogram: HdrHistogram) -> list[tuple[float, float]]:
    """Points (percentile, milliseconds) for a plot over 1 / (1 - percentile)."""
    if not histogram.get_total_count():
        return []
    count = histogram.get_total_count()
    points, percentile = [], 0.0
    while True:
        points.append((percentile, histogram.get_value_at_percentile(percentile) / 1000))
        left = 100 - percentile
        if count * left / 100 <= 1 or len(points) > 120:
            return points
        percentile = 100 - left / 1.15
