"""Compares the standalone server in front of a Synapse that delegates to it with other Synapses.

All servers of a comparison run side by side, each on a database of its own. Each round measures one
side after the other, as in :mod:`benchmarks.measure`. Rate limits are off everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import servers
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.homeserver import (
    CHEAP,
    LOCAL_USER,
    Engine,
    engines,
    log_in,
    login_count,
    login_request,
    module_config,
    rows,
    run_length,
    running_synapse,
    synapse_process,
)
from benchmarks.load import EACH, GET, LOGIN, Result
from benchmarks.measure import Listening, Size, drive
from benchmarks.servers import SERVER_NAME, USER, MeasuredServer
from tests.support.ports import free_port
from tests.support.synapse.delegating import SECRET, SECRET_FILE, delegating

_HOMESERVER = "synapse_login_module.homeservers.SynapseHomeserver"
_WHOAMI = "v3/account/whoami"


@dataclass(frozen=True)
class Delegation:
    """The standalone server and a Synapse that delegates to it.

    :param server: the server; its user :data:`~benchmarks.servers.USER` has logged in.
    :param synapse: the Synapse.
    """

    server: MeasuredServer
    synapse: MeasuredServer


def logins(folder: Path, size: Size) -> Iterator[Row]:
    """Compare logins in front of a delegating Synapse with the module's inside a Synapse.

    Each login is for a new device. Both providers are BcryptProvider. The standalone server keeps
    its sessions in the same kind of database as the two Synapses.
    """
    for engine in engines(size):
        for cost in (CHEAP, size.cost):
            with (
                running_synapse(folder, "module", engine, cost, module_config(cost)) as inside,
                _delegation(folder, engine, cost) as delegation,
            ):
                log_in(inside.module, USER)
                for connections in (1, CONNECTIONS):
                    count = login_count(size, cost, connections)
                    here: list[Result] = []
                    module: list[Result] = []
                    for _ in range(size.rounds):
                        here.append(_logins(delegation.server, count, connections))
                        module.append(_logins(inside.module, count, connections))
                    what = (
                        f"{engine.name}: /login in front of a delegating Synapse, bcrypt cost"
                        f" {cost}, against the module's"
                    )
                    yield from rows(what, connections, here, module, most=None)


def tokens(folder: Path, size: Size) -> Iterator[Row]:
    """Compare uses of tokens at a delegating Synapse with uses at a Synapse with its own tokens.

    At the first use, the delegating Synapse asks the server about the token, and the plain one asks
    its database. Both remember the answer for the later uses.
    """
    for engine in engines(size):
        with (
            running_synapse(folder, "plain", engine, CHEAP, None) as plain,
            _delegation(folder, engine, CHEAP) as delegation,
        ):
            sides = (
                ("delegating", delegation.synapse, delegation.server, USER),
                ("plain", plain.own, plain.own, LOCAL_USER),
            )
            for connections in (1, CONNECTIONS):
                count = run_length(size, connections)
                first: dict[str, list[Result]] = {name: [] for name, *_ in sides}
                later: dict[str, list[Result]] = {name: [] for name, *_ in sides}
                for _ in range(size.rounds):
                    # What a login leaves to be done in the background then slows both sides alike.
                    unused = {
                        name: _new_tokens(login_at, user, count)
                        for name, _, login_at, user in sides
                    }
                    for name, synapse, _, _ in sides:
                        lines = unused[name]
                        first[name].append(drive(synapse, EACH, lines, count, connections))
                        known = lines[:connections]
                        later[name].append(drive(synapse, GET, known, size.refreshes, connections))
                for use, made in (("first use", first), ("later uses", later)):
                    what = (
                        f"{engine.name}: {use} of a token at a delegating Synapse, against a plain"
                        " one"
                    )
                    yield from rows(what, connections, made["delegating"], made["plain"], most=None)


def _logins(server: Listening, count: int, connections: int) -> Result:
    lines = [json.dumps(login_request(USER)).encode("ascii")] * connections
    return drive(server, LOGIN, lines, count, connections)


def _new_tokens(server: Listening, user: str, count: int) -> list[bytes]:
    """Log in; return requests with tokens that were never used, as lines for the load generator."""
    logged_in = [log_in(server, user) for _ in range(count)]
    return [f"{_WHOAMI} {each['access_token']}".encode("ascii") for each in logged_in]


@contextmanager
def _delegation(folder: Path, engine: Engine, cost: int) -> Iterator[Delegation]:
    """Run the two servers for as long as a ``with`` statement lasts.

    :param engine: the kind of database of both.
    :param cost: the cost of the bcrypt hashes.
    """
    place = folder / f"{engine.name}-server-{cost}".lower()
    place.mkdir()
    secret = place / SECRET_FILE
    secret.write_text(f"{SECRET}\n")
    internal = free_port()
    keys = dict(delegating("measured", internal).synapse)
    keys["matrix_authentication_service"] = {
        **keys["matrix_authentication_service"],
        "secret_path": str(secret),
    }
    with synapse_process(folder, f"delegating-{cost}", engine, keys) as synapse:
        homeserver = {
            "module": _HOMESERVER,
            "config": {
                "url": f"http://127.0.0.1:{synapse.port}",
                "secret_file": str(secret),
            },
        }
        service = servers.login_service(
            place,
            cost,
            dsn=_dsn(engine, place, f"sessions{cost}"),
            more={
                "internal_listen": [f"tcp:{internal}:interface=127.0.0.1"],
                "public_baseurl": f"https://{SERVER_NAME}",
                "homeserver": homeserver,
                "hashing": {"rounds": cost},
            },
        )
        with service as server:
            log_in(server, USER)
            yield Delegation(server, synapse)


def _dsn(engine: Engine, folder: Path, name: str) -> str | None:
    """Make a PostgreSQL database for the sessions; ``None`` where they are in SQLite."""
    database = engine.configure(folder, name)
    if database["name"] == "sqlite3":
        return None
    return " ".join(f"{key}={database['args'][key]}" for key in ("host", "port", "user", "dbname"))
