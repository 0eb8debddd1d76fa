"""``pegel chaos``: break a cluster of one's own settings, and see that nothing is lost."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click


def _pairs(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    found = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        found[key] = value
    return found


def _names(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...]:
    from pegel_bench.chaos.faults import FAULTS

    names = tuple(filter(None, (n.strip() for n in (text or "").split(","))))
    for name in names:
        if name not in FAULTS:
            raise click.BadParameter(f"there is no fault {name!r} (see --list-faults)")
        if FAULTS[name].missing:
            raise click.BadParameter(f"{name}: {FAULTS[name].missing}")
    return names


def _list(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from pegel_bench.chaos.faults import FAULTS

    width = max(map(len, FAULTS))
    for name, fault in sorted(FAULTS.items()):
        missing = f" (not here: {fault.missing})" if fault.missing else ""
        click.echo(f"{name.ljust(width)}  {fault.what}{missing}")
    context.exit()


@click.command(short_help="Break a cluster on purpose; see that nothing is lost.")
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, help="Decides what breaks, who, how long.")
@click.option("--only", type=click.IntRange(0), metavar="ROUND", help="Play this round alone.")
@click.option(
    "--faults", callback=_names, metavar="NAME,NAME", help="Draw from these. [default: all]"
)
@click.option(
    "--list-faults", is_flag=True, is_eager=True, expose_value=False, callback=_list,
    help="List every fault and exit.",
)  # fmt: skip
@click.option("--brokers", default=3, show_default=True, type=click.IntRange(3, 15))
@click.option("--partitions", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--replication", default=3, show_default=True, type=click.IntRange(1, 15))
@click.option("--min-insync", default=2, show_default=True, type=click.IntRange(1, 15))
@click.option(
    "--set", "settings", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="A broker setting by Kafka's name; may be repeated.",
)  # fmt: skip
@click.option(
    "--topic-config", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="A setting of the topics; may be repeated.",
)  # fmt: skip
@click.option("--data-dir", type=click.Path(file_okay=False), help="Keep the cluster's data here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, not a table.")
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False), metavar="FILE",
    help="Write one page with a time line of faults, elections and unavailability.",
)  # fmt: skip
def chaos(as_json: bool, html_file: str | None, **chosen: object) -> None:
    """Break a local cluster on purpose, under load, and judge what its clients saw.

    Brokers are killed, stopped and asked to go; links are cut, one way and both, by proxies
    between all of them; disks fail. Idempotent producers (Pegel's client, and librdkafka where it
    is installed) write with acks=all, a reader follows. After each round everything is read from
    the start: a record that was acknowledged must be there, once, in order, and what was read must
    still be.

    \b
    pegel chaos --rounds 50 --html chaos.html
    pegel chaos --faults cut-off-leader,flapping --set broker.session.timeout.ms=5000

    Exit code 1 if anything was found; the command to repeat that round is printed, and the
    cluster's data is kept. The seed decides whom a fault hits and for how long; the rest is up to
    real processes, so a repetition may take another turn.
    """
    from pegel.testing import ClusterError
    from pegel_bench.chaos import page, report
    from pegel_bench.chaos.campaign import Campaign, Options

    options = Options(**chosen)  # type: ignore[arg-type]
    if not options.min_insync <= options.replication <= options.brokers:
        raise click.UsageError("--min-insync <= --replication <= --brokers is not so")
    on_terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        click.echo(("\r\x1b[K" if on_terminal else "") + text, err=True)

    def status(text: str) -> None:
        if on_terminal:
            click.echo(f"\r\x1b[K{text} …", err=True, nl=False)

    campaign = Campaign(options, say, status)
    # A request to end is one to end in order: with the cluster stopped and the report printed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = campaign.run()
    except ClusterError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        outcome = campaign.outcome
        say("interrupted: this is what there is so far")
    if on_terminal:
        click.echo("\r\x1b[K", err=True, nl=False)
    if html_file is not None:
        Path(html_file).write_text(page.page(outcome), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report.document(outcome)))
    elif outcome.rounds:
        click.echo("\n".join(report.words(outcome)))
    sys.exit(1 if outcome.findings else 0)
