"""The progress bar while the demo runs, and the tables at its end."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from pegel_bench.demo.run import Outcome

_PHASES = {"write": "written and acknowledged", "read": "read back and compared"}


class Screen:
    """What people see; on anything but a terminal plain lines without a bar."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description:>24}"),
            BarColumn(bar_width=36),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("lines"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks = {
            name: self._bar.add_task(text, total=None, start=False)
            for name, text in _PHASES.items()
        }

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        self._bar.console.print(f"  {text}", highlight=False, soft_wrap=True)

    def progress(self, phase: str, done: int, total: int) -> None:
        task = self._tasks[phase]
        if not self._bar.tasks[task].started:
            self._bar.start_task(task)
        self._bar.update(task, completed=done, total=total)


def show(console: Console, outcome: Outcome) -> None:
    """Lines, failover, throughput, memory; and the verdict."""
    verdict = outcome.verdict
    lines = Table(title="Lines", title_justify="left")
    for name in ("sent", "acknowledged", "read", "lost", "doubled", "out of order"):
        lines.add_column(name, justify="right")
    lines.add_row(
        *(f"{n:,}" for n in (outcome.sent, outcome.acknowledged, verdict.read)),
        *(
            f"[green]{n}[/]" if n == 0 else f"[bold red]{n:,}[/]"
            for n in (verdict.lost, verdict.doubled, verdict.out_of_order)
        ),
    )
    console.print(lines)

    failover = Table(
        title=f"Failover of partition 0 from broker {outcome.killed_broker}", title_justify="left"
    )
    failover.add_column("moment")
    failover.add_column("ms", justify="right")
    failover.add_column("what happened")
    start = outcome.timeline[0].at_ms if outcome.timeline else None
    for moment in outcome.timeline:
        after = "?" if moment.at_ms is None or start is None else f"{moment.at_ms - start:,}"
        failover.add_row(moment.name, after, moment.meaning)
    console.print(failover)

    figures = Table(title="Figures", title_justify="left", show_header=False)
    figures.add_column()
    figures.add_column(justify="right")
    megabytes = outcome.sent_bytes / 1e6
    figures.add_row("three brokers ready after", f"{outcome.start_seconds:.2f} s")
    for name, seconds in (("written", outcome.write_seconds), ("read", outcome.read_seconds)):
        if seconds > 0:
            rate = f"{outcome.sent / seconds:,.0f} lines/s, {megabytes / seconds:.1f} MB/s"
            figures.add_row(f"{name} in {seconds:.1f} s", rate)
    for memory in outcome.memory:
        figures.add_row(
            f"memory of broker {memory.node_id}, idle → now",
            f"{memory.idle_mb:.0f} → {memory.after_mb:.0f} MB",
        )
    console.print(figures)

    if outcome.success:
        console.print("[bold green]Nothing lost, nothing doubled, nothing out of order.[/]")
        return
    console.print("[bold red]FAILED[/]: the log does not hold what was sent.")
    for name in verdict.wrong_files[:10]:
        console.print(f"  differs: {name}", highlight=False)
