"""Simulates a day of many clients, and a page of PostgreSQL, for docs/scaling.rst.

``python -m benchmarks.simulation [--into FILE]``

A few thousand sessions stand for all of them. Each belongs to one kind of client, which comes
online at random times of its day. Everything else follows from what the program does: an access
token lasts five minutes, and a homeserver that delegates remembers for two minutes whose a token
is. The peak is the busiest quarter of an hour, with all clients in one time zone.

The numbers are the same in each run. tests/test_simulation.py compares them with the document.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.tables import wrapped

SESSIONS = (10**7, 10**8, 10**9)

_SAMPLE = 6000
_DAY = 86_400
_QUARTER = 900
_TOKEN = 300
"""Seconds for which an access token is valid."""

_REMEMBERED = 120
"""Seconds for which the homeserver remembers whose a token is."""

_SYNC = 30
"""Seconds of one request of a client that is online."""

_DAYS = 90
"""How many days a session lives."""

_LOGGED_OUT = 0.5
"""The share of the sessions that end by logging out, which removes the row at once."""

_KEPT = 30
"""How many days the row of any other session stays (``tokens.keep_ended``)."""

_DEVICES = 3
"""Sessions of an account."""

_REFRESHES = 2400
_INTROSPECTIONS = 5000
_LOGINS = 4.2
"""What one core of a server does in a second, measured; of logins, bcrypt's at its cost of 12."""

_WRITES = 25_000
"""Refreshes in a second of one core of PostgreSQL, in batches of 16, measured."""

_ROW = 264
_LOG = 183
_BEGIN = ".. What follows is written by python -m benchmarks.simulation --into.\n"
_END = ".. What python -m benchmarks.simulation has written ends here.\n"


class Kind(NamedTuple):
    """A kind of client.

    :param share: of all sessions.
    :param visits: how often it is online in a day.
    :param seconds: how long each time, on average.
    :param hours: the hours of the day in which it comes online.
    """

    share: float
    visits: int
    seconds: float
    hours: tuple[int, int]


KINDS = (
    Kind(0.50, 0, 0, (0, 24)),
    Kind(0.20, 20, 180, (7, 23)),
    Kind(0.15, 60, 20, (0, 24)),
    Kind(0.15, 2, 4 * 3600, (8, 18)),
)
"""Sessions that nobody uses; phones that are looked at; phones that notifications wake; desktops.
"""


class Day(NamedTuple):
    """What the clients do in a day, for each session.

    :param refreshes: in a second of the peak.
    :param refreshes_mean: in a second of the day.
    :param introspections: in a second of the peak.
    :param online: the share of the sessions that are online at the peak.
    :param wave: the peak of the visits over their mean.
    """

    refreshes: float
    refreshes_mean: float
    introspections: float
    online: float
    wave: float


def day(random: Random) -> Day:
    """Simulate a day of the sample."""
    refreshes: Counter[int] = Counter()
    introspections: Counter[int] = Counter()
    online: Counter[int] = Counter()
    visits: Counter[int] = Counter()
    for kind in KINDS:
        for _ in range(round(kind.share * _SAMPLE)):
            valid_until = known_until = float("-inf")
            for begin, end in _online(kind, random):
                visits[int(begin // _QUARTER)] += 1
                now = begin
                while now < end:
                    online[int(now // _QUARTER)] += 1
                    if now >= valid_until:
                        refreshes[int(now // _QUARTER)] += 1
                        valid_until, known_until = now + _TOKEN, float("-inf")
                    if now >= known_until:
                        introspections[int(now // _QUARTER)] += 1
                        known_until = now + _REMEMBERED
                    now += _SYNC * random.uniform(0.2, 1)
    per_second = _QUARTER * _SAMPLE
    return Day(
        refreshes=max(refreshes.values()) / per_second,
        refreshes_mean=sum(refreshes.values()) / _SAMPLE / _DAY,
        introspections=max(introspections.values()) / per_second,
        online=max(online.values()) / per_second * _SYNC * 0.6,
        wave=max(visits.values()) / (sum(visits.values()) / (_DAY / _QUARTER)),
    )


def _online(kind: Kind, random: Random) -> Iterator[tuple[float, float]]:
    """Yield when a client comes online and goes, in the order of the day."""
    first, last = (hour * 3600 for hour in kind.hours)
    for begin in sorted(random.uniform(first, last) for _ in range(kind.visits)):
        yield begin, begin + random.expovariate(1 / kind.seconds)


def updates_in_place(open_for: float, random: Random) -> float:
    """Simulate pages of PostgreSQL whose rows are all refreshed every five minutes.

    An update stays on its page, and touches no index, while the page has room for one more version
    of the row. Room is made by removing versions that no transaction can see any more.

    :param open_for: seconds for which the oldest transaction has been open.
    :return: the share of the updates that stay on their pages.
    """
    row = 4 + 136
    rows = int(8168 * 0.9 / row)
    free = int(8168 / row) - rows
    stayed = updates = 0
    for _ in range(30):
        now, dead = 0.0, list[float]()
        while now < 3 * _TOKEN + 2 * open_for:
            now += random.expovariate(rows / _TOKEN)
            if len(dead) == free:
                dead = [died for died in dead if died > now - open_for]
            is_here = len(dead) < free
            if is_here:
                dead.append(now)
            if now > _TOKEN + open_for:
                updates += 1
                stayed += is_here
    return stayed / updates


def tables(seed: int = 1) -> str:
    """Simulate, and format the results as reStructuredText."""
    random = Random(seed)
    today = day(random)
    lines = [
        ("sessions", *(f"{number:,}" for number in SESSIONS)),
        *((what, *map(_short, values)) for what, values in _needs(today)),
    ]
    spans = (0.05, 1, 10, 60, 600)
    shares = [(f"{span} s", f"{updates_in_place(span, random) * 100:.0f} %") for span in spans]
    headings = ("oldest open transaction", "updates that touch no index")
    return (
        f"{wrapped(lines, right=range(1, 4), width=100)}\n\n"
        "Of PostgreSQL's pages, where each session is refreshed every five minutes:\n\n"
        f"{wrapped([headings, *shares], right=range(2), width=100)}\n"
    )


def _needs(today: Day) -> Iterator[tuple[str, list[float]]]:
    def each(what: str, per_session: float) -> tuple[str, list[float]]:
        return what, [number * per_session for number in SESSIONS]

    rows = 1 + (1 - _LOGGED_OUT) * _KEPT / _DAYS
    logins = 1 / _DAYS / _DAY
    yield each("online at the peak", today.online)
    yield each("refreshes a second, at the peak", today.refreshes)
    yield each("refreshes a second, on average", today.refreshes_mean)
    yield each("refreshes a second if all were online", 1 / _TOKEN)
    yield each("introspections a second, at the peak", today.introspections)
    yield each("logins a second, on average", logins)
    yield each("logins a second, at the peak", logins * today.wave)
    yield each("deletions of devices a second", logins)
    yield each("rows, with those of ended sessions", rows)
    yield each("rows to prune a second", logins * (1 - _LOGGED_OUT))
    yield each("accounts to look at a second, every 15 minutes", 1 / _DEVICES / 900)
    yield each("the same, every day", 1 / _DEVICES / _DAY)
    yield each("cores for refreshes, at the peak", today.refreshes / _REFRESHES)
    yield each("cores for introspections", today.introspections / _INTROSPECTIONS)
    yield each("cores for bcrypt, at the peak", logins * today.wave / _LOGINS)
    yield each("cores of PostgreSQL for refreshes", today.refreshes / _WRITES)
    yield each("GB of rows and indexes in PostgreSQL", rows * _ROW / 1e9)
    yield each("MB of log a second in PostgreSQL", today.refreshes * _LOG / 1e6)


def _short(value: float) -> str:
    """Format a number with two significant digits."""
    if value < 10:
        return f"{value:.1f}"
    digits = len(str(int(value))) - 2
    return f"{round(value, -digits):,.0f}"


def into(document: str) -> str:
    """Put the tables into a document, in place of those that it has."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{tables()}\n{_END}{after}"


def main() -> None:
    """Parse the command line, simulate and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--into", type=Path, metavar="FILE", help="also write them into this file")
    options = parser.parse_args()
    print(tables(), end="")
    if options.into is not None:
        options.into.write_text(into(options.into.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
