"""The measured Synapses, with the module and without, each on a database of its own.

Rate limits are off in all of them.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.driving import Listening, MeasurementError
from benchmarks.engines import SQLITE, Engine
from benchmarks.servers import PASSWORD, SERVER_NAME, USER, MeasuredServer
from synapse_login_module.passwords import hash_password
from tests.support import http
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.synapse import config

LOCAL_USER = "bob"
"""A user with a local password; :data:`~benchmarks.servers.USER` has one at the provider."""

CHEAP = 4
"""The lowest cost of bcrypt, at which nearly all of a login is something else."""

_PROVIDERS = "synapse_login_module.providers"


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
    with running_synapse(folder, "accounts", SQLITE, cost, module) as synapse:
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


@contextmanager
def pair(folder: Path, engine: Engine, cost: int) -> Iterator[tuple[Synapse, Synapse]]:
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
            raise MeasurementError(f"{log}: the background updates do not end")
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
        raise MeasurementError(f"{path}: {status} {content!r}")
    answer: dict[str, Any] = json.loads(content)
    return answer
