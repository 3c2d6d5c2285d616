"""Compares the standalone server in front of a Synapse that delegates to it with other Synapses.

All servers of a comparison run side by side, each on a database of its own. Rate limits are off
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

from benchmarks import servers
from benchmarks.driving import Listening, drive
from benchmarks.engines import Engine, engines
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.homeserver import costs, logging_in, login_count, rows, run_length
from benchmarks.load import EACH, GET, Result
from benchmarks.rounds import interleaved
from benchmarks.servers import SERVER_NAME, USER, MeasuredServer
from benchmarks.size import Size
from benchmarks.synapses import (
    CHEAP,
    LOCAL_USER,
    Synapse,
    log_in,
    module_config,
    running_synapse,
    synapse_process,
)
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
        for cost in costs(engine, size):
            with (
                running_synapse(folder, "module", engine, cost, module_config(cost)) as inside,
                _delegation(folder, engine, cost) as delegation,
            ):
                log_in(inside.module, USER)
                for connections in (1, CONNECTIONS):
                    count = login_count(size, cost, connections)
                    rounds = interleaved(
                        size.rounds,
                        {
                            "delegation": logging_in(delegation.server, USER, count, connections),
                            "module": logging_in(inside.module, USER, count, connections),
                        },
                    )
                    what = (
                        f"{engine.name}: /login in front of a delegating Synapse, bcrypt cost"
                        f" {cost}, against the module's"
                    )
                    yield from rows(what, connections, rounds, "delegation", "module", most=None)


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
            for connections in (1, CONNECTIONS):
                count = run_length(size, connections) // 2
                using = _Using(delegation, plain, count, connections)
                rounds = interleaved(
                    size.rounds,
                    {
                        "delegating": partial(using.run, "delegating", size.refreshes // 2),
                        "plain": partial(using.run, "plain", size.refreshes // 2),
                    },
                )
                for use in ("first use", "later uses"):
                    what = (
                        f"{engine.name}: {use} of a token at a delegating Synapse, against a plain"
                        " one"
                    )
                    of = rounds.each(itemgetter(use))
                    yield from rows(what, connections, of, "delegating", "plain", most=None)


class _Using:
    """The use of tokens at both Synapses.

    :param count: the number of tokens of one run.
    """

    def __init__(
        self, delegation: Delegation, plain: Synapse, count: int, connections: int
    ) -> None:
        self._count, self._connections = count, connections
        self._logins: dict[str, tuple[Listening, str]] = {
            "delegating": (delegation.server, USER),
            "plain": (plain.own, LOCAL_USER),
        }
        self._synapses: dict[str, Listening] = {
            "delegating": delegation.synapse,
            "plain": plain.own,
        }
        self._unused: dict[str, list[bytes]] = {}

    def run(self, name: str, later_uses: int, _: int) -> dict[str, Result]:
        """Measure first and later uses at a Synapse."""
        if name not in self._unused:
            # What a login leaves to be done in the background then slows both sides alike.
            for each, (server, user) in self._logins.items():
                self._unused[each] = _new_tokens(server, user, self._count)
        lines, at = self._unused.pop(name), self._synapses[name]
        known = lines[: self._connections]
        return {
            "first use": drive(at, EACH, lines, self._count, self._connections),
            "later uses": drive(at, GET, known, later_uses, self._connections),
        }


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
