"""Runs standalone servers, each in a process and a temporary folder, on a loopback port."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conformance import accounts
from tests.conformance.profiles import Profile
from tests.conformance.target import Feature, Target
from tests.support import server
from tests.support.configuration import write_config
from tests.support.ports import free_port
from tests.support.process import StartError, run
from tests.support.server import twistd
from tests.support.sharing import stop_at_exit

_TIMEOUT = 60.0
_FAREWELL = "Server Shut Down."


class Folder:
    """A temporary folder with the configuration of a server.

    :param config: the configuration.
    :param files: further files, by name.
    """

    def __init__(self, config: Mapping[str, Any], files: Mapping[str, str]) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="login-conformance-"))
        self.config_file = write_config(self.path, dict(config))
        self.log_file = self.path / "server.log"
        self.log_file.touch()
        for name, text in files.items():
            (self.path / name).write_text(text, encoding="utf-8")

    def log(self, start: int = 0) -> str:
        """Return the log from a position on."""
        return self.log_file.read_bytes()[start:].decode("utf-8", "replace")

    def log_size(self) -> int:
        """Return the position at the end of the log."""
        return self.log_file.stat().st_size

    def remove(self) -> None:
        """Remove the folder and its content."""
        shutil.rmtree(self.path, ignore_errors=True)

    def run_until_exit(self) -> tuple[int, str]:
        """Run a server that is expected to exit; return its exit status and output."""
        done = run(twistd(self.config_file))
        return done.returncode, done.stdout + done.stderr


class ConformanceServer:
    """A server that can be stopped and started again in the same folder.

    :param profile: its configuration.
    """

    def __init__(self, profile: Profile) -> None:
        self.port = free_port()
        self.folder = Folder(profile.config(self.port), profile.files)
        self._process: server.Server | None = None

    @property
    def target(self) -> Target:
        """The description of the server for tests."""
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
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it is healthy.

        :raise StartError: when it does not start.
        """
        self._process = server.start_server(self.folder.config_file, self.port)

    def stop(self) -> None:
        """Stop the server and wait until it has exited.

        :raise StartError: when it does not exit cleanly.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        status = process.stop(timeout=_TIMEOUT)
        # twistd by itself would end by the signal after its shutdown.
        clean = status in (0, -signal.SIGTERM) and _FAREWELL in self.folder.log()
        if not clean:
            raise StartError(f"the server ended with status {status}:\n{self.folder.log()}")

    def kill(self) -> None:
        """Kill the server."""
        if self._process is not None:
            self._process.kill()
            self._process = None


_shared: dict[str, ConformanceServer] = {}


def shared(profile: Profile) -> ConformanceServer:
    """Return the server of a profile, and start it at the first call."""
    if profile.name not in _shared:
        server = ConformanceServer(profile)
        try:
            server.start()
        except BaseException:
            server.folder.remove()
            raise
        _shared[profile.name] = server
    return _shared[profile.name]


stop_at_exit(_shared, ConformanceServer.stop, lambda server: server.folder.remove())
