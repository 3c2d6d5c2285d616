"""``python -m benchmarks.ldap`` measures logins by the LDAP provider against slapd's own speed.

Each round measures three things: the provider; a minimal client that sends the same search and bind
over kept connections and reads only the result code; and ``ldapwhoami``, one process for each
login, with the same concurrency.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from twisted.internet import defer, task

from synapse_login_module import testing
from synapse_login_module.model import UserId, UserIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from tests.support.slapd import PEOPLE, READER_DN, READER_PASSWORD, Slapd

USERS = 100
AT_ONCE = 8
SCHEMES = {"{SSHA}": (), "{CRYPT}": ("-c", "$6$%.16s")}
"""The password schemes: one round of SHA-1, and 5000 of SHA-512."""

Login = tuple[str, str]


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ldap", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="the number of rounds")
    parser.add_argument("--logins", type=int, default=2000, help="the number of logins in a round")
    options = parser.parse_args()
    task.react(_run, (options.rounds, options.logins))


def _run(reactor: Any, rounds: int, logins: int) -> defer.Deferred[None]:
    return defer.Deferred.fromCoroutine(_measure(reactor, rounds, logins))


async def _measure(reactor: Any, rounds: int, logins: int) -> None:
    print(f"{AT_ONCE} at once, medians of {rounds} rounds of {logins} logins, a second\n")
    print(f"{'':10}{'provider':>10}{'raw':>10}{'ratio':>8}{'ldapwhoami':>13}{'ratio':>8}")
    for scheme in SCHEMES:
        slapd = _slapd(scheme)
        slapd.start()
        try:
            await _measure_one(reactor, scheme, slapd, rounds, logins)
        finally:
            slapd.remove()


async def _measure_one(reactor: Any, scheme: str, slapd: Slapd, rounds: int, logins: int) -> None:
    provider = _provider(reactor, slapd)
    rates: dict[str, list[float]] = {"provider": [], "raw": [], "ldapwhoami": []}
    for _ in range(rounds):
        rates["raw"].append(_rate(logins, lambda each: _raw(slapd, each)))
        began = time.perf_counter()
        await _log_in(provider, logins)
        rates["provider"].append(logins / (time.perf_counter() - began))
        few = max(AT_ONCE, logins // 10)
        rates["ldapwhoami"].append(_rate(few, lambda each: _whoami(slapd, each)))
    await provider.stopService()
    here, raw, whoami = (statistics.median(rates[name]) for name in rates)
    print(f"{scheme:10}{here:10.0f}{raw:10.0f}{here / raw:8.2f}{whoami:13.0f}{here / whoami:8.2f}")


async def _log_in(provider: LDAPProvider, logins: int) -> None:
    async def some(first: int) -> None:
        for number in range(first, logins, AT_ONCE):
            name, password = _login(number)
            user = UserIdentifier(UserId(name, testing.SERVER_NAME))
            account = await provider.authenticate(user, password)
            assert account is not None

    await defer.gatherResults(
        [defer.Deferred.fromCoroutine(some(first)) for first in range(AT_ONCE)]
    )


def _rate(logins: int, work: Callable[[Sequence[Login]], None]) -> float:
    """Return the logins a second with ``AT_ONCE`` workers."""
    shares = [[_login(n) for n in range(first, logins, AT_ONCE)] for first in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as workers:
        began = time.perf_counter()
        list(workers.map(work, shares))
        return logins / (time.perf_counter() - began)


def _raw(slapd: Slapd, logins: Sequence[Login]) -> None:
    """Search and bind over two connections, without parsing the entries."""
    with (
        socket.create_connection(("127.0.0.1", slapd.port)) as searching,
        socket.create_connection(("127.0.0.1", slapd.port)) as binding,
    ):
        _ask(searching, pureldap.LDAPBindRequest(dn=READER_DN, auth=READER_PASSWORD), 0x61)
        for name, password in logins:
            _ask(searching, _search(name), 0x65)
            dn = f"uid={name},{PEOPLE}"
            _ask(binding, pureldap.LDAPBindRequest(dn=dn, auth=password), 0x61)


def _search(name: str) -> Any:
    return pureldap.LDAPSearchRequest(
        baseObject=PEOPLE,
        sizeLimit=2,
        attributes=["uid", "mail", "cn"],
        filter=pureldap.LDAPFilter_equalityMatch(
            pureldap.LDAPAttributeDescription("uid"), pureldap.LDAPAssertionValue(name)
        ),
    )


def _ask(connection: socket.socket, request: Any, last: int) -> None:
    """Send a request, and wait for a response of the given kind and for success."""
    connection.sendall(pureldap.LDAPMessage(request, id=1).toWire())
    success = bytes([last, 7, 0x0A, 1, 0])
    received = b""
    while success not in received:
        data = connection.recv(65_536)
        assert data
        received += data


def _whoami(slapd: Slapd, logins: Sequence[Login]) -> None:
    for name, password in logins:
        command = [
            "ldapwhoami",
            "-x",
            "-H",
            slapd.url,
            "-D",
            f"uid={name},{PEOPLE}",
            "-w",
            password,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _provider(reactor: Any, slapd: Slapd) -> LDAPProvider:
    config = {
        "servers": [slapd.url],
        "start_tls": False,
        "base": PEOPLE,
        "bind_dn": READER_DN,
        "bind_password": READER_PASSWORD,
        "connections": AT_ONCE,
    }
    parsed = LDAPProvider.parse_config(config, Path())
    return LDAPProvider(parsed, testing.environment(reactor=reactor))


def _login(number: int) -> Login:
    number %= USERS
    return f"user{number}", f"password{number}"


def _slapd(scheme: str) -> Slapd:
    slapd = Slapd()
    entries = []
    for number in range(USERS):
        name, password = _login(number)
        command = ["/usr/sbin/slappasswd", "-h", scheme, *SCHEMES[scheme], "-s", password, "-n"]
        hashed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        entries.append(
            f"dn: uid={name},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\n"
            f"sn: {name}\nmail: {name}@example.com\nuserPassword: {hashed}\n\n"
        )
    slapd.fill("".join(entries))
    return slapd


if __name__ == "__main__":
    main()
