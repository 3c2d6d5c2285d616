"""Runs a real Synapse with the module, in a folder of its own, on free loopback ports.

Use it from a trial test so::

    from tests.support.synapse.profile import Profile
    from tests.support.synapse.server import shared

    PROFILE = Profile("mine", module={"register_users": False}, synapse={"session_lifetime": "1d"})

    class FooTests(TestCase):
        async def setUp(self) -> None:
            self.server = await shared(PROFILE)      # skips when there is no matrix-synapse

        async def test_foo(self) -> None:
            self.server.client_url                   # Synapse's own listener, http://127.0.0.1:…
            self.server.module_url                   # the module's: /login, /tokenrefresh, /refresh
            admin = await self.server.register("root", "secret", admin=True)   # an access token
            self.server.log()                        # all that Synapse has logged

:func:`shared` keeps one server running at a time. It is started when the first test asks for its
profile, and stopped when a test asks for another profile or when the process ends. So keep the
tests of a profile together. For a server of your own use :class:`SynapseServer`, with ``start``,
``stop``, ``kill`` and ``remove``. After ``kill`` or ``stop``, ``start`` starts it again on the same
ports and the same database.

The module is configured with the accounts of :data:`~tests.support.synapse.profile.USERS`, in the
file ``users_file``, with no rate limits and no brake; ``Profile.module`` is laid over that, key by
key, and ``Profile.synapse`` over homeserver.yaml. ``module={"password_providers": […]}`` replaces
the providers, and ``module=None`` leaves the module out. ``set_fault`` makes the first provider
fail, see :mod:`tests.synapse.faults`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.threads import deferToThread

from tests.support import REPOSITORY
from tests.support.http import ask, healthy
from tests.support.ports import free_ports
from tests.support.process import Process, StartError, require, subprocess_environment
from tests.support.redis import Redis
from tests.support.sharing import stop_at_exit
from tests.support.synapse.config import (
    homeserver_config,
    listener,
    write_logging,
    write_signing_key,
    write_yaml,
)
from tests.support.synapse.database import SynapseDatabase
from tests.support.synapse.profile import BCRYPT, FAULTY, REGISTRATION_SECRET, SERVER_NAME, Profile
from tests.support.waiting import until

_COMMAND_TIMEOUT = 120
"""Seconds after which a command counts as hung."""


class SynapseServer:
    """A Synapse of a profile. It is not started yet.

    :ivar folder: the folder of all its files, and its current directory.
    :ivar client_url: the URL of the listener with Synapse's own client API and ``/_synapse``.
    :ivar module_url: the URL of the listener with the module's paths alone.
    :ivar worker_client_url: the URL of the worker's client API, on ``worker_client_port``, as
        ``worker_module_url`` of its module's paths.
    """

    def __init__(self, profile: Profile) -> None:
        require("synapse")
        self.profile = profile
        self._redis = Redis() if profile.worker else None
        self._postgres = SynapseDatabase() if profile.postgres or profile.worker else None
        self.folder = Path(tempfile.mkdtemp(prefix="synapse-login-"))
        self.users_file = self.folder / "users.yaml"
        self._fault_file = self.folder / "fault"
        ports = free_ports(5)
        self.client_port, self.module_port = ports[:2]
        self._replication_port = ports[2]
        self.client_url, self.module_url, self.worker_client_url, self.worker_module_url = (
            f"http://127.0.0.1:{port}" for port in (ports[0], ports[1], ports[3], ports[4])
        )
        self.worker_client_port = ports[3]
        self._worker_ports = ports[3], ports[4]
        self.write_users(profile.users)
        self.set_fault("")
        self._write_configuration()
        self._main = self._child("synapse.app.homeserver", "main", [])
        self._worker = self._child("synapse.app.generic_worker", "worker", ["worker.yaml"])

    # Start and stop.

    async def start(self) -> None:
        """Start Synapse and what it needs, and wait until it is healthy.

        :raise StartError: when it does not start, with its output.
        """
        for backend in (self._redis, self._postgres):
            if backend is not None and not self._main.log():
                await backend.start()
        await self._main.start(lambda: healthy(self.client_port))
        if self.profile.worker:
            await self._worker.start(lambda: healthy(self._worker_ports[0]))

    async def start_in_vain(self) -> tuple[int | None, str]:
        """Start a Synapse that cannot start; return its exit status, output and log."""
        self._main.launch()
        await until(lambda: not self._main.running, "the end of a Synapse that cannot start")
        return self._main.exit_status, self._main.log() + self.log()

    async def stop(self) -> None:
        """Stop Synapse, and wait until it has ended.

        :raise StartError: when it does not end cleanly.
        """
        for child in (self._worker, self._main):
            child.send_signal(signal.SIGTERM)
        await until(lambda: not self.running, "the end of Synapse")
        self._check_end()

    async def restart(self, synapse: Mapping[str, Any]) -> None:
        """Stop Synapse, add these keys to its homeserver.yaml, and start it again."""
        await self.stop()
        write_yaml(self.folder / "homeserver.yaml", {**self.homeserver_yaml(), **synapse})
        await self.start()

    async def kill(self) -> None:
        """Kill it, as ``kill -9`` does."""
        self._worker.kill()
        self._main.kill()

    async def wait_for_death(self) -> None:
        """Wait until it has ended by itself."""
        await until(lambda: not self._main.running, "the end of Synapse")

    @property
    def running(self) -> bool:
        """Whether any of its processes runs."""
        return self._main.running or self._worker.running

    def stop_and_wait(self) -> None:
        """Stop Synapse, and block until it has ended; for use without a running reactor."""
        for child in (self._worker, self._main):
            child.send_signal(signal.SIGTERM)
        for child in (self._worker, self._main):
            child.stop()
        self._check_end()

    def remove(self) -> None:
        """Kill all its processes and delete its files."""
        self._worker.kill()
        self._main.kill()
        for backend in (self._postgres, self._redis):
            if backend is not None:
                backend.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Commands.

    async def run_command(
        self, *arguments: str, before: Path = REPOSITORY
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of ``synapse-login-module`` as an operator does, in the folder.

        :param before: a folder whose modules come before all others.
        """
        environment = subprocess_environment()
        done: subprocess.CompletedProcess[str] = await deferToThread(
            subprocess.run,
            [sys.executable, "-m", "synapse_login_module.cli", *arguments],
            cwd=self.folder,
            env={**environment, "PYTHONPATH": f"{before}{os.pathsep}{environment['PYTHONPATH']}"},
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT,
        )
        return done

    # Logs and database.

    @property
    def log_file(self) -> Path:
        """The log file of the main process, in Synapse's default format."""
        return self.folder / "main.log"

    def log(self, start: int = 0) -> str:
        """Return the log of the main process from a character offset on."""
        return _text(self.log_file)[start:]

    def worker_log(self, start: int = 0) -> str:
        """Return the log of the worker."""
        return _text(self.folder / "worker.log")[start:]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement in its database, with ``?`` as placeholders."""
        if self._postgres is not None:
            return self._postgres.query(sql, values)
        connection = sqlite3.connect(self.folder / "homeserver.db", timeout=60)
        try:
            with connection:
                return list(connection.execute(sql, values).fetchall())
        finally:
            connection.close()

    def stop_database(self) -> None:
        """Stop its PostgreSQL while Synapse runs."""
        assert self._postgres is not None
        self._postgres.stop()

    async def start_database(self) -> None:
        """Start its PostgreSQL again."""
        assert self._postgres is not None
        await self._postgres.start()

    # The module's files.

    def write_users(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the users file atomically; the provider reads it again at the next request."""
        fresh = self.users_file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({"users": {k: dict(v) for k, v in users.items()}}))
        fresh.replace(self.users_file)

    def set_fault(self, fault: str) -> None:
        """Make the first provider fail; see :mod:`tests.synapse.faults`. ``""`` ends the fault."""
        fresh = self._fault_file.with_suffix(".new")
        fresh.write_text(fault)
        fresh.replace(self._fault_file)

    # Administration.

    async def register(self, name: str, password: str, admin: bool = False) -> str:
        """Register a user with a local password by the shared secret; return an access token."""
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

    # Configuration.

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
            {**listener(self.client_port, "client", "metrics"), **self.profile.client_listener},
            {**listener(self.module_port), **self.profile.module_listener},
        ]
        more: dict[str, Any] = {
            "public_baseurl": f"{self.client_url}/",
            "enable_metrics": True,
            "registration_shared_secret": REGISTRATION_SECRET,
            "login_via_existing_session": {"enabled": True, "require_ui_auth": False},
        }
        if self.profile.worker:
            assert self._redis is not None
            listeners.append(listener(self._replication_port, "replication"))
            more["redis"] = {"enabled": True, "host": "127.0.0.1", "port": self._redis.port}
            main = {"host": "127.0.0.1", "port": self._replication_port}
            more["instance_map"] = {"main": main}
        if self.profile.module is not None:
            module = "synapse_login_module.SynapseLoginModule"
            ours = {"module": module, "config": self.module_config()}
            before, after = self.profile.modules_before, self.profile.more_modules
            more["modules"] = [*before, ours, *after]
        config = homeserver_config(self.folder, SERVER_NAME, listeners, self._database(), **more)
        return {**config, **self.profile.synapse}

    def _database(self) -> dict[str, Any]:
        if self._postgres is None:
            return {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}}
        return {
            "name": "psycopg2",
            "args": {**self._postgres.arguments, "cp_min": 5, "cp_max": 10},
        }

    def _write_configuration(self) -> None:
        write_signing_key(self.folder)
        for name, content in self.profile.files.items():
            (self.folder / name).write_text(content)
        write_yaml(self.folder / "homeserver.yaml", self.homeserver_yaml())
        levels = {"twisted": "DEBUG", "synapse_login_module": "DEBUG"}
        write_logging(self.folder, "main", **levels)
        if self.profile.worker:
            write_logging(self.folder, "worker", **levels)
            client, module = self._worker_ports
            worker = {
                "worker_app": "synapse.app.generic_worker",
                "worker_name": "worker1",
                "worker_pid_file": str(self.folder / "worker.pid"),
                "worker_log_config": str(self.folder / "worker.log.yaml"),
                "worker_listeners": [listener(client, "client"), listener(module)],
            }
            write_yaml(self.folder / "worker.yaml", worker)

    def _child(self, app: str, name: str, further: Sequence[str]) -> Process:
        files = [argument for each in ("homeserver.yaml", *further) for argument in ("-c", each)]
        return Process(
            [sys.executable, "-m", app, *files],
            self.folder / f"{name}.output",
            folder=self.folder,
            env=subprocess_environment(**self.profile.environment),
        )

    def _check_end(self) -> None:
        clean = (0, -signal.SIGTERM)
        children = [self._main, *([self._worker] if self.profile.worker else [])]
        for child in children:
            if child.exit_status not in clean:
                raise StartError(
                    f"Synapse ended with {child.exit_status}:\n{child.log()}\n{self.log()}"
                )


def _ask(port: int, method: str, path: str, body: object = None) -> dict[str, Any]:
    status, content = ask(port, method, path, body)
    if status != 200:
        raise StartError(f"{path}: {status} {content!r}")
    answer: dict[str, Any] = json.loads(content)
    return answer


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


_shared: dict[str, SynapseServer] = {}
_failed: dict[str, str] = {}


async def shared(profile: Profile) -> SynapseServer:
    """Return the running server of a profile; start it if needed, and stop the one before.

    :raise StartError: when it cannot be started; later calls do not try again.
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
