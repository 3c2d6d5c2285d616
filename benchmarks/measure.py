"""The measurements. Each alternates between the two sides that it compares.

A round is one run of each side, so that changes in the machine's load affect both alike. The result
is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from benchmarks import introspection as introspecting
from benchmarks import load, servers, sessions
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import CHAIN, GET, INTROSPECT, LOGIN, SCATTER, Result
from benchmarks.servers import PASSWORD, USER, MeasuredServer
from synapse_login_module.passwords import check_password, hash_password
from tests.support import REPOSITORY
from tests.support.postgresql import PostgreSQL

STORM = 16
IDLE_CONNECTIONS = 1000

_MOST_SECONDS = 60.0
_IN_POSTGRESQL = 100_000
"""The number of sessions there. More would take minutes to fill, but not more bytes each."""


@dataclass(frozen=True)
class Size:
    """The size of the measurements.

    :param rounds: the number of rounds of each comparison.
    :param refreshes: the number of refreshes in one run of the load generator.
    :param hashing: the seconds of hashing in one run.
    :param cost: the cost of the bcrypt hashes in the comparison with bcrypt and in the storm.
    :param sessions: the numbers of sessions in the compared databases, the yardstick's first.
    :param postgresql: whether to measure on PostgreSQL as well as on SQLite.
    """

    rounds: int
    refreshes: int
    hashing: float
    cost: int
    sessions: Sequence[int]
    postgresql: bool


def refreshes(folder: Path, size: Size) -> Iterator[Row]:
    """Compare durable strict refreshes with a resource that only parses and writes JSON."""
    lines = sessions.fill(folder, 1000, 1000)
    with servers.bare(folder) as bare, servers.login_service(folder) as service:
        yield from _refreshes("/tokenrefresh", bare, service, lines, size, least=0.6)


def postgresql(folder: Path, size: Size) -> Iterator[Row]:
    """Measure refreshes, bytes a session and a storm of logins on PostgreSQL."""
    with cluster() as database:
        dsn = database.new_database("sessions")
        lines = sessions.fill_postgresql(folder, dsn, _IN_POSTGRESQL, 1000)
        used = sessions.bytes_in_postgresql(dsn) / _IN_POSTGRESQL
        yield Row(f"PostgreSQL: bytes a session, {_IN_POSTGRESQL:,} sessions", f"{used:.0f}")
        calm, stormy = _parts(lines, 2)
        with servers.bare(folder) as bare, servers.login_service(folder, dsn=dsn) as service:
            yield from _refreshes("PostgreSQL: /tokenrefresh", bare, service, calm, size)
        used = sessions.bytes_in_postgresql(dsn) / _IN_POSTGRESQL
        yield Row("PostgreSQL: the same after the refreshes", f"{used:.0f}")
        with servers.login_service(folder, size.cost, dsn=dsn) as service:
            yield from _storm("PostgreSQL: /tokenrefresh", service, stormy, size)


@contextmanager
def cluster() -> Iterator[PostgreSQL]:
    """Run a PostgreSQL with durable commits, for as long as a ``with`` statement lasts."""
    database = PostgreSQL(fsync=True)
    try:
        yield database
    finally:
        database.remove()


def _refreshes(
    what: str,
    bare: MeasuredServer,
    service: MeasuredServer,
    lines: Sequence[bytes],
    size: Size,
    least: float | None = None,
) -> Iterator[Row]:
    drive(bare, CHAIN, lines, size.refreshes // 4)
    drive(service, CHAIN, lines[-CONNECTIONS:], size.refreshes // 4)
    rounds = [
        (
            drive(bare, CHAIN, mine, size.refreshes),
            drive(service, CHAIN, mine, size.refreshes),
        )
        for mine in _shares(lines, size.rounds)
    ]
    yield from _against_bare(what, rounds, least)


def introspection(folder: Path, size: Size) -> Iterator[Row]:
    """Compare introspections of random sessions with a resource that only parses a form."""
    secret = introspecting.SECRET
    lines = [
        secret + b" " + line.partition(b" ")[0] for line in sessions.fill(folder, 100_000, 1000)
    ]
    requests = 4 * size.refreshes
    with servers.bare(folder) as bare, servers.introspection(folder) as service:
        for server in (bare, service):
            drive(server, INTROSPECT, lines, requests)
        rounds = [
            (drive(bare, INTROSPECT, lines, requests), drive(service, INTROSPECT, lines, requests))
            for _ in range(size.rounds)
        ]
        yield from _against_bare("introspections", rounds, 0.9)
    slowest = median(each.p99 for _, each in rounds) * 1000
    yield Row("introspections p99", f"{slowest:.1f} ms", reach="<= 2 ms", reached=slowest <= 2)


def _against_bare(
    what: str, rounds: Sequence[tuple[Result, Result]], least: float | None
) -> Iterator[Row]:
    """Compare runs on the bare resource with runs on this server."""
    yardsticks, here = zip(*rounds, strict=True)
    yield compared(
        f"{what} a second, {CONNECTIONS} connections, against the bare resource",
        [each.rate for each in here],
        [each.rate for each in yardsticks],
        least=least,
    )
    for name in ("p50", "p99"):
        yield compared(
            f"{what} {name}",
            [getattr(each, name) * 1000 for each in here],
            [getattr(each, name) * 1000 for each in yardsticks],
            unit="ms",
        )
    yield compared(
        "the load generator's share of a core: here, and at the bare resource",
        [each.cpu for each in here],
        [each.cpu for each in yardsticks],
        digits=2,
    )


def logins(folder: Path, size: Size) -> Iterator[Row]:
    """Compare logins with bcrypt alone in threads."""
    threads = len(os.sched_getaffinity(0))
    password_hash = hash_password(PASSWORD, "", size.cost)
    count = _hashes(size, threads)
    with servers.login_service(folder, size.cost) as service:
        rounds = [
            (
                _bcrypt_rate(password_hash, count, threads),
                drive(service, LOGIN, login_lines(2 * threads), count, 2 * threads).rate,
            )
            for _ in range(size.rounds)
        ]
    yardsticks, here = zip(*rounds, strict=True)
    yield compared(
        f"/login a second, bcrypt cost {size.cost}, against bcrypt on {threads} cores",
        here,
        yardsticks,
        least=0.95,
        digits=1,
    )


def storm(folder: Path, size: Size) -> Iterator[Row]:
    """Compare refreshes while logins hash without pause with refreshes on a calm server."""
    lines = sessions.fill(folder, 1000, 1000)
    with servers.login_service(folder, size.cost) as service:
        yield from _storm("/tokenrefresh", service, lines, size)


def _storm(what: str, service: MeasuredServer, lines: Sequence[bytes], size: Size) -> Iterator[Row]:
    drive(service, CHAIN, lines[-CONNECTIONS:], size.refreshes // 4)
    rounds = []
    for mine in _shares(lines, size.rounds):
        calm = drive(service, CHAIN, mine, size.refreshes)
        with Storm(service):
            # The calm run has refreshed its sessions, so the storm needs others.
            stormy = drive(service, CHAIN, mine[CONNECTIONS:], size.refreshes)
        rounds.append((calm, stormy))
    yardsticks, here = zip(*rounds, strict=True)
    for name, most in (("p50", None), ("p99", 2.0)):
        yield compared(
            f"{what} {name} while {STORM} logins hash without pause, against calm",
            [getattr(each, name) * 1000 for each in here],
            [getattr(each, name) * 1000 for each in yardsticks],
            unit="ms",
            most=most,
        )
    yield compared(
        f"{what} a second in the same storm, against calm",
        [each.rate for each in here],
        [each.rate for each in yardsticks],
        least=0.5,
    )


def memory(folder: Path, size: Size) -> Iterator[Row]:
    """Measure resident memory, without and with idle connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE_CONNECTIONS + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    with servers.bare(folder) as bare, servers.login_service(folder) as service:
        found: dict[str, tuple[int, int]] = {}
        for name, server in (("bare", bare), ("service", service)):
            idle = server.memory
            with ExitStack() as stack:
                for _ in range(IDLE_CONNECTIONS):
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                # The server accepts in order, so it has accepted all connections before this one.
                drive(server, CHAIN, [b"x y"], 1, 1)
                found[name] = idle, server.memory
    for index, (what, most) in enumerate(
        (("idle", 60), (f"with {IDLE_CONNECTIONS} idle connections", 120))
    ):
        here, yardstick = (found[name][index] / 1e6 for name in ("service", "bare"))
        yield Row(
            f"memory {what}, against the bare resource",
            f"{here:.0f} MB",
            f"{yardstick:.0f} MB",
            here / yardstick,
            f"<= {most} MB",
            here <= most,
        )


def start_up(folder: Path, size: Size) -> Iterator[Row]:
    """Measure the time from the start of the process to the first response."""
    here: list[float] = []
    yardsticks: list[float] = []
    for _ in range(size.rounds):
        for make, times in ((servers.bare, yardsticks), (servers.login_service, here)):
            with make(folder) as server:
                times.append(server.start_up)
    yield compared("start-up, against the bare resource", here, yardsticks, unit="s", digits=2)


def growth(folder: Path, size: Size) -> Iterator[Row]:
    """Compare refreshes of random sessions in databases of different sizes."""
    counts = sorted(size.sessions)
    sample = size.rounds * min(size.refreshes, counts[0] // size.rounds)
    here: dict[int, list[float]] = {count: [] for count in counts}
    with ExitStack() as stack:
        running = []
        for count in counts:
            place = folder / str(count)
            place.mkdir()
            lines = sessions.fill(place, count, sample)
            used = sessions.bytes_on_disk(place) / count
            service = stack.enter_context(servers.login_service(place))
            running.append((count, service, _parts(lines, size.rounds)))
            yield Row(
                f"bytes a session on disk, {count:,} sessions",
                f"{used:.0f}",
                "200",
                used / 200,
                "<= 200",
                used <= 200,
            )
        for index in range(size.rounds):
            for count, service, parts in running:
                result = drive(service, SCATTER, parts[index], len(parts[index]))
                here[count].append(result.p50 * 1000)
    for count in counts[1:]:
        yield compared(
            f"/tokenrefresh p50 at {count:,} sessions, against {counts[0]:,}",
            here[count],
            here[counts[0]],
            unit="ms",
            most=1.3,
        )


def workers(folder: Path, size: Size) -> Iterator[Row]:
    """Compare one process, one worker and two: in refreshes, for which SQLite takes one writer at a
    time, and in looking a token up, which writes nothing.
    """
    lines = sessions.fill(folder, 1000, 1000)
    looked_up = [b"v3/account/whoami " + line.partition(b" ")[0] for line in lines[-CONNECTIONS:]]
    pairs = _pairs(lines[:-CONNECTIONS])
    rounds: dict[tuple[str, int | None], list[Result]] = {}
    for _ in range(size.rounds):
        for count in (None, 1, 2):
            warm_up, mine = next(pairs)
            with servers.login_service(folder, workers=count) as service:
                drive(service, CHAIN, warm_up, size.refreshes // 4)
                for what, mode, given in (
                    ("/tokenrefresh", CHAIN, mine),
                    ("/account/whoami", GET, looked_up),
                ):
                    result = drive(service, mode, given, size.refreshes)
                    rounds.setdefault((what, count), []).append(result)
    cores = len(os.sched_getaffinity(0))
    for what in ("/tokenrefresh", "/account/whoami"):
        alone = rounds[what, None]
        for count in (1, 2):
            for name, unit, factor in (("rate", "", 1), ("p99", "ms", 1000)):
                yield compared(
                    f"{what} {name}, --workers {count}, against one process without",
                    [getattr(each, name) * factor for each in rounds[what, count]],
                    [getattr(each, name) * factor for each in alone],
                    unit=unit,
                )
        # One process keeps a core busy, and the load generator a part of another core.
        most = median(min(2.0, cores / (1 + each.cpu)) for each in alone)
        yield Row(
            f"{what} rate, 2 workers: the most that the load generator leaves room for",
            "",
            ratio=most,
        )


class Listening(Protocol):
    """A server that the load generator can drive."""

    @property
    def port(self) -> int:
        """The port on the loopback interface."""


class Storm:
    """A load of logins without pause, for as long as a ``with`` statement lasts."""

    def __init__(self, server: Listening, user: str = USER) -> None:
        self._server = server
        self._user = user

    def __enter__(self) -> None:
        with tempfile.TemporaryFile() as lines:
            lines.write(b"\n".join(login_lines(STORM, self._user)))
            lines.seek(0)
            self._process = subprocess.Popen(
                _command(self._server, LOGIN, 1_000_000, STORM),
                cwd=REPOSITORY,
                stdin=lines,
                stdout=subprocess.DEVNULL,
            )
        time.sleep(1.0)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        # The server finishes the hashes in progress, although their clients are gone.
        time.sleep(1.0)


def drive(
    server: Listening,
    mode: str,
    lines: Sequence[bytes],
    requests: int,
    connections: int = CONNECTIONS,
) -> Result:
    """Run the load generator once."""
    done = subprocess.run(
        _command(server, mode, requests, connections),
        cwd=REPOSITORY,
        input=b"\n".join(lines),
        stdout=subprocess.PIPE,
        check=True,
    )
    result = Result(**json.loads(done.stdout))
    if result.failed and lines != [b"x y"]:
        raise SystemExit(f"{result.failed} of {result.requests} requests failed")
    return result


def _command(server: Listening, mode: str, requests: int, connections: int) -> list[str]:
    options = {
        "port": server.port,
        "connections": connections,
        "requests": requests,
        "seconds": _MOST_SECONDS,
    }
    return [
        *(sys.executable, "-m", load.__name__, mode),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def login_lines(count: int, user: str = USER) -> list[bytes]:
    """Return login requests of one user, each with a new device."""
    credentials = {"type": "m.login.password", "user": user, "password": PASSWORD}
    return [
        json.dumps({**credentials, "device_id": f"DEVICE{number}"}).encode("ascii")
        for number in range(count)
    ]


def _hashes(size: Size, threads: int) -> int:
    """Return the number of hashes that fill the time for hashing; a multiple of the threads."""
    password_hash = hash_password(PASSWORD, "", size.cost)
    rate = _bcrypt_rate(password_hash, 2 * threads, threads)
    return max(2, round(rate * size.hashing / threads)) * threads


def _bcrypt_rate(password_hash: str, count: int, threads: int) -> float:
    """Measure bcrypt checks a second in plain threads."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(lambda _: check_password(PASSWORD, password_hash, ""), range(count)))
        return count / (time.perf_counter() - began)


def _shares(lines: Sequence[bytes], rounds: int) -> Iterator[Sequence[bytes]]:
    """Split the sessions by round, with enough for two runs each."""
    for index in range(rounds):
        yield lines[index * 2 * CONNECTIONS : (index + 1) * 2 * CONNECTIONS]


def _pairs(lines: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
    """Yield the sessions for two runs, different ones each time."""
    for mine in _shares(lines, len(lines) // (2 * CONNECTIONS)):
        yield mine[:CONNECTIONS], mine[CONNECTIONS:]


def _parts(lines: Sequence[bytes], parts: int) -> list[Sequence[bytes]]:
    each = len(lines) // parts
    return [lines[index * each : (index + 1) * each] for index in range(parts)]


def compared(
    what: str,
    here: Sequence[float],
    yardsticks: Sequence[float],
    *,
    least: float | None = None,
    most: float | None = None,
    unit: str = "",
    digits: int | None = None,
) -> Row:
    """Build a row from two sides measured in turn: their medians and the median of the ratios."""
    ratio = median(mine / other for mine, other in zip(here, yardsticks, strict=True))
    if digits is None:
        digits = 1 if unit else 0
    reach, reached = "", None
    if least is not None:
        reach, reached = f">= {least}", ratio >= least
    if most is not None:
        reach, reached = f"<= {most}", ratio <= most
    return Row(
        what,
        f"{median(here):.{digits}f} {unit}".strip(),
        f"{median(yardsticks):.{digits}f} {unit}".strip(),
        ratio,
        reach,
        reached,
    )
