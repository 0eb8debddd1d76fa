"""``pegel bench``: throughput, latency and failures of a cluster, alone or beside another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pegel.cli.options import parse_settings
from pegel_bench.options import (
    DRIVERS,
    F,
    check_drivers,
    choices,
    client_set,
    common,
    given,
    load_options,
    numbers,
    run,
)

_SHARED = (
    "bootstrap", "compare", "brokers", "replication", "min_insync", "topic_config", "settings",
    "kafka_settings", "kafka_heap", "rounds", "seed", "as_json", "costs", "csv_file", "html_file",
    "prometheus",
)  # fmt: skip
_ACKS = ("0", "1", "all")
# Of a sweep over something else.
_SWEPT_PARTITIONS = 3
# librdkafka tells no single request's time, so latencies are measured with the other two.
_TIMED_DRIVERS = DRIVERS[:2]


def _client(*drivers: str) -> Callable[[F], F]:
    about = ("Who makes the load: pre-encoded batches over plain sockets (the broker is the only "
             "thing measured), Pegel's client")  # fmt: skip
    if "librdkafka" in drivers:
        about += ", librdkafka where confluent-kafka is installed"
    return click.option(
        "--client", "drivers", default="raw", show_default=True, metavar=",".join(drivers),
        help=about + ".",
    )  # fmt: skip


@click.group()
def bench() -> None:
    """Measure a Kafka-compatible cluster, honestly.

    \b
    pegel bench throughput                      a cluster of its own, by ack mode
    pegel bench latency --rate 600              open loop: a stall shows up in the figures
    pegel bench throughput --compare kafka      beside Apache Kafka, in turn, in one run
    pegel bench failover --how kill             longest gap, time line, what was lost
    pegel bench baseline --compare kafka        every goal that Pegel is held to
    pegel bench throughput -b host:9092 --html page.html

    Latencies count from the moment at which a request was to be sent. Every run looks whether what
    was acknowledged is in the log, and fails if it is not.
    """


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    shared = {name: options.pop(name) for name in _SHARED}
    return shared, options


def _spec(setup: dict[str, Any], seed: int, **more: Any) -> Any:
    from pegel_bench.load.spec import LoadSpec

    names = ("record_bytes", "compression", "seconds", "warm_up")
    fields = {name: setup[name] for name in names if name in setup}
    return LoadSpec(bootstrap="", topic="", seed=seed, **(fields | more))


@bench.command()
@click.option("--acks", default="0,1,all", show_default=True, help="Acknowledgement modes.")
@click.option("--partitions", default="1,3", show_default=True, help="Numbers of partitions.")
@click.option("--batch-bytes", type=click.IntRange(min=1), default=1_000_000, show_default=True,
              help="Size of each batch.")  # fmt: skip
@click.option("--in-flight", type=click.IntRange(1, 1000), default=5, show_default=True,
              help="Unanswered requests of each connection.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Connections to each leader.")  # fmt: skip
@_client(*DRIVERS)
@client_set
@load_options(record_bytes=100)
@common
def throughput(**options: Any) -> None:
    """As much as goes through, for each acknowledgement mode.

    With acks=0 nobody answers: the clock runs until the log shows everything that was sent.
    """
    shared, setup = _split(options)
    acks = choices(setup["acks"], _ACKS, "--acks")
    partitions = numbers(setup["partitions"], "--partitions")
    drivers = choices(setup["drivers"], DRIVERS, "--client")
    client_settings = _client_settings(setup, drivers)
    _check_processes(setup["processes"], min(partitions))
    from pegel_bench.load.spec import records_in

    if drivers == ["librdkafka"] and (given("in_flight") or given("connections")):
        raise click.UsageError(
            "librdkafka has one connection to each broker and decides itself what is in flight: "
            "see --client-set, such as max.in.flight=5"
        )
    setup["batch_records"] = records_in(setup["batch_bytes"], setup["record_bytes"])
    spec = _spec(
        setup, shared["seed"], batch_records=setup["batch_records"],
        in_flight=setup["in_flight"], connections=setup["connections"],
        batch_bytes=setup["batch_bytes"], client_settings=client_settings,
    )  # fmt: skip

    def work(bench: Any) -> None:
        from pegel_bench.workloads.throughput import throughput

        throughput(bench, spec, acks, partitions, drivers)

    run(shared, setup, work)


@bench.command()
@click.option("--mode", "modes", default="open,one,pipelined", show_default=True,
              help="open: at --rate, whatever happens. one: the next when the last is answered. "
                   "pipelined: --in-flight deep.")  # fmt: skip
@click.option("--acks", default="1,all", show_default=True, help="Acknowledgement modes.")
@click.option("--rate", type=click.FloatRange(min=0.1), default=600.0, show_default=True,
              help="Requests a second of the open loop.")  # fmt: skip
@click.option("--batch-records", type=click.IntRange(min=1), default=1, show_default=True,
              help="Records in each request.")  # fmt: skip
@click.option("--partitions", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--in-flight", type=click.IntRange(1, 1000), default=16, show_default=True,
              help="Unanswered requests of each connection, when pipelined.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Connections to each leader.")  # fmt: skip
@_client(*_TIMED_DRIVERS)
@load_options(record_bytes=100, seconds=5.0)
@common
def latency(**options: Any) -> None:
    """Time until a request is acknowledged.

    In the open loop every request is due at its own time, and its latency counts from then: a
    broker that stands still for a second is charged for all that was due in that second.
    """
    shared, setup = _split(options)
    modes = choices(setup["modes"], ("open", "one", "pipelined"), "--mode")
    acks = choices(setup["acks"], ("1", "all"), "--acks")
    drivers = choices(setup["drivers"], _TIMED_DRIVERS, "--client")
    _check_processes(setup["processes"], setup["partitions"])
    spec = _spec(
        setup, shared["seed"], batch_records=setup["batch_records"], rate=setup["rate"],
        in_flight=setup["in_flight"], connections=setup["connections"],
        partitions=setup["partitions"],
    )  # fmt: skip

    def work(bench: Any) -> None:
        from pegel_bench.workloads.latency import latency

        latency(bench, spec, modes, acks, drivers)

    run(shared, setup, work)


@bench.command()
@click.option("--partitions", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--megabytes", type=click.FloatRange(min=1), default=300.0, show_default=True,
              help="Written first, to be read again and again.")  # fmt: skip
@click.option("--fetch-bytes", type=click.IntRange(min=1024), default=1024 * 1024,
              show_default=True, help="Most bytes of one partition in a fetch.")  # fmt: skip
@_client(*DRIVERS)
@client_set
@load_options(record_bytes=1000)
@common
def consume(**options: Any) -> None:
    """Read a topic from its beginning, as fast as it comes.

    The raw client looks at the headers of batches only; the others decode every record.
    """
    shared, setup = _split(options)
    drivers = choices(setup["drivers"], DRIVERS, "--client")
    client_settings = _client_settings(setup, drivers, reads=True)
    _check_processes(setup["processes"], setup["partitions"])
    from pegel_bench.load.spec import records_in

    spec = _spec(
        setup, shared["seed"], partitions=setup["partitions"], fetch_bytes=setup["fetch_bytes"],
        batch_records=records_in(500_000, setup["record_bytes"]),
        client_settings=client_settings,
    )  # fmt: skip

    def work(bench: Any) -> None:
        from pegel_bench.workloads.consume import consume

        consume(bench, spec, drivers, setup["megabytes"])

    run(shared, setup, work)


@bench.command("end-to-end")
@click.option("--acks", default="1,all", show_default=True, help="Acknowledgement modes.")
@click.option("--rate", type=click.FloatRange(min=0.1), default=500.0, show_default=True,
              help="Records a second.")  # fmt: skip
@click.option("--partitions", type=click.IntRange(min=1), default=3, show_default=True)
@_client(*_TIMED_DRIVERS)
@load_options(record_bytes=100, seconds=5.0)
@common
def end_to_end(**options: Any) -> None:
    """From the moment at which a record was to be sent until a consumer has it."""
    shared, setup = _split(options)
    acks = choices(setup["acks"], ("1", "all"), "--acks")
    drivers = choices(setup["drivers"], _TIMED_DRIVERS, "--client")
    if setup["processes"] > 1:
        raise click.BadParameter("one process makes this load", param_hint="--processes")
    spec = _spec(
        setup, shared["seed"], rate=setup["rate"], partitions=setup["partitions"],
        batch_records=1,
    )  # fmt: skip

    def work(bench: Any) -> None:
        from pegel_bench.workloads.end_to_end import end_to_end

        end_to_end(bench, spec, acks, drivers)

    run(shared, setup, work)


@bench.command()
@click.option("--how", "hows", default="kill", show_default=True, metavar="kill,stop,terminate",
              help="What happens to the leader: SIGKILL, SIGSTOP, SIGTERM.")  # fmt: skip
@click.option("--leader", "whoms", default="any", show_default=True, metavar="any,controller",
              help="Which leader: one that is the active controller as well, or any.")  # fmt: skip
@click.option("--client", "drivers", default=None, metavar="raw,pegel,librdkafka",
              help="Who watches: a prober that asks every node, Pegel's client, librdkafka.  "
                   "[default: all that are installed]")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1, 1000), default=100.0, show_default=True,
              help="Records a second of each.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=3.0), default=7.0, show_default=True,
              help="Length of each run; at least 20 with Apache Kafka.")  # fmt: skip
@common
def failover(**options: Any) -> None:
    """Let the leader of a partition fail; how long is nothing acknowledged?

    Everything that was acknowledged is looked for afterwards.
    """
    shared, setup = _split(options)
    _refuse_costs(shared, "failover")
    hows = choices(setup["hows"], ("kill", "stop", "terminate"), "--how")
    whoms = choices(setup["whoms"], ("any", "controller"), "--leader")
    drivers = _installed() if setup["drivers"] is None else choices(
        setup["drivers"], DRIVERS, "--client"
    )  # fmt: skip
    check_drivers(drivers)
    spec = _spec(setup, shared["seed"], rate=setup["rate"])
    setup["first_warm_up"] = 0.0

    def work(bench: Any) -> None:
        from pegel_bench.workloads.failover import failover

        failover(bench, spec, hows, drivers, whoms)

    run(shared, setup, work)


def _client_settings(
    setup: dict[str, Any], drivers: list[str], *, reads: bool = False
) -> dict[str, str]:
    """Of ``--client-set``, in ``setup`` from now on as the report tells it."""
    settings: dict[str, str] = parse_settings(setup.pop("client_set"), "--client-set")
    check_drivers(drivers, settings, reads=reads)
    if settings:
        setup["client_settings"] = settings
    return settings


def _refuse_costs(shared: dict[str, Any], command: str) -> None:
    if shared["costs"]:
        raise click.UsageError(f"--costs is for loads that can be repeated; {command} has none")


def _installed() -> list[str]:
    from importlib.util import find_spec

    return [d for d in DRIVERS if d != "librdkafka" or find_spec("confluent_kafka")]


@bench.command()
@click.option("--partitions", default="1,100,1000", show_default=True)
@click.option("--connections", default="1,100,1000", show_default=True, help="To each broker.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=5.0, show_default=True,
              help="For how long idle CPU is measured.")  # fmt: skip
@common
def footprint(**options: Any) -> None:
    """Time to ready, memory, idle CPU: with partitions, with connections, after load."""
    shared, setup = _split(options)
    _refuse_costs(shared, "footprint")
    partitions = numbers(setup["partitions"], "--partitions")
    connections = numbers(setup["connections"], "--connections")
    spec = _spec(setup, shared["seed"])
    setup["first_warm_up"] = 0.0

    def work(bench: Any) -> None:
        from pegel_bench.workloads.footprint import footprint

        footprint(bench, spec, partitions, connections)

    run(shared, setup, work)


@bench.command()
@click.option("--over", type=click.Choice(["partitions", "idle-partitions", "connections",
                                           "record-bytes", "replicas"]),
              default="partitions", show_default=True, help="What grows.")  # fmt: skip
@click.option(
    "--values",
    default=None,
    help="[default: 1,10,100,1000; replicas 1,2,3; record bytes 10 to 100,000]",
)
@click.option("--acks", type=click.Choice(_ACKS[1:]), default="all", show_default=True)
@click.option("--rate", type=click.FloatRange(min=1), default=500.0, show_default=True,
              help="Requests a second, the same for all values.")  # fmt: skip
@load_options(record_bytes=100, seconds=4.0)
@common
def sweep(**options: Any) -> None:
    """What one request costs as partitions, connections, record size or replicas grow.

    The same for all values: requests a second, and one batch of the same records for one partition
    in each request. With "partitions" the requests go round them, over one connection to each
    broker; with "idle-partitions" all are for one partition, and so many others are beside it; with
    "connections" they go round the connections, all of one partition. Before the
    measurement every partition and connection is used once, and the brokers come to rest. Values
    take turns, round by round.
    """
    shared, setup = _split(options)
    defaults = {"replicas": "1,2,3", "record-bytes": "10,100,1000,10000,100000"}
    text = setup["values"] or defaults.get(setup["over"], "1,10,100,1000")
    values = numbers(text, "--values")
    of_one = setup["over"] in {"idle-partitions", "connections"}
    loaded = min(values) if setup["over"] == "partitions" else 1 if of_one else _SWEPT_PARTITIONS
    _check_processes(setup["processes"], loaded)
    spec = _spec(
        setup, shared["seed"], rate=setup["rate"], acks=-1 if setup["acks"] == "all" else 1,
        partitions=_SWEPT_PARTITIONS,
    )  # fmt: skip

    def work(bench: Any) -> None:
        from pegel_bench.workloads.sweep import sweep

        sweep(bench, spec, setup["over"], values)

    run(shared, setup, work)


@bench.command()
@click.option("--rows", metavar="NAME,…", help="Only these rows; --list names them.")
@click.option("--list", "listed", is_flag=True, help="Say what is measured and held to what.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=3.0, show_default=True,
              help="Length of each measurement.")  # fmt: skip
@click.option("--warm-up", type=click.FloatRange(min=0.0), default=1.0, show_default=True,
              help="Seconds of load before each measurement, not counted.")  # fmt: skip
@click.option("--first-warm-up", type=click.FloatRange(min=0.0), default=None,
              help="Seconds of load before the first measurement of each cluster (a JVM needs "
                   "it).  [default: 0; 8 with --compare]")  # fmt: skip
@click.option("--markdown", "markdown_file", metavar="FILE",
              help="Write the goals and all tables as Markdown.")  # fmt: skip
@common
def baseline(**options: Any) -> None:
    """Everything that Pegel is held to, in one run, with a verdict for each goal.

    \b
    pegel bench baseline --list
    pegel bench baseline --compare kafka                 five rounds of all rows: an hour
    pegel bench baseline --compare kafka --rows fetch,open-600

    Most goals are ratios to the cluster it is compared with; without one, only those that are
    absolute are judged. Removed topics are deleted after a second, so that the disk does not fill.
    A goal that is missed is no failure of the command; a lost record is.
    """
    from pegel_bench import baseline as all_rows
    from pegel_bench.report import goals as report_goals

    shared, setup = _split(options)
    names = tuple(section.name for section in all_rows.SECTIONS)
    wanted = choices(setup.pop("rows") or ",".join(names), names, "--rows")
    sections = [section for section in all_rows.SECTIONS if section.name in wanted]
    if setup.pop("listed"):
        for section in sections:
            click.echo(f"{section.name}: {section.about}")
            for goal in section.goals:
                click.echo(f"    {report_goals.text(goal)}")
        return
    check_drivers([client for section in sections for client in section.clients])
    shared["rounds"] = shared["rounds"] or all_rows.ROUNDS
    shared["topic_config"] = (
        *(f"{k}={v}" for k, v in all_rows.TOPIC_CONFIG.items()), *shared["topic_config"]
    )  # fmt: skip
    spec = _spec(setup, shared["seed"])
    shared["markdown_file"] = setup.pop("markdown_file")

    def work(bench: Any) -> None:
        all_rows.measure(bench, spec, sections)

    run(shared, setup, work)


def _check_processes(processes: int, partitions: int) -> None:
    if processes > partitions:
        raise click.BadParameter(
            f"each load generator has partitions of its own: {processes} of them need as many "
            f"partitions, not {partitions}",
            param_hint="--processes",
        )
