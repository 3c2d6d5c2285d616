"""The output of commands: lines, tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unicodedata import combining, east_asian_width

import click

from synapse_login_module.common.console import printable

Say = Callable[[str], None]
"""Prints one line, or collects it to be printed."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object for each entry, one per line."
)


def row(*columns: str) -> str:
    """Join columns to a line, with tabs between them."""
    return "\t".join(map(printable, columns))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns under headings."""
    table = [headings, *([printable(text) for text in each] for each in rows)]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    for each in table:
        padded = (
            text + " " * (width - _width(text)) for text, width in zip(each, widths, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print each mapping as a JSON object on one line, in ASCII."""
    for each in rows:
        click.echo(json.dumps(each))


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
            click.echo(line)


def _width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(
        0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text
    )
