"""Runs the standalone server in a process that can be stopped and started again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.http import ask, healthy
from tests.support.ports import listens
from tests.support.process import Process, children, subprocess_environment


def twistd(
    config: Path,
    *,
    options: Sequence[str] = (),
    twistd_options: Sequence[str] = (),
    program: Sequence[str] = (),
    launcher: Sequence[str] = (),
) -> list[str]:
    """Return the command that runs the server in the foreground.

    :param config: its configuration file.
    :param options: further options of ``synapse-login``.
    :param twistd_options: further options of twistd.
    :param program: the arguments of Python that run another program instead of twistd.
    :param launcher: the arguments of Python for a program that runs the rest of the command.
    """
    script = Path(sys.executable).with_name("twistd")
    otherwise = ["-c", "from twisted.scripts.twistd import run; run()"]
    start = program or ([str(script)] if script.exists() else otherwise)
    foreground = ["-n", "--pidfile=", *twistd_options]
    return [
        *(sys.executable, *launcher, *start, *foreground),
        *("synapse-login", "--config", str(config), *options),
    ]


class Server(Process):
    """A process of the standalone server. It runs and logs in the folder of its configuration.

    :param config: its configuration file.
    :param port: the loopback port of the configuration.
    :param env: further environment variables.
    :param pass_fds: the descriptors that it inherits.
    :param command: further arguments of :func:`twistd`.
    """

    def __init__(
        self,
        config: Path,
        port: int,
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        **command: Sequence[str],
    ) -> None:
        super().__init__(
            twistd(config, **command),
            config.with_name("server.log"),
            folder=config.parent,
            env=subprocess_environment(**(env or {})),
            pass_fds=pass_fds,
        )
        self.config = config
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def start(self, ready: Callable[[], object] | None = None) -> None:
        """Start the server and wait until it accepts connections."""
        await super().start(ready or self.listens)

    def start_and_wait(
        self, ready: Callable[[], object] | None = None, pause: float = 0.02
    ) -> None:
        """Start the server and block until it is healthy."""
        super().start_and_wait(ready or (lambda: healthy(self.port)), pause)

    @property
    def workers(self) -> list[int]:
        """The ids of its worker processes."""
        return children(self.pid)

    def listens(self) -> bool:
        """Return whether it accepts connections."""
        return listens(self.port)

    def ask(
        self, method: str, path: str, payload: object = None, token: str | None = None
    ) -> tuple[int, Any]:
        """Send a request; return the status and the JSON of the response."""
        status, content = ask(self.port, method, path, payload, token)
        return status, json.loads(content)


def start_server(config: Path, port: int, **launch: Any) -> Server:
    """Start a :class:`Server`, and block until it is healthy."""
    server = Server(config, port, **launch)
    server.start_and_wait()
    return server
