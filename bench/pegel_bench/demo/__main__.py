"""``python -m pegel_bench.demo``: three brokers, a killed leader, nothing lost."""

from __future__ import annotations

import asyncio
import sys

import click


@click.command()
@click.option("--lines", type=click.IntRange(min=10_000), help="Send only so many lines.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False),
    help="Keep the cluster's data and logs here (must be new or empty).",
)
def demo(lines: int | None, data_dir: str | None) -> None:
    """Stream every line of Python's standard library through three brokers, keyed by file name.

    Halfway the leader of partition 0 is killed with SIGKILL, and started again later. Everything
    is read back and compared line by line. Exit code 1 if anything is lost, doubled or out of
    order.
    """
    import uvloop
    from rich.console import Console

    from pegel.testing import ClusterError, LocalCluster
    from pegel_bench.demo.corpus import standard_library
    from pegel_bench.demo.report import Screen, show
    from pegel_bench.demo.run import Demo

    console = Console()
    try:
        with LocalCluster(brokers=3, data_dir=data_dir) as cluster, Screen(console) as screen:
            screen.say(
                f"three brokers are ready after {cluster.ready_seconds:.2f} s: {cluster.bootstrap}"
            )
            files = list(standard_library(lines))
            screen.say(
                f"sending {sum(len(f.lines) for f in files):,} lines of {len(files):,} files"
            )
            run = Demo(cluster, files, screen.say, screen.progress).run()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcome = runner.run(run)
    except ClusterError as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("demo: interrupted", err=True)
        sys.exit(130)
    show(console, outcome)
    sys.exit(0 if outcome.success else 1)


if __name__ == "__main__":
    demo()
