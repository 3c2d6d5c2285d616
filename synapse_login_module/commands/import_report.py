"""What ``import-synapse`` reports: counts, what is left out and why."""

from __future__ import annotations

from collections import Counter

import click

from synapse_login_module.commands.report import for_people, print_table, row
from synapse_login_module.common.console import escaped, printable

_LISTED = 10


class Tally:
    """Counts what is taken over and what is not, with examples.

    :param verbose: whether to print everything that is left out, as it comes. Otherwise the first
        ten for each reason are printed at the end.
    :param mark: stands before each line; with one, there is no table.
    """

    def __init__(self, verbose: bool, mark: str = "") -> None:
        self._verbose = verbose
        self._mark = mark
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[str]] = {}

    def done(self, what: str, outcome: str, number: int = 1) -> None:
        """Count things.

        :param what: ``accounts``, ``links`` or ``sessions``.
        :param outcome: what was done with them.
        """
        self._counts[what, outcome, ""] += number

    def left(self, what: str, who: str, reason: str, number: int = 1) -> None:
        """Count things that are not taken over.

        :param who: what to list.
        """
        self._counts[what, "left out", reason] += number
        if self._verbose:
            self._say(row(what, who, reason))
            return
        examples = self._examples.setdefault((what, reason), [])
        if len(examples) < _LISTED:
            examples.append(who)

    def number(self, what: str, outcome: str) -> int:
        """Return how many things were counted."""
        return self._counts[what, outcome, ""]

    def number_left(self, what: str, reason: str) -> int:
        """Return how many things were left out for a reason."""
        return self._counts[what, "left out", reason]

    def show(self) -> None:
        """Print the counts, after what is left out."""
        for (what, reason), names in self._examples.items():
            self._say(f"{what} left out: {reason}:")
            for each in names:
                self._say(f"  {printable(each)}")
            more = len(names) == _LISTED and self._counts[what, "left out", reason] > _LISTED
            if more:
                self._say("  …; --verbose lists all")
        rows = [
            (what, outcome, str(number), reason)
            for (what, outcome, reason), number in sorted(self._counts.items())
            if number
        ]
        if for_people() and not self._mark:
            print_table(("WHAT", "OUTCOME", "NUMBER", "REASON"), rows)
        else:
            for columns in rows:
                self._say(row(*columns))

    def _say(self, line: str) -> None:
        click.echo(escaped(f"{self._mark}{line}"))
