"""What a command says on standard output: lines, and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unicodedata import combining, east_asian_width

import click

from synapse_login_module.console import printable

Say = Callable[[str], None]
"""Says one line."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object for each, on a line of its own."
)


def row(*columns: str) -> str:
    """One line of columns, with tabs between them."""
    return "\t".join(map(printable, columns))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns under headings, as people read them."""
    table = [headings, *([printable(text) for text in each] for each in rows)]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    for each in table:
        padded = (
            text + " " * (width - _width(text)) for text, width in zip(each, widths, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print each mapping as a JSON object on a line, in ASCII alone."""
    for each in rows:
        click.echo(json.dumps(each))


def for_people() -> bool:
    """Whether a person reads the output, and no program."""
    return sys.stdout.isatty()


@contextmanager
def report() -> Iterator[Say]:
    """Collect lines while a reactor runs, and print them afterwards: also when the command fails,
    since what was said was done.
    """
    lines: list[str] = []
    try:
        yield lines.append
    finally:
        for line in lines:
            click.echo(line)


def _width(text: str) -> int:
    """How many cells of a terminal a text takes."""
    return sum(
        0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text
    )
