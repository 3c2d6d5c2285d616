"""``python -m benchmarks.timing``: does the time of a rejected login reveal the reason?

The logins run one after the other over one connection, in another order each round, so that other
load on the machine affects all kinds alike. The medians are compared. On a busy machine they are
too noisy; then look at the server's processor time, which other load hardly changes.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from http.client import HTTPConnection
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from statistics import median, quantiles

from benchmarks import hash_timing, synapses
from benchmarks.backends import BACKENDS, GONE, LOCKED, TWIN
from benchmarks.machine import processor_time
from benchmarks.servers import PASSWORD, USER, login_service

ALLOWED = 0.03
_ERROR = 0.93
"""The standard error of a median, as a multiple of the interquartile range over the root of n."""
_PATH = "/_matrix/client/v3/login"
_WAITED = "the client waits"
_LOCKED, _DEACTIVATED = "larry", "dora"

Times = dict[str, list[float]]
"""The milliseconds of each login, by its kind."""


def main() -> None:
    """Parse the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="logins of each kind (200)")
    parser.add_argument("--cost", type=int, default=12, help="the cost of the bcrypt hashes (12)")
    parser.add_argument(
        "--of",
        choices=("standalone", "hashes", "synapse", *BACKENDS),
        nargs="+",
        default=("standalone", *(("synapse",) if find_spec("synapse") else ())),
        help="the standalone server, the same with each format of hashes, the module in Synapse, or"
        " the server with accounts in a directory, a database or a service (the first and the"
        " module, if Synapse is there)",
    )
    parser.add_argument(
        "--delay",
        type=float,
        default=10.0,
        help="milliseconds of each way to a directory or a service (10)",
    )
    options = parser.parse_args()
    print(f"logins of each kind: {options.rounds}, bcrypt's cost: {options.cost}")
    results = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        if "standalone" in options.of:
            results += _standalone(Path(folder), options.rounds, options.cost)
        if "hashes" in options.of:
            results += hash_timing.measure(Path(folder), _taking(options.rounds), ALLOWED)
        if "synapse" in options.of:
            results += _in_synapse(Path(folder), options.rounds, options.cost)
        for backend in BACKENDS:
            if backend in options.of:
                results += _elsewhere(Path(folder), backend, options.rounds, options.delay)
    raise SystemExit(0 if all(results) else 1)


def _standalone(folder: Path, rounds: int, cost: int) -> list[bool]:
    """Measure the standalone server; return whether its times reveal nothing."""
    others = {_LOCKED: {"locked": True}, _DEACTIVATED: {"deactivated": True}}
    with login_service(folder, cost, others) as server:
        connection = HTTPConnection("127.0.0.1", server.port)
        taken = _measure(connection, _refused(connection), rounds, server.pid)
        connection.close()
    return [_report(what, times) for what, times in taken.items()]


def _in_synapse(folder: Path, rounds: int, cost: int) -> list[bool]:
    """Measure the module, at its own listener and at Synapse's."""
    bodies = {
        "linked": _password(USER),
        "has never logged in": _password("first"),
        "local password": _password(synapses.LOCAL_USER),
        "both passwords": _password("both"),
        "unknown user": _password("nobody"),
        "linked, by e-mail": _email(USER),
        "local password, by e-mail": _email(synapses.LOCAL_USER),
        "both passwords, by e-mail": _email("both"),
        "unknown e-mail address": _email("nobody"),
    }
    results = []
    with synapses.with_accounts(folder, cost) as synapse:
        for name, listener in (("module", synapse.module), ("Synapse", synapse.own)):
            connection = HTTPConnection("127.0.0.1", listener.port)
            taken = _measure(connection, bodies, rounds, synapse.pid)
            connection.close()
            results += [_report(f"{name}: {what}", times) for what, times in taken.items()]
    return results


def _elsewhere(folder: Path, backend: str, rounds: int, delay: float) -> list[bool]:
    """Measure the server with accounts in a backend. Only the time at the client counts.

    Little processor time is used: it shows where a difference comes from, but not whether a client
    could see it.

    :param delay: the milliseconds of each way to the backend.
    """
    print(f"each way to the backend takes {delay:g} ms")
    bodies = {
        "wrong password": _password(USER),
        "unknown user": _password("nobody"),
        "another server's user": _password(f"@{USER}:elsewhere.example"),
        "wrong password, by e-mail": _email(USER),
        "unknown e-mail address": _email("nobody"),
    }
    if backend == "ldap":
        bodies["locked, wrong password"] = _password(LOCKED)
        bodies["deactivated, wrong password"] = _password(GONE)
        bodies["several entries"] = _password(TWIN)
        bodies["several entries, by e-mail"] = _email(TWIN)
    if backend != "ldap":
        # These cannot be our users, so no request is sent to the backend.
        del bodies["another server's user"]
    results = []
    with BACKENDS[backend](folder, delay / 1000) as servers:
        for name, server in servers.items():
            connection = HTTPConnection("127.0.0.1", server.port)
            taken = _measure(connection, bodies, rounds, server.pid)
            connection.close()
            for what, times in taken.items():
                told = _report(f"{name}: {what}", times, judged=what == _WAITED)
                if what == _WAITED:
                    results.append(told)
    return results


def _taking(rounds: int) -> hash_timing.Take:
    """Return a function that measures wrong passwords and an unknown user."""
    bodies = {"wrong password": _password(USER), "unknown user": _password("nobody")}
    return lambda connection, pid: _measure(connection, bodies, rounds, pid)


def _refused(connection: HTTPConnection) -> dict[str, bytes]:
    """Return logins that all get the same response, by the reason of their rejection."""
    used = _used_token(connection)
    tampered = used[:-1] + ("A" if used[-1] != "A" else "B")
    return {
        "wrong password": _password(USER),
        "unknown user": _password("nobody"),
        "locked, wrong password": _password(_LOCKED),
        "deactivated, wrong password": _password(_DEACTIVATED),
        "another server's user": _password(f"@{USER}:elsewhere.example"),
        "unknown e-mail address": _email("nobody"),
        "no login token": _json({"type": "m.login.token", "token": "nonsense"}),
        "made-up login token": _json({"type": "m.login.token", "token": tampered}),
        "used login token": _json({"type": "m.login.token", "token": used}),
    }


def _password(user: str, password: str = "wrong") -> bytes:
    return _json({"type": "m.login.password", "user": user, "password": password})


def _email(name: str) -> bytes:
    address = {"type": "m.id.thirdparty", "medium": "email", "address": f"{name}@example.com"}
    return _json({"type": "m.login.password", "identifier": address, "password": "wrong"})


def _json(body: object) -> bytes:
    return json.dumps(body).encode("ascii")


def _used_token(connection: HTTPConnection) -> str:
    login = _ask(connection, _PATH, _password(USER, PASSWORD))
    auth = json.loads(_password(USER, PASSWORD))
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
        raise SystemExit(f"{response.status} instead of {status}: {answer}")
    return answer


def _measure(
    connection: HTTPConnection, bodies: dict[str, bytes], rounds: int, pid: int
) -> dict[str, Times]:
    waited: Times = {kind: [] for kind in bodies}
    worked: Times = {kind: [] for kind in bodies}
    kinds = list(bodies)
    for _ in range(rounds):
        random.shuffle(kinds)
        for kind in kinds:
            before, began = processor_time(pid), time.perf_counter()
            _ask(connection, _PATH, bodies[kind], status=403)
            waited[kind].append((time.perf_counter() - began) * 1000)
            worked[kind].append((processor_time(pid) - before) * 1000)
    known = {"the processor works": worked} if processor_time(pid) else {}
    return {_WAITED: waited, **known}


def _report(what: str, times: Times, judged: bool = True) -> bool:
    """Print a table and a verdict; return whether no kind differs from another.

    :param judged: whether to give a verdict.
    """
    medians = {kind: median(each) for kind, each in times.items()}
    usual = median(medians.values())
    print(f"\n{what:30}{'median':>12}{'to the usual':>16}{'known to':>12}{'middle half':>24}")
    doubts = []
    for kind, each in times.items():
        low, _, high = quantiles(each, n=4)
        doubts.append(_ERROR * (high - low) / sqrt(len(each)) / usual)
        print(
            f"{kind:30}{medians[kind]:9.1f} ms{medians[kind] / usual - 1:+16.2%}"
            f"{'±':>6}{doubts[-1]:6.2%}{low:14.1f} to {high:.1f} ms"
        )
    cheapest, dearest = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    spread = medians[dearest] / medians[cheapest] - 1
    verdict = "reached" if spread <= ALLOWED else "MISSED"
    noisy = max(doubts) > ALLOWED / 4
    if not judged:
        return True
    print(
        f"the dearest ({dearest}) over the cheapest ({cheapest}): {spread:.2%},"
        f" allowed {ALLOWED:.0%}: {verdict}{', but too noisy to tell' if noisy else ''}"
    )
    return spread <= ALLOWED


if __name__ == "__main__":
    main()
