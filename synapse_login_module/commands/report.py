"""The output of commands: lines, tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from unicodedata import combining, east_asian_width

import click

from synapse_login_module.common.console import escaped, printable

Say = Callable[[str], None]
"""Prints one line, or collects it to be printed."""

_LINES = 1000

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object for each entry, one per line."
)


def row(*columns: str) -> str:
    """Join columns to a line, with tabs between them."""
    return "\t".join(map(printable, columns))


class Table:
    """Prints rows in aligned columns under headings, page by page.

    A page may have wider columns than the pages before it.

    :param headings: the headings of the columns.
    """

    def __init__(self, headings: Sequence[str]) -> None:
        self._widths = [0 for _ in headings]
        self._above: list[Sequence[str]] = [headings]

    def print(self, rows: Sequence[Sequence[str]]) -> None:
        """Print the rows of a page; before the first, print the headings."""
        table = [*self._above, *([printable(text) for text in each] for each in rows)]
        self._above = []
        self._widths = [
            max(width, *map(_width, column))
            for width, column in zip(self._widths, zip(*table, strict=True), strict=True)
        ]
        print_lines(map(self._line, table))

    def _line(self, columns: Sequence[str]) -> str:
        padded = (
            text + " " * (width - _width(text))
            for text, width in zip(columns, self._widths, strict=True)
        )
        return "  ".join(padded).rstrip()


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns under headings."""
    Table(headings).print(rows)


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print each mapping as a JSON object on one line, in ASCII."""
    print_lines(map(json.dumps, rows))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, many with one write."""
    rest = iter(lines)
    while some := list(islice(rest, _LINES)):
        click.echo("\n".join(some))


def for_people() -> bool:
    """Return whether standard output is a terminal, so that a person reads it."""
    return sys.stdout.isatty()


@contextmanager
def report() -> Iterator[Say]:
    """Collect lines while a reactor runs, and print them afterwards.

    They are printed also when the command fails, because what they report has been done.
    """
    lines: list[str] = []
    try:
        yield lines.append
    finally:
        for line in lines:
            click.echo(escaped(line))


def _width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(
        0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text
    )
