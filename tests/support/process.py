"""Processes that tests and benchmarks start, watch and stop.

Waiting comes in two kinds: ``start`` and ``terminate`` let the reactor run meanwhile, and
``start_and_wait`` and ``stop`` block.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest

from tests.support import REPOSITORY
from tests.support.waiting import TIMEOUT, TimedOut, block_until, until


class StartError(AssertionError):
    """A process did not start, or did not stop when told to; the message holds its output."""


def subprocess_environment(**more: str) -> dict[str, str]:
    """Return the environment of a program that imports this repository's packages."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    found = os.pathsep.join(filter(None, paths))
    return {**os.environ, "PYTHONPATH": found, "COLUMNS": "100", **more}


def as_account(name: str | None) -> dict[str, Any]:
    """Return the arguments of ``subprocess`` to run a program as another user, if one is named."""
    if name is None:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def require(*modules: str) -> None:
    """Skip the test when Python modules are not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SkipTest(f"not installed: {', '.join(missing)}")


def children(pid: int) -> list[int]:
    """List the child processes of a process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def run(
    command: Sequence[str], given: str = "", timeout: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            env=subprocess_environment(),
            cwd=folder,
            timeout=timeout,
            check=False,
        )


def succeed(
    command: Sequence[str],
    given: str = "",
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end, which has to be exit status 0.

    :param given: its standard input.
    :param environment: its environment; by default that of the tests.
    """
    done = subprocess.run(
        command,
        input=given.encode("utf-8"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    if done.returncode:
        raise AssertionError(f"{command[0]}: {done.stdout.decode('utf-8', 'replace')}")


def cli(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of ``synapse-login-module`` to its end."""
    return run([sys.executable, "-m", "synapse_login_module.cli", *arguments], given)


class Process:
    """A process that can be stopped and started again. It is not started yet.

    :param output: the file that its output is appended to.
    :param folder: its current directory.
    :param env: its environment; by default :func:`subprocess_environment`.
    :param pass_fds: the descriptors that it inherits beside its output.
    :param account: the user that it runs as; by default this one.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: Path,
        *,
        folder: Path = REPOSITORY,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        account: str | None = None,
    ) -> None:
        self._command = list(command)
        self._output = output
        self._folder = folder
        self._environment = subprocess_environment() if env is None else dict(env)
        self._pass_fds = pass_fds
        self._account = as_account(account)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal, or ``None`` while it runs."""
        return self._started.poll()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._started.pid

    def resident(self) -> int:
        """The resident memory in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def log(self, start: int = 0) -> str:
        """Return its output from a byte offset on."""
        if not self._output.exists():
            return ""
        return self._output.read_bytes()[start:].decode("utf-8", "replace")

    def launch(self) -> None:
        """Start the process without waiting."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self._pass_fds,
                **self._account,
            )

    async def start(self, ready: Callable[[], object]) -> None:
        """Start the process and wait until it is ready.

        :raise StartError: when it ends before that, or is not ready in time.
        """
        self.launch()
        try:
            await until(lambda: ready() or not self.running, f"start of {self._command}")
        except TimedOut as error:
            self._give_up(error)
        self._check_started()

    def start_and_wait(self, ready: Callable[[], object], pause: float = 0.01) -> None:
        """Like :meth:`start`, but block until it is ready.

        :param pause: the seconds from one check to the next.
        """
        self.launch()
        try:
            block_until(
                lambda: ready() or not self.running, f"start of {self._command}", pause=pause
            )
        except TimedOut as error:
            self._give_up(error)
        self._check_started()

    def send_signal(self, number: int) -> None:
        """Send the process a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def hang_up(self) -> None:
        """Send SIGHUP, which reloads the configuration."""
        self.send_signal(signal.SIGHUP)

    def hold(self) -> None:
        """Suspend the process."""
        self.send_signal(signal.SIGSTOP)

    def release(self) -> None:
        """Resume the process."""
        self.send_signal(signal.SIGCONT)

    def heeds_terminate(self) -> bool:
        """Return whether it has installed a handler of SIGTERM."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def terminate(self) -> Deferred[int]:
        """Send SIGTERM; fires with the exit status when the process has ended."""
        self.send_signal(signal.SIGTERM)
        return Deferred.fromCoroutine(self.ended())

    async def ended(self) -> int:
        """Wait until it has ended; return its exit status."""
        await until(lambda: not self.running, f"the end of {self._command}", timeout=TIMEOUT)
        return self._started.wait()

    def stop(self, number: int = signal.SIGTERM, timeout: float = TIMEOUT) -> int | None:
        """Send a signal to stop it, and block until it has ended.

        :return: its exit status, or ``None`` when it had to be killed.
        """
        if self._process is None:
            return 0
        self.send_signal(number)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self._command} was not started"
        return self._process

    def _check_started(self) -> None:
        if not self.running:
            self._give_up(f"{self._command} ended with {self.exit_status}")

    def _give_up(self, error: object) -> None:
        self.kill()
        raise StartError(f"{error}\n{self.log()}") from None
