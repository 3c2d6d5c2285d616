"""Runs a saslauthd in the foreground, on a socket in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support.process import Process, subprocess_environment


class Saslauthd(Process):
    """A saslauthd. Its folder is removed by :meth:`remove`.

    :param environment: further environment variables.
    :param processes: how many questions it answers at once.
    :ivar socket: the path of its socket, short enough for one.
    """

    def __init__(self, environment: Mapping[str, str], processes: int = 2) -> None:
        program = shutil.which("saslauthd", path="/usr/sbin:/usr/bin")
        if program is None:
            raise SkipTest("sasl2-bin is not installed")
        self._own = Path(tempfile.mkdtemp(prefix="saslauthd-"))
        self.socket = self._own / "mux"
        super().__init__(
            # A process group of its own, since it ends the whole of that when it ends.
            ["setsid", program, "-d", "-a", "pam", "-m", str(self._own), "-n", str(processes)],
            self._own / "log",
            env=subprocess_environment(**environment),
        )

    def listens(self) -> bool:
        """Return whether it accepts connections."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0

    def remove(self) -> None:
        """Kill its processes, since it does not always end when told to; remove its folder."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
        self.kill()
        shutil.rmtree(self._own)
