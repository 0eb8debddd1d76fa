"""The live line while a load runs."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.status import Status

from pegel_bench.result import Row


class Screen:
    """One line on a terminal that tells what goes on; elsewhere plain lines for what is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status = Status("", console=console, spinner="dots")
        self._live = console.is_terminal
        self._last: tuple[str, float, float] = ("", 0.0, 0.0)
        self._rate = 0.0

    def __enter__(self) -> Screen:
        if self._live:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._status.stop()

    def say(self, text: str) -> None:
        if self._live:
            self._status.update(text)
        else:
            self.console.print(text, highlight=False, soft_wrap=True)

    def update(self, text: str, phase: str, workers: list[dict[str, Any]]) -> None:
        """``workers``: the latest progress of each."""
        if not self._live:
            return
        if phase == "verify":
            checked = sum(w.get("checked", 0) for w in workers)
            total = sum(w.get("total", 0) for w in workers)
            self._status.update(f"{text}: checking {checked:,} of {total:,} records")
            return
        done = sum(w.get("acknowledged") or w.get("sent") or 0 for w in workers)
        size = sum(w.get("bytes", 0) for w in workers)
        before, at, known = self._last
        now = time.monotonic()
        if before != text or size < known:
            self._last, self._rate = (text, now, size), 0.0
        elif now - at >= 0.5:
            self._rate = (size - known) / (now - at) / 1e6
            self._last = (text, now, size)
        self._status.update(f"{text}: {phase}, {done:,} records, {self._rate:.1f} MB/s")

    def done(self, row: Row) -> None:
        f = row.figures
        parts = []
        if "gap_ms" in f:
            parts.append(f"longest gap {f['gap_ms']:,.0f} ms")
        elif "consumed_p50_ms" in f:
            parts.append(f"p50 {f['consumed_p50_ms']:.2f} ms, p99 {f['consumed_p99_ms']:.2f} ms")
        elif row.workload == "latency" and "p50_ms" in f:
            parts.append(f"p50 {f['p50_ms']:.2f} ms, p99 {f['p99_ms']:.2f} ms")
        elif "resident_mb" in f:
            parts.append(f"{f['resident_mb']:.0f} MB each, idle CPU {f['idle_cpu_percent']:.2f} %")
        elif "after_mb" in f:
            parts.append(f"{f['after_mb']:.0f} MB each after {f['mb_per_s']:,.0f} MB/s")
        elif "records_per_s" in f:
            parts.append(f"{f['mb_per_s']:,.1f} MB/s, {f['records_per_s']:,.0f} records/s")
        if row.workload == "sweep" and "cpu_us_per_request" in f:
            parts.append(f"{f['cpu_us_per_request']:,.0f} µs of broker CPU a request")
        if not row.ok:
            parts.append("[bold red]acknowledged records are missing[/]")
        text = f"  round {row.round}: {row.target}, {row.label}: {', '.join(parts)}"
        self.console.print(text, highlight=False, soft_wrap=True)
