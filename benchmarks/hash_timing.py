"""Unknown users against wrong passwords, for each format of hashes and for mixed stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.servers import USER, login_service

_SALT, _DIGEST = "." * 22, "b" * 43
_BCRYPT = f"$2b$10${'.' * 53}"
_ARGON2ID = f"$argon2id$v=19$m=19456,t=2,p=1${'A' * 22}${_DIGEST}"
_SSHA = f"{{SSHA}}{'a' * 32}"

FORMATS = {
    "bcrypt": _BCRYPT,
    "argon2id": _ARGON2ID,
    "argon2i": f"$argon2i$v=19$m=32768,t=4,p=1${'A' * 22}${_DIGEST}",
    "argon2id, four lanes": f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${_DIGEST}",
    "PBKDF2-SHA256, Django": f"pbkdf2_sha256$600000$salt${'a' * 43}=",
    "PBKDF2-SHA512, passlib": f"$pbkdf2-sha512$25000${_SALT}${'b' * 86}",
    "PBKDF2, Gitea": f"pbkdf2$50000$50${'a' * 32}${'b' * 100}",
    "scrypt, Django": f"scrypt$16384$salt$8$5${'b' * 86}==",
    "$y$": f"$y$j9T${_SALT}${_DIGEST}",
    "$7$": f"$7$CU..../....{_SALT}${_DIGEST}",
    "$6$": f"$6${'a' * 16}${'b' * 86}",
    "$5$": f"$5${'a' * 16}${_DIGEST}",
    "phpass": f"$P$B{'a' * 30}",
    "Drupal": f"$S$E{'a' * 51}",
    "WordPress": f"$wp$2y$10${'.' * 53}",
    "{SSHA}": _SSHA,
}
"""A hash of each format, with the parameters that its program has today."""

MIXED = {
    "mostly bcrypt": ([_BCRYPT, _BCRYPT, _ARGON2ID, _SSHA],),
    "mostly argon2id": ([_ARGON2ID, _ARGON2ID, _BCRYPT, _SSHA],),
    "two providers, the first slower": ([_ARGON2ID], [FORMATS["$6$"]]),
    "two providers, the second slower": ([FORMATS["$6$"]], [_ARGON2ID]),
}
"""The hashes of each provider. The first of the slowest provider's is that of the known user."""


def providers(stores: Sequence[Sequence[str]], known: int) -> list[Mapping[str, Any]]:
    """Return the providers' entries.

    :param stores: the hashes of each provider.
    :param known: the number of the provider whose first account is the known user.
    """
    return [
        {
            "module": "synapse_login_module.providers.BcryptProvider",
            "name": f"store{number}",
            "config": {
                "users": {
                    USER if (number, place) == (known, 0) else f"user{number}-{place}": {
                        "password_hash": password_hash
                    }
                    for place, password_hash in enumerate(hashes)
                }
            },
        }
        for number, hashes in enumerate(stores)
    ]


Take = Callable[[HTTPConnection, int], Mapping[str, Mapping[str, Sequence[float]]]]
"""Makes logins of the known user and of an unknown one at a process, and returns how long each
took: first the milliseconds that the client waited, then those that the processor worked."""


def measure(folder: Path, take: Take, allowed: float) -> list[bool]:
    """Measure each format and each mixed store; return whether each is within what is allowed."""
    print(f"\n{'':34}{'wrong':>10}{'unknown':>10}{'waited':>10}{'worked':>10}")
    stores: dict[str, Sequence[Sequence[str]]] = {
        **{name: ([each],) for name, each in FORMATS.items()},
        **MIXED,
    }
    results = []
    for name, store in stores.items():
        known = 1 if name.endswith("second slower") else 0
        more = {"password_providers": providers(store, known)}
        with login_service(folder, more=more) as server:
            connection = HTTPConnection("127.0.0.1", server.port)
            taken = take(connection, server.pid)
            connection.close()
        medians = [[median(each) for each in times.values()] for times in taken.values()]
        differ = [unknown / wrong - 1 for wrong, unknown in medians]
        # The processor's time is hardly changed by other load on the machine.
        results.append(min(map(abs, differ)) <= allowed)
        print(
            f"{name:34}{medians[0][0]:7.1f} ms{medians[0][1]:7.1f} ms"
            f"{''.join(f'{each:+10.2%}' for each in differ)}{'' if results[-1] else '  MISSED'}"
        )
    return results
