"""The standalone server, in a process of its own that can be ended and started again."""

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
    """The command that runs the server in the foreground.

    :param config: its configuration file.
    :param options: more of the command line.
    :param twistd_options: the same, of twistd itself.
    :param program: what Python runs in the place of twistd.
    :param launcher: what Python runs that is to run the command line.
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
    """The standalone server. It runs in the folder of its configuration, and logs there.

    :param config: its configuration file.
    :param port: the loopback port that this makes it listen on.
    :param env: more of its environment.
    :param pass_fds: what it inherits.
    :param command: how it is started, see :func:`twistd`.
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
        """Start it, and wait until it takes connections."""
        await super().start(ready or self.listens)

    def start_and_wait(
        self, ready: Callable[[], object] | None = None, pause: float = 0.02
    ) -> None:
        """Start it, and block until it is healthy."""
        super().start_and_wait(ready or (lambda: healthy(self.port)), pause)

    @property
    def workers(self) -> list[int]:
        """The processes that it has started."""
        return children(self.pid)

    def listens(self) -> bool:
        """Whether it takes connections."""
        return listens(self.port)

    def ask(
        self, method: str, path: str, payload: object = None, token: str | None = None
    ) -> tuple[int, Any]:
        """Send a request; the status and the JSON of the answer."""
        status, content = ask(self.port, method, path, payload, token)
        return status, json.loads(content)


def start_server(config: Path, port: int, **launch: Any) -> Server:
    """A :class:`Server` that is healthy."""
    server = Server(config, port, **launch)
    server.start_and_wait()
    return server
