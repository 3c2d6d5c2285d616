"""Runs the load generator against a server, and takes figures from what it has measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Protocol

from benchmarks import load
from benchmarks.figures import CONNECTIONS
from benchmarks.load import LOGIN, Result
from benchmarks.servers import PASSWORD, USER
from tests.support import REPOSITORY

STORM = 16
"""The connections of a storm of logins."""

_MOST_SECONDS = 60.0


class MeasurementError(Exception):
    """Something could not be measured; the message says why."""


class Listening(Protocol):
    """A server that the load generator can drive."""

    @property
    def port(self) -> int:
        """The port on the loopback interface."""


class Storm:
    """A load of logins without pause, for as long as a ``with`` statement lasts."""

    def __init__(self, server: Listening, user: str = USER) -> None:
        self._server = server
        self._user = user

    def __enter__(self) -> None:
        with tempfile.TemporaryFile() as lines:
            lines.write(b"\n".join(login_lines(STORM, self._user)))
            lines.seek(0)
            self._process = subprocess.Popen(
                _command(self._server, LOGIN, 1_000_000, STORM),
                cwd=REPOSITORY,
                stdin=lines,
                stdout=subprocess.DEVNULL,
            )
        time.sleep(1.0)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        # The server finishes the hashes in progress, although their clients are gone. A login
        # waits for those that Synapse has queued.
        drive(self._server, LOGIN, login_lines(1, self._user), 1, 1)
        time.sleep(1.0)


def drive(
    server: Listening,
    mode: str,
    lines: Sequence[bytes],
    requests: int,
    connections: int = CONNECTIONS,
    every_second: float | None = None,
) -> Result:
    """Run the load generator once.

    :param every_second: how many requests are due in a second; ``None`` for as many as are
        answered.
    :raise MeasurementError: when requests failed.
    """
    pace = [] if every_second is None else [f"--rate={every_second}"]
    done = subprocess.run(
        [*_command(server, mode, requests, connections), *pace],
        cwd=REPOSITORY,
        input=b"\n".join(lines),
        stdout=subprocess.PIPE,
        check=True,
    )
    result = Result(**json.loads(done.stdout))
    if result.failed and lines != [b"x y"]:
        raise MeasurementError(f"{result.failed} of {result.requests} requests failed")
    return result


def _command(server: Listening, mode: str, requests: int, connections: int) -> list[str]:
    options = {
        "port": server.port,
        "connections": connections,
        "requests": requests,
        "seconds": _MOST_SECONDS,
    }
    return [
        *(sys.executable, "-m", load.__name__, mode),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def login_lines(count: int, user: str = USER) -> list[bytes]:
    """Return login requests of one user, each with a new device."""
    credentials = {"type": "m.login.password", "user": user, "password": PASSWORD}
    return [
        json.dumps({**credentials, "device_id": f"DEVICE{number}"}).encode("ascii")
        for number in range(count)
    ]


def rate(result: Result) -> float:
    """Return the requests a second."""
    return result.rate


def p50(result: Result) -> float:
    """Return the milliseconds within which half of the responses came."""
    return result.p50 * 1000


def p99(result: Result) -> float:
    """Return the milliseconds within which 99 of 100 responses came."""
    return result.p99 * 1000


def slowest(result: Result) -> float:
    """Return the milliseconds within which all responses came."""
    return result.slowest * 1000


def generator(result: Result) -> float:
    """Return the share of a core that the load generator took."""
    return result.cpu
