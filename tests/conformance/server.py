"""Standalone servers: each in a process of its own, in a temporary folder, on a loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import yaml

from tests.conformance import accounts
from tests.conformance.profiles import Profile
from tests.conformance.target import Feature, Target
from tests.support import REPOSITORY
from tests.support.ports import free_port
from tests.support.sharing import stop_at_exit

_PATIENCE = 60.0
_FAREWELL = "Server Shut Down."


class ServerError(AssertionError):
    """A server did not start or stop as it should."""


def command(config_file: Path) -> list[str]:
    """The command that runs the server."""
    twistd = Path(sys.executable).with_name("twistd")
    if twistd.exists():
        start = [sys.executable, str(twistd)]
    else:
        start = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    return [*start, "-n", "--pidfile=", "synapse-login", "--config", str(config_file)]


def environment() -> dict[str, str]:
    """The environment of the server: its package and plugin are found in the repository."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Folder:
    """A temporary folder with the configuration of a server.

    :param config: the configuration.
    :param files: further files, by name.
    """

    def __init__(self, config: Mapping[str, Any], files: Mapping[str, str]) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="login-conformance-"))
        self.config_file = self.path / "config.yaml"
        self.log_file = self.path / "server.log"
        self.log_file.touch()
        self.config_file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        for name, text in files.items():
            (self.path / name).write_text(text, encoding="utf-8")

    def log(self, start: int = 0) -> str:
        """The log from a position on."""
        return self.log_file.read_bytes()[start:].decode("utf-8", "replace")

    def log_size(self) -> int:
        """The position at the end of the log."""
        return self.log_file.stat().st_size

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def run_until_exit(self) -> tuple[int, str]:
        """Run a server that is not expected to stay; its exit status, and what it said."""
        with self.log_file.open("ab") as log:
            done = subprocess.run(
                command(self.config_file),
                cwd=REPOSITORY,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_PATIENCE,
                check=False,
            )
        return done.returncode, self.log()


class Server:
    """One server. It can be stopped and started again in the same folder.

    :param profile: how it is configured.
    """

    def __init__(self, profile: Profile) -> None:
        self.port = free_port()
        self.folder = Folder(profile.config(self.port), profile.files)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> Target:
        """What the tests need to know of it."""
        return Target(
            base_url=f"http://127.0.0.1:{self.port}",
            server_name=accounts.SERVER_NAME,
            account=accounts.CHEEKY,
            second=accounts.BOB,
            locked=accounts.LOCKED,
            deactivated=accounts.DEACTIVATED,
            features=frozenset(Feature),
        )

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it is healthy.

        :raise ServerError: when it does not get so far.
        """
        with self.folder.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command(self.folder.config_file),
                cwd=REPOSITORY,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _PATIENCE
        while not self._healthy():
            if self._process.poll() is not None:
                raise ServerError(f"the server did not start:\n{self.folder.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"the server is not healthy:\n{self.folder.log()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to stop, and wait until it has.

        :raise ServerError: when it does not stop, or not cleanly.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerError("the server did not stop when asked to") from None
        # twistd shuts down and then, by default, ends as the signal would have ended it.
        clean = status in (0, -signal.SIGTERM) and _FAREWELL in self.folder.log()
        if not clean:
            raise ServerError(f"the server ended with status {status}:\n{self.folder.log()}")

    def kill(self) -> None:
        """End it without asking."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


_shared: dict[str, Server] = {}


def shared(profile: Profile) -> Server:
    """The one server of a profile, started when it is first asked for."""
    if profile.name not in _shared:
        server = Server(profile)
        try:
            server.start()
        except BaseException:
            server.folder.remove()
            raise
        _shared[profile.name] = server
    return _shared[profile.name]


stop_at_exit(_shared, Server.stop, lambda server: server.folder.remove())
