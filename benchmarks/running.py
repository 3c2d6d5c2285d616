"""Runs measurements one after the other; one that fails does not end the others."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping

from twisted.trial.unittest import SkipTest

from benchmarks.figures import FAILED, Row, cells


def run(measurements: Mapping[str, Callable[[], Iterator[Row]]]) -> list[Row]:
    """Run measurements, and print each row on standard error as it comes.

    The rows that a measurement made before it failed are kept, and one more says that it failed.

    :param measurements: functions that measure, by the measurements' names.
    :return: the rows of all of them.
    """
    began = time.monotonic()
    rows: list[Row] = []

    def add(row: Row) -> None:
        _say(*cells(row))
        rows.append(row)

    for number, (name, measure) in enumerate(measurements.items(), 1):
        minutes = (time.monotonic() - began) / 60
        _say(f"{name} ({number} of {len(measurements)}, after {minutes:.1f} minutes)")
        try:
            for row in measure():
                add(row)
        except SkipTest as reason:
            _say(f"{name}: left out: {reason}")
        except Exception:
            traceback.print_exc()
            add(Row(name, verdict=FAILED))
    _say(f"{len(rows)} rows after {(time.monotonic() - began) / 60:.1f} minutes")
    return rows


def _say(*words: str) -> None:
    print(*words, sep="  ", file=sys.stderr, flush=True)
