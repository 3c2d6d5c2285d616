"""A progress bar on standard error, for work of more than a second."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import click

DELAY = 1.0
"""Seconds after which the bar appears, so that short work shows none."""

Update = Callable[[int], None]
"""Says how many more are done."""


def shows_progress(prints: bool = False) -> bool:
    """Return whether this process shows bars.

    It does at a terminal, and not while standard output is a pipe: then a program reads it, or a
    pager draws on the terminal.

    :param prints: whether the work itself prints. On a terminal, the bar would stand between its
        lines.
    """
    if not sys.stderr.isatty() or _is_pipe(sys.stdout):
        return False
    return not (prints and sys.stdout.isatty())


@contextmanager
def progress(
    label: str,
    total: int,
    prints: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Update]:
    """Show a bar on standard error once the work has taken a second.

    :param label: what is being done, in front of the bar.
    :param total: how many there are to do. The bar is full if there are more.
    :param prints: as for :func:`shows_progress`.
    :param clock: seconds.
    :return: a function to be called with how many more are done.
    """
    if not total or not shows_progress(prints):
        yield lambda number: None
        return
    began, before, bar = clock(), 0, None
    with ExitStack() as stack:

        def update(number: int) -> None:
            nonlocal before, bar
            if bar is not None:
                bar.update(number)
                return
            before += number
            if clock() - began >= DELAY:
                bar = stack.enter_context(
                    click.progressbar(length=total, label=label, file=sys.stderr)
                )
                bar.update(before)

        yield update


def _is_pipe(stream: IO[Any]) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError:  # it is no file, as under click's own test runner
        return False
