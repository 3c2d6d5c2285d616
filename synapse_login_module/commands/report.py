"""What a command says on standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from synapse_login_module.console import printable

Say = Callable[[str], None]
"""Says one line."""


def row(*columns: str) -> str:
    """One line of columns, with tabs between them."""
    return "\t".join(map(printable, columns))


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
