"""Compares the module inside a real Synapse, and the standalone server, with plain Synapse.

Both Synapses run side by side, each on a database of its own. Each round measures one after the
other, as in :mod:`benchmarks.measure`. Rate limits are off in both.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import servers, sessions
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import CHAIN, GET, LENIENT, LOGIN, Result
from benchmarks.measure import (
    STORM,
    Listening,
    Size,
    Storm,
    cluster,
    compared,
    drive,
)
from benchmarks.servers import PASSWORD, SERVER_NAME, USER, MeasuredServer
from synapse_login_module.passwords import hash_password
from tests.support import http
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.process import Process
from tests.support.synapse import config

LOCAL_USER = "bob"
"""A user with a local password; :data:`~benchmarks.servers.USER` has one at the provider."""

CHEAP = 4
"""The lowest cost of bcrypt, at which nearly all of a login is something else."""

_MOST = 1.1
_PROVIDERS = "synapse_login_module.providers"


@dataclass(frozen=True)
class Engine:
    """A kind of database.

    :param configure: makes Synapse's ``database`` section from a folder and a name.
    """

    name: str
    configure: Callable[[Path, str], dict[str, Any]]


@dataclass(frozen=True)
class Port:
    """A port of a Synapse."""

    port: int


class Synapse:
    """A running Synapse with one account.

    :ivar own: Synapse's own client API.
    :ivar module: the module's listener; without the module it has no handlers.
    :ivar pid: the process id.
    """

    def __init__(self, own: int, module: int, pid: int) -> None:
        self.own = Port(own)
        self.module = Port(module)
        self.pid = pid
        account = {"username": LOCAL_USER, "password": PASSWORD}
        dummy = {"type": "m.login.dummy"}
        self.token = _post(self.own, "register", {**account, "auth": dummy})["access_token"]

    def sessions(self, listener: Listening, user: str, count: int) -> list[bytes]:
        """Log in ``count`` times; return the access and refresh token of each session."""
        made = [log_in(listener, user) for _ in range(count)]
        return [f"{each['access_token']} {each['refresh_token']}".encode() for each in made]

    def probes(self) -> dict[str, bytes]:
        """Return requests that need no hashing, as lines for the load generator."""
        path = "v3/sync?timeout=0"
        since = _ask(self.own, "GET", path, token=self.token)["next_batch"]
        paths = {"/sync": f"{path}&since={since}", "/versions": "versions"}
        return {name: f"{path} {self.token}".encode() for name, path in paths.items()}


def refreshes(folder: Path, size: Size) -> Iterator[Row]:
    """Compare the module's two refresh endpoints with Synapse's own."""
    for engine in engines(size):
        with _pair(folder, engine, CHEAP) as (alone, ours):
            for connections in (1, CONNECTIONS):
                count = run_length(size, connections)
                made: dict[str, list[Result]] = {"own": [], "strict": [], "lenient": []}
                for _ in range(size.rounds):
                    for name, mode, lines, listener in (
                        ("own", LENIENT, (alone, alone.own, LOCAL_USER), alone.own),
                        ("strict", CHAIN, (ours, ours.module, USER), ours.module),
                        ("lenient", LENIENT, (ours, ours.module, USER), ours.module),
                    ):
                        synapse, where, user = lines
                        tokens = synapse.sessions(where, user, connections)
                        made[name].append(drive(listener, mode, tokens, count, connections))
                for name, path in (("strict", "/tokenrefresh"), ("lenient", "/refresh")):
                    what = f"{engine.name}: the module's {path}, against Synapse's own /refresh"
                    yield from rows(what, connections, made[name], made["own"])


def logins(folder: Path, size: Size) -> Iterator[Row]:
    """Compare the module's ``/login`` with Synapse's own, with hashes of the same cost.

    The module's hashing threads have a lower priority, so other work on this machine slows the
    module alone.
    """
    for engine in engines(size):
        for cost in (CHEAP, size.cost):
            with _pair(folder, engine, cost) as (alone, ours):
                for connections in (1, CONNECTIONS):
                    count = login_count(size, cost, connections)
                    yield from _logins(engine.name, alone, ours, cost, connections, count, size)


def _logins(
    engine: str, alone: Synapse, ours: Synapse, cost: int, connections: int, count: int, size: Size
) -> Iterator[Row]:
    sides = (
        ("own", alone.own, LOCAL_USER),
        ("BcryptProvider", ours.module, USER),
        ("SynapsePasswordProvider", ours.module, LOCAL_USER),
    )
    made: dict[str, list[Result]] = {name: [] for name, _, _ in sides}
    for _ in range(size.rounds):
        for name, listener, user in sides:
            lines = [json.dumps(login_request(user)).encode("ascii")] * connections
            made[name].append(drive(listener, LOGIN, lines, count, connections))
    for name in made:
        if name != "own":
            what = f"{engine}: /login by {name}, bcrypt cost {cost}, against Synapse's own"
            yield from rows(what, connections, made[name], made["own"])


def storm(folder: Path, size: Size) -> Iterator[Row]:
    """Compare what Synapse serves while logins hash without pause with what it serves when calm."""
    for engine in engines(size):
        with _pair(folder, engine, size.cost) as (alone, ours):
            sides = (
                ("through the module", ours, ours.module, USER, 2.0),
                ("through Synapse alone", alone, alone.own, LOCAL_USER, None),
            )
            made: dict[tuple[str, str], list[list[Result]]] = {}
            for _ in range(size.rounds):
                for name, synapse, listener, user, _ in sides:
                    probes = synapse.probes()
                    calm = [_probe(synapse, line, size) for line in probes.values()]
                    with Storm(listener, user):
                        stormy = [_probe(synapse, line, size) for line in probes.values()]
                    for probe, *both in zip(probes, calm, stormy, strict=True):
                        made.setdefault((name, probe), []).append(both)
            for name, _, _, _, most in sides:
                for probe in probes:
                    yardsticks, here = zip(*made[name, probe], strict=True)
                    for figure in ("p50", "p99"):
                        yield compared(
                            f"{engine.name}: {probe} {figure} while {STORM} logins hash {name},"
                            " against calm",
                            _milliseconds(here, figure),
                            _milliseconds(yardsticks, figure),
                            unit="ms",
                            most=most if figure == "p99" else None,
                        )


def standalone(folder: Path, size: Size) -> Iterator[Row]:
    """Compare the standalone server with Synapse's own ``/refresh`` on equal databases."""
    sample = CONNECTIONS * size.rounds
    lines = sessions.fill(folder, 1000, sample)
    with servers.login_service(folder) as service:
        yield _standalone(folder, Engine("SQLite", sqlite_engine), service, lines, size, least=6.0)
    if size.postgresql:
        with cluster() as database:
            dsn = database.new_database("sessions")
            lines = sessions.fill_postgresql(folder, dsn, 1000, sample)
            engine = Engine("PostgreSQL", partial(_postgresql, database))
            with servers.login_service(folder, dsn=dsn) as service:
                yield _standalone(folder, engine, service, lines, size, least=5.0)


def _standalone(
    folder: Path,
    engine: Engine,
    service: MeasuredServer,
    lines: Sequence[bytes],
    size: Size,
    least: float,
) -> Row:
    own, here = [], []
    with running_synapse(folder, "alone", engine, CHEAP, None) as alone:
        for index in range(size.rounds):
            tokens = alone.sessions(alone.own, LOCAL_USER, CONNECTIONS)
            own.append(drive(alone.own, LENIENT, tokens, run_length(size, CONNECTIONS)).rate)
            mine = lines[index * CONNECTIONS : (index + 1) * CONNECTIONS]
            here.append(drive(service, CHAIN, mine, size.refreshes).rate)
    return compared(
        f"{engine.name}: /tokenrefresh a second without Synapse, {CONNECTIONS} connections,"
        " against Synapse's own /refresh",
        here,
        own,
        least=least,
    )


def rows(
    what: str,
    connections: int,
    here: Sequence[Result],
    own: Sequence[Result],
    most: float | None = _MOST,
) -> Iterator[Row]:
    """Yield a row of the median time of a request, and at several connections one of the rate.

    :param most: the limit for the ratio of the times, and its inverse for that of the rates.
    """
    at = f"{connections} connection{'s' if connections > 1 else ''}"
    if connections > 1:
        yield compared(
            f"{what}, a second, {at}",
            [each.rate for each in here],
            [each.rate for each in own],
            least=None if most is None else round(1 / most, 2),
            digits=1,
        )
    for figure in ("p50", "p99"):
        yield compared(
            f"{what}, {figure}, {at}",
            _milliseconds(here, figure),
            _milliseconds(own, figure),
            unit="ms",
            most=most if (connections, figure) == (1, "p50") else None,
        )


def _milliseconds(results: Sequence[Result], figure: str) -> list[float]:
    return [getattr(each, figure) * 1000 for each in results]


def run_length(size: Size, connections: int) -> int:
    """Return the number of requests of one run; Synapse answers a tenth of what we do alone."""
    return size.refreshes // (5 if connections > 1 else 15)


def login_count(size: Size, cost: int, connections: int) -> int:
    """Return the number of logins of one run; there are few where they hash for long."""
    return run_length(size, connections) if cost == CHEAP else max(8, 2 * connections)


def _probe(synapse: Synapse, line: bytes, size: Size) -> Result:
    return drive(synapse.own, GET, [line] * CONNECTIONS, run_length(size, CONNECTIONS))


# What is measured.


@contextmanager
def with_accounts(folder: Path, cost: int) -> Iterator[Synapse]:
    """Run a Synapse on SQLite with the module, fallback to local passwords, and all kinds of
    accounts.

    :data:`~benchmarks.servers.USER` is linked. ``first`` has never logged in. :data:`LOCAL_USER`
    has a local password. ``both`` has a local password and one at the provider, and is not linked.
    All but ``first`` have an e-mail address in Synapse, ``<name>@example.com``.

    :param cost: the cost of all bcrypt hashes.
    """
    entry = {"password_hash": hash_password(PASSWORD, "", cost)}
    users = dict.fromkeys((USER, "first", "both"), entry)
    module = {
        "password_providers": [
            {"module": f"{_PROVIDERS}.BcryptProvider", "config": {"users": users}}
        ],
        "rate_limits": {"address": None, "account": None, "failed_attempts": None},
        "hashing": {"rounds": cost},
    }
    engine = Engine("SQLite", sqlite_engine)
    with running_synapse(folder, "accounts", engine, cost, module) as synapse:
        account = {"username": "both", "password": f"not {PASSWORD}"}
        _post(synapse.own, "register", {**account, "auth": {"type": "m.login.dummy"}})
        log_in(synapse.module, USER)
        connection = sqlite3.connect(folder / f"sqlite-accounts-{cost}" / "homeserver.db")
        with closing(connection), connection:
            connection.executemany(
                "INSERT INTO user_threepids (user_id, medium, address, validated_at, added_at)"
                " VALUES (?, 'email', ?, 0, 0)",
                [
                    (f"@{name}:{SERVER_NAME}", f"{name}@example.com")
                    for name in (USER, LOCAL_USER, "both")
                ],
            )
        yield synapse


def engines(size: Size) -> Iterator[Engine]:
    """Yield the databases to measure on; PostgreSQL runs until the next is asked for."""
    yield Engine("SQLite", sqlite_engine)
    if size.postgresql:
        with cluster() as database:
            yield Engine("PostgreSQL", partial(_postgresql, database))


def sqlite_engine(folder: Path, name: str) -> dict[str, Any]:
    """Configure an SQLite database in the folder."""
    return {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}}


def _postgresql(database: PostgreSQL, folder: Path, name: str) -> dict[str, Any]:
    database.new_database(name)
    where = {"host": "127.0.0.1", "port": database.port, "user": "postgres", "dbname": name}
    return {"name": "psycopg2", "args": {**where, "cp_min": 5, "cp_max": 10}}


@contextmanager
def _pair(folder: Path, engine: Engine, cost: int) -> Iterator[tuple[Synapse, Synapse]]:
    """Run a Synapse without the module and one with it.

    :param cost: the cost of the bcrypt hashes in both.
    """
    with (
        running_synapse(folder, "alone", engine, cost, None) as alone,
        running_synapse(folder, "module", engine, cost, module_config(cost)) as ours,
    ):
        yield alone, ours


def module_config(cost: int) -> dict[str, Any]:
    """Return the module's configuration, with an account of the provider and with local passwords.

    :param cost: the cost of the bcrypt hashes.
    """
    users = {USER: {"password_hash": hash_password(PASSWORD, "", cost)}}
    return {
        "password_providers": [
            {"module": f"{_PROVIDERS}.BcryptProvider", "config": {"users": users}},
            {"module": f"{_PROVIDERS}.SynapsePasswordProvider"},
        ],
        "rate_limits": {"address": None, "account": None, "failed_attempts": None},
        "hashing": {"rounds": cost},
    }


@contextmanager
def running_synapse(
    folder: Path, name: str, engine: Engine, cost: int, module: Mapping[str, Any] | None
) -> Iterator[Synapse]:
    """Run a Synapse for as long as a ``with`` statement lasts.

    :param cost: the cost of its bcrypt hashes.
    :param module: the module's configuration; ``None`` for a Synapse without it.
    """
    second = free_port()
    more: dict[str, Any] = {
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "refresh_token_lifetime": "30d",
        "bcrypt_rounds": cost,
    }
    if module is not None:
        entry = {"module": "synapse_login_module.SynapseLoginModule", "config": dict(module)}
        more["modules"] = [entry]
    listeners = [config.listener(second)]
    with synapse_process(folder, f"{name}-{cost}", engine, more, listeners) as server:
        yield Synapse(server.port, second, server.pid)


@contextmanager
def synapse_process(
    folder: Path,
    name: str,
    engine: Engine,
    more: Mapping[str, Any],
    listeners: Sequence[Mapping[str, Any]] = (),
) -> Iterator[MeasuredServer]:
    """Run the process of a Synapse for as long as a ``with`` statement lasts.

    :param more: further keys of its configuration.
    :param listeners: further listeners beside that of its client API.
    """
    place = folder / f"{engine.name}-{name}".lower()
    place.mkdir()
    port = free_port()
    database = engine.configure(place, name.replace("-", ""))
    config.write_signing_key(place)
    config.write_logging(place, "main")
    file = place / "homeserver.yaml"
    whole = config.homeserver_config(
        place,
        SERVER_NAME,
        [config.listener(port, "client"), *listeners],
        database,
        background_updates={"sleep_enabled": False},
        **more,
    )
    config.write_yaml(file, whole)
    command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(file)]
    with MeasuredServer(Process(command, place / "output"), port) as server:
        _wait_for_indexes(place / "main.log")
        yield server


def _wait_for_indexes(log: Path) -> None:
    """Wait for the background updates of a new database, which make some of its indexes."""
    deadline = time.monotonic() + 300
    while "No more background updates" not in log.read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"{log}: the background updates do not end")
        time.sleep(0.5)


def login_request(user: str) -> dict[str, Any]:
    """Return a login request as clients send it: for a new device, with a refresh token."""
    identifier = {"type": "m.id.user", "user": user}
    credentials = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    return {**credentials, "refresh_token": True}


def log_in(listener: Listening, user: str) -> dict[str, Any]:
    return _post(listener, "login", login_request(user))


def _post(listener: Listening, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return _ask(listener, "POST", f"v3/{path}", body)


def _ask(
    listener: Listening,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    status, content = http.ask(listener.port, method, f"/_matrix/client/{path}", body, token)
    if status != 200:
        raise SystemExit(f"{path}: {status} {content!r}")
    answer: dict[str, Any] = json.loads(content)
    return answer
