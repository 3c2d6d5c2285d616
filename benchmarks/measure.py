"""What is measured. Each measurement goes to and fro between the two sides that it compares.

A round is one run of each; the machine's drift and what its other users do then strike both alike,
and the median of the rounds' ratios is what counts.
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

from benchmarks import load, servers, sessions
from benchmarks.load import CHAIN, GET, LOGIN, SCATTER, Result
from benchmarks.servers import PASSWORD, USER, MeasuredServer
from synapse_login_module.passwords import check_password, hash_password
from tests.support import REPOSITORY
from tests.support.postgresql import PostgreSQL

CONNECTIONS = 16
STORM = 16
IDLE_CONNECTIONS = 1000

_MOST_SECONDS = 60.0
_IN_POSTGRESQL = 100_000
"""Sessions there: more of them take no more each, and minutes to put there."""


@dataclass(frozen=True)
class Size:
    """How much is done.

    :param rounds: how often each comparison is made.
    :param refreshes: in one run of the load generator.
    :param hashing: seconds of hashing in one run.
    :param cost: of the bcrypt hashes in the comparison with bcrypt, and in the storm.
    :param sessions: in the databases that are compared, the first being the yardstick.
    :param postgresql: whether everything that has a database is measured on PostgreSQL too.
    """

    rounds: int
    refreshes: int
    hashing: float
    cost: int
    sessions: Sequence[int]
    postgresql: bool


@dataclass(frozen=True)
class Row:
    """One row of the table.

    :param here: what was measured of this server.
    :param yardstick: what it is compared with.
    :param ratio: the one through the other.
    :param reach: what the ratio, or what was measured, should come to.
    :param reached: whether it does; ``None`` where nothing is demanded.
    """

    what: str
    here: str
    yardstick: str = ""
    ratio: float | None = None
    reach: str = ""
    reached: bool | None = None


def refreshes(folder: Path, size: Size) -> Iterator[Row]:
    """Durable strict refreshes, against a resource that does nothing but JSON."""
    lines = sessions.fill(folder, 1000, 1000)
    with servers.bare(folder) as bare, servers.login_service(folder) as service:
        yield from _refreshes("/tokenrefresh", bare, service, lines, size, least=0.6)


def postgresql(folder: Path, size: Size) -> Iterator[Row]:
    """The same on PostgreSQL, what a session takes there, and a storm of logins."""
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
    """A PostgreSQL that keeps what it has committed, for as long as a ``with`` statement lasts."""
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
    """Logins, against nothing but bcrypt in threads."""
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
    """Refreshes while logins hash without pause, against refreshes on a calm server."""
    lines = sessions.fill(folder, 1000, 1000)
    with servers.login_service(folder, size.cost) as service:
        yield from _storm("/tokenrefresh", service, lines, size)


def _storm(what: str, service: MeasuredServer, lines: Sequence[bytes], size: Size) -> Iterator[Row]:
    drive(service, CHAIN, lines[-CONNECTIONS:], size.refreshes // 4)
    rounds = []
    for mine in _shares(lines, size.rounds):
        calm = drive(service, CHAIN, mine, size.refreshes)
        with Storm(service):
            # Fresh sessions: those of the calm run have been refreshed.
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
    """Resident memory, idle and with idle connections."""
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
                # It answers in order: by now it has taken all the connections before this one.
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
    """From the start of the process to the first answer."""
    here: list[float] = []
    yardsticks: list[float] = []
    for _ in range(size.rounds):
        for make, times in ((servers.bare, yardsticks), (servers.login_service, here)):
            with make(folder) as server:
                times.append(server.start_up)
    yield compared("start-up, against the bare resource", here, yardsticks, unit="s", digits=2)


def growth(folder: Path, size: Size) -> Iterator[Row]:
    """Refreshes of sessions all over databases of different sizes."""
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
    """One process, one worker, and two: refreshes, for which SQLite takes one writer at a time, and
    looking a token up, which writes nothing.
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
        # One process keeps a core busy, and the load generator that share of another.
        most = median(min(2.0, cores / (1 + each.cpu)) for each in alone)
        yield Row(
            f"{what} rate, 2 workers: the most that the load generator leaves room for",
            "",
            ratio=most,
        )


class Listening(Protocol):
    """What can be driven: it has a port on the loopback."""

    @property
    def port(self) -> int:
        """The port."""


class Storm:
    """Logins without pause, for as long as a ``with`` statement lasts."""

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
        # What is being hashed is hashed to its end, though nobody waits for it any more.
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
    """Logins of one user on so many devices."""
    credentials = {"type": "m.login.password", "user": user, "password": PASSWORD}
    return [
        json.dumps({**credentials, "device_id": f"DEVICE{number}"}).encode("ascii")
        for number in range(count)
    ]


def _hashes(size: Size, threads: int) -> int:
    """How many hashes fill the time for them; a multiple of the threads."""
    password_hash = hash_password(PASSWORD, "", size.cost)
    rate = _bcrypt_rate(password_hash, 2 * threads, threads)
    return max(2, round(rate * size.hashing / threads)) * threads


def _bcrypt_rate(password_hash: str, count: int, threads: int) -> float:
    """Checks a second, in plain threads."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(lambda _: check_password(PASSWORD, password_hash, ""), range(count)))
        return count / (time.perf_counter() - began)


def _shares(lines: Sequence[bytes], rounds: int) -> Iterator[Sequence[bytes]]:
    """For each round sessions of its own, enough for two runs."""
    for index in range(rounds):
        yield lines[index * 2 * CONNECTIONS : (index + 1) * 2 * CONNECTIONS]


def _pairs(lines: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
    """Sessions for two runs, each time others."""
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
    """A row of two sides that were measured in turn: medians, and the median of the ratios."""
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
