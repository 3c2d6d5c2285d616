"""Draws the figures of a run as SVG: rates, latency in a storm, and the cost of many sessions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from typing import NamedTuple

from benchmarks.figures import CONNECTIONS, Row, Run

_WIDTH, _LEFT, _BAR = 470, 12, 300
_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #30363d;
    paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
  .title { font-size: 15px; font-weight: bold; fill: #0d1117 }
  .page { fill: #ffffff }
  .here { fill: #2f6fd0; stroke: #2f6fd0 } .other { fill: #b4bdcc; stroke: #b4bdcc }
  .limit { stroke: #c2410c; stroke-width: 2.5 }
  .axis { stroke: #9aa5b8 } path.line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #d3d9e3; stroke: #131416 } .title { fill: #ffffff } .page { fill: #131416 }
    .here { fill: #6ea2f4; stroke: #6ea2f4 } .other { fill: #596273; stroke: #596273 }
    .limit { stroke: #ff9b5e } .axis { stroke: #596273 }
  }
"""

_RATE = re.compile(r"(?P<what>.*) a second(?P<how>.*), against (?P<yardstick>[^,]+)")
_IN_SYNAPSE = re.compile(r"(?P<what>.*), against (?P<yardstick>Synapse's .*), a second(?P<how>.*)")
_STORM = re.compile(r"(?P<what>.*) p99 while (?P<storm>\d+ logins) hash (?P<how>.*), against calm")
_BYTES = re.compile(r"bytes a session on disk, (?P<count>[\d,]+) sessions")
_GROWTH = re.compile(r"(?P<what>\S+) p50 at (?P<count>[\d,]+) sessions, against (?P<few>[\d,]+)")
_MOST_RATIO = 1.3
"""Rates further above their yardstick are not bounded by it, and would dwarf the others."""


class _Point(NamedTuple):
    sessions: int
    value: float


def draw(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Draw what there are figures of: yields names and drawings."""
    rows = [row for run in runs for row in run.rows]
    for name, plot in _PLOTS.items():
        drawing = plot(rows)
        if drawing is not None:
            yield name, drawing


def _rates(pattern: re.Pattern[str], title: str, rows: Sequence[Row]) -> str | None:
    """Draw rates as shares of what bounds them, with the least that each has to reach."""
    parts: list[str] = []
    y = 72
    for row in rows:
        match = pattern.fullmatch(row.what)
        if match is None or row.ratio is None or row.ratio > _MOST_RATIO:
            continue
        how = match["how"].replace(f", {CONNECTIONS} connections", "")
        of = f", of {match['yardstick']}" if pattern is _RATE else ""
        parts.append(_text(_LEFT, y, f"{match['what']}{how}{of}"))
        width = row.ratio / _MOST_RATIO * _BAR
        parts.append(_bar("here", y + 6, width, 14))
        least = _number(row.reach.removeprefix(">="))
        if least is not None:
            x = _LEFT + least / _MOST_RATIO * _BAR
            parts.append(f'<path class="limit" d="M{x:.1f} {y + 3} v20"/>')
        figures = f"{row.ratio:.2f}: {row.here} of {row.yardstick}"
        parts.append(_text(_WIDTH - _LEFT, y + 18, figures, "end"))
        y += 44
    one = _LEFT + _BAR / _MOST_RATIO
    axis = f'<path class="axis" d="M{one:.1f} 50 V{y - 20}"/>'
    key = _text(one, 46, "1", "middle") + _text(_LEFT, 46, "| is the least to reach")
    return _picture(title, y - 12, axis, key, *parts) if parts else None


def _storms(rows: Sequence[Row]) -> str | None:
    """Draw latencies while logins hash without pause, beside those in calm."""
    found = [
        (match, row, here, calm)
        for row in rows
        if (match := _STORM.fullmatch(row.what))
        and (here := _number(row.here)) is not None
        and (calm := _number(row.yardstick)) is not None
    ]
    if not found:
        return None
    most = max(max(here, calm) for _, _, here, calm in found)
    parts: list[str] = []
    y = 72
    for match, row, here, calm in found:
        how = "" if match["how"] == "without pause" else f" {match['how']}"
        parts.append(_text(_LEFT, y, f"{match['what']}, {match['storm']}{how}"))
        for kind, value, words, top in (
            ("other", calm, row.yardstick, y + 6),
            ("here", here, row.here, y + 20),
        ):
            width = value / most * _BAR
            parts.append(_bar(kind, top, width, 11))
            parts.append(_text(_LEFT + width + 8, top + 10, words))
        y += 58
    key = _text(_LEFT, 46, "99 of 100 answers within: grey in calm, blue in the storm")
    return _picture("Latency while passwords are hashed", y - 16, key, *parts)


def _growth(rows: Sequence[Row]) -> str | None:
    """Draw the time of a refresh and the bytes a session, by the number of sessions."""
    times: dict[int, float] = {}
    sizes: dict[int, float] = {}
    for row in rows:
        here, yardstick = _number(row.here), _number(row.yardstick)
        if (match := _GROWTH.fullmatch(row.what)) and here is not None and yardstick is not None:
            times[_count(match["few"])] = yardstick
            times[_count(match["count"])] = here
        elif (match := _BYTES.fullmatch(row.what)) and here is not None:
            sizes[_count(match["count"])] = here
    if len(times) < 2 or len(sizes) < 2:
        return None
    return _picture(
        "Cost by the number of sessions in the database",
        262,
        *_lines(14, "a refresh, p50 in ms", times),
        *_lines(248, "bytes a session on disk", sizes),
    )


def _lines(left: int, title: str, points: dict[int, float]) -> Iterator[str]:
    """Draw one line over the number of sessions, from zero up."""
    width, top, bottom = 150, 84, 230
    counts, most = sorted(points), max(points.values()) * 1.25
    places = [
        (
            left + 20 + width * number / (len(counts) - 1),
            bottom - (bottom - top) * points[count] / most,
        )
        for number, count in enumerate(counts)
    ]
    yield _text(left, 64, title)
    yield f'<path class="axis" d="M{left} {bottom} h{width + 40}"/>'
    yield '<path class="here line" d="M' + " L".join(f"{x:.1f} {y:.1f}" for x, y in places) + '"/>'
    for count, (x, y) in zip(counts, places, strict=True):
        yield f'<circle class="here" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        yield _text(x, y - 12, f"{points[count]:g}", "middle")
        yield _text(x, bottom + 20, f"{count:,}", "middle")


def _bar(kind: str, y: float, width: float, height: int) -> str:
    return (
        f'<rect class="{kind}" x="{_LEFT}" y="{y:g}" width="{max(1.0, width):.1f}"'
        f' height="{height}"/>'
    )


def _text(x: float, y: float, line: str, anchor: str = "start") -> str:
    words = escape(line, quote=False)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _number(text: str) -> float | None:
    """Read a figure as the table has it, with its unit or without."""
    match = re.match(r"\s*([\d.]+)", text)
    return None if match is None else float(match[1])


def _count(text: str) -> int:
    return int(text.replace(",", ""))


def _picture(title: str, height: int, *parts: str) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
            f' width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
            f'<text class="title" x="12" y="26">{escape(title, quote=False)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


_PLOTS: dict[str, Callable[[Sequence[Row]], str | None]] = {
    "rates": partial(_rates, _RATE, "Rates against what bounds them"),
    "synapse": partial(_rates, _IN_SYNAPSE, "Rates inside Synapse, against Synapse's own"),
    "storm": _storms,
    "growth": _growth,
}
