"""Rejected logins: how long each kind takes, so that the time does not tell the reason.

The logins run one after the other over one connection, in turn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import synapses
from benchmarks.backends import BACKENDS, GONE, LOCKED, TWIN
from benchmarks.driving import MeasurementError
from benchmarks.figures import Row
from benchmarks.machine import processor_time
from benchmarks.rounds import Rounds, interleaved
from benchmarks.servers import PASSWORD, USER, login_service
from benchmarks.size import Size

ALLOWED = 0.03
WRONG, UNKNOWN = "wrong password", "unknown user"
MILLISECONDS_TO_BACKEND = 10.0

_PATH = "/_matrix/client/v3/login"
_TIMES_ROUNDS = 3
"""Rounds here are short, and three per cent need many of them."""


class Taken(NamedTuple):
    """What one rejected login took.

    :ivar waited: the milliseconds that the client waited.
    :ivar worked: the milliseconds that the server's threads ran; 0 where nobody counts them.
    """

    waited: float
    worked: float


def standalone(folder: Path, size: Size) -> Iterator[Row]:
    """Compare the rejections of the standalone server with one another."""
    made = of_standalone(folder, _TIMES_ROUNDS * size.rounds, size.cost)
    yield from _rows("rejected login", made)


def in_synapse(folder: Path, size: Size) -> Iterator[Row]:
    """Compare those of the module, at its own listener and at Synapse's."""
    for name, made in of_synapse(folder, _TIMES_ROUNDS * size.rounds, size.cost):
        yield from _rows(f"rejected login at the {name}", made)


def at_backends(folder: Path, size: Size) -> Iterator[Row]:
    """Compare those of servers whose accounts are in a directory, a database or a service."""
    for backend in BACKENDS:
        place = folder / backend
        place.mkdir()
        rounds = _TIMES_ROUNDS * size.rounds
        for name, made in of_backend(place, backend, rounds, MILLISECONDS_TO_BACKEND):
            yield from _rows(f"rejected login, {name}", made, works=False)


def _rows(what: str, made: Rounds[Taken], works: bool = True) -> Iterator[Row]:
    """Yield a row of the two kinds that differ most, in each kind of time.

    :param works: whether the processor's time is much of it. Else it shows where a difference comes
        from, but not whether a client could see it.
    """
    kinds = [("the client waits", waited, True)]
    if works and all(each.worked for each in made.made[WRONG]):
        kinds.append(("the processor works", worked, False))
    for time_of, figure, quiet in kinds:
        medians = {kind: median(map(figure, each)) for kind, each in made.made.items()}
        cheapest, dearest = (pick(medians, key=medians.__getitem__) for pick in (min, max))
        yield made.compared(
            f"{what}, {time_of}: {dearest}, against {cheapest}",
            dearest,
            cheapest,
            figure,
            most=1 + ALLOWED,
            unit="ms",
            quiet=quiet,
        )


def waited(taken: Taken) -> float:
    """Return the milliseconds that the client waited."""
    return taken.waited


def worked(taken: Taken) -> float:
    """Return the milliseconds that the server's threads ran."""
    return taken.worked


def of_standalone(folder: Path, rounds: int, cost: int) -> Rounds[Taken]:
    """Measure the standalone server."""
    others = {LOCKED: {"locked": True}, GONE: {"deactivated": True}}
    with login_service(folder, cost, others) as server:
        connection = HTTPConnection("127.0.0.1", server.port)
        made = measure(connection, _refused(connection), rounds, server.pid)
        connection.close()
    return made


def of_synapse(folder: Path, rounds: int, cost: int) -> Iterator[tuple[str, Rounds[Taken]]]:
    """Measure the module; yield the names of the listeners, and what was measured there."""
    bodies = {
        WRONG: password_login(USER),
        "has never logged in": password_login("first"),
        "local password": password_login(synapses.LOCAL_USER),
        "both passwords": password_login("both"),
        UNKNOWN: password_login("nobody"),
        "linked, by e-mail": _email(USER),
        "local password, by e-mail": _email(synapses.LOCAL_USER),
        "both passwords, by e-mail": _email("both"),
        "unknown e-mail address": _email("nobody"),
    }
    with synapses.with_accounts(folder, cost) as synapse:
        for name, listener in (("module", synapse.module), ("Synapse", synapse.own)):
            connection = HTTPConnection("127.0.0.1", listener.port)
            yield name, measure(connection, bodies, rounds, synapse.pid)
            connection.close()


def of_backend(
    folder: Path, backend: str, rounds: int, delay: float
) -> Iterator[tuple[str, Rounds[Taken]]]:
    """Measure the server with accounts in a backend; yield the names of the configurations.

    :param delay: the milliseconds of each way to the backend.
    """
    bodies = {
        WRONG: password_login(USER),
        UNKNOWN: password_login("nobody"),
        "another server's user": password_login(f"@{USER}:elsewhere.example"),
        "wrong password, by e-mail": _email(USER),
        "unknown e-mail address": _email("nobody"),
    }
    if backend == "ldap":
        bodies["locked, wrong password"] = password_login(LOCKED)
        bodies["deactivated, wrong password"] = password_login(GONE)
        bodies["several entries"] = password_login(TWIN)
        bodies["several entries, by e-mail"] = _email(TWIN)
    else:
        # These cannot be our users, so no request is sent to the backend.
        del bodies["another server's user"]
    with BACKENDS[backend](folder, delay / 1000) as servers:
        for name, server in servers.items():
            connection = HTTPConnection("127.0.0.1", server.port)
            yield name, measure(connection, bodies, rounds, server.pid)
            connection.close()


def measure(
    connection: HTTPConnection, bodies: Mapping[str, bytes], rounds: int, pid: int
) -> Rounds[Taken]:
    """Measure logins that are rejected.

    :param bodies: the requests, by their kind.
    :param pid: the server's process.
    """

    def log_in(body: bytes, _: int) -> Taken:
        before, began = processor_time(pid), time.perf_counter()
        _ask(connection, _PATH, body, status=403)
        took = time.perf_counter() - began
        return Taken(took * 1000, (processor_time(pid) - before) * 1000)

    return interleaved(rounds, {kind: partial(log_in, body) for kind, body in bodies.items()})


def _refused(connection: HTTPConnection) -> dict[str, bytes]:
    """Return logins that all get the same response, by the reason of their rejection."""
    used = _used_token(connection)
    tampered = used[:-1] + ("A" if used[-1] != "A" else "B")
    return {
        WRONG: password_login(USER),
        UNKNOWN: password_login("nobody"),
        "locked, wrong password": password_login(LOCKED),
        "deactivated, wrong password": password_login(GONE),
        "another server's user": password_login(f"@{USER}:elsewhere.example"),
        "unknown e-mail address": _email("nobody"),
        "no login token": _json({"type": "m.login.token", "token": "nonsense"}),
        "made-up login token": _json({"type": "m.login.token", "token": tampered}),
        "used login token": _json({"type": "m.login.token", "token": used}),
    }


def password_login(user: str, password: str = "wrong") -> bytes:
    return _json({"type": "m.login.password", "user": user, "password": password})


def _email(name: str) -> bytes:
    address = {"type": "m.id.thirdparty", "medium": "email", "address": f"{name}@example.com"}
    return _json({"type": "m.login.password", "identifier": address, "password": "wrong"})


def _json(body: object) -> bytes:
    return json.dumps(body).encode("ascii")


def _used_token(connection: HTTPConnection) -> str:
    login = _ask(connection, _PATH, password_login(USER, PASSWORD))
    auth = json.loads(password_login(USER, PASSWORD))
    made = _ask(connection, f"{_PATH}/get_token", _json({"auth": auth}), str(login["access_token"]))
    token = str(made["login_token"])
    _ask(connection, _PATH, _json({"type": "m.login.token", "token": token}))
    return token


def _ask(
    connection: HTTPConnection, path: str, body: bytes, token: str = "", status: int = 200
) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer: dict[str, object] = json.loads(response.read())
    if response.status != status:
        raise MeasurementError(f"{response.status} instead of {status}: {answer}")
    return answer
