"""Measures refreshes in a database of very many sessions, in calm and beside all work on all rows.

``python -m benchmarks.scale [--sessions N] [--accounts N] [--rounds R] [--only WORK] …``

There is one database, of which some sessions ended long ago, and each account has a link. For each
kind of work, a calm server has this database, and a busy server a copy of it. They are measured in
turn, and the other one is suspended meanwhile. So runs can be short, and rounds many. The work: the
server prunes in the background; it sweeps over all accounts; a command lists the sessions, as lines
or as JSON; a command prunes.

The load refreshes sessions that are chosen from all of them, each once. It has two forms: ``full``
refreshes as fast as it can on 16 connections, and ``even`` sends as many requests in a second as
``--rate`` says, and counts a request's time from when it was due.

With ``--keep``, the database stays in a folder, and later calls use it and the sessions that were
not refreshed yet.

The results are rows as those of ``python -m benchmarks``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import sessions
from benchmarks.driving import drive, p50, p99, rate, slowest
from benchmarks.figures import cells
from benchmarks.load import SCATTER, Result
from benchmarks.rounds import interleaved
from benchmarks.servers import PASSWORD, USER, MeasuredServer, login_service
from synapse_login_module.stores.sqlite_connection import connect
from tests.support import REPOSITORY
from tests.support.configuration import password_hash

_DIRECTORY = "directory"
_LOADS = ("full", "even")
_CALM, _BUSY = "calm", "busy"
_KEPT: Mapping[str, Any] = {
    "refresh_token": "always",
    "keep_ended": None,
    "account_check_interval": "365d",
}
_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "prune": {"keep_ended": "1d"},
    "sweep": {"account_check_interval": "15m"},
}
"""The work of the server itself, with what turns it on in the ``tokens:`` block."""

_COMMANDS: Mapping[str, Sequence[str]] = {
    "list": ("list",),
    "list-json": ("list", "--json"),
    "prune-command": ("prune",),
}
"""The work of a command on the sessions."""

_WARM_UP = 200


@dataclass(frozen=True)
class Plan:
    """What is measured.

    :param folder: where the database is.
    :param lines: the tokens of sessions that were not refreshed yet.
    :param rounds: the number of rounds of each work.
    :param requests: the refreshes of a run at full speed.
    :param rate: the refreshes in a second of a run at an even rate.
    :param seconds: how long a run at an even rate lasts.
    """

    folder: Path
    lines: Iterator[bytes]
    rounds: int
    requests: int
    rate: float
    seconds: float


def main() -> None:
    """Parse the command line, fill the database and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--sessions", type=_count, default=10_000_000, help="default: 1e7")
    parser.add_argument("--accounts", type=_count, help="default: a third of the sessions")
    parser.add_argument("--over", type=float, default=0.3, help="the share that has ended")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000, help="refreshes at full speed")
    parser.add_argument("--rate", type=float, default=200, help="refreshes a second, evenly")
    parser.add_argument("--seconds", type=float, default=8, help="seconds at that rate")
    parser.add_argument("--folder", type=Path, help="make the database in this folder")
    parser.add_argument(
        "--keep", type=Path, help="keep the database in this folder, for later runs"
    )
    parser.add_argument("--sample", type=_count, help="sessions to refresh; default: as needed")
    parser.add_argument("--only", action="append", choices=[*_CHANGES, *_COMMANDS])
    options = parser.parse_args()
    works = options.only or [*_CHANGES, *_COMMANDS]
    each = _WARM_UP + options.requests + round(options.rate * options.seconds)
    needed = 2 * options.rounds * len(works) * each
    with _place(options) as place:
        folder = Path(place)
        unused = folder / "unused"
        if unused.exists():
            lines = unused.read_bytes().splitlines()
        elif (folder / "sessions.db").exists():
            parser.error(f"{folder} has a database that an earlier call did not finish")
        else:
            wanted = round(1.1 * needed)  # the sample is random, and so is its size
            sample = options.sample or wanted
            if min(sample, options.sessions) < wanted:
                parser.error(f"a sample of {wanted} sessions is needed")
            lines = _fill(folder, options, sample)
        if len(lines) < needed:
            parser.error(f"{len(lines)} sessions were not refreshed yet, and {needed} are needed")
        unused.write_bytes(b"\n".join(lines[needed:]))
        plan = Plan(
            folder, iter(lines), options.rounds, options.requests, options.rate, options.seconds
        )
        for work in works:
            _measure(plan, work)


def _place(options: argparse.Namespace) -> AbstractContextManager[str]:
    """Return the folder of the database, which is removed unless it is to be kept."""
    if options.keep is None:
        return tempfile.TemporaryDirectory(dir=options.folder)
    options.keep.mkdir(exist_ok=True)
    return nullcontext(str(options.keep))


def _fill(folder: Path, options: argparse.Namespace, sample: int) -> list[bytes]:
    """Make the database; return the tokens of the sample."""
    began = time.perf_counter()
    accounts = options.accounts or options.sessions // 3
    lines = sessions.fill_by_sql(
        folder, options.sessions, sample, accounts, options.over, _DIRECTORY
    )
    print(
        f"{options.sessions:,} sessions filled in {time.perf_counter() - began:.0f} s,"
        f" {sessions.bytes_on_disk(folder) / 1e6:.0f} MB with the links",
        flush=True,
    )
    return lines


class _Ran(NamedTuple):
    """A run on one server: both forms of the load, and how many seconds they took in all."""

    full: Result
    even: Result
    seconds: float


def _measure(plan: Plan, work: str) -> None:
    """Measure one kind of work, and print its figures."""
    busy = plan.folder / "busy"
    shutil.rmtree(busy, ignore_errors=True)  # of a run that failed
    busy.mkdir()
    for name in ("sessions.db", "token.key"):
        shutil.copy(plan.folder / name, busy)
    before = _progress(busy, work)
    with _Side(plan.folder, work, False) as calm_side, _Side(busy, work, True) as busy_side:
        sides = {_CALM: calm_side, _BUSY: busy_side}
        rounds = interleaved(
            plan.rounds, {name: partial(_run, plan, side) for name, side in sides.items()}
        )
    done = abs(_progress(busy, work) - before)
    shutil.rmtree(busy)
    worked = sum(ran.seconds for ran in rounds.made[_BUSY])
    print(f"{work}: {done / worked:.0f} rows a second" if done else f"{work}:")
    for name in _LOADS:
        results = rounds.each(attrgetter(name))
        for what, figure, unit in (
            ("a second", rate, ""),
            ("p50", p50, "ms"),
            ("p99", p99, "ms"),
            ("slowest", slowest, "ms"),
        ):
            row = results.compared(
                f"{name} load: refreshes, {what}, against calm",
                *(_BUSY, _CALM, figure),
                unit=unit,
                quiet=True,
            )
            print(" ", *cells(row), sep="  ")
    sys.stdout.flush()


class _Side:
    """A server, and the command beside it; use it in a ``with`` statement. It begins suspended.

    :param folder: where its database is.
    :param is_busy: whether the work is done.
    """

    def __init__(self, folder: Path, work: str, is_busy: bool) -> None:
        self.server = _server(folder, work, is_busy)
        self._folder = folder
        self._command = _COMMANDS.get(work) if is_busy else None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Side:
        self.server.__enter__()
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.server.__exit__()

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Run until the ``with`` statement ends. A command that is done is started again."""
        self._signal(signal.SIGCONT)
        if self._command is not None and self._has_ended():
            self._process = _start(self._folder, self._command)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.server.pid, number)
        if self._process is not None and not self._has_ended():
            self._process.send_signal(number)


def _run(plan: Plan, side: _Side, _: int) -> _Ran:
    """Refresh sessions on one side, each once."""

    def refresh(requests: int, every_second: float | None = None) -> Result:
        lines = [next(plan.lines) for _ in range(requests)]
        return drive(side.server, SCATTER, lines, requests, every_second=every_second)

    with side.resumed():
        began = time.perf_counter()
        refresh(_WARM_UP)
        full = refresh(plan.requests)
        even = refresh(round(plan.rate * plan.seconds), plan.rate)
        return _Ran(full, even, time.perf_counter() - began)


def _server(folder: Path, work: str, is_busy: bool) -> MeasuredServer:
    """Build the server, which does the work itself if it is busy and that is its work."""
    changes = _CHANGES.get(work, {}) if is_busy else {}
    known = "SELECT :localpart AS localpart, '$2b$04$" + "." * 53 + "' AS password_hash"
    providers = [
        {
            "module": "synapse_login_module.providers.BcryptProvider",
            "config": {"users": {USER: {"password_hash": password_hash(PASSWORD)}}},
        },
        {
            "module": "synapse_login_module.providers.SQLProvider",
            "name": _DIRECTORY,
            "config": {"sqlite": "directory.db", "queries": {"by_user": known}},
        },
    ]
    with closing(connect(folder / "directory.db")):
        pass
    more = {"password_providers": providers}
    return login_service(folder, tokens={**_KEPT, **changes}, more=more)


def _start(folder: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command on the sessions, and wait until it works."""
    config = (folder / "config.yaml").read_text("utf-8")
    changed = folder / "command.yaml"
    changed.write_text(config.replace("keep_ended: null", "keep_ended: 1d"), "utf-8")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "synapse_login_module.cli", "sessions", *command),
            *("--config", str(changed)),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(1.5)  # it has imported all by then
    return process


def _progress(folder: Path, work: str) -> int:
    """Return a number that the work changes by one for each row of its work."""
    query = {
        "prune": "SELECT COUNT(*) FROM sessions",
        "prune-command": "SELECT COUNT(*) FROM sessions",
        "sweep": "SELECT COUNT(*) FROM links WHERE looked_at > linked_at",
    }.get(work)
    if query is None:
        return 0
    with closing(connect(folder / "sessions.db")) as connection:
        (number,) = connection.execute(query).fetchone()
        return int(number)


def _count(text: str) -> int:
    return int(float(text))


if __name__ == "__main__":
    main()
