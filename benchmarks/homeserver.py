"""Compares the module inside a real Synapse, and the standalone server, with plain Synapse.

Both Synapses run side by side, each on a database of its own. Rate limits are off in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from benchmarks import servers, sessions
from benchmarks.driving import STORM, Listening, Storm, drive, p50, p99, rate
from benchmarks.engines import SQLITE, Engine, engines, on_postgresql
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import CHAIN, GET, LENIENT, LOGIN, Result
from benchmarks.rounds import Rounds, interleaved
from benchmarks.servers import USER, MeasuredServer, cluster
from benchmarks.size import Size
from benchmarks.synapses import CHEAP, LOCAL_USER, Synapse, login_request, pair, running_synapse

_MOST = 1.1
_MOST_IN_STORM = 1.5
_LEAST_ALONE = 10.0
_FEW = 100
"""So few requests have no 99th percentile."""


def refreshes(folder: Path, size: Size) -> Iterator[Row]:
    """Compare the module's two refresh endpoints with Synapse's own."""
    for engine in engines(size):
        with pair(folder, engine, CHEAP) as (alone, ours):
            for connections in (1, CONNECTIONS):
                count = run_length(size, connections)

                rounds = interleaved(
                    size.rounds,
                    {
                        "own": _refreshing(
                            LENIENT, alone, alone.own, LOCAL_USER, count, connections
                        ),
                        "/tokenrefresh": _refreshing(
                            CHAIN, ours, ours.module, USER, count, connections
                        ),
                        "/refresh": _refreshing(
                            LENIENT, ours, ours.module, USER, count, connections
                        ),
                    },
                )
                for path in ("/tokenrefresh", "/refresh"):
                    what = f"{engine.name}: the module's {path}, against Synapse's own /refresh"
                    yield from rows(what, connections, rounds, path, "own")


def _refreshing(
    mode: str, synapse: Synapse, listener: Listening, user: str, count: int, connections: int
) -> Callable[[int], Result]:
    """Return a side of a round: refreshes of new sessions."""

    def run(_: int) -> Result:
        tokens = synapse.sessions(listener, user, connections)
        return drive(listener, mode, tokens, count, connections)

    return run


def logins(folder: Path, size: Size) -> Iterator[Row]:
    """Compare the module's ``/login`` with Synapse's own, with hashes of the same cost.

    The module's hashing threads have a lower priority, so other work on this machine slows the
    module alone.
    """
    for engine in engines(size):
        for cost in costs(engine, size):
            with pair(folder, engine, cost) as (alone, ours):
                for connections in (1, CONNECTIONS):
                    count = login_count(size, cost, connections)
                    rounds = interleaved(
                        size.rounds,
                        {
                            "own": logging_in(alone.own, LOCAL_USER, count, connections),
                            "BcryptProvider": logging_in(ours.module, USER, count, connections),
                            "SynapsePasswordProvider": logging_in(
                                ours.module, LOCAL_USER, count, connections
                            ),
                        },
                    )
                    for name in ("BcryptProvider", "SynapsePasswordProvider"):
                        what = (
                            f"{engine.name}: /login by {name}, bcrypt cost {cost},"
                            " against Synapse's own"
                        )
                        yield from rows(what, connections, rounds, name, "own")


def logging_in(
    listener: Listening, user: str, count: int, connections: int
) -> Callable[[int], Result]:
    """Return a side of a round: logins, each for a new device."""
    lines = [json.dumps(login_request(user)).encode("ascii")] * connections
    return lambda _: drive(listener, LOGIN, lines, count, connections)


def storm(folder: Path, size: Size) -> Iterator[Row]:
    """Compare what Synapse serves while logins hash without pause with what it serves when calm."""
    for engine in engines(size):
        with pair(folder, engine, size.cost) as (alone, ours):
            for name, synapse, listener, user, most in (
                ("through the module", ours, ours.module, USER, _MOST_IN_STORM),
                ("through Synapse alone", alone, alone.own, LOCAL_USER, None),
            ):
                yield from _storm(engine.name, name, synapse, Storm(listener, user), most, size)


def _storm(
    engine: str, name: str, synapse: Synapse, logins: Storm, most: float | None, size: Size
) -> Iterator[Row]:
    probes = synapse.probes()
    count = run_length(size, CONNECTIONS)

    def calm(_: int) -> dict[str, Result]:
        return {
            probe: drive(synapse.own, GET, [line] * CONNECTIONS, count)
            for probe, line in probes.items()
        }

    def stormy(number: int) -> dict[str, Result]:
        with logins:
            return calm(number)

    rounds = interleaved(size.rounds, {"calm": calm, "storm": stormy})
    for probe in probes:
        of = rounds.each(itemgetter(probe))
        for figure, value, limit in (("p50", p50, None), ("p99", p99, most)):
            yield of.compared(
                f"{engine}: {probe} {figure} while {STORM} logins hash {name}, against calm",
                "storm",
                "calm",
                value,
                unit="ms",
                most=limit,
                quiet=True,
            )


def standalone(folder: Path, size: Size) -> Iterator[Row]:
    """Compare the standalone server with Synapse's own ``/refresh`` on equal databases."""
    sample = CONNECTIONS * size.rounds
    lines = sessions.fill(folder, 1000, sample)
    with servers.login_service(folder) as service:
        yield _standalone(folder, SQLITE, service, lines, size)
    if size.postgresql:
        with cluster() as database:
            dsn = database.new_database("sessions")
            lines = sessions.fill_postgresql(folder, dsn, 1000, sample)
            with servers.login_service(folder, dsn=dsn) as service:
                yield _standalone(folder, on_postgresql(database), service, lines, size)


def _standalone(
    folder: Path, engine: Engine, service: MeasuredServer, lines: Sequence[bytes], size: Size
) -> Row:
    with running_synapse(folder, "alone", engine, CHEAP, None) as alone:

        def own(_: int) -> Result:
            tokens = alone.sessions(alone.own, LOCAL_USER, CONNECTIONS)
            return drive(alone.own, LENIENT, tokens, run_length(size, CONNECTIONS))

        def here(number: int) -> Result:
            mine = lines[number * CONNECTIONS : (number + 1) * CONNECTIONS]
            return drive(service, CHAIN, mine, size.refreshes)

        rounds = interleaved(size.rounds, {"own": own, "here": here})
    return rounds.compared(
        f"{engine.name}: /tokenrefresh a second without Synapse, {CONNECTIONS} connections,"
        " against Synapse's own /refresh",
        "here",
        "own",
        rate,
        least=_LEAST_ALONE,
        quiet=True,
    )


def rows(
    what: str,
    connections: int,
    rounds: Rounds[Result],
    here: str,
    yardstick: str,
    most: float | None = _MOST,
) -> Iterator[Row]:
    """Yield rows of the times of a request, and at several connections one of the rate.

    A run of few requests has no row of its p99.

    :param here: the name of the side.
    :param yardstick: the name of the side that it is compared with.
    :param most: the limit for the ratio of the times, and its inverse for that of the rates.
    """
    at = f"{connections} connection{'s' if connections > 1 else ''}"
    if connections > 1:
        yield rounds.compared(
            f"{what}, a second, {at}",
            here,
            yardstick,
            rate,
            least=None if most is None else round(1 / most, 2),
            digits=1,
            quiet=True,
        )
    for name, figure in (("p50", p50), ("p99", p99)):
        if name == "p99" and rounds.made[here][0].requests < _FEW:
            continue
        yield rounds.compared(
            f"{what}, {name}, {at}",
            here,
            yardstick,
            figure,
            unit="ms",
            most=most if (connections, name) == (1, "p50") else None,
            quiet=True,
        )


def run_length(size: Size, connections: int) -> int:
    """Return the number of requests of one run; Synapse answers a tenth of what we do alone."""
    return size.refreshes // (5 if connections > 1 else 15)


def costs(engine: Engine, size: Size) -> tuple[int, ...]:
    """Return the costs of bcrypt to log in with; a usual hash hides what the database takes."""
    return (CHEAP, size.cost) if engine is SQLITE else (CHEAP,)


def login_count(size: Size, cost: int, connections: int) -> int:
    """Return the number of logins of one run; there are few where they hash for long."""
    return run_length(size, connections) if cost == CHEAP else max(4, connections)
