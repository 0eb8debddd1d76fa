"""``pegel cluster balance``, ``drain``, ``moves``, ``elect`` and ``remove``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import click

from pegel.cli.options import cluster_options, connect, explain, fail, json_option, run
from pegel.cli.output import highlight, numbers, print_json, print_table

if TYPE_CHECKING:
    from pegel.balance.execution import Cluster, Outcome, Progress
    from pegel.balance.model import Move, Plan
    from pegel.client import AsyncClient

ROWS_SHOWN = 40
concurrent_option = click.option(
    "--concurrent",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Partitions that move at a time.",
)


@click.command()
@cluster_options
@click.option("--apply", "carry_out", is_flag=True, help="Carry the plan out.")
@click.option("--watch", is_flag=True, help="Look again and again, and carry out each plan.")
@click.option(
    "--interval", default=60.0, show_default=True, type=click.FloatRange(min=0.1),
    metavar="SECONDS", help="Between two looks with --watch.",
)  # fmt: skip
@concurrent_option
@click.option("--all", "show_all", is_flag=True, help=f"Show more than {ROWS_SHOWN} moves.")
@json_option("Print the plan as one JSON document (one for each with --watch).")
def balance(
    bootstrap: str,
    timeout: float,
    carry_out: bool,
    watch: bool,
    interval: float,
    concurrent: int,
    show_all: bool,
    as_json: bool,
) -> None:
    """Plan even shares of replicas, leaders and bytes, with racks apart, and carry that out.

    Without --apply it only shows the plan: which replicas would go where, and why. Replicas are
    copied at a pace that leaves the cluster to its clients; writes go on all the time.

    \b
    pegel cluster balance                  what would be moved, and why
    pegel cluster balance --apply
    pegel cluster balance --watch          keep it balanced until Ctrl-C
    """

    async def work() -> None:
        from pegel.balance.execution import look
        from pegel.balance.planner import plan
        from pegel.errors import PegelError

        async def once(*, known: bool = False) -> tuple[bool, str]:
            """Whether it is balanced (not said again where that is known), and what failed."""
            found = await look(client.admin, timeout)
            planned = plan(found.brokers, found.partitions)
            if planned.moves or as_json or not known:
                show_plan(planned, found, show_all=show_all, as_json=as_json)
            if not planned.moves:
                return True, ""
            if not (carry_out or watch):
                if not as_json:
                    click.echo("nothing was changed: --apply carries this out")
                return False, ""
            return False, await apply(client, planned.moves, timeout, concurrent, quiet=as_json)

        async with connect(bootstrap, timeout) as client:
            balanced, failed = False, ""
            while True:
                try:
                    balanced, failed = await once(known=balanced)
                except PegelError as error:
                    if not watch:
                        raise
                    failed = explain(error)
                if not watch:
                    break
                if failed:
                    click.echo(f"pegel: {failed}; looking again in {interval:g} s", err=True)
                await asyncio.sleep(interval)
        if failed:
            fail(failed)

    run(work(), interrupt_code=0 if watch else 1)


@click.command()
@click.argument("node", type=int)
@cluster_options
@click.option("--dry-run", is_flag=True, help="Only show what would be moved.")
@concurrent_option
@click.option("--all", "show_all", is_flag=True, help=f"Show more than {ROWS_SHOWN} moves.")
@json_option("Print the plan as one JSON document.")
def drain(
    node: int,
    bootstrap: str,
    timeout: float,
    dry_run: bool,
    concurrent: int,
    show_all: bool,
    as_json: bool,
) -> None:
    """Empty a broker: move its leaders and replicas to the others, with nothing lost on the way.

    Afterwards it can be stopped and forgotten (pegel cluster remove). Refused where too few
    brokers would be left for a topic's replicas.

    \b
    pegel cluster drain 3 --dry-run
    pegel cluster drain 3
    """

    async def work() -> None:
        from pegel.balance.execution import look
        from pegel.balance.planner import plan

        async with connect(bootstrap, timeout) as client:
            found = await look(client.admin, timeout)
            planned = plan(found.brokers, found.partitions, leaving=[node], balance=False)
            show_plan(planned, found, show_all=show_all, as_json=as_json)
            if dry_run:
                return
            if planned.moves:
                failed = await apply(client, planned.moves, timeout, concurrent, quiet=as_json)
                if failed:
                    fail(failed)
            if not as_json:
                click.echo(f"broker {node} is empty: stop it, then `pegel cluster remove {node}`")

    run(_planned(work()))


@click.command()
@cluster_options
@click.option("--cancel", is_flag=True, help="Cancel them all: every partition stays where it was.")
@json_option()
def moves(bootstrap: str, timeout: float, cancel: bool, as_json: bool) -> None:
    """Show the moves of replicas that are under way, whoever began them, or cancel them.

    \b
    pegel cluster moves
    pegel cluster moves --cancel
    """

    async def work() -> None:
        from pegel.balance.execution import replica_sizes

        async with connect(bootstrap, timeout) as client:
            found = await client.admin.list_reassignments(timeout=timeout)
            if cancel:
                targets = {move.partition: None for move in found}
                results = await client.admin.alter_reassignments(targets, timeout=timeout)
                wrong = [f"{r.partition}: {r.error}" for r in results if r.error]
                if wrong:
                    fail(f"{len(wrong)} of {len(found)} moves were not cancelled: {wrong[0]}")
                click.echo(f"cancelled {len(found)} moves")
                return
            sizes = await replica_sizes(client.admin, timeout) if found else {}
        rows = []
        for move in found:
            whole = max((sizes.get((*move.partition, b), 0) for b in move.replicas), default=0)
            copied = sum(sizes.get((*move.partition, b), 0) for b in move.adding)
            rows.append((move, copied, whole * len(move.adding)))
        if as_json:
            print_json({
                "moves": [
                    {"topic": m.partition.topic, "partition": m.partition.partition,
                     "replicas": m.replicas, "adding": m.adding, "removing": m.removing,
                     "bytes_copied": copied, "bytes_to_copy": total}
                    for m, copied, total in rows
                ]
            })  # fmt: skip
        elif not rows:
            click.echo("nothing moves")
        else:
            print_table(
                ["partition", "replicas", "adding", "removing", "copied", "of"],
                [[m.partition, numbers(m.target), numbers(m.adding), numbers(m.removing),
                  _bytes(copied), _bytes(total)] for m, copied, total in rows],
                right=(4, 5),
            )  # fmt: skip

    run(work())


@click.command()
@click.argument("topic", required=False)
@click.argument("partition", type=click.IntRange(min=0), required=False)
@cluster_options
@click.option(
    "--unclean", is_flag=True,
    help="Elect the best live replica where nobody leads. LOSES records that only others have.",
)  # fmt: skip
@json_option()
def elect(
    topic: str | None,
    partition: int | None,
    bootstrap: str,
    timeout: float,
    unclean: bool,
    as_json: bool,
) -> None:
    """Give leadership to the preferred replicas: of all partitions, of a topic, or of one.

    The cluster does so by itself every few seconds; this does it now.

    \b
    pegel cluster elect
    pegel cluster elect orders 3
    """
    if unclean and topic is None:
        raise click.UsageError("--unclean needs a TOPIC: it may lose records")

    async def work() -> None:
        from pegel.types import TopicPartition

        async with connect(bootstrap, timeout) as client:
            wanted = None
            if topic is not None:
                described = await client.admin.describe_topic(topic, timeout=timeout)
                wanted = [
                    TopicPartition(topic, p.partition)
                    for p in described.partitions
                    if partition in (None, p.partition)
                ]
                if not wanted:
                    fail(f"topic {topic} has no partition {partition}")
            results = await client.admin.elect_leaders(wanted, unclean=unclean, timeout=timeout)
        elected = [r for r in results if r.elected]
        wrong = [r for r in results if r.error]
        if as_json:
            print_json({
                "elected": [{"topic": r.topic, "partition": r.partition} for r in elected],
                "failed": [{"topic": r.topic, "partition": r.partition, "error": r.error}
                           for r in wrong],
            })  # fmt: skip
        else:
            click.echo(f"elected {len(elected)} leader{'' if len(elected) == 1 else 's'}")
        if wrong:
            first = wrong[0]
            fail(f"{len(wrong)} elections failed; {first.topic}-{first.partition}: {first.error}")

    run(work())


@click.command()
@click.argument("node", type=int)
@cluster_options
def remove(node: int, bootstrap: str, timeout: float) -> None:
    """Forget a broker that is empty and stopped.

    \b
    pegel cluster drain 3        then stop node 3, then
    pegel cluster remove 3
    """

    async def work() -> None:
        from pegel.balance.execution import look

        async with connect(bootstrap, timeout) as client:
            found = await look(client.admin, timeout)
            broker = next((b for b in found.brokers if b.node_id == node), None)
            if broker is None:
                known = numbers(b.node_id for b in found.brokers)
                fail(f"there is no broker {node}; there are {known}")
            held = [p for p in found.partitions if node in p.replicas]
            if held:
                fail(
                    f"broker {node} holds {len(held)} replicas ({held[0].partition} is one): "
                    f"`pegel cluster drain {node}` first"
                )
            assert broker is not None
            if broker.live:
                fail(f"broker {node} is running: stop it first, it would register again")
            await client.admin.unregister_broker(node, timeout=timeout)
            click.echo(f"removed broker {node}")

    run(work())


async def _planned(work: Coroutine[None, None, None]) -> None:
    """A plan that cannot be made is one line, as a cluster's refusal is."""
    from pegel.balance.model import PlanError

    try:
        await work
    except PlanError as error:
        fail(str(error))


# -- showing and carrying out


def show_plan(planned: Plan, found: Cluster, *, show_all: bool, as_json: bool) -> None:
    """The plan as a diff with its reasons, and every broker's share before and after."""
    if as_json:
        print_json(_document(planned))
        return
    if found.moving:
        click.echo(f"{len(found.moving)} partitions move already; counted as if they had arrived")
    if not planned.moves:
        click.echo("balanced: nothing is to be moved")
        return
    shown = planned.moves if show_all else planned.moves[:ROWS_SHOWN]
    rows = [
        [m.partition, _diff(m), _bytes(m.bytes_to_copy) if m.added else "", "; ".join(m.reasons)]
        for m in shown
    ]
    print_table(["partition", "replicas", "copies", "because"], rows, right=(2,))
    if len(shown) < len(planned.moves):
        click.echo(f"… and {len(planned.moves) - len(shown)} more (--all shows them)")
    shares = []
    for broker, after in planned.after.items():
        before = planned.before[broker]
        shares.append([
            broker,
            _change(before.replicas, after.replicas),
            _change(before.leaders, after.leaders),
            _change(before.size_bytes, after.size_bytes, _bytes),
        ])  # fmt: skip
    print_table(["broker", "replicas", "leads", "holds"], shares, right=(0,))
    copies = sum(bool(m.added) for m in planned.moves)
    click.echo(
        f"{len(planned.moves)} partitions change, {copies} of them copy "
        f"{_bytes(planned.bytes_to_copy)}"
    )


def _diff(move: Move) -> str:
    """``1,2,3 -> 1,2,4``, with what goes and what comes in colour."""
    before = ",".join(
        highlight(str(b), "red") if b in move.removed else str(b) for b in move.before
    )
    after = ",".join(highlight(str(b), "green") if b in move.added else str(b) for b in move.after)
    return f"{before} → {after}"


def _change(before: int, after: int, show: Callable[[int], str] = str) -> str:
    return show(after) if show(before) == show(after) else f"{show(before)} → {show(after)}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def _document(planned: Plan) -> dict[str, object]:
    return {
        "moves": [
            {
                "topic": m.partition.topic, "partition": m.partition.partition,
                "before": m.before, "after": m.after, "bytes_to_copy": m.bytes_to_copy,
                "reasons": m.reasons,
            }
            for m in planned.moves
        ],
        "brokers": [
            {
                "id": broker,
                "replicas": [planned.before[broker].replicas, after.replicas],
                "leaders": [planned.before[broker].leaders, after.leaders],
                "bytes": [planned.before[broker].size_bytes, after.size_bytes],
            }
            for broker, after in planned.after.items()
        ],
        "bytes_to_copy": planned.bytes_to_copy,
    }  # fmt: skip


async def apply(
    client: AsyncClient,
    planned: tuple[Move, ...],
    timeout: float,
    concurrent: int,
    *,
    quiet: bool,
) -> str:
    """Carry the moves out under a progress bar; what failed, in one line, or nothing."""
    from pegel.balance.execution import carry_out
    from pegel.seams.clock import RealClock

    async def go(on_progress: Callable[[Progress], None]) -> Outcome:
        return await carry_out(
            client.admin, RealClock(), planned, timeout, on_progress, concurrent=concurrent
        )

    try:
        if quiet or not sys.stderr.isatty():
            outcome = await go(lambda _: None)
        else:
            outcome = await _with_bar(go)
    except asyncio.CancelledError:
        click.echo(
            "stopped; moves under way go on: `pegel cluster moves` shows them, "
            "`pegel cluster moves --cancel` takes them back",
            err=True,
        )
        raise
    if outcome.failed:
        partition, why = next(iter(outcome.failed.items()))
        return f"{len(outcome.failed)} of {len(planned)} moves failed; {partition}: {why}"
    if not quiet:
        click.echo(f"moved {len(planned)} partitions")
    return ""


Go = Callable[[Callable[["Progress"], None]], Coroutine[None, None, "Outcome"]]


async def _with_bar(go: Go) -> Outcome:
    # Imported here: rich takes longer to load than most commands take to run.
    from rich import progress
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn

    bar = progress.Progress(
        TextColumn("moving"), BarColumn(), DownloadColumn(),
        TextColumn("{task.fields[moves]}"), TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("moving", total=1, moves="", left="")

        def show(now: Progress) -> None:
            bar.update(
                task,
                completed=now.bytes_done,
                total=max(1, now.bytes_total),
                moves=f"{now.moves_done}/{now.moves_total} partitions",
                left=_left(now.seconds_left),
            )

        return await go(show)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} left"
