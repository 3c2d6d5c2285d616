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

QUIET = 0.05
"""The most of the processors' time that other programs take on a quiet machine."""

FAILED = "FAILED"
"""The verdict of a measurement that could not be made."""

_HEADINGS = ("what", "here", "yardstick", "ratio", "known to", "to reach", "verdict")
_WIDTH = 100
_BEGIN = ".. What follows is written by python -m benchmarks --into.\n"
_END = ".. What python -m benchmarks has written ends here.\n"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    :param here: the measurement of this server.
    :param yardstick: the measurement that it is compared with.
    :param ratio: the measurement divided by the yardstick's.
    :param low: the least that the ratio may be, or the measurement where there is no ratio.
    :param high: the most that it may be.
    :param reach: the limit for the ratio or the measurement.
    :param verdict: whether the limit is met; nothing without a limit.
    :param quiet: whether the row tells something only on a machine that does nothing else.
    :param elsewhere: the share of the processors' time that other programs had meanwhile.
    """

    what: str
    here: str = ""
    yardstick: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    reach: str = ""
    verdict: str = ""
    quiet: bool = False
    elsewhere: float | None = None


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
        rows = ",\n".join(f"   {json.dumps(_stored(row))}" for row in run.rows)
        parts.append(
            f' {{"circumstances": {json.dumps(run.circumstances)},\n  "rows": [\n{rows}]}}'
        )
    path.write_text('{"runs": [\n' + ",\n".join(parts) + "\n]}\n", "utf-8")


def _stored(row: Row) -> dict[str, object]:
    """Return a row's fields, with no more digits than mean anything."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(row).items()
    }


def tables(runs: Sequence[Run]) -> str:
    """Format runs as reStructuredText."""
    return "\n".join(
        f"{fill(run.circumstances, _WIDTH)}\n\n"
        f"{wrapped([_HEADINGS, *map(cells, run.rows)], right=range(1, 6), width=_WIDTH)}\n"
        for run in runs
    )


def cells(row: Row) -> tuple[str, ...]:
    """Format a row."""
    what = row.what
    if row.quiet and row.elsewhere is not None and row.elsewhere > QUIET:
        what += f" (machine busy: {row.elsewhere * 100:.0f} % of it elsewhere)"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    known = ""
    if row.low is not None and row.high is not None and row.low < row.high:
        digits = _digits(row.here) if row.ratio is None else 2
        known = f"{row.low:.{digits}f} to {row.high:.{digits}f}"
    return what, row.here, row.yardstick, ratio, known, row.reach, row.verdict


def _digits(figure: str) -> int:
    """Return the number of digits after a figure's decimal point."""
    return len(figure.partition(" ")[0].partition(".")[2])


def into(document: str, runs: Sequence[Run]) -> str:
    """Put the tables of runs into a document, in place of those that it has.

    :raise ValueError: when the document lacks the lines between which the tables stand.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"it lacks the lines {_BEGIN.strip()!r} and {_END.strip()!r}")
    return f"{before}{_BEGIN}\n{tables(runs)}\n{_END}{after}"
