"""``pegel topics``: list, create, describe, delete, grow, configure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pegel.cli.explain import read_damage
from pegel.cli.options import cluster_options, connect, json_option, parse_settings, run
from pegel.cli.output import highlight, numbers, print_json, print_table
from pegel.cli.trim import trim

if TYPE_CHECKING:
    from pegel import AsyncClient
    from pegel.admin.types import TopicDescription
    from pegel.types import TopicPartition


@click.group()
def topics() -> None:
    """Create, look at and change topics.

    \b
    pegel topics create orders --partitions 6 --replication 3 --config min.insync.replicas=2
    pegel topics describe orders
    pegel topics configs orders --set retention.ms=3600000
    pegel topics trim orders --before-time 2d
    """


topics.add_command(trim)


@topics.command("list")
@cluster_options
@click.option("--internal", is_flag=True, help="Include the cluster's own topics.")
@json_option()
def list_topics(bootstrap: str, timeout: float, internal: bool, as_json: bool) -> None:
    """List topics.

    \b
    pegel topics list
    pegel topics list --json | jq -r '.topics[].name'
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            found = await client.admin.list_topics(internal=internal, timeout=timeout)
            short = await _short(client, found, timeout)
        if as_json:
            print_json({"topics": [_summary(t) for t in found]})
        elif not found:
            click.echo("no topics; create one with `pegel topics create NAME`")
        else:
            rows = [[t.name, len(t.partitions), t.replication, _health(t, short)] for t in found]
            print_table(["topic", "partitions", "replicas", "state"], rows, right=(1, 2))

    run(work())


@topics.command()
@click.argument("name")
@cluster_options
@click.option("--partitions", type=click.IntRange(min=1), help="Default: the broker's.")
@click.option("--replication", type=click.IntRange(min=1), help="Default: the broker's.")
@click.option("--config", multiple=True, metavar="KEY=VALUE", help="A topic configuration.")
@click.option("--if-not-exists", is_flag=True, help="Succeed if it is there already.")
@json_option()
def create(
    name: str,
    bootstrap: str,
    timeout: float,
    partitions: int | None,
    replication: int | None,
    config: tuple[str, ...],
    if_not_exists: bool,
    as_json: bool,
) -> None:
    """Create a topic.

    \b
    pegel topics create orders
    pegel topics create orders --partitions 6 --replication 3 --config min.insync.replicas=2
    """
    settings = parse_settings(config, "--config")

    async def work() -> None:
        from pegel.errors import TopicExistsError

        created = True
        async with connect(bootstrap, timeout) as client:
            try:
                await client.create_topic(
                    name,
                    partitions=partitions or -1,
                    replication=replication or -1,
                    config=settings,
                    timeout=timeout,
                )
            except TopicExistsError:
                if not if_not_exists:
                    raise
                created = False
        if as_json:
            print_json({"topic": name, "created": created})
        else:
            click.echo(f"created topic {name}" if created else f"topic {name} is there already")

    run(work())


@topics.command()
@click.argument("names", nargs=-1, required=True)
@cluster_options
@json_option("Print one JSON document, or one per line for several topics.")
def describe(names: tuple[str, ...], bootstrap: str, timeout: float, as_json: bool) -> None:
    """Show leaders, replicas, in-sync replicas, epochs and offsets of topics.

    \b
    pegel topics describe orders
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            for name in names:
                topic = await client.admin.describe_topic(name, offsets=True, timeout=timeout)
                if as_json:
                    print_json(_details(topic))
                else:
                    _print_topic(topic, await _short(client, [topic], timeout))
                    _print_damage(topic, await read_damage(client, [topic], timeout))

    run(work())


@topics.command()
@click.argument("names", nargs=-1, required=True)
@cluster_options
@json_option()
def delete(names: tuple[str, ...], bootstrap: str, timeout: float, as_json: bool) -> None:
    """Delete topics and all their records.

    \b
    pegel topics delete orders
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            for name in names:
                await client.delete_topic(name, timeout=timeout)
                if not as_json:
                    click.echo(f"deleted topic {name}")
        if as_json:
            print_json({"deleted": list(names)})

    run(work())


@topics.command()
@click.argument("name")
@cluster_options
@click.option("--partitions", type=click.IntRange(min=1), required=True, help="The new number.")
@json_option()
def grow(name: str, bootstrap: str, timeout: float, partitions: int, as_json: bool) -> None:
    """Give a topic more partitions. Keys go to other partitions from then on.

    \b
    pegel topics grow orders --partitions 12
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            await client.admin.grow_topic(name, partitions, timeout=timeout)
        if as_json:
            print_json({"topic": name, "partitions": partitions})
        else:
            click.echo(f"topic {name} has {partitions} partitions")

    run(work())


@topics.command()
@click.argument("name")
@cluster_options
@click.option("--partitions", type=click.IntRange(min=1), help="The new number, a larger one.")
@click.option("--set", "to_set", multiple=True, metavar="KEY=VALUE", help="Set a key.")
@click.option("--unset", multiple=True, metavar="KEY", help="Go back to the default of a key.")
@json_option()
def alter(
    name: str,
    bootstrap: str,
    timeout: float,
    partitions: int | None,
    to_set: tuple[str, ...],
    unset: tuple[str, ...],
    as_json: bool,
) -> None:
    """Change the configuration of a topic, or its number of partitions.

    \b
    pegel topics alter orders --set retention.ms=3600000 --unset cleanup.policy
    pegel topics alter orders --partitions 12
    """
    changes: dict[str, str | int | float | bool | None] = {}
    changes.update(parse_settings(to_set, "--set"))
    changes.update(dict.fromkeys(unset))
    if not changes and partitions is None:
        raise click.UsageError("give --set, --unset or --partitions")

    async def work() -> None:
        from pegel.admin.types import ConfigResourceType

        async with connect(bootstrap, timeout) as client:
            if changes:
                await client.admin.alter_config(
                    ConfigResourceType.TOPIC, name, changes, timeout=timeout
                )
            if partitions is not None:
                await client.admin.grow_topic(name, partitions, timeout=timeout)
        if as_json:
            print_json({"topic": name, "partitions": partitions, "configs": changes})
        else:
            click.echo(f"altered topic {name}")

    run(work())


@topics.command()
@click.argument("name")
@cluster_options
@click.option("--set", "to_set", multiple=True, metavar="KEY=VALUE", help="Set a key.")
@click.option("--unset", multiple=True, metavar="KEY", help="Go back to the default of a key.")
@click.option("--all", "show_all", is_flag=True, help="Show defaults too.")
@json_option()
def configs(
    name: str,
    bootstrap: str,
    timeout: float,
    to_set: tuple[str, ...],
    unset: tuple[str, ...],
    show_all: bool,
    as_json: bool,
) -> None:
    """Show or change the configuration of a topic.

    \b
    pegel topics configs orders --all
    pegel topics configs orders --set retention.ms=3600000 --unset cleanup.policy
    """
    changes: dict[str, str | int | float | bool | None] = {}
    changes.update(parse_settings(to_set, "--set"))
    changes.update(dict.fromkeys(unset))

    async def work() -> None:
        from pegel.admin.types import ConfigResourceType, ConfigSource

        topic = ConfigResourceType.TOPIC
        async with connect(bootstrap, timeout) as client:
            if changes:
                await client.admin.alter_config(topic, name, changes, timeout=timeout)
            entries = await client.admin.describe_config(topic, name, timeout=timeout)
        shown = [e for e in entries if show_all or e.source is ConfigSource.TOPIC]
        if as_json:
            values = [{"key": e.name, "value": e.value, "source": e.source.name} for e in shown]
            print_json({"topic": name, "configs": values})
        elif not shown:
            click.echo(f"topic {name} has only defaults; --all shows them")
        else:
            rows = [[e.name, e.value, e.source.name.lower().replace("_", " ")] for e in shown]
            print_table(["key", "value", "from"], rows)

    run(work())


def _summary(topic: TopicDescription) -> dict[str, object]:
    return {
        "name": topic.name,
        "id": str(topic.topic_id),
        "partitions": len(topic.partitions),
        "replication": topic.replication,
        "internal": topic.is_internal,
    }


def _details(topic: TopicDescription) -> dict[str, object]:
    partitions = [
        {
            "partition": p.partition,
            "leader": p.leader,
            "leader_epoch": p.leader_epoch,
            "replicas": list(p.replicas),
            "isr": list(p.isr),
            "offline_replicas": list(p.offline_replicas),
            "start_offset": p.start_offset,
            "end_offset": p.end_offset,
        }
        for p in topic.partitions
    ]
    return {**_summary(topic), "partitions": partitions}


async def _short(
    client: AsyncClient, topics: list[TopicDescription], timeout: float
) -> frozenset[TopicPartition]:
    """What is under-replicated; whether anything moves is asked only where it may matter."""
    from pegel.health import under_replicated

    if not under_replicated(topics, ()):
        return frozenset()
    return under_replicated(topics, await client.admin.list_reassignments(timeout=timeout))


def _health(topic: TopicDescription, short: frozenset[TopicPartition]) -> str:
    offline = sum(p.leader < 0 for p in topic.partitions)
    number = sum(name == topic.name for name, _ in short)
    if offline:
        return highlight(f"{offline} without a leader", "red")
    if number:
        return highlight(f"{number} under-replicated", "yellow")
    return highlight("ok", "green")


def _print_damage(topic: TopicDescription, damage: dict[tuple[str, int], dict[int, str]]) -> None:
    from pegel.health import damaged_replicas

    for p, broker, why in damaged_replicas(topic, damage):
        text = f"the replica of {topic.name}-{p.partition} on broker {broker} is damaged: {why}"
        click.echo(f"{highlight(text, 'red')}: pegel explain {topic.name} {p.partition}")


def _print_topic(topic: TopicDescription, short: frozenset[TopicPartition]) -> None:
    click.echo(
        f"{topic.name}: {len(topic.partitions)} partitions, {topic.replication} replicas, "
        f"{_health(topic, short)}, id {topic.topic_id}"
    )
    rows = [
        [
            p.partition,
            p.leader if p.leader >= 0 else highlight("none", "red"),
            p.leader_epoch,
            numbers(p.replicas),
            highlight(numbers(p.isr), "yellow")
            if (topic.name, p.partition) in short
            else numbers(p.isr),
            p.start_offset,
            p.end_offset,
        ]
        for p in topic.partitions
    ]
    columns = ["partition", "leader", "epoch", "replicas", "in sync", "start", "end"]
    print_table(columns, rows, right=(0, 1, 2, 5, 6))
