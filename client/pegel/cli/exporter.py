"""``pegel exporter``: topics and consumer groups of a Kafka-compatible cluster, for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import sys

import click

from pegel.cli.options import cluster_options, fail, login_credentials, run


def _pattern(_context: click.Context, _option: click.Parameter, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"{text!r} is no regular expression: {error}") from None


def _address(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter(f"{text!r} is no address: write host:port")
    return host.strip("[]") or "127.0.0.1", int(port)


@click.command(short_help="Serve topics and consumer lag for Prometheus.")
@cluster_options
@click.option(
    "--listen",
    default="127.0.0.1:9308",
    show_default=True,
    metavar="HOST:PORT",
    callback=_address,
    help="Where /metrics is served; port 0 picks a free one.",
)
@click.option(
    "--interval",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help="Time between two looks at the cluster.",
)
@click.option(
    "--topics",
    default=".*",
    show_default=True,
    callback=_pattern,
    metavar="REGEX",
    help="Topics to show, by their whole name.",
)
@click.option(
    "--groups",
    default=".*",
    show_default=True,
    callback=_pattern,
    metavar="REGEX",
    help="Consumer groups to show, by their whole name.",
)
def exporter(
    bootstrap: str,
    timeout: float,
    listen: tuple[str, int],
    interval: float,
    topics: re.Pattern[str],
    groups: re.Pattern[str],
) -> None:
    """Serve a cluster's topics and consumer groups at http://HOST:PORT/metrics until Ctrl-C.

    The names are those of kafka_exporter, so its dashboards work, and beside them lag in seconds
    and the time until a group has caught up. Works with Apache Kafka as well.

    \b
    pegel exporter --bootstrap localhost:9092
    pegel exporter --topics 'orders.*' --groups 'billing' --interval 5
    """  # fmt: skip

    from pegel.cluster import Cluster
    from pegel.config import ClientOptions, parse_bootstrap

    try:
        addresses = parse_bootstrap(bootstrap)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--bootstrap") from None
    credentials = login_credentials()

    async def work() -> None:
        from pegel.exporter.collect import ClusterWatch
        from pegel.exporter.serve import Exporter
        from pegel.seams.clock import RealClock
        from pegel.seams.disk import ThreadDiskQueue
        from pegel.seams.network import RealNetwork

        network, clock = RealNetwork(), RealClock()
        options = ClientOptions(
            client_id="pegel-exporter", request_timeout=timeout, connect_timeout=timeout,
            credentials=credentials,
        )  # fmt: skip
        cluster = Cluster(
            addresses, network=network, clock=clock, rng=random.Random(), options=options
        )
        watch = ClusterWatch(cluster, topics=topics, groups=groups, timeout=timeout)
        served = Exporter(watch, clock, network, ThreadDiskQueue, interval)
        try:
            try:
                host, port = await served.start(*listen)
            except OSError as error:
                fail(f"cannot listen on {listen[0]}:{listen[1]}: {error.strerror or error}")
            click.echo(f"serving http://{host}:{port}/metrics for {bootstrap}; Ctrl-C stops it")
            sys.stdout.flush()
            task = asyncio.ensure_future(served.run())
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            await served.close()
            await cluster.close()

    run(work(), interrupt_code=0)
