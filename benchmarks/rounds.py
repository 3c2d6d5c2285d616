"""Measures sides in turn, so that whatever changes with time changes all of them alike.

A round measures each side once. The order of a round is random, and that of the next is the same
backwards. A comparison is made of pairs, which are the two sides in one round: the ratio is the
median of the pairs' ratios, and :mod:`benchmarks.spread` says how well it is known.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

from benchmarks.figures import Row
from benchmarks.machine import Processors
from benchmarks.spread import judge, spread

T = TypeVar("T")
U = TypeVar("U")

Figure = Callable[[T], float]
"""Takes one number from what one run of a side has measured."""


@dataclass(frozen=True)
class Rounds(Generic[T]):
    """What the rounds have measured.

    :param made: what each side has measured, by its name, in the order of the rounds.
    :param elsewhere: the share of the processors' time that other programs had meanwhile.
    """

    made: Mapping[str, Sequence[T]]
    elsewhere: float | None = None

    def compared(
        self,
        what: str,
        here: str,
        yardstick: str,
        figure: Figure[T],
        *,
        least: float | None = None,
        most: float | None = None,
        unit: str = "",
        digits: int | None = None,
        quiet: bool = False,
    ) -> Row:
        """Build the row that compares a side with its yardstick: both sides' medians, and the
        median of the pairs' ratios.

        :param here: the name of the side.
        :param yardstick: the name of the side that it is compared with.
        :param figure: what is compared.
        :param least: the limit that the ratio has to reach.
        :param most: the limit that it must not exceed.
        :param quiet: whether the row tells something only on a machine that does nothing else:
            rates that need both cores, and whatever the slowest answers decide.
        """
        mine, others = ([figure(each) for each in self.made[side]] for side in (here, yardstick))
        low, ratio, high = spread([one / other for one, other in zip(mine, others, strict=True)])
        if digits is None:
            digits = 1 if unit else 0
        return Row(
            what,
            f"{median(mine):.{digits}f} {unit}".strip(),
            f"{median(others):.{digits}f} {unit}".strip(),
            ratio,
            low,
            high,
            _limits(least, most),
            judge(low, high, least, most),
            quiet,
            self.elsewhere,
        )

    def measured(
        self,
        what: str,
        here: str,
        figure: Figure[T],
        *,
        most: float | None = None,
        unit: str = "",
        digits: int = 1,
        quiet: bool = False,
    ) -> Row:
        """Build the row of one side alone, whose limit is in the figure's own unit."""
        low, middle, high = spread([figure(each) for each in self.made[here]])
        return Row(
            what,
            f"{middle:.{digits}f} {unit}".strip(),
            low=low,
            high=high,
            reach="" if most is None else f"<= {most:g} {unit}".strip(),
            verdict=judge(low, high, None, most),
            quiet=quiet,
            elsewhere=self.elsewhere,
        )

    def each(self, part: Callable[[T], U]) -> Rounds[U]:
        """Take a part of what each run has measured, where that is more than one thing."""
        made = {name: [part(run) for run in runs] for name, runs in self.made.items()}
        return Rounds(made, self.elsewhere)


def interleaved(count: int, sides: Mapping[str, Callable[[int], T]]) -> Rounds[T]:
    """Measure all sides, once each round.

    :param count: the number of rounds; an even one gives each place in the order to all alike.
    :param sides: the functions that measure, by the names of the sides. Each takes the number of
        the round, from 0.
    """
    processors = Processors()
    made: dict[str, list[T]] = {name: [] for name in sides}
    order = list(sides)
    for number in range(count):
        if number % 2:
            order.reverse()
        else:
            random.shuffle(order)
        for name in order:
            made[name].append(sides[name](number))
    return Rounds(made, processors.elsewhere())


def _limits(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f"{least} to {most}"
    if least is not None:
        return f">= {least}"
    return "" if most is None else f"<= {most}"
