"""``pegel server``: one node in the foreground."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pegel_broker.node import Node

_OPTION_KEYS = {
    "node.id", "process.roles", "data.dir", "listeners", "advertised.listeners",
    "controller.listener", "controllers", "http.listener", "broker.rack", "cluster.id",
}  # fmt: skip


def _list_metrics(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from pegel_broker.metrics.declared import BROKER

    for metric in BROKER:
        labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
        click.echo(f"{metric.name}{labels}\n    {metric.kind}: {metric.help}")
    context.exit()


def _list_settings(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from pegel_controller.config import BROKER_CONFIGS

    for name, key in sorted(BROKER_CONFIGS.items()):
        click.echo(f"{name} = {key.default}\n    {key.type.name.lower()}: {key.doc}")
    context.exit()


@click.command(short_help="Run one node in the foreground.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False),
    help="A properties file; options given here win over it.",
)
@click.option("--node-id", type=int, help="Unique in the cluster.")
@click.option("--roles", help="broker, controller, or broker,controller (default).")
@click.option("--data-dir", help="Where this node keeps everything.")
@click.option("--listen", help="Client address, host:port (default 127.0.0.1:9092).")
@click.option("--advertise", help="Address that clients are told, where it differs.")
@click.option(
    "--controllers",
    help="All controllers: 1@host:port,2@host:port,… The entry of this "
    "node is where its own controller listens.",
)
@click.option(
    "--controller-listen",
    help="Where this node's controller listens if it joins a running cluster: it votes after "
    "`pegel cluster quorum add`.",
)
@click.option("--http", help="Address for /metrics, /healthz, /readyz (default: none).")
@click.option("--rack", help="Replicas are placed in different racks.")
@click.option("--cluster-id", help="Refuse any other cluster; used to form a new one.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any broker setting by Kafka's name; may be repeated.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
@click.option(
    "--log-format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="json: one object a line, with the same facts.",
)
@click.option("--log-file", help="Write the log here instead of to standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line once it serves.")
@click.option(
    "--until-eof",
    is_flag=True,
    help="Stop when standard input ends, so that it never outlives who started it.",
)
@click.option(
    "--list-settings",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_settings,
    help="List every setting with its default, and exit.",
)
@click.option(
    "--list-metrics",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_metrics,
    help="List everything on /metrics with its meaning, and exit.",
)
def server(
    config_file: str | None,
    settings: tuple[str, ...],
    log_level: str,
    log_format: str,
    log_file: str | None,
    as_json: bool,
    until_eof: bool,
    **options: str | int | None,
) -> None:
    """Run one node until SIGINT or SIGTERM, which moves its leaders away and stops it cleanly.

    A cluster of one:

        pegel server --node-id 1 --data-dir ./one --controllers 1@127.0.0.1:9093

    Three on one machine are easier with `pegel up`.
    """
    from pegel.logs import set_up_logging
    from pegel_broker.config import NodeConfigError, parse_properties
    from pegel_broker.run import run_node

    try:
        values = {}
        if config_file is not None:
            values = parse_properties(Path(config_file).read_text())
        for setting in settings:
            values |= parse_properties(setting)
        names = {
            "node_id": "node.id", "roles": "process.roles", "data_dir": "data.dir",
            "listen": "listeners", "advertise": "advertised.listeners",
            "controllers": "controllers", "http": "http.listener", "rack": "broker.rack",
            "cluster_id": "cluster.id", "controller_listen": "controller.listener",
        }  # fmt: skip
        values |= {names[k]: str(v) for k, v in options.items() if v is not None}
        config = node_config(values)
    except NodeConfigError as error:
        raise click.UsageError(str(error)) from None
    set_up_logging(log_level, log_file or sys.stderr, log_format, config.node_id)

    def on_ready(node: Node) -> None:
        if as_json:
            click.echo(json.dumps(node_line(node)))

    sys.exit(run_node(config, on_ready, sys.stdin.fileno() if until_eof else None))


def node_config(values: dict[str, str]):  # type: ignore[no-untyped-def]
    """A ``NodeConfig`` from properties. Raises NodeConfigError."""
    from pegel_broker.config import (
        ALL_MECHANISMS,
        SASL_PROTOCOL,
        NodeConfig,
        NodeConfigError,
        parse_address,
        parse_controllers,
        split_protocol,
    )

    def required(key: str, option: str) -> str:
        if not values.get(key):
            raise NodeConfigError(f"give {option} (or {key} in the properties file)")
        return values[key]

    node_id = required("node.id", "--node-id")
    if not node_id.isdigit():
        raise NodeConfigError(f"the node id is a number, not {node_id!r}")
    advertise, http = values.get("advertised.listeners"), values.get("http.listener")
    joins = values.get("controller.listener")
    protocol, values["listeners"] = split_protocol(values.get("listeners") or "127.0.0.1:9092")
    if advertise:
        advertise = split_protocol(advertise)[1]
    if protocol == SASL_PROTOCOL:
        values.setdefault("sasl.enabled.mechanisms", ",".join(ALL_MECHANISMS))
    roles = values.get("process.roles", "broker,controller")
    return NodeConfig(
        node_id=int(node_id),
        data_dir=os.path.abspath(required("data.dir", "--data-dir")),
        controllers=parse_controllers(required("controllers", "--controllers")),
        roles=frozenset(filter(None, (r.strip() for r in roles.split(",")))),
        listen=parse_address(values["listeners"], 9092),
        advertise=parse_address(advertise, 9092) if advertise else None,
        http=parse_address(http, 9644) if http else None,
        rack=values.get("broker.rack") or None,
        cluster_id=values.get("cluster.id", ""),
        controller_listen=parse_address(joins, 9093) if joins else None,
        settings={k: v for k, v in values.items() if k not in _OPTION_KEYS},
    )


def node_line(node: Node) -> dict[str, object]:
    """What ``--json`` says of a node that serves; addresses are host:port or null."""

    def shown(address: tuple[str, int] | None) -> str | None:
        return None if address is None else f"{address[0]}:{address[1]}"

    bound = node.addresses
    return {
        "id": node.config.node_id,
        "pid": os.getpid(),
        "client": shown(bound.client),
        "controller": shown(bound.controller),
        "http": shown(bound.http),
    }
