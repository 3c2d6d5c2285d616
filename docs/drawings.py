"""Draws the pictures of the site from the text below, as a Sphinx extension and as a program.

``python docs/drawings.py`` writes them into ``docs/drawings``. A build of the site does so first,
and draws the rooms of the package and the plots of the benchmarks too. With ``--check`` nothing is
written, and the program fails where a drawing is not what this file says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
FOLDER = DOCS / "drawings"

_STYLE = """
  text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #30363d }
  .name { font-weight: bold; fill: #0d1117 }
  .path { font: 13px ui-monospace, Menlo, "DejaVu Sans Mono", monospace }
  .page { fill: #ffffff }
  .panel { fill: #f3f5f9; stroke: #8592ab; stroke-width: 1.5 }
  .box { fill: #ffffff; stroke: #5b6b8c; stroke-width: 1.5 }
  .ours { fill: #dbe7ff; stroke: #2f5fb8; stroke-width: 2 }
  .works { fill: #bfe3c6; stroke: #2c7a3d } .dead { fill: #e3e5e9; stroke: #9aa1ac }
  .wire { stroke: #4c5a78; stroke-width: 2; fill: none; marker-end: url(#head) }
  .when { stroke: #7b879c; stroke-width: 1.5; stroke-dasharray: 4 4; fill: none }
  #head path { fill: #4c5a78 }
  @media (prefers-color-scheme: dark) {
    text { fill: #d3d9e3 } .name { fill: #ffffff }
    .page { fill: #131416 } .panel { fill: #1b2027; stroke: #667086 }
    .box { fill: #232933; stroke: #8a97b1 } .ours { fill: #1d3a6e; stroke: #7aa5f5 }
    .works { fill: #1f5130; stroke: #63c07a } .dead { fill: #2e3238; stroke: #666d78 }
    .wire { stroke: #9fb0cf } #head path { fill: #9fb0cf } .when { stroke: #8a94a6 }
  }
"""
_HEAD = (
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
    ' markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L10 5 L0 10 z"/></marker></defs>'
)
_LINE = 19

Box = tuple[int, int, int, int]
"""Left, top, width and height."""


def _box(kind: str, place: Box, *lines: str) -> str:
    """Draw a box with centred lines; ``*`` begins a bold one, and ``/`` one of code."""
    x, y, width, height = place
    top = y + (height - _LINE * len(lines)) / 2 + 14
    texts = [
        _text(x + width / 2, top + number * _LINE, line, "middle")
        for number, line in enumerate(lines)
    ]
    rectangle = f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
    return "\n".join([rectangle, *texts])


def _text(x: float, y: float, line: str, anchor: str = "start") -> str:
    kind = {"*": ' class="name"', "/": ' class="path"'}.get(line[:1], "")
    words = escape(line.removeprefix("*"), quote=False)
    return f'<text{kind} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{words}</text>'


def _wire(*points: tuple[int, int]) -> str:
    return '<path class="wire" d="M' + " L".join(f"{x} {y}" for x, y in points) + '"/>'


def _picture(width: int, height: int, title: str, *parts: str) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
            f"<style>{_STYLE}</style>",
            _HEAD,
            f'<rect class="page" width="{width}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _clients() -> Iterator[str]:
    yield _box("box", (110, 10, 180, 36), "*Matrix clients")
    yield _wire((200, 46), (200, 70))
    yield _box("box", (110, 72, 180, 36), "*Reverse proxy, TLS")


def inside() -> str:
    """The module inside Synapse."""
    return _picture(
        400,
        430,
        "Inside Synapse: a module in homeserver.yaml",
        *_clients(),
        _box("panel", (10, 148, 380, 158)),
        _text(376, 172, "*Synapse", "end"),
        _wire((160, 108), (120, 182)),
        _wire((240, 108), (300, 194)),
        _box(
            "ours",
            (22, 184, 198, 108),
            "*synapse_login_module",
            "/login",
            "/refresh",
            "/tokenrefresh",
        ),
        _box("box", (238, 196, 140, 84), "all other paths:", "rooms, sync,", "single sign-on"),
        _wire((90, 292), (90, 348)),
        _wire((150, 292), (270, 348)),
        _wire((310, 280), (310, 348)),
        _box(
            "box", (10, 350, 180, 70), "*Password providers", "LDAP, SQL, HTTP,", "files, your own"
        ),
        _box(
            "box", (210, 350, 180, 70), "*Synapse's database", "accounts, devices,", "tokens, links"
        ),
    )


def front() -> str:
    """The server in front of a Synapse that delegates."""
    return _picture(
        400,
        430,
        "In front of Synapse: a server of its own",
        *_clients(),
        _wire((160, 108), (110, 146)),
        _wire((240, 108), (340, 182)),
        _box(
            "ours",
            (8, 148, 194, 136),
            "*synapse_login_module",
            "/login  /logout",
            "/refresh",
            "/tokenrefresh",
            "tokens of its own",
        ),
        _box("box", (306, 184, 86, 86), "*Synapse", "all other", "paths"),
        _wire((306, 210), (204, 210)),
        _text(254, 202, "whose token?", "middle"),
        _wire((202, 244), (304, 244)),
        _text(254, 236, "accounts,", "middle"),
        _text(254, 262, "devices", "middle"),
        _wire((60, 284), (60, 348)),
        _wire((150, 284), (190, 348)),
        _wire((340, 270), (340, 348)),
        _box("box", (10, 350, 122, 70), "*Password", "*providers", "LDAP, SQL, …"),
        _box("box", (140, 350, 120, 70), "*Token store", "sessions, links", "no token"),
        _box("box", (268, 350, 122, 70), "*Synapse's", "*database", "rooms, devices"),
    )


def alone() -> str:
    """The server without a homeserver."""
    return _picture(
        400,
        430,
        "Alone: a server without a homeserver",
        *_clients(),
        _wire((200, 108), (200, 164)),
        _box(
            "ours",
            (90, 166, 220, 118),
            "*synapse_login_module",
            "/login  /logout",
            "/refresh",
            "/tokenrefresh",
            "/account/whoami",
        ),
        _wire((150, 284), (110, 348)),
        _wire((250, 284), (290, 348)),
        _box(
            "box", (10, 350, 180, 70), "*Password providers", "LDAP, SQL, HTTP,", "files, your own"
        ),
        _box(
            "box", (210, 350, 180, 70), "*Token store", "SQLite or PostgreSQL:", "sessions, links"
        ),
    )


def _bar(kind: str, x: int, y: int, width: int, line: str) -> str:
    return _box(kind, (x, y, width, 30), line)


def _event(x: int, top: int, height: int, *lines: str) -> str:
    """A moment: a dashed line, and what happens there above it."""
    first = top - 8 - _LINE * (len(lines) - 1)
    texts = [_text(x, first + n * _LINE, line, "middle") for n, line in enumerate(lines)]
    return "\n".join([f'<path class="when" d="M{x} {top} V{top + height}"/>', *texts])


def refresh() -> str:
    """What becomes of two token pairs, at either path."""
    return _picture(
        720,
        356,
        "The life of a token pair",
        _text(12, 22, "*/refresh: lenient"),
        _event(150, 78, 84, "/refresh"),
        _event(275, 78, 84, "asks again:", "the same pair"),
        _event(400, 78, 84, "new pair", "is used"),
        _event(488, 78, 84, "old one:", "refused"),
        _event(580, 78, 84, "old one, 10 s", "later: reuse"),
        _bar("works", 12, 86, 388, "old pair works"),
        _bar("dead", 400, 86, 180, "old pair is dead"),
        _bar("works", 150, 124, 430, "new pair works"),
        _bar("dead", 580, 124, 128, "logged out"),
        _text(12, 206, "*/tokenrefresh: strict"),
        _event(150, 262, 84, "/tokenrefresh"),
        _event(300, 262, 84, "old one:", "refused"),
        _event(580, 262, 84, "old one, 10 s", "later: reuse"),
        _bar("works", 12, 270, 138, "old pair works"),
        _bar("dead", 150, 270, 430, "old pair is dead"),
        _bar("works", 150, 308, 430, "new pair works"),
        _bar("dead", 580, 308, 128, "logged out"),
    )


DRAWINGS = {"inside": inside, "front": front, "alone": alone, "refresh": refresh}


def write(path: Path, drawing: str) -> None:
    """Write a drawing, unless the file is so already."""
    if not path.exists() or path.read_text(encoding="utf-8") != drawing:
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawing, encoding="utf-8")


def draw_all(_: object) -> None:
    """Draw everything that the site shows."""
    import draw_rooms

    from benchmarks import figures, plots

    for name, draw in DRAWINGS.items():
        write(FOLDER / f"{name}.svg", draw())
    write(draw_rooms.DRAWING, draw_rooms.draw())
    for name, drawing in plots.draw(figures.read(DOCS / "benchmarks.json")):
        write(DOCS / "plots" / f"{name}.svg", drawing)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", draw_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    """Write the drawings, or check them."""
    for name, draw in DRAWINGS.items():
        path = FOLDER / f"{name}.svg"
        if "--check" not in sys.argv[1:]:
            write(path, draw())
        elif not path.exists() or path.read_text(encoding="utf-8") != draw():
            raise SystemExit(f"{path.name} is not what the text says: python docs/drawings.py")


if __name__ == "__main__":
    main()
