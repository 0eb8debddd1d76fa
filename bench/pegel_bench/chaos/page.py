"""One self-contained page: how long each fault cost, and a time line of every round."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

from pegel_bench.chaos.campaign import Outcome, Round
from pegel_bench.chaos.report import by_fault, summary, table

WIDTH = 960
_LEFT, _RIGHT = 190, 20
_ROW = 22
_LANE = 16

_CSS = """
:root{--ink:#1c2733;--dim:#5b6b7b;--line:#dfe5ea;--paper:#fff;--fault:#f3c9a2;--gap:#b3261e;
--vote:#0f62a8;--dot:#0f62a8;--bad:#b3261e;--good:#23764a;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--ink:#e6ecf1;--dim:#9fb0c0;--line:#33414e;
--paper:#161d24;--fault:#7a5430;--gap:#ef7b74;--vote:#5aa9f0;--dot:#5aa9f0;--bad:#ef7b74;
--good:#63c48f}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1040px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}
code{font:13px ui-monospace,monospace}.dim{color:var(--dim)}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;
font-size:13.5px}th,td{padding:.22rem .8rem;border-bottom:1px solid var(--line);text-align:right}
th{color:var(--dim)}th:first-child,td:first-child{text-align:left}
svg{width:100%;height:auto;display:block}svg text{font:11.5px system-ui,sans-serif;fill:var(--ink)}
svg .dim{fill:var(--dim)}svg .bad{fill:var(--bad)}svg .grid{stroke:var(--line)}
svg .fault{fill:var(--fault)}svg .gap{fill:var(--gap)}svg .vote{stroke:var(--vote);stroke-width:2}
svg .dot{fill:var(--dot);fill-opacity:.55}svg .middle{stroke:var(--ink);stroke-width:2}
.legend{display:flex;gap:1.4rem;font-size:13px;margin:.3rem 0}
.legend i{display:inline-block;width:12px;height:12px;margin-right:.4rem;vertical-align:-1px}
"""


def page(outcome: Outcome) -> str:
    """The whole document."""
    options = outcome.options
    verdict = (
        f'<p class="bad">{len(outcome.findings)} findings</p>'
        if outcome.findings
        else '<p class="good">Nothing lost, doubled or reordered.</p>'
    )
    body = [
        "<h1>Chaos</h1>",
        (
            f'<p class="dim">{options.brokers} brokers, {options.partitions} partitions, '
            f"replication {options.replication}, min.insync.replicas {options.min_insync}, "
            f"seed {options.seed}</p>"
        ),
        verdict,
        f"<p>{escape(summary(outcome))}</p>",
    ]
    if outcome.findings:
        body.append("<ul>")
        body += [
            f'<li class="bad">round {one.number} ({escape(one.name)}): {escape(text)}</li>'
            for one, text in outcome.findings[:50]
        ]
        body.append("</ul>")
        repeat = options.repeat(outcome.findings[0][0].number)
        body.append(f"<p>To repeat: <code>{escape(repeat)}</code></p>")
    body += [
        "<h2>Unavailability by fault</h2>",
        (
            '<p class="dim">The longest time without an acknowledgement (acks=all) of the '
            "partition that suffered most; a dot for each round, a stroke for the median.</p>"
        ),
        _dots(outcome.rounds),
        _table(table(outcome)),
        "<h2>Every round</h2>",
        (
            '<div class="legend"><span><i style="background:var(--fault)"></i>fault</span>'
            '<span><i style="background:var(--vote)"></i>a new leader</span>'
            '<span><i style="background:var(--gap)"></i>a partition without an acknowledgement '
            "for 200 ms or more"
            "</span></div>"
        ),
        *(_round(one, options.partitions) for one in outcome.rounds),
    ]
    body += [
        f'<p class="dim">Skipped {escape(n)}: {escape(why)}</p>'
        for n, why in outcome.skipped.items()
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Chaos</title><style>{_CSS}</style><body>{''.join(body)}</body></html>\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def _text(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dots(rounds: Sequence[Round]) -> str:
    """A row for each fault, a dot for each round, on a logarithmic scale of milliseconds."""
    lines = by_fault(rounds)
    if not lines:
        return ""
    low = 10.0 ** floor(log10(max(10.0, min(line.low for line in lines))))
    high = 10.0 ** ceil(log10(max(low * 10, *(line.high for line in lines))))
    height = _ROW * len(lines) + 30

    def x_of(ms: float) -> float:
        share = log10(max(ms, low) / low) / log10(high / low)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    decade = low
    while decade <= high * 1.001:
        for factor in (1, 2, 5):
            if decade * factor <= high * 1.001:
                x = x_of(decade * factor)
                out.append(f'<path class="grid" d="M{x:.1f} 4V{height - 24}"/>')
                out.append(_text(x, height - 8, f"{decade * factor:,.0f}", "middle", "dim"))
        decade *= 10
    out.append(_text(_LEFT - 30, height - 8, "ms", "end", "dim"))
    for number, line in enumerate(lines):
        y = _ROW * number + 15
        out.append(_text(_LEFT - 30, y + 4, line.name, "end"))
        for one in rounds:
            name = one.faults[0].name if len(one.faults) == 1 else "two faults"
            if name == line.name:
                title = f"round {one.number}: {one.unavailable_ms:,.0f} ms"
                out.append(
                    f'<circle class="dot" cx="{x_of(one.unavailable_ms):.1f}" cy="{y}" r="4">'
                    f"<title>{escape(title)}</title></circle>"
                )
        out.append(f'<path class="middle" d="M{x_of(line.middle):.1f} {y - 7}V{y + 7}"/>')
    return "".join(out) + "</svg>"


def _round(one: Round, partitions: int) -> str:
    """A lane for each partition; behind them the faults, across them the elections."""
    start, end = one.began, max(one.ended, one.began + 1)
    height = 20 + _LANE * partitions + 22

    def x_of(at: float) -> float:
        share = (min(max(at, start), end) - start) / (end - start)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    foot = height - 18
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    for happening in one.faults:
        x, to = x_of(happening.began), x_of(happening.ended or end)
        out.append(
            f'<rect class="fault" x="{x:.1f}" y="16" width="{max(to - x, 2):.1f}" '
            f'height="{foot - 16}"><title>{escape(happening.text)}</title></rect>'
        )
        late = x > WIDTH * 0.6
        out.append(_text(to if late else x, 12, happening.text, "end" if late else "start", "dim"))
    out.append(_text(8, 12, f"round {one.number}", css="bad" if one.findings else ""))
    for partition in range(partitions):
        y = 18 + _LANE * partition
        out.append(_text(_LEFT - 12, y + 11, f"partition {partition}", "end", "dim"))
        out.append(f'<path class="grid" d="M{_LEFT} {y + 7}H{WIDTH - _RIGHT}"/>')
        for gap in one.gaps:
            if gap.partition == partition:
                x = x_of(gap.began)
                out.append(
                    f'<rect class="gap" x="{x:.1f}" y="{y + 4}" height="6" '
                    f'width="{max(x_of(gap.ended) - x, 1):.1f}">'
                    f"<title>{gap.ms:,.0f} ms without an acknowledgement</title></rect>"
                )
        for election in one.elections:
            if election.partition == partition and election.at >= start:
                x = x_of(election.at)
                title = f"{election.old_leader} → {election.leader}: {election.reason}"
                out.append(
                    f'<path class="vote" d="M{x:.1f} {y}V{y + 14}"><title>{escape(title)}</title>'
                    "</path>"
                )
    seconds = end - start
    for second in range(0, int(seconds) + 1, max(1, int(seconds / 8))):
        x = x_of(start + second)
        out.append(_text(x, height - 4, f"{second} s", "middle", "dim"))
    return "".join(out) + "</svg>"
