"""A real Synapse with the module in it, in a folder of its own, on free loopback ports.

Use it from a trial test so::

    from tests.support.synapse import Profile, shared

    PROFILE = Profile("mine", module={"register_users": False}, synapse={"session_lifetime": "1d"})

    class FooTests(TestCase):
        async def setUp(self) -> None:
            self.server = await shared(PROFILE)      # skips when there is no matrix-synapse

        async def test_foo(self) -> None:
            self.server.client_url                   # Synapse's own listener, http://127.0.0.1:…
            self.server.module_url                   # the module's: /login, /tokenrefresh, /refresh
            admin = await self.server.register("root", "secret", admin=True)   # an access token
            self.server.log()                        # all that Synapse has logged

:func:`shared` keeps one server running at a time: it is started when the first test asks for its
profile, and stopped when a test asks for another one or when the process ends. So keep the tests of
a profile together. For a server of your own there is :class:`SynapseServer`, with ``start``,
``stop``, ``kill`` and ``remove``; after ``kill`` or ``stop``, ``start`` starts it again on the same
ports and the same database.

The module is configured with the accounts of :data:`USERS`, in the file ``users_file``, with no
rate limits and no brake; ``Profile.module`` is laid over that, key by key, and ``Profile.synapse``
over homeserver.yaml. ``module={"password_providers": […]}`` replaces the providers, and
``module=None`` leaves the module out. ``set_fault`` makes the first provider fail, see
:mod:`tests.synapse.faults`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.threads import deferToThread

from synapse_login_module.passwords import hash_password
from tests.sharing import stop_at_exit
from tests.support import REPOSITORY
from tests.support.ports import free_ports
from tests.synapse.backends import (
    PATIENCE,
    Child,
    PostgreSQL,
    Redis,
    StartError,
    require,
    until,
)

SERVER_NAME = "hs.example"
REGISTRATION_SECRET = "registration-secret-of-the-tests"
FAULTY = "tests.synapse.faults.FaultyProvider"
BCRYPT = "synapse_login_module.providers.BcryptProvider"

PASSWORD = "wonderland-of-the-tests"
"""The password of every account in :data:`USERS`."""

LATER_PASSWORD = "known-to-the-later-module"
"""The password that :class:`tests.synapse.modules.LaterModule` takes for every user."""

_HASH = hash_password(PASSWORD, "", 4)


def user(**more: Any) -> dict[str, Any]:
    """An entry of the users file, with :data:`PASSWORD`."""
    return {"password_hash": _HASH, **more}


USERS: Mapping[str, Mapping[str, Any]] = {
    "alice": user(display_name="Alice", emails=["alice@example.com"], phones=["447700900123"]),
    "bob": user(),
    "lock": user(locked=True),
    "gone": user(deactivated=True),
}

_UNLIMITED = {"per_second": 10_000, "burst_count": 10_000}


@dataclass(frozen=True)
class Profile:
    """How a Synapse is set up.

    :param name: for messages, and to tell profiles apart.
    :param module: laid over the module's configuration; ``None`` for no module.
    :param synapse: laid over homeserver.yaml.
    :param users: what the users file holds at the start.
    :param module_listener: laid over the module's listener, as ``{"x_forwarded": True}``.
    :param client_listener: laid over Synapse's own.
    :param more_modules: further entries of ``modules:``, after ours.
    :param postgres: whether the database is PostgreSQL and not SQLite.
    :param worker: whether there is a generic worker too, which needs PostgreSQL.
    :param environment: further variables for the processes.
    :param files: what further files in its folder hold, by name.
    """

    name: str
    module: Mapping[str, Any] | None = field(default_factory=dict)
    synapse: Mapping[str, Any] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: USERS)
    module_listener: Mapping[str, Any] = field(default_factory=dict)
    client_listener: Mapping[str, Any] = field(default_factory=dict)
    more_modules: Sequence[Mapping[str, Any]] = ()
    postgres: bool = False
    worker: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


class SynapseServer:
    """A Synapse, by its profile. Nothing is started yet.

    :ivar folder: where everything of it is kept, and its current directory.
    :ivar client_url: of the listener with Synapse's own client API, and ``/_synapse``.
    :ivar module_url: of the listener that has the module's paths alone.
    :ivar worker_client_url: the same two of the worker.
    """

    def __init__(self, profile: Profile) -> None:
        require("synapse")
        self.profile = profile
        self._redis = Redis() if profile.worker else None
        self._postgres = PostgreSQL() if profile.postgres or profile.worker else None
        self.folder = Path(tempfile.mkdtemp(prefix="synapse-login-"))
        self.users_file = self.folder / "users.yaml"
        self._fault_file = self.folder / "fault"
        ports = free_ports(5)
        self.client_port, self.module_port = ports[:2]
        self._replication_port = ports[2]
        self.client_url, self.module_url, self.worker_client_url, self.worker_module_url = (
            f"http://127.0.0.1:{port}" for port in (ports[0], ports[1], ports[3], ports[4])
        )
        self._worker_ports = ports[3], ports[4]
        self.write_users(profile.users)
        self.set_fault("")
        self._write_configuration()
        self._main = self._child("synapse.app.homeserver", "main", [])
        self._worker = self._child("synapse.app.generic_worker", "worker", ["worker.yaml"])

    # Its life.

    async def start(self) -> None:
        """Start it, with all that it needs, and wait until it is healthy.

        :raise StartError: with what it printed.
        """
        for backend in (self._redis, self._postgres):
            if backend is not None and not self._main.output():
                await backend.start()
        await self._main.start(lambda: _healthy(self.client_port))
        if self.profile.worker:
            await self._worker.start(lambda: _healthy(self._worker_ports[0]))

    async def start_in_vain(self) -> tuple[int | None, str]:
        """Start it when it cannot: its exit status, and what it printed and logged."""
        self._main.launch()
        await until(self._main.wait_dead, "the end of a Synapse that cannot start")
        return self._main.exit_status, self._main.output() + self.log()

    async def stop(self) -> None:
        """Ask it to stop, and wait until it has.

        :raise StartError: when it does not, or not cleanly.
        """
        for child in (self._worker, self._main):
            child.ask_to_stop()
        await until(lambda: not self.running, "the end of Synapse")
        self._check_end()

    async def restart(self, synapse: Mapping[str, Any]) -> None:
        """Stop it, lay this over the homeserver.yaml of its profile, and start it again."""
        await self.stop()
        self._write("homeserver.yaml", {**self.homeserver_yaml(), **synapse})
        await self.start()

    async def kill(self) -> None:
        """End it without asking, as ``kill -9`` does."""
        self._worker.kill()
        self._main.kill()

    async def wait_for_death(self) -> None:
        """Wait until it has ended by itself."""
        await until(self._main.wait_dead, "the end of Synapse")

    @property
    def running(self) -> bool:
        """Whether any of its processes runs."""
        return self._main.running or self._worker.running

    def stop_and_wait(self) -> None:
        """Ask it to stop, and block until it has; for when the reactor does not run."""
        for child in (self._worker, self._main):
            child.ask_to_stop()
        for child in (self._worker, self._main):
            child.stop()
        self._check_end()

    def remove(self) -> None:
        """End whatever runs, and delete what it kept."""
        self._worker.kill()
        self._main.kill()
        for backend in (self._postgres, self._redis):
            if backend is not None:
                backend.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What it says and keeps.

    @property
    def log_file(self) -> Path:
        """Where the main process logs, in Synapse's default format."""
        return self.folder / "main.log"

    def log(self, start: int = 0) -> str:
        """What the main process has logged, from this many characters on."""
        return _text(self.log_file)[start:]

    def worker_log(self, start: int = 0) -> str:
        """What the worker has logged."""
        return _text(self.folder / "worker.log")[start:]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement in its database, written with ``?`` for its values."""
        if self._postgres is not None:
            return self._postgres.query(sql, values)
        connection = sqlite3.connect(self.folder / "homeserver.db", timeout=PATIENCE)
        try:
            with connection:
                return list(connection.execute(sql, values).fetchall())
        finally:
            connection.close()

    def stop_database(self) -> None:
        """Stop its PostgreSQL under it."""
        assert self._postgres is not None
        self._postgres.stop()

    async def start_database(self) -> None:
        """Start its PostgreSQL again."""
        assert self._postgres is not None
        await self._postgres.start()

    # What its module reads.

    def write_users(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the users file, in one step; the provider reads it again when next asked."""
        fresh = self.users_file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({"users": {k: dict(v) for k, v in users.items()}}))
        fresh.replace(self.users_file)

    def set_fault(self, fault: str) -> None:
        """Make the first provider fail, see :mod:`tests.synapse.faults`; ``""`` ends that."""
        fresh = self._fault_file.with_suffix(".new")
        fresh.write_text(fault)
        fresh.replace(self._fault_file)

    # What an administrator does.

    async def register(self, name: str, password: str, admin: bool = False) -> str:
        """Register a user with a local password by the shared secret; an access token of theirs."""
        answer = await deferToThread(self._register, name, password, admin)
        token: str = answer["access_token"]
        return token

    def _register(self, name: str, password: str, admin: bool) -> dict[str, Any]:
        path = "/_synapse/admin/v1/register"
        nonce = _ask(self.client_port, "GET", path)["nonce"]
        words = (nonce, name, password, "admin" if admin else "notadmin")
        mac = hmac.new(
            REGISTRATION_SECRET.encode(), b"\0".join(word.encode() for word in words), hashlib.sha1
        )
        body = {
            "nonce": nonce,
            "username": name,
            "password": password,
            "admin": admin,
            "mac": mac.hexdigest(),
        }
        return _ask(self.client_port, "POST", path, body)

    # Its configuration.

    def module_config(self) -> dict[str, Any]:
        """The module's configuration."""
        return {
            "password_providers": [
                {
                    "module": FAULTY,
                    "config": {"path": str(self._fault_file)},
                    "deadline": 500,
                },
                {"module": BCRYPT, "config": {"path": str(self.users_file)}},
            ],
            "rate_limits": {"address": None, "account": None, "failed_attempts": None},
            "hashing": {"rounds": 4},
            "brake": None,
            **(self.profile.module or {}),
        }

    def homeserver_yaml(self) -> dict[str, Any]:
        """The main process's configuration."""
        listeners: list[dict[str, Any]] = [
            {**_listener(self.client_port, "client", "metrics"), **self.profile.client_listener},
            {**_listener(self.module_port), **self.profile.module_listener},
        ]
        configuration: dict[str, Any] = {
            "server_name": SERVER_NAME,
            "public_baseurl": f"{self.client_url}/",
            "pid_file": str(self.folder / "main.pid"),
            "report_stats": False,
            "signing_key_path": str(self.folder / "signing.key"),
            "log_config": str(self.folder / "main.log.yaml"),
            "media_store_path": str(self.folder / "media"),
            "enable_metrics": True,
            "registration_shared_secret": REGISTRATION_SECRET,
            "macaroon_secret_key": "macaroon-secret-of-the-tests",
            "form_secret": "form-secret-of-the-tests",
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "bcrypt_rounds": 4,
            "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _UNLIMITED),
            "rc_registration": _UNLIMITED,
            "login_via_existing_session": {"enabled": True, "require_ui_auth": False},
            "listeners": listeners,
            "database": self._database(),
        }
        if self.profile.worker:
            assert self._redis is not None
            listeners.append(_listener(self._replication_port, "replication"))
            configuration["redis"] = {
                "enabled": True,
                "host": "127.0.0.1",
                "port": self._redis.port,
            }
            configuration["instance_map"] = {
                "main": {"host": "127.0.0.1", "port": self._replication_port}
            }
        if self.profile.module is not None:
            module = "synapse_login_module.SynapseLoginModule"
            ours = {"module": module, "config": self.module_config()}
            configuration["modules"] = [ours, *self.profile.more_modules]
        return {**configuration, **self.profile.synapse}

    def _database(self) -> dict[str, Any]:
        if self._postgres is None:
            return {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}}
        return {
            "name": "psycopg2",
            "args": {**self._postgres.arguments, "cp_min": 5, "cp_max": 10},
        }

    def _write_configuration(self) -> None:
        seed = base64.b64encode(os.urandom(32)).decode("ascii").rstrip("=")
        (self.folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")
        for name, content in self.profile.files.items():
            (self.folder / name).write_text(content)
        self._write("homeserver.yaml", self.homeserver_yaml())
        self._write("main.log.yaml", self._logging("main"))
        if self.profile.worker:
            self._write("worker.log.yaml", self._logging("worker"))
            client, module = self._worker_ports
            worker = {
                "worker_app": "synapse.app.generic_worker",
                "worker_name": "worker1",
                "worker_pid_file": str(self.folder / "worker.pid"),
                "worker_log_config": str(self.folder / "worker.log.yaml"),
                "worker_listeners": [_listener(client, "client"), _listener(module)],
            }
            self._write("worker.yaml", worker)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(content, sort_keys=False))

    def _logging(self, name: str) -> dict[str, Any]:
        """Everything of Synapse's at INFO, and everything of the module's."""
        head = "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s"
        line = f"{head} - %(request)s - %(message)s"
        return {
            "version": 1,
            "formatters": {"line": {"format": line}},
            "handlers": {
                "file": {
                    "class": "logging.FileHandler",
                    "formatter": "line",
                    "filename": str(self.folder / f"{name}.log"),
                }
            },
            "loggers": {"twisted": {"level": "DEBUG"}, "synapse_login_module": {"level": "DEBUG"}},
            "root": {"level": "INFO", "handlers": ["file"]},
            "disable_existing_loggers": False,
        }

    def _child(self, app: str, name: str, further: Sequence[str]) -> Child:
        files = [argument for each in ("homeserver.yaml", *further) for argument in ("-c", each)]
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        return Child(
            [sys.executable, "-m", app, *files],
            self.folder,
            self.folder / f"{name}.output",
            {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                **self.profile.environment,
            },
        )

    def _check_end(self) -> None:
        clean = (0, -signal.SIGTERM)
        children = [self._main, *([self._worker] if self.profile.worker else [])]
        for child in children:
            if child.exit_status not in clean:
                raise StartError(
                    f"Synapse ended with {child.exit_status}:\n{child.output()}\n{self.log()}"
                )


def _listener(port: int, *names: str) -> dict[str, Any]:
    resources = [{"names": list(names)}] if names else []
    return {
        "port": port,
        "type": "http",
        "bind_addresses": ["127.0.0.1"],
        "resources": resources,
    }


def _ask(port: int, method: str, path: str, body: object = None) -> dict[str, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise StartError(f"{path}: {response.status} {content!r}")
    answer: dict[str, Any] = json.loads(content)
    return answer


def _healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


_shared: dict[str, SynapseServer] = {}
_failed: dict[str, str] = {}


async def shared(profile: Profile) -> SynapseServer:
    """The server of a profile, started when it is first asked for; the one before is stopped.

    :raise StartError: when it cannot be started; it is not tried again.
    """
    if profile.name in _failed:
        raise StartError(_failed[profile.name])
    if profile.name not in _shared:
        while _shared:
            _, before = _shared.popitem()
            try:
                await before.stop()
            finally:
                before.remove()
        server = SynapseServer(profile)
        try:
            await server.start()
        except BaseException as error:
            _failed[profile.name] = f"{profile.name} did not start before: {error}"
            server.remove()
            raise
        _shared[profile.name] = server
    return _shared[profile.name]


stop_at_exit(_shared, SynapseServer.stop_and_wait, SynapseServer.remove)
