"""``python -m benchmarks.login_flood`` floods ``/login`` of a real server from the /64s of one IPv6
/48, and counts how many logins of other users succeed meanwhile.

The attacker tries unknown names 50 times a second, each time from another /64. The users log in
from networks of their own, half of them from a known network. All settings are the
defaults, except the trusted proxy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import treq
from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.http_headers import Headers

from tests.support.configuration import good_config, password_hash, write_config
from tests.support.ports import free_port
from tests.support.server import start_server

PASSWORD = "correct horse battery staple"
PEOPLE = 40


def main() -> None:
    """Parse the command line, run the flood and print the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.login_flood", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long the flood lasts")
    parser.add_argument("--rate", type=int, default=50, help="its logins a second")
    parser.add_argument("--rounds", type=int, default=12, help="bcrypt's cost")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        hashed = password_hash(PASSWORD, options.rounds)
        users = {f"user{number}": {"password_hash": hashed} for number in range(2 * PEOPLE)}
        config = good_config(port, users, rate_limits={}, hashing={"rounds": options.rounds})
        server = start_server(write_config(Path(folder), config), port)
        try:
            url = f"http://127.0.0.1:{port}/_matrix/client/v3/login"
            task.react(
                lambda reactor: Deferred.fromCoroutine(
                    _measure(reactor, url, options.seconds, options.rate)
                )
            )
        finally:
            server.stop()


async def _measure(reactor: Any, url: str, seconds: int, rate: int) -> None:
    counts: dict[str, Counter[int]] = {
        "the flood": Counter(),
        "known networks": Counter(),
        "unknown networks": Counter(),
    }

    async def log_in(who: str | None, name: str, password: str, address: str) -> None:
        identifier = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": identifier, "password": password}
        answer = await treq.post(url, json=body, headers=Headers({"X-Forwarded-For": [address]}))
        await answer.content()
        if who is not None:
            counts[who][answer.code] += 1

    for number in range(PEOPLE):
        await log_in(None, f"user{number}", PASSWORD, _home(number))

    def flood(number: int) -> Any:
        address = f"2001:db8:0:{number:x}::1"
        return log_in("the flood", f"stranger{number}", "x", address)

    def known(number: int) -> Any:
        return log_in("known networks", f"user{number}", PASSWORD, _home(number))

    def unknown(number: int) -> Any:
        number += PEOPLE
        return log_in("unknown networks", f"user{number}", PASSWORD, _home(number))

    await gatherResults(
        [
            _each(reactor, seconds * rate, seconds, flood),
            _each(reactor, PEOPLE, seconds, known),
            _each(reactor, PEOPLE, seconds, unknown),
        ]
    )
    print(f"{rate} logins a second for {seconds} seconds from the /64s of one /48")
    for who, statuses in counts.items():
        said = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        print(f"{who:<18} {said}")


def _each(
    reactor: Any, count: int, seconds: float, ask: Callable[[int], Any]
) -> Deferred[list[None]]:
    """Send ``count`` requests at even intervals, without waiting for responses."""

    def start(number: int) -> Deferred[None]:
        begun: Deferred[None] = task.deferLater(reactor, number * seconds / count, lambda: None)
        return begun.addCallback(lambda _: Deferred.fromCoroutine(ask(number)))

    return gatherResults([start(number) for number in range(count)])


def _home(number: int) -> str:
    """Return the address of a user, in a network that no other user has."""
    return f"198.18.{number}.1"


if __name__ == "__main__":
    main()
