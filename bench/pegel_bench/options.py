"""Options that all sub-commands share, and how a sub-command runs, fails and reports."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from pegel.cli.options import fail, parse_settings

F = TypeVar("F", bound=Callable[..., object])
# Of tables that go to a file or a pipe.
PLAIN_WIDTH = 160
DRIVERS = ("raw", "pegel", "librdkafka")

_COMMON = [
    click.option("-b", "--bootstrap", envvar="PEGEL_BOOTSTRAP", metavar="HOST:PORT,…",
                 help="Measure this cluster, Pegel or Kafka. Without it, one is started here."),
    click.option("--compare", multiple=True, metavar="kafka|NAME=HOST:PORT",
                 help="Measure this one as well, in turn (A B B A …); kafka starts Apache Kafka "
                      "here (needs java and mvn). May be repeated."),
    click.option("--brokers", type=click.IntRange(1, 99), default=3, show_default=True,
                 help="Brokers of a cluster that is started here."),
    click.option("--replication", type=click.IntRange(1, 99),
                 help="Replicas of each partition.  [default: 3, or as many as there are brokers]"),
    click.option("--min-insync", type=click.IntRange(1, 99),
                 help="min.insync.replicas of the topics.  [default: 2, or 1 with one replica]"),
    click.option("--topic-config", multiple=True, metavar="KEY=VALUE",
                 help="Of the topics, such as flush.messages=1 (every batch synced)."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
                 help="Of the Pegel brokers that are started here."),
    click.option("--kafka-set", "kafka_settings", multiple=True, metavar="KEY=VALUE",
                 help="Of the Apache Kafka brokers that are started here."),
    click.option("--kafka-heap", default="1g", show_default=True, help="Heap of each JVM."),
    click.option("--rounds", type=click.IntRange(1, 1000), default=None,
                 help="Alternations.  [default: 1; 3 with --compare]"),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the record values."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document, not a table."),
    click.option("--costs", is_flag=True,
                 help="Then load the brokers that were started here once more under perf and under "
                      "strace (as installed): what their processor time is spent on, and the "
                      "system calls of a request."),
    click.option("--csv", "csv_file", metavar="FILE", help="Write a line for each measurement."),
    click.option("--html", "html_file", metavar="FILE", help="Write one page with plots."),
    click.option("--prometheus", type=click.IntRange(0, 65535), metavar="PORT",
                 help="Serve the bench metrics on this port while it runs (0: any)."),
]  # fmt: skip


def common(function: F) -> F:
    """The options of every sub-command, as one keyword argument ``shared``."""
    for option in reversed(_COMMON):
        function = option(function)
    return function


LOAD_NAMES = ("seconds", "warm_up", "processes", "record_bytes", "compression")


def load_options(*, record_bytes: int, seconds: float = 3.0) -> Callable[[F], F]:
    """Options of what makes load."""
    options = [
        click.option("--seconds", type=click.FloatRange(min=0.1), default=seconds,
                     show_default=True, help="Length of each measurement."),
        click.option("--warm-up", type=click.FloatRange(min=0.0), default=1.0, show_default=True,
                     help="Seconds of load before each measurement, not counted."),
        click.option("--first-warm-up", type=click.FloatRange(min=0.0), default=None,
                     help="Seconds of load before the first measurement of each cluster "
                          "(a JVM needs it).  [default: 0; 8 with --compare]"),
        click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True,
                     help="Load generators, where one core is not enough."),
        click.option("--record-bytes", type=click.IntRange(1, 16_000_000), default=record_bytes,
                     show_default=True, help="Size of a value."),
        click.option("--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
                     default="none", show_default=True),
    ]  # fmt: skip

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def numbers(text: str, hint: str) -> list[int]:
    """``1,3,100``. Raises click.BadParameter."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"{text!r} is not a list such as 1,3,100", param_hint=hint)
    return found


def choices(text: str, allowed: tuple[str, ...], hint: str) -> list[str]:
    """A list of members of ``allowed``. Raises click.BadParameter."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in found:
        if name not in allowed:
            raise click.BadParameter(f"{name!r} is none of {', '.join(allowed)}", param_hint=hint)
    return found


def check_drivers(
    drivers: list[str], client_settings: Mapping[str, str] | None = None, *, reads: bool = False
) -> None:
    """Raises click.BadParameter: a driver's package is missing, or librdkafka refuses a setting.

    ``reads``: the settings are those of a consumer, not of a producer.
    """
    if "librdkafka" in drivers:
        try:
            import confluent_kafka
        except ImportError:
            raise click.BadParameter(
                "librdkafka needs the package confluent-kafka: pip install confluent-kafka",
                param_hint="--client",
            ) from None
        client = confluent_kafka.Consumer if reads else confluent_kafka.Producer
        try:
            client(({"group.id": "check"} if reads else {}) | dict(client_settings or {}))
        except confluent_kafka.KafkaException as error:
            raise click.BadParameter(
                f"librdkafka says: {error.args[0].str()}", param_hint="--client-set"
            ) from None
    elif client_settings:
        raise click.BadParameter(
            "they are librdkafka's: add --client librdkafka", param_hint="--client-set"
        )


def client_set(function: F) -> F:
    """``--client-set``, of the workloads that librdkafka can make."""
    return click.option(
        "--client-set", multiple=True, metavar="KEY=VALUE",
        help="Of librdkafka, by its own names, such as fetch.queue.backoff.ms=10; repeatable.",
    )(function)  # fmt: skip


def given(name: str) -> bool:
    """Whether the user gave the option of this parameter, on the command line or around it."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def check_shared(shared: dict[str, Any]) -> None:
    """Raises click.UsageError: an option would be passed over in silence."""
    if shared["bootstrap"] is not None:
        for name, option in (("brokers", "--brokers"), ("settings", "--set")):
            if given(name):
                raise click.UsageError(
                    f"{option} is for brokers that are started here; --bootstrap names a cluster "
                    "that is there"
                )
    if "kafka" not in shared["compare"]:
        for name, option in (("kafka_settings", "--kafka-set"), ("kafka_heap", "--kafka-heap")):
            if given(name):
                raise click.UsageError(f"{option} is for --compare kafka")
        if shared["costs"] and shared["bootstrap"] is not None:
            raise click.UsageError(
                "--costs looks into the processes of brokers that are started here: leave "
                "--bootstrap out"
            )


def run(shared: dict[str, Any], setup: dict[str, Any], work: Callable[[Any], None]) -> None:
    """Start the targets, do ``work`` with a ``Bench``, report; errors become one line.

    Exit codes: 0 done, 1 failed or records lost, 130 interrupted (after the partial results).
    """
    from rich.console import Console

    from pegel.errors import PegelError
    from pegel.testing import ClusterError
    from pegel_bench import costs
    from pegel_bench.bench import Bench, Watcher
    from pegel_bench.fleet import Interrupt
    from pegel_bench.report.metrics import Metrics
    from pegel_bench.report.screen import Screen
    from pegel_bench.targets import targets

    as_json = shared["as_json"]
    check_shared(shared)
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=PLAIN_WIDTH)
    plan = _plan(shared)
    bench: Bench | None = None
    problem = ""
    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        screen = stack.enter_context(Screen(console))
        metrics = Metrics()
        if shared["prometheus"] is not None:
            port = stack.enter_context(metrics.serving(shared["prometheus"]))
            console.print(f"metrics on http://127.0.0.1:{port}/metrics", highlight=False)
        try:
            found = stack.enter_context(targets(plan, screen.say))
            replication, min_insync = _replication(shared, found)

            def update(text: str, phase: str, figures: list[dict[str, Any]]) -> None:
                screen.update(text, phase, figures)
                metrics.update(text, phase, figures)

            def done(row: Any) -> None:
                screen.done(row)
                metrics.done(row)

            bench = Bench(
                found, Watcher(screen.say, update, done, metrics.begin), interrupt, setup,
                rounds=shared["rounds"] or (3 if len(found) > 1 else 1),
                processes=setup.get("processes", 1), replication=replication,
                min_insync=min_insync, seed=shared["seed"],
                topic_config=parse_settings(shared["topic_config"], "--topic-config"),
            )  # fmt: skip
            if shared["costs"]:
                costs.check()
                bench.costs = True
            if setup.get("first_warm_up") is None:
                setup["first_warm_up"] = 8.0 if len(found) > 1 else 0.0
            work(bench)
        except (PegelError, ClusterError, OSError) as error:
            problem = _explain(error)
        except KeyboardInterrupt:
            interrupt.asked = True
    if bench is not None and (bench.report.rows or not problem):
        _report(shared, console, bench)
    if problem:
        fail(problem)
    if interrupt.asked:
        click.echo("pegel: interrupted: the results above are partial", err=True)
        sys.exit(130)
    sys.exit(0 if bench is not None and bench.report.ok else 1)


def _plan(shared: dict[str, Any]) -> Any:
    from pegel.config import parse_bootstrap
    from pegel_bench.targets import Plan

    if shared["bootstrap"] is not None:
        try:
            parse_bootstrap(shared["bootstrap"])
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--bootstrap") from None
    return Plan(
        shared["bootstrap"], shared["compare"], shared["brokers"],
        parse_settings(shared["settings"], "--set"),
        parse_settings(shared["kafka_settings"], "--kafka-set"), shared["kafka_heap"],
    )  # fmt: skip


def _replication(shared: dict[str, Any], found: list[Any]) -> tuple[int, int]:
    """As asked for, or what every target can do. Raises PegelError: unreachable."""
    from pegel_bench.load.asking import Asker

    brokers = []
    for target in found:
        asker = Asker(target.bootstrap, timeout=5.0)
        brokers.append(asker.broker_count())
        asker.close()
    replication = shared["replication"] or min(3, *brokers)
    if replication > min(brokers):
        raise click.BadParameter(
            f"{replication} replicas need as many brokers; there are {min(brokers)}",
            param_hint="--replication",
        )
    min_insync = shared["min_insync"] or min(2, replication)
    if min_insync > replication:
        raise click.BadParameter(
            f"{min_insync} is more than {replication} replicas", param_hint="--min-insync"
        )
    return replication, min_insync


def _explain(error: Exception) -> str:
    from pegel.errors import ConnectionFailedError, RequestTimeoutError

    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ConnectionFailedError | RequestTimeoutError):
        text += "; name a running cluster with --bootstrap, or leave it out to have one started"
    return text


def _report(shared: dict[str, Any], console: Any, bench: Any) -> None:
    from pegel.cli.output import print_json
    from pegel_bench.report import costs, files, goals, markdown, page, table

    report = bench.report
    if shared["as_json"]:
        print_json(files.document(report))
    else:
        table.show(console, report)
        costs.show(console, report)
        goals.show(console, report)
    if shared["csv_file"]:
        files.write_csv(report, shared["csv_file"])
    if shared.get("markdown_file"):
        markdown.write(report, shared["markdown_file"])
        console.print(f"wrote {shared['markdown_file']}", highlight=False)
    if shared["html_file"]:
        page.write(report, shared["html_file"])
        console.print(f"wrote {shared['html_file']}", highlight=False)
