"""Plots as inline SVG: grouped bars, curves, a time line. Colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 26, 44


@dataclass(frozen=True, slots=True)
class Bar:
    """``low`` and ``high``: the range of the rounds, drawn as a whisker."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    points: Sequence[tuple[float, float]]
    color: int


def bars(
    groups: Sequence[str], series: Sequence[tuple[str, Sequence[Bar | None]]], unit: str
) -> str:
    """One group of bars for each of ``groups``, one bar in it for each series."""
    height = 260
    top = max((b.high for _, found in series for b in found if b is not None), default=1.0) or 1.0
    ticks = _ticks(top)
    scale = (height - _TOP - _BOTTOM) / ticks[-1]
    out = _open(height)
    for tick in ticks:
        y = height - _BOTTOM - tick * scale
        out.append(_grid(y) + _text(_LEFT - 8, y + 4, _short(tick), "end"))
    out.append(_text(_LEFT - 8, 12, unit, "end", "dim"))
    slot = (WIDTH - _LEFT - _RIGHT) / max(len(groups), 1)
    thick = min(46.0, slot * 0.8 / max(len(series), 1))
    for g, name in enumerate(groups):
        middle = _LEFT + slot * (g + 0.5)
        for line, words in enumerate(_wrap(name, max(8, int(slot / 7)))):
            out.append(_text(middle, height - _BOTTOM + 16 + 13 * line, words, "middle"))
        for s, (label, found) in enumerate(series):
            bar = found[g]
            if bar is None:
                continue
            x = middle + (s - len(series) / 2) * thick
            y = height - _BOTTOM - bar.value * scale
            title = f"{label}, {name}: {bar.value:,.4g} {unit} ({bar.low:,.4g} to {bar.high:,.4g})"
            out.append(
                f'<rect class="c{s}" x="{x + 1:.1f}" y="{y:.1f}" width="{thick - 2:.1f}" '
                f'height="{bar.value * scale:.1f}"><title>{escape(title)}</title></rect>'
            )
            if bar.high > bar.low:
                a, b = (height - _BOTTOM - v * scale for v in (bar.low, bar.high))
                mid = x + thick / 2
                out.append(f'<path class="whisker" d="M{mid:.1f} {a:.1f}V{b:.1f}"/>')
            above = height - _BOTTOM - bar.high * scale - 4
            out.append(_text(x + thick / 2, above, _short(bar.value), "middle", "value"))
    return "".join(out) + "</svg>"


def percentile_curves(curves: Sequence[Curve]) -> str:
    """Milliseconds (logarithmic) over the share of requests, stretched towards its end."""
    height = 300
    found = [c for c in curves if c.points]
    if not found:
        return ""
    values = [v for c in found for _, v in c.points if v > 0]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
    high = max(high, low * 10)
    nines = max(-math.log10(1 - min(p, 99.9999) / 100) for c in found for p, _ in c.points)
    nines = max(nines, 1.0)

    def x_of(percentile: float) -> float:
        share = -math.log10(1 - min(percentile, 99.9999) / 100) / nines
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        share = math.log10(max(value, low) / low) / math.log10(high / low)
        return height - _BOTTOM - share * (height - _TOP - _BOTTOM)

    out = _open(height)
    decade = low
    while decade <= high * 1.001:
        out.append(_grid(y_of(decade)) + _text(_LEFT - 8, y_of(decade) + 4, _short(decade), "end"))
        decade *= 10
    out.append(_text(_LEFT - 8, 12, "ms", "end", "dim"))
    for percentile in (50, 90, 99, 99.9, 99.99, 99.999):
        if x_of(percentile) <= WIDTH - _RIGHT + 1:
            x = x_of(percentile)
            out.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{height - _BOTTOM}"/>')
            out.append(_text(x, height - _BOTTOM + 16, f"{percentile:g} %", "middle"))
    out.append(_text((WIDTH + _LEFT) / 2, height - 6, "share of requests that took at most so long",
                     "middle", "dim"))  # fmt: skip
    for curve in found:
        path = " ".join(f"{x_of(p):.1f},{y_of(v):.1f}" for p, v in curve.points)
        out.append(f'<polyline class="l{curve.color}" points="{path}">'
                   f"<title>{escape(curve.name)}</title></polyline>")  # fmt: skip
    return "".join(out) + "</svg>"


def growth(curves: Sequence[Curve], unit: str, over: str) -> str:
    """Values over something that grows (logarithmic)."""
    height = 260
    points = [p for c in curves for p in c.points]
    if not points:
        return ""
    lowest, highest = min(x for x, _ in points), max(x for x, _ in points)
    span = math.log10(highest / lowest) or 1.0
    ticks = _ticks(max(y for _, y in points) or 1.0)
    scale = (height - _TOP - _BOTTOM) / ticks[-1]

    def x_of(x: float) -> float:
        return _LEFT + 20 + math.log10(x / lowest) / span * (WIDTH - _LEFT - _RIGHT - 60)

    out = _open(height)
    for tick in ticks:
        y = height - _BOTTOM - tick * scale
        out.append(_grid(y) + _text(_LEFT - 8, y + 4, _short(tick), "end"))
    out.append(_text(_LEFT - 8, 12, unit, "end", "dim"))
    for x in sorted({x for x, _ in points}):
        out.append(_text(x_of(x), height - _BOTTOM + 16, f"{x:,.0f}", "middle"))
    out.append(_text((WIDTH + _LEFT) / 2, height - 6, over, "middle", "dim"))
    for curve in curves:
        path = " ".join(
            f"{x_of(x):.1f},{height - _BOTTOM - y * scale:.1f}" for x, y in curve.points
        )
        out.append(f'<polyline class="l{curve.color}" points="{path}"/>')
        for x, y in curve.points:
            out.append(
                f'<circle class="c{curve.color}" cx="{x_of(x):.1f}" '
                f'cy="{height - _BOTTOM - y * scale:.1f}" r="3.5">'
                f"<title>{escape(curve.name)}, {x:,.0f}: {y:,.4g} {unit}</title></circle>"
            )
    return "".join(out) + "</svg>"


def timeline(
    lanes: Sequence[tuple[str, Sequence[float], Sequence[tuple[float, str]], int]],
) -> str:
    """One lane for each observer: a stroke for each acknowledgement, flags for what happened.

    Times in milliseconds since the failure.
    """
    times = [t for _, series, events, _ in lanes for t in (*series, *(e for e, _ in events))]
    if not times:
        return ""
    ends = [t for _, _, events, _ in lanes for t, _ in events]
    start, end = -200.0, min(max(times), max(max(ends) * 1.25, 600.0))
    lane, top = 92, 8
    height = top + lane * len(lanes) + 30
    width = WIDTH - _RIGHT - _LEFT

    def x_of(at: float) -> float:
        return _LEFT + (at - start) / (end - start) * width

    out = _open(height)
    step = _nice((end - start) / 8)
    tick = math.ceil(start / step) * step
    while tick <= end:
        out.append(f'<path class="grid" d="M{x_of(tick):.1f} {top}V{height - 24}"/>')
        out.append(_text(x_of(tick), height - 8, f"{tick:,.0f}", "middle"))
        tick += step
    out.append(_text(_LEFT - 34, height - 8, "ms", "end", "dim"))
    for number, (name, series, events, color) in enumerate(lanes):
        y = top + lane * number
        out.append(_text(_LEFT + 4, y + 12, name, "start", "strong"))
        strokes = "".join(f"M{x_of(t):.1f} {y + 70}v14" for t in series if start <= t <= end)
        out.append(f'<path class="s{color}" d="{strokes}"/>')
        for i, (at, text) in enumerate(events):
            x, row = x_of(at), y + 25 + 11 * (i % 4)
            out.append(f'<path class="flag" d="M{x:.1f} {y + 84}V{row - 6}"/>')
            late = x > WIDTH - 120
            where = (x - 3, "end") if late else (x + 3, "start")
            out.append(_text(where[0], row, f"{text} {at:,.0f}", where[1], "flagtext"))
    return "".join(out) + "</svg>"


def _open(height: float) -> list[str]:
    return [f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">']


def _grid(y: float) -> str:
    return f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    css = f' class="{kind}"' if kind else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _wrap(text: str, width: int) -> list[str]:
    """At most two lines."""
    if len(text) <= width:
        return [text]
    cut = text.rfind(" ", 0, width + 1)
    cut = cut if cut > 0 else width
    rest = text[cut:].strip()
    return [text[:cut], rest if len(rest) <= width else rest[: width - 1] + "…"]


def _nice(step: float) -> float:
    """The next of 1, 2, 5 × 10^n."""
    base = 10.0 ** math.floor(math.log10(step))
    return next(m * base for m in (1, 2, 5, 10) if m * base >= step * 0.999)


def _ticks(top: float) -> list[float]:
    step = _nice(top / 4)
    return [step * i for i in range(math.ceil(top * 1.08 / step) + 1)]


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
