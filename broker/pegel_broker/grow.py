"""``pegel cluster add``: one more node for a local cluster, in the foreground."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pegel_broker.layout import ARBITER, BOTH, HOST, OBSERVER, load

if TYPE_CHECKING:
    from pegel_broker.node import Node


@click.command(short_help="Start one more node of a local cluster.")
@click.option(
    "--data-dir",
    default="pegel-data",
    show_default=True,
    type=click.Path(file_okay=False),
    help="The directory that `pegel up` runs the cluster in.",
)
@click.option(
    "--controller", "votes", is_flag=True,
    help="It is to vote as well: tell the others with `pegel cluster quorum add`.",
)  # fmt: skip
@click.option("--arbiter", is_flag=True, help="It only votes, and stores no data.")
@click.option("--rack", help="Replicas are placed in different racks.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A broker setting."
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line once it serves.")
def add(
    data_dir: str,
    votes: bool,
    arbiter: bool,
    rack: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Configure one more node on free ports, and run it until Ctrl-C or SIGTERM.

    A broker that is new holds nothing: `pegel cluster balance --apply` gives it its share.
    Later `pegel up` on the same directory starts it with the others. On another host, start
    `pegel server` with the cluster's --controllers instead.

    \b
    pegel cluster add                  one more broker
    pegel cluster add --arbiter        one more vote
    """
    from pegel.logs import set_up_logging
    from pegel_broker.cli import node_config, node_line
    from pegel_broker.config import NodeConfigError, parse_properties
    from pegel_broker.run import run_node

    directory = Path(data_dir).absolute()
    layout = load(directory)
    if layout is None:
        raise click.ClickException(
            f"{directory} holds no cluster: start one there with `pegel up --data-dir {data_dir}`"
        )
    roles = ARBITER if arbiter else BOTH if votes else OBSERVER
    node_id = layout.add(roles)
    extra = [*settings, *([f"broker.rack={rack}"] if rack else [])]
    joins = roles != OBSERVER
    text = layout.properties(directory, node_id, extra, joins=joins)
    try:
        config = node_config(parse_properties(text))
    except NodeConfigError as error:
        raise click.UsageError(str(error)) from None
    home = directory / f"node-{node_id}"
    home.mkdir(exist_ok=True)
    (home / "server.properties").write_text(text)
    layout.save(directory)
    if joins:
        address = f"{node_id}@{HOST}:{layout.nodes[node_id].controller}"
        click.echo(f"node {node_id} votes once you say: pegel cluster quorum add {address}",
                   err=as_json)  # fmt: skip
        sys.stdout.flush()
    set_up_logging("info", str(home / "node.log"), "text", node_id)

    def on_ready(node: Node) -> None:
        if as_json:
            click.echo(json.dumps(node_line(node)))
        else:
            where = node.addresses.client or node.addresses.controller or ("", -1)
            click.echo(f"node {node_id} serves on {where[0]}:{where[1]}; Ctrl-C stops it")
        sys.stdout.flush()

    sys.exit(run_node(config, on_ready))
