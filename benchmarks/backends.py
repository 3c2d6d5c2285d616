"""Servers whose accounts are in a backend at some network distance: LDAP, SQL, HTTP.

They show, for each configuration, whether the time of a rejected login reveals an account.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.delay import Delay
from benchmarks.servers import PASSWORD, SERVER_NAME, USER, MeasuredServer
from tests.support import server
from tests.support.configuration import good_config, password_hash, write_config
from tests.support.ports import free_port, listens
from tests.support.process import Process
from tests.support.slapd import GROUP_DN, PEOPLE, READER_DN, READER_PASSWORD, Slapd

LOCKED, GONE, TWIN = "larry", "dora", "twin"

_PROVIDERS = "synapse_login_module.providers"


@contextmanager
def ldap(folder: Path, seconds: float) -> Iterator[Mapping[str, MeasuredServer]]:
    """Run a server on an LDAP directory for each way to authenticate; yield them by name.

    :param seconds: how long each way between a server and the directory takes.
    """
    slapd = Slapd(anonymous=True)
    people = ((USER, ""), (LOCKED, "title: locked\n"), (GONE, "title: gone\n"))
    slapd.fill("".join(_person(name, f"uid={name}", more) for name, more in people))
    slapd.fill("".join(_person(TWIN, f"cn={TWIN}{each}", "") for each in range(2)))
    members = "".join(f"memberUid: {name}\n" for name in (USER, LOCKED, GONE, TWIN))
    slapd.fill(f"dn: {GROUP_DN}\nobjectClass: posixGroup\ncn: matrix\ngidNumber: 1\n{members}\n")
    slapd.start()
    common = {
        "start_tls": False,
        "base": PEOPLE,
        "bind_dn": READER_DN,
        "bind_password": READER_PASSWORD,
    }
    statuses = {"disabled_filter": "(title=gone)", "locked_filter": "(title=locked)"}
    ways: dict[str, dict[str, Any]] = {
        "search and bind": statuses,
        "search and bind, no filters": {},
        "search, group and bind": {**statuses, "groups": [GROUP_DN], "group_type": "posix"},
        "template": {**statuses, "bind_dn_template": f"uid={{localpart}},{PEOPLE}"},
    }
    try:
        with ExitStack() as stack:
            delay = stack.enter_context(Delay(folder, f"127.0.0.1:{slapd.port}", seconds))
            servers = [f"ldap://127.0.0.1:{delay.port}"]
            yield {
                f"LDAP, {way}": stack.enter_context(
                    _serve(
                        folder / f"ldap-{number}", "LDAP", {**common, **more, "servers": servers}
                    )
                )
                for number, (way, more) in enumerate(ways.items())
            }
    finally:
        slapd.remove()


@contextmanager
def sql(folder: Path, _: float) -> Iterator[Mapping[str, MeasuredServer]]:
    """Run a server on a table in an SQLite file, which has no network round trip."""
    path = folder / "accounts.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE accounts (name TEXT, password_hash TEXT, mail TEXT)")
        for name in (USER, LOCKED, GONE):
            row = name, password_hash(PASSWORD, 10), f"{name}@example.com"
            database.execute("INSERT INTO accounts VALUES (?, ?, ?)", row)
    database.close()
    columns = "SELECT name AS localpart, password_hash FROM accounts"
    queries = {
        "by_user": f"{columns} WHERE name = :localpart",
        "by_email": f"{columns} WHERE mail = :email",
    }
    config = {"sqlite": str(path), "queries": queries}
    with _serve(folder / "sql", "SQL", config, rounds=10) as served:
        yield {"SQL": served}


@contextmanager
def http(folder: Path, seconds: float) -> Iterator[Mapping[str, MeasuredServer]]:
    """Run servers on an HTTP service that takes equal time for known and unknown users.

    :param seconds: how long each way between a server and the service takes.
    """
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.service", str(port)]
    service = Process(command, folder / "service.log")
    service.start_and_wait(lambda: listens(port))
    try:
        with ExitStack() as stack:
            delay = stack.enter_context(Delay(folder, f"127.0.0.1:{port}", seconds))
            found: dict[str, MeasuredServer] = {}
            for number, (what, codes) in enumerate((("one status", []), ("404", [404]))):
                config = {
                    "url": f"http://127.0.0.1:{delay.port}/{'told' if codes else 'alike'}",
                    "request": {"name": "{localpart}", "secret": "{password}"},
                    "email_request": {"name": "{email}", "secret": "{password}"},
                    "answer": {"success": "ok", "user_id": "name"},
                    "unknown_user_codes": codes,
                }
                served = _serve(folder / f"http-{number}", "HTTP", config)
                found[f"HTTP, {what}"] = stack.enter_context(served)
            yield found
    finally:
        service.kill()


BACKENDS = {"ldap": ldap, "sql": sql, "http": http}
"""Context managers by backend; each takes a folder and the seconds of one way to the backend."""


def _serve(
    folder: Path, provider: str, config: Mapping[str, Any], rounds: int = 4
) -> MeasuredServer:
    """Build a measured server with one provider.

    :param rounds: the bcrypt cost of decoy hashes; low, so that they do not hide other differences.
    """
    folder.mkdir()
    port = free_port()
    given = good_config(
        port,
        server_name=SERVER_NAME,
        password_providers=[{"module": f"{_PROVIDERS}.{provider}Provider", "config": config}],
        token_store={"module": "synapse_login_module.stores.MemoryTokenStore"},
        hashing={"rounds": rounds},
    )
    return MeasuredServer(server.Server(write_config(folder, given), port), port)


def _person(name: str, rdn: str, more: str) -> str:
    return (
        f"dn: {rdn},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n"
        f"mail: {name}@example.com\nuserPassword: {PASSWORD}\n{more}\n"
    )
