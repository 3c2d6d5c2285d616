"""Pauses of work in batches, which leave the rest of the time to others."""

from __future__ import annotations

import math

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater


def rest(
    clock: IReactorTime, began: float, times: float = 1.0, most: float = math.inf
) -> Deferred[None]:
    """Wait for as long as a batch took, or a multiple of that.

    :param clock: measures the time and ends the pause. It may be set in the meantime.
    :param began: when the batch began, on that clock.
    :param times: the multiple.
    :param most: the longest pause, in seconds.
    :return: fires at the end of the pause.
    """
    return deferLater(clock, min(most, max(0.0, times * (clock.seconds() - began))))
