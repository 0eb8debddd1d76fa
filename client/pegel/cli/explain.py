"""``pegel explain``: why a partition is as it is, from the metadata log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pegel.cli.options import cluster_options, connect, json_option, run
from pegel.cli.output import highlight, print_json, print_table

if TYPE_CHECKING:
    from pegel.admin.events import ClusterEvent
    from pegel.admin.types import TopicDescription
    from pegel.client import AsyncClient
    from pegel.explain import Explanation


@click.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(min=0), required=False)
@cluster_options
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True,
              help="Events of the time line to show.")  # fmt: skip
@json_option()
def explain(
    topic: str, partition: int | None, bootstrap: str, timeout: float, last: int, as_json: bool
) -> None:
    """Say in words who leads and why, who left the in-sync replicas and when, and what is next.

    \b
    pegel explain orders            # every partition, in one line each
    pegel explain orders 0          # one partition, with its time line
    pegel explain orders 0 --json
    """

    async def work() -> None:
        async with connect(bootstrap, timeout) as client:
            found = await _explain(client, topic, partition, timeout)
        if as_json:
            print_json({"topic": topic, "partitions": [_document(e) for e in found]})
        elif partition is None:
            _print_all(found)
        else:
            _print_one(found[0], last)

    run(work())


async def _explain(
    client: AsyncClient, topic: str, partition: int | None, timeout: float
) -> list[Explanation]:
    from pegel.admin.types import ConfigResourceType
    from pegel.errors import PegelError
    from pegel.explain import explain_partition

    admin = client.admin
    described = await admin.describe_topic(topic, timeout=timeout)
    cluster, configs, eligible, history = await asyncio.gather(
        admin.describe_cluster(timeout=timeout),
        admin.describe_config(ConfigResourceType.TOPIC, topic, timeout=timeout),
        admin.eligible_leader_replicas(topic, timeout=timeout),
        read_history(client, topic, -1 if partition is None else partition, timeout),
    )
    chosen = [p for p in described.partitions if partition in {None, p.partition}]
    if not chosen:
        count = len(described.partitions)
        raise PegelError(f"{topic} has the partitions 0 to {count - 1}, not {partition}")
    minimum = next((c.value for c in configs if c.name == "min.insync.replicas"), None)
    live = {b.node_id for b in cluster.brokers if not b.fenced}
    return [
        explain_partition(topic, p, int(minimum or 1), live, eligible.get(p.partition, ()), history)
        for p in chosen
    ]


async def read_history(
    client: AsyncClient, topic: str, partition: int, timeout: float
) -> list[ClusterEvent]:
    """All that is kept of a partition (of a topic: -1, of the cluster: ""), page by page."""
    found: list[ClusterEvent] = []
    after = 0
    while True:
        page = await client.admin.events(
            after=after, topic=topic, partition=partition, timeout=timeout
        )
        found += page.events
        if page.last == after or not page.events:
            return found
        after = page.last


async def read_damage(
    client: AsyncClient, topics: Iterable[TopicDescription], timeout: float
) -> dict[tuple[str, int], dict[int, str]]:
    """``failed_replicas`` of the cluster; the history is read only where a replica is offline."""
    from pegel.errors import PegelError
    from pegel.explain import failed_replicas

    if not any(p.offline_replicas for topic in topics for p in topic.partitions):
        return {}
    try:
        return failed_replicas(await read_history(client, "", -1, timeout))
    except PegelError:  # not Pegel, or no controller answers: then there is more to say than this
        return {}


def clock_time(at_ms: int, today: datetime | None = None) -> str:
    """``12:03:11.482``, with the date where it is not today's; ``?`` where unknown."""
    if at_ms < 0:
        return "?"
    at = datetime.fromtimestamp(at_ms / 1000).astimezone()
    time = at.strftime("%H:%M:%S.") + f"{at_ms % 1000:03}"
    today = today or datetime.now().astimezone()
    return time if at.date() == today.date() else f"{at:%Y-%m-%d} {time}"


def _document(e: Explanation) -> dict[str, object]:
    o = e.outlook
    return {
        "partition": e.partition,
        "why": e.why,
        "leader": o.leader,
        "leader_since_ms": e.leader_since_ms,
        "next_leader": o.next_leader,
        "missing": list(o.missing),
        "min_insync_replicas": o.min_insync_replicas,
        "failures_to_no_writes": o.failures_to_no_writes,
        "failures_to_offline": o.failures_to_offline,
        "outlook": list(o.sentences),
        "timeline": [{"at_ms": at_ms, "text": text} for at_ms, text in e.timeline],
    }


def _colour(e: Explanation) -> str:
    if e.outlook.failures_to_no_writes == 0:
        return "red"
    return "yellow" if e.outlook.missing else "green"


def _print_all(found: list[Explanation]) -> None:
    rows = [
        [
            e.partition,
            e.outlook.leader if e.outlook.leader >= 0 else "none",
            highlight(f"{e.why}; {'; '.join(e.outlook.sentences)}", _colour(e)),
        ]
        for e in found
    ]
    print_table(["partition", "leader", "why, and what is next"], rows, right=(0, 1))


def _print_one(e: Explanation, last: int) -> None:
    since = "" if e.leader_since_ms < 0 else f" (since {clock_time(e.leader_since_ms)})"
    click.echo(_sentence(e.why) + since)
    for sentence in e.outlook.sentences:
        click.echo(highlight(_sentence(sentence), _colour(e)))
    shown = e.timeline[-last:]
    if len(shown) < len(e.timeline):
        click.echo(f"{len(e.timeline) - len(shown)} earlier events: --last {len(e.timeline)}")
    print_table(["when", "what happened"], [[clock_time(at), text] for at, text in shown])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
