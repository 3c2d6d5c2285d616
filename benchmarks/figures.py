"""The figures of a run: what the measurements yield, as a file and as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill

from benchmarks.tables import wrapped

CONNECTIONS = 16
"""The connections of the load generator, unless a row says otherwise."""

_HEADINGS = ("what", "here", "yardstick", "ratio", "to reach", "verdict")
_WIDTH = 100
_BEGIN = ".. What follows is written by python -m benchmarks --into.\n"
_END = ".. What python -m benchmarks has written ends here.\n"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    :param here: the measurement of this server.
    :param yardstick: the measurement that it is compared with.
    :param ratio: the measurement divided by the yardstick's.
    :param reach: the limit for the ratio or the measurement.
    :param reached: whether the limit is met; ``None`` without a limit.
    """

    what: str
    here: str
    yardstick: str = ""
    ratio: float | None = None
    reach: str = ""
    reached: bool | None = None


@dataclass(frozen=True)
class Run:
    """What one run has measured.

    :param circumstances: the machine, the versions and the cost of a durable write.
    """

    circumstances: str
    rows: Sequence[Row]


def read(path: Path) -> list[Run]:
    """Read the runs that :func:`write` has written."""
    runs = json.loads(path.read_text("utf-8"))["runs"]
    return [Run(each["circumstances"], [Row(**row) for row in each["rows"]]) for each in runs]


def write(path: Path, runs: Sequence[Run]) -> None:
    """Write runs as JSON, one row a line."""
    parts = []
    for run in runs:
        rows = ",\n".join(f"   {json.dumps(asdict(row))}" for row in run.rows)
        parts.append(
            f' {{"circumstances": {json.dumps(run.circumstances)},\n  "rows": [\n{rows}]}}'
        )
    path.write_text('{"runs": [\n' + ",\n".join(parts) + "\n]}\n", "utf-8")


def tables(runs: Sequence[Run]) -> str:
    """Format runs as reStructuredText."""
    return "\n".join(
        f"{fill(run.circumstances, _WIDTH)}\n\n"
        f"{wrapped([_HEADINGS, *map(cells, run.rows)], right=range(1, 5), width=_WIDTH)}\n"
        for run in runs
    )


def cells(row: Row) -> tuple[str, ...]:
    """Format a row."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    verdict = "" if row.reached is None else ("reached" if row.reached else "MISSED")
    return row.what, row.here, row.yardstick, ratio, row.reach, verdict


def into(document: str, runs: Sequence[Run]) -> str:
    """Put the tables of runs into a document, in place of those that it has.

    :raise ValueError: when the document lacks the lines between which the tables stand.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"it lacks the lines {_BEGIN.strip()!r} and {_END.strip()!r}")
    return f"{before}{_BEGIN}\n{tables(runs)}\n{_END}{after}"
