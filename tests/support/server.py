"""The real server, in a process of its own that can be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from synapse_login_module.passwords import hash_password
from tests.support import REPOSITORY
from tests.support.memory import resident
from tests.support.ports import free_port

SERVER_NAME = "chaos.example"
USER = "alice"
PASSWORD = "correct horse"

_CONNECT_PAUSE = 0.03
_ATTEMPTS = 4000

reactor = cast(Any, global_reactor)


class ServerError(AssertionError):
    """The server did not start."""


class _Watch(ProcessProtocol):
    """Says when a process has ended, and how."""

    def __init__(self) -> None:
        self.ended: Deferred[int] | None = Deferred()

    def processEnded(self, reason: Failure) -> None:
        """Fire with the exit status, or the negative number of the signal."""
        ended, self.ended = self.ended, None
        assert ended is not None
        value = reason.value
        failed = isinstance(value, ProcessTerminated)
        ended.callback((-value.signal if value.signal else value.status) if failed else 0)  # type: ignore[union-attr]


def make_config(port: int, cost: int, store: str) -> dict[str, Any]:
    """A configuration in which nothing is limited and no token ends of itself.

    :param cost: of the bcrypt hash of the one account.
    :param store: the dotted path of the token store.
    """
    return {
        "server_name": SERVER_NAME,
        "listen": [f"tcp:{port}:interface=127.0.0.1"],
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"users": {USER: {"password_hash": hash_password(PASSWORD, "", cost)}}},
            }
        ],
        "token_store": {"module": store, "config": {}},
        "tokens": {"refreshable_access_token_lifetime": None, "reuse_interval": "1d"},
        "rate_limits": {"address": None, "account": None, "failed_attempts": None},
        "hashing": {"threads": 2, "rounds": cost},
    }


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Server:
    """A server in a folder of its own.

    :param folder: where everything of it is kept.
    :param options: more of the command line, and before it ``twistd_options``.
    :param environment: more of the environment.
    :param descriptors: what it inherits.
    :param launcher: what is to run the command line.
    :param port: where it listens, if that is decided already.
    :ivar config: its configuration file.
    :param database: the file of its sessions, if that is elsewhere.
    :param changes: what is otherwise in its configuration, by section.
    :param program: what Python is to run in the place of twistd.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cost: int = 4,
        store: str = "synapse_login_module.stores.SQLiteTokenStore",
        options: Sequence[str] = (),
        twistd_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        descriptors: Mapping[int, int] | None = None,
        launcher: Sequence[str] = (),
        port: int | None = None,
        database: Path | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        self.port = port or free_port()
        folder.mkdir()
        self.database = database or folder.absolute() / "sessions.db"
        self.config = folder.absolute() / "config.yaml"
        self._options = options
        self._twistd_options = twistd_options
        self._more_environment = environment or {}
        self._descriptors = descriptors or {}
        self._launcher = launcher
        self._program = program
        self._log = folder.absolute() / "server.log"
        config = make_config(self.port, cost, store)
        config["token_store"]["config"]["path"] = str(self.database)
        for section, values in (changes or {}).items():
            config[section] = {**config.get(section, {}), **values}
        self.config.write_text(yaml.safe_dump(config))
        self._process: Any = None
        self._watch: _Watch | None = None

    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text("utf-8", "replace")

    def resident(self) -> int:
        """How much memory it has, in KiB."""
        return resident(self._process.pid)

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        twistd = Path(sys.executable).with_name("twistd")
        otherwise = ["-c", "from twisted.scripts.twistd import run; run()"]
        start = self._program or ([str(twistd)] if twistd.exists() else otherwise)
        launch = ["-n", "--pidfile=", *self._twistd_options, "synapse-login"]
        command = [sys.executable, *self._launcher, *start, *launch]
        environment = {**self._environment(os.environ), **self._more_environment}
        self._watch = watch = _Watch()
        with self._log.open("ab") as log, open(os.devnull, "rb") as nothing:
            self._process = cast(IReactorProcess, reactor).spawnProcess(
                watch,
                sys.executable,
                [*command, "--config", str(self.config), *self._options],
                env=environment,
                path=str(REPOSITORY),
                childFDs={
                    **{0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()},
                    **self._descriptors,
                },
            )
        for _ in range(_ATTEMPTS):
            if watch.ended is None:
                raise ServerError(f"the server did not start:\n{self.log()}")
            if self.listens():
                return
            await deferLater(reactor, _CONNECT_PAUSE)
        raise ServerError(f"the server does not listen:\n{self.log()}")

    def listens(self) -> bool:
        """Whether it takes connections."""
        try:
            with socket.create_connection(("127.0.0.1", self.port)):
                return True
        except ConnectionRefusedError:
            return False

    def heeds_terminate(self) -> bool:
        """Whether it does something about SIGTERM by now; before that it just dies of it."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def terminate(self) -> Deferred[int]:
        """Ask it to stop; fires with the exit status."""
        return self._signal("TERM")

    def hang_up(self) -> None:
        """Ask it to read its configuration again."""
        self._process.signalProcess("HUP")

    @property
    def workers(self) -> list[int]:
        """The processes that it has started."""
        return children(self._process.pid)

    def kill(self) -> Deferred[int]:
        """End it without asking; fires with the exit status."""
        return self._signal("KILL")

    def hold(self) -> None:
        """Let it stand still."""
        self._process.signalProcess(signal.SIGSTOP)

    def release(self) -> None:
        """Let it go on."""
        self._process.signalProcess(signal.SIGCONT)

    async def clean_up(self) -> None:
        """End it if it still runs."""
        if self._watch is not None and self._watch.ended is not None:
            await self.kill()

    def _signal(self, name: str) -> Deferred[int]:
        assert self._watch is not None
        assert self._watch.ended is not None
        self._process.signalProcess(name)
        return self._watch.ended

    @staticmethod
    def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
        """The repository comes first, so that its package and its plugin are found."""
        paths = [str(REPOSITORY), inherited.get("PYTHONPATH", "")]
        return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
