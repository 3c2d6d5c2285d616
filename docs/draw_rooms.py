"""Draw the rooms of the package, and who imports whom, as ``docs/rooms.svg``.

``python docs/draw_rooms.py`` writes the drawing; with ``--check`` it fails where the drawing is not
that of the code. The floors are the layers that import-linter holds. An arrow stands for imports,
and is left out where others lead the same way.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path

import grimp
from importlinter import api

PACKAGE = "synapse_login_module"
ROOT = Path(__file__).parent.parent
DRAWING = ROOT / "docs" / "rooms.svg"

Places = dict[str, tuple[float, float]]
"""The middle of each box, and its top."""

Arrow = tuple[str, str]
Ends = dict[Arrow, float]

_WIDTH, _BOX, _HEIGHT, _GAP, _FLOOR = 1120, 236, 62, 28, 112
_LINE = 32
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .name { font: bold 14px ui-monospace, monospace; fill: #111 }
  .page { fill: #fff; stroke: none }
  rect { fill: #f4f6fa; stroke: #5b6b8c; rx: 6 }
  .room rect { fill: #dfe8f8 }
  path { stroke: #8a97b1; fill: none; marker-end: url(#head) }
  marker path { fill: #8a97b1; marker-end: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #ccd } .name { fill: #fff } rect { fill: #20242c; stroke: #8a97b1 }
    .page { fill: #131416 } .room rect { fill: #2b3a57 }
  }
"""


def floors() -> list[list[str]]:
    """The names of the parts, floor by floor, the highest first."""
    contracts = api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    layers = next(each for each in contracts if each["type"] == "layers")["layers"]
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def arrows(names: list[str]) -> dict[str, set[str]]:
    """Which parts each one imports, without those that it reaches through another."""
    sys.path.insert(0, str(ROOT))  # rather than a copy that is installed
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    imports: dict[str, set[str]] = {name: set() for name in names}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            start, end = (each.split(".")[1] if "." in each else "" for each in (module, imported))
            if start in imports and end in imports and start != end:
                imports[start].add(end)
    return {
        name: {each for each in below if not _reached(imports, below - {each}, each)}
        for name, below in imports.items()
    }


def _reached(imports: Mapping[str, set[str]], starts: set[str], end: str) -> bool:
    seen, waiting = set(starts), list(starts)
    while waiting:
        for each in imports[waiting.pop()] - seen:
            seen.add(each)
            waiting.append(each)
    return end in seen


def job(name: str) -> tuple[str, bool]:
    """What a part is for, in one sentence of its docstring; and whether it is a room."""
    path = ROOT / PACKAGE / name
    is_room = path.is_dir()
    source = path / "__init__.py" if is_room else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("``", ""), is_room


def draw() -> str:
    """The drawing, as SVG."""
    rows = floors()
    below = arrows([name for row in rows for name in row])
    places: Places = {}
    boxes: list[str] = []
    for floor, row in enumerate(rows):
        start = (_WIDTH - len(row) * _BOX - (len(row) - 1) * _GAP) / 2
        for column, name in enumerate(row):
            x, y = start + column * (_BOX + _GAP), 10 + floor * _FLOOR
            places[name] = (x + _BOX / 2, y)
            boxes.append(_box(name, x, y))
    lines = _lines(places, below)
    height = 10 + (len(rows) - 1) * _FLOOR + _HEIGHT + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
            ' role="img" aria-label="The rooms of the package, and which imports which">',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"'
            ' markerHeight="8" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _lines(places: Places, below: Mapping[str, set[str]]) -> list[str]:
    """The arrows. None passes behind a box, and those of one box begin and end side by side."""
    routes = {
        (start, end): _around(places, start, end)
        for start in places
        for end in sorted(below[start])
    }
    begins = _spread(places, routes, which=0)
    ends = _spread(places, routes, which=-1)
    lines = []
    for (start, end), points in routes.items():
        first = (begins[start, end], places[start][1] + _HEIGHT)
        last = (ends[start, end], places[end][1] - 4)
        path = " L".join(f"{x:g} {y:g}" for x, y in (first, *points, last))
        lines.append(f'<path d="M{path}"/>')
    return lines


def _around(places: Places, start: str, end: str) -> list[tuple[float, float]]:
    """The points by which an arrow passes the boxes of the floors between."""
    (x, top), (target, bottom) = places[start], places[end]
    points: list[tuple[float, float]] = []
    for y in range(int(top) + _FLOOR, int(bottom), _FLOOR):
        straight = x + (target - x) * _FLOOR / (bottom - y + _FLOOR)
        boxes = [box for box, floor in places.values() if floor == y]
        edges = [box + side * (_BOX / 2 + _GAP / 2) for box in boxes for side in (-1, 1)]
        free = [
            each
            for each in (straight, *edges)
            if all(abs(each - box) > _BOX / 2 + 4 for box in boxes)
        ]
        x = min(free, key=lambda each: abs(each - straight))
        points += [(x, y - 6), (x, y + _HEIGHT + 6)]
    return points


def _spread(places: Places, routes: Mapping[Arrow, list[tuple[float, float]]], which: int) -> Ends:
    """Where along its box each arrow begins (``which`` is 0) or ends (-1)."""
    spread: Ends = {}
    for name in places:
        arrows_here = [arrow for arrow in routes if arrow[which] == name]
        arrows_here.sort(
            key=lambda arrow: (
                routes[arrow][which][0] if routes[arrow] else places[arrow[-1 - which]][0]
            )
        )
        step = _BOX / (len(arrows_here) + 1)
        for number, arrow in enumerate(arrows_here, 1):
            spread[arrow] = places[name][0] - _BOX / 2 + number * step
    return spread


def _box(name: str, x: float, y: float) -> str:
    text, is_room = job(name)
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > _LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > 2:
        lines = [lines[0], lines[1] + " …"]
    kind, label = ("room", f"{name}/") if is_room else ("module", name)
    spans = "".join(
        f'<text x="{x + 10:g}" y="{y + 36 + 15 * number:g}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<g class="{kind}"><title>{escape(text)}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{_BOX}" height="{_HEIGHT}"/>'
        f'<text class="name" x="{x + 10:g}" y="{y + 19:g}">{label}</text>{spans}</g>'
    )


def main() -> None:
    """Write the drawing, or check it."""
    drawing = draw()
    if "--check" not in sys.argv[1:]:
        DRAWING.write_text(drawing, encoding="utf-8")
    elif not DRAWING.exists() or DRAWING.read_text(encoding="utf-8") != drawing:
        raise SystemExit(f"{DRAWING.name} is not what the code is: python docs/draw_rooms.py")


if __name__ == "__main__":
    main()
