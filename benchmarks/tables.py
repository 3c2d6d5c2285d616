"""Makes tables in reStructuredText."""

from __future__ import annotations

from collections.abc import Container, Sequence
from textwrap import wrap


def table(rows: Sequence[Sequence[str]], right: Container[int]) -> str:
    """Format rows as a table.

    :param rows: the rows, with the headings first.
    :param right: the indexes of the columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "  ".join("=" * width for width in widths)
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def wrapped(rows: Sequence[Sequence[str]], right: Container[int], width: int) -> str:
    """Format rows as a table that is no wider than a number of characters.

    The first column is wrapped.

    :param rows: the rows, with the headings first.
    :param right: the indexes of the columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], width - sum(each + 3 for each in widths[1:]) - 4)
    lines: list[str] = []
    for number, row in enumerate(rows):
        first, *further = wrap(row[0], widths[0])
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip([first, *row[1:]], widths, strict=True))
        ]
        empty = [" " * each for each in widths[1:]]
        lines += [_across("=" if number == 1 else "-", widths), f"| {' | '.join(cells)} |"]
        lines += [f"| {' | '.join([each.ljust(widths[0]), *empty])} |" for each in further]
    return "\n".join([*lines, _across("-", widths)])


def _across(rule: str, widths: Sequence[int]) -> str:
    return f"+{'+'.join(rule * (width + 2) for width in widths)}+"
