"""Measures refreshes in a database of very many sessions, in calm and beside all work on all rows.

``python -m benchmarks.scale [--sessions N] [--accounts N] [--rounds R] [--only WORK] …``

There is one database, of which some sessions ended long ago, and each account has a link. A round
of each kind of work is a calm run and a busy one. The work: the server prunes in the background; it
sweeps over all accounts; a command lists the sessions, as lines or as JSON; a command prunes. The
load refreshes sessions that are chosen from all of them, each once. It has two forms: ``full``
refreshes as fast as it can on 16 connections, and ``even`` sends as many requests in a second as
``--rate`` says, and counts a request's time from when it was due.

The results are the medians of the rounds, and the medians of their ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import load, sessions
from benchmarks.load import SCATTER, Result
from benchmarks.servers import PASSWORD, USER, MeasuredServer, login_service
from synapse_login_module.stores.sqlite_connection import connect
from tests.support import REPOSITORY
from tests.support.configuration import password_hash

_DIRECTORY = "directory"
_LOADS = ("full", "even")
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

_WARM_UP = 500


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
    parser.add_argument("--only", action="append", choices=[*_CHANGES, *_COMMANDS])
    options = parser.parse_args()
    works = options.only or [*_CHANGES, *_COMMANDS]
    each = _WARM_UP + options.requests + round(options.rate * options.seconds)
    sample = round(1.1 * 2 * options.rounds * len(works) * each)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        began = time.perf_counter()
        lines = sessions.fill_by_sql(
            place,
            options.sessions,
            sample,
            options.accounts or options.sessions // 3,
            options.over,
            _DIRECTORY,
        )
        print(
            f"{options.sessions:,} sessions filled in {time.perf_counter() - began:.0f} s,"
            f" {sessions.bytes_on_disk(place) / 1e6:.0f} MB with the links",
            flush=True,
        )
        plan = Plan(
            place, iter(lines), options.rounds, options.requests, options.rate, options.seconds
        )
        for work in works:
            _measure(plan, work)


def _measure(plan: Plan, work: str) -> None:
    """Measure one kind of work, and print its figures."""
    pairs: dict[str, list[tuple[Result, Result]]] = {name: [] for name in _LOADS}
    before, worked = _progress(plan.folder, work), 0.0
    for number in range(plan.rounds):
        results = {}
        for is_busy in (False, True) if number % 2 else (True, False):
            with _server(plan.folder, work, is_busy) as server:
                began = time.perf_counter()
                with _command(plan.folder, work) if is_busy else nullcontext():
                    _drive(server, plan, _WARM_UP, None)
                    results[is_busy] = {
                        "full": _drive(server, plan, plan.requests, None),
                        "even": _drive(server, plan, round(plan.rate * plan.seconds), plan.rate),
                    }
                worked += is_busy * (time.perf_counter() - began)
        for name in _LOADS:
            pairs[name].append((results[False][name], results[True][name]))
    done = abs(_progress(plan.folder, work) - before)
    print(f"{work}: {done / worked:.0f} rows a second" if done else f"{work}:")
    for name in _LOADS:
        for figure in ("rate", "p50", "p99", "slowest"):
            values = [[getattr(side, figure) for side in pair] for pair in pairs[name]]
            _print(f"  {name} {figure}", values)
    sys.stdout.flush()


def _print(what: str, pairs: Sequence[Sequence[float]]) -> None:
    calm, busy = (median(each) for each in zip(*pairs, strict=True))
    ratios = sorted(mine / other for other, mine in pairs)
    form = "{:.0f}" if calm > 10 else "{:.5f}"
    print(
        f"{what:16} {form.format(calm):>9} calm {form.format(busy):>9} busy, ratio"
        f" {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


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


@contextmanager
def _command(folder: Path, work: str) -> Iterator[None]:
    """Run the command of a work until the ``with`` statement ends, or until it is done."""
    if work not in _COMMANDS:
        yield
        return
    config = (folder / "config.yaml").read_text("utf-8")
    changed = folder / "command.yaml"
    changed.write_text(config.replace("keep_ended: null", "keep_ended: 1d"), "utf-8")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "synapse_login_module.cli", "sessions", *_COMMANDS[work]),
            *("--config", str(changed)),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(1.5)  # it has imported all by then
    try:
        yield
        if process.poll() is not None:
            print(f"  {work}: the command ended before the load", flush=True)
    finally:
        process.kill()
        process.wait()


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


def _drive(server: MeasuredServer, plan: Plan, requests: int, rate: float | None) -> Result:
    """Refresh sessions, each once."""
    command = [sys.executable, "-m", load.__name__, SCATTER, f"--port={server.port}"]
    command.append(f"--requests={requests}")
    if rate is not None:
        command.append(f"--rate={rate}")
    lines = b"\n".join(next(plan.lines) for _ in range(requests))
    done = subprocess.run(command, cwd=REPOSITORY, input=lines, stdout=subprocess.PIPE, check=True)
    result = Result(**json.loads(done.stdout))
    if result.failed:
        raise SystemExit(f"{result.failed} of {result.requests} requests failed")
    return result


def _count(text: str) -> int:
    return int(float(text))


if __name__ == "__main__":
    main()
