"""The measurements of the standalone server, beside what limits its speed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks import introspection as introspecting
from benchmarks import servers, sessions
from benchmarks.driving import STORM, Storm, drive, generator, login_lines, p50, p99, rate
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import CHAIN, INTROSPECT, LOGIN, Result
from benchmarks.rounds import Rounds, interleaved
from benchmarks.servers import PASSWORD, MeasuredServer, cluster
from benchmarks.shares import parts, shares
from benchmarks.size import Size
from synapse_login_module.passwords import check_password, hash_password

_IN_POSTGRESQL = 100_000
"""The number of sessions there. More would take minutes to fill, but not more bytes each."""

_PACE = 1000
"""Introspections a second where they come evenly. A Synapse process answers fewer requests."""


def refreshes(folder: Path, size: Size) -> Iterator[Row]:
    """Compare durable strict refreshes with a resource that only parses and writes JSON."""
    lines = sessions.fill(folder, 1000, 1000)
    with servers.bare(folder) as bare, servers.login_service(folder) as service:
        yield from _refreshes("/tokenrefresh", bare, service, lines, size, least=0.85)


def postgresql(folder: Path, size: Size) -> Iterator[Row]:
    """Measure refreshes, bytes a session and a storm of logins on PostgreSQL."""
    with cluster() as database:
        dsn = database.new_database("sessions")
        lines = sessions.fill_postgresql(folder, dsn, _IN_POSTGRESQL, 1000)
        used = sessions.bytes_in_postgresql(dsn) / _IN_POSTGRESQL
        yield Row(f"PostgreSQL: bytes a session, {_IN_POSTGRESQL:,} sessions", f"{used:.0f}")
        calm, stormy = parts(lines, 2)
        with servers.bare(folder) as bare, servers.login_service(folder, dsn=dsn) as service:
            what = "PostgreSQL: /tokenrefresh"
            yield from _refreshes(what, bare, service, calm, size, least=0.75)
        used = sessions.bytes_in_postgresql(dsn) / _IN_POSTGRESQL
        yield Row("PostgreSQL: the same after the refreshes", f"{used:.0f}")
        with servers.login_service(folder, size.cost, dsn=dsn) as service:
            yield from _storm("PostgreSQL: /tokenrefresh", service, stormy, size)


def _refreshes(
    what: str,
    bare: MeasuredServer,
    service: MeasuredServer,
    lines: Sequence[bytes],
    size: Size,
    least: float,
) -> Iterator[Row]:
    drive(bare, CHAIN, lines, size.refreshes // 4)
    drive(service, CHAIN, lines[-CONNECTIONS:], size.refreshes // 4)
    mine = list(shares(lines, size.rounds))

    def run(server: MeasuredServer, number: int) -> Result:
        return drive(server, CHAIN, mine[number], size.refreshes)

    rounds = interleaved(size.rounds, {"bare": partial(run, bare), "here": partial(run, service)})
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

        def run(server: MeasuredServer, _: int, pace: float | None = None) -> Result:
            return drive(server, INTROSPECT, lines, requests, every_second=pace)

        rounds = interleaved(
            size.rounds,
            {
                "bare": partial(run, bare),
                "here": partial(run, service),
                "paced": partial(run, service, pace=_PACE),
            },
        )
    yield from _against_bare("introspections", rounds, 0.9)
    for side, how in ("here", ""), ("paced", f" at an even {_PACE} a second"):
        what = f"introspections p99 alone, {CONNECTIONS} connections{how}"
        yield rounds.measured(what, side, p99, most=2, unit="ms", quiet=True)


def _against_bare(what: str, rounds: Rounds[Result], least: float) -> Iterator[Row]:
    """Compare runs on the bare resource with runs on this server."""
    yield rounds.compared(
        f"{what} a second, {CONNECTIONS} connections, against the bare resource",
        "here",
        "bare",
        rate,
        least=least,
        quiet=True,
    )
    yield rounds.compared(f"{what} p50", "here", "bare", p50, unit="ms", quiet=True)
    yield rounds.compared(f"{what} p99", "here", "bare", p99, unit="ms", quiet=True)
    yield rounds.compared(
        f"{what}: the load generator's share of a core, here and at the bare resource",
        "here",
        "bare",
        generator,
        digits=2,
    )


def logins(folder: Path, size: Size) -> Iterator[Row]:
    """Compare logins with bcrypt alone in threads."""
    threads = len(os.sched_getaffinity(0))
    password_hash = hash_password(PASSWORD, "", size.cost)
    count = _hashes(size, threads)
    with servers.login_service(folder, size.cost) as service:
        rounds = interleaved(
            size.rounds,
            {
                "bcrypt": lambda _: _bcrypt_rate(password_hash, count, threads),
                "here": lambda _: (
                    drive(service, LOGIN, login_lines(2 * threads), count, 2 * threads).rate
                ),
            },
        )
    yield rounds.compared(
        f"/login a second, bcrypt cost {size.cost}, against bcrypt on {threads} cores",
        "here",
        "bcrypt",
        float,
        least=0.97,
        digits=1,
        quiet=True,
    )


def storm(folder: Path, size: Size) -> Iterator[Row]:
    """Compare refreshes while logins hash without pause with refreshes on a calm server."""
    lines = sessions.fill(folder, 1000, 1000)
    with servers.login_service(folder, size.cost) as service:
        yield from _storm("/tokenrefresh", service, lines, size)


def _storm(what: str, service: MeasuredServer, lines: Sequence[bytes], size: Size) -> Iterator[Row]:
    drive(service, CHAIN, lines[-CONNECTIONS:], size.refreshes // 4)
    mine = list(shares(lines, size.rounds))

    def calm(number: int) -> Result:
        return drive(service, CHAIN, mine[number], size.refreshes)

    def stormy(number: int) -> Result:
        with Storm(service):
            # The calm run refreshes its sessions, so the storm needs others.
            return drive(service, CHAIN, mine[number][CONNECTIONS:], size.refreshes)

    rounds = interleaved(size.rounds, {"calm": calm, "storm": stormy})
    for name, figure, most in (("p50", p50, None), ("p99", p99, 1.5)):
        yield rounds.compared(
            f"{what} {name} while {STORM} logins hash without pause, against calm",
            "storm",
            "calm",
            figure,
            unit="ms",
            most=most,
            quiet=True,
        )
    yield rounds.compared(
        f"{what} a second in the same storm, against calm",
        "storm",
        "calm",
        rate,
        least=0.9,
        quiet=True,
    )


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
