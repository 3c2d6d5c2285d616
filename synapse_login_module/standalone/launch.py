"""Starts the server: either it serves, or it prints one line and exits with status 1.

This replaces twistd's own daemonization (``twisted.scripts._twistd_unix``), which has three
faults. Its first process waits for a status on a pipe whose other end it holds open itself, so it
hangs when the daemon exits without writing one, as with ``SystemExit``. It shows at most 100 bytes
of an error. And it reports success before the reactor runs.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorDaemonize
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent, globalLogPublisher
from twisted.python.components import Componentized
from twisted.python.util import untilConcludes
from zope.interface import implementer

from synapse_login_module import start_lines
from synapse_login_module.errors import LoginServiceError, described
from synapse_login_module.standalone.reactor import stop

PROGRAM = "synapse-login"

_DAEMONS_UMASK = 0o077
_SERVES = b"\0"


class Launch:
    """The start of one server: reports its outcome on the terminal and by the exit status.

    If the process ends before the server serves, for whatever reason, the start has failed: status
    1, one line on the terminal and no pidfile.

    :param twistd: twistd's options.
    :param reactor: the reactor, not running yet.
    :param where: the configuration file, named before the problem.
    :param log_too: whether to write the line to the log as well, because the log is not on the
        terminal.
    :ivar has_served: whether the server has served.
    """

    log = Logger()

    def __init__(
        self, twistd: MutableMapping[str, Any], reactor: Any, where: object, log_too: bool
    ) -> None:
        self._twistd = twistd
        self._reactor = reactor
        self._where = where
        self._log_too = log_too
        self._observer: ILogObserver | None = None
        self._terminal: int | None = None
        self._last_line = _LastLine()
        self._ran = self._failed = self.has_served = False

    def log_by(self, observer: ILogObserver | None, log_too: bool) -> None:
        """Have twistd write the log by an observer; ``None`` for twistd's own.

        :param log_too: as at the beginning, now that the form of the log is known.
        """
        self._observer = observer
        self._log_too = log_too

    def begin(self) -> None:
        """Daemonize, unless twistd has ``--nodaemon``. twistd continues in the daemon."""
        if not self._twistd.get("nodaemon", True):
            self._twistd["nodaemon"] = True
            if self._twistd.get("umask") is None:
                self._twistd["umask"] = _DAEMONS_UMASK
            self._terminal = _daemonize(self._reactor, self._twistd.get("pidfile"))
        if self._twistd:  # else a test or another program runs the services
            globalLogPublisher.addObserver(self._last_line)
            atexit.register(self._end)
        self._reactor.callWhenRunning(self._runs)

    def service(self) -> MultiService:
        """Return the parent of the server's services; an error at their start ends the process."""
        return _Guarded(self, self._observer)

    def serves(self) -> None:
        """Report that the server serves, and detach from the terminal."""
        if self._twistd:
            globalLogPublisher.removeObserver(self._last_line)
        if self._terminal is not None and not self._failed:
            self._detach(self._terminal)
            self._terminal = None
        self.has_served = True

    def fail(self, problem: object) -> None:
        """Print why the server cannot serve, stop the reactor, and exit with status 1."""
        self._tell(f"{self._where}: {problem}")
        if self._log_too:
            self.log.critical("{where}: {problem}", where=self._where, problem=problem)
        self._failed = True
        if self._ran:
            stop(self._reactor)

    def fail_now(self, error: BaseException) -> NoReturn:
        """Print why the server cannot serve, and exit with status 1 at once.

        For errors before the reactor runs. Threads that were started are not waited for.
        """
        if isinstance(error, (LoginServiceError, SystemExit)):
            self.fail(error)
        else:
            self.log.failure("the server cannot start")
            self.fail(described(error))
        self._exit()

    def _runs(self) -> None:
        self._ran = True
        if self._failed:
            stop(self._reactor)

    def _end(self) -> None:
        """At the end of the process, report a failed start and set the exit status."""
        if not self._ran and not self._failed:
            self._tell(self._last_line.text or "it ended before it served")
            self._failed = True
        if self._failed:
            self._exit()

    def _exit(self) -> NoReturn:
        """Exit with status 1; twistd offers no way to."""
        _remove_pidfile(self._twistd.get("pidfile"), os.getpid())
        sys.stdout.flush()
        os._exit(1)

    def _tell(self, line: str) -> None:
        text = f"{PROGRAM}: {line}\n".encode("utf-8", "backslashreplace")
        with suppress(OSError):
            _write(2 if self._terminal is None else self._terminal, text)

    def _detach(self, terminal: int) -> None:
        """Redirect the standard streams to ``/dev/null``, and release the waiting process."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for each in range(3):
            os.dup2(nothing, each)
        os.close(nothing)
        with suppress(OSError):
            _write(terminal, _SERVES)
        os.close(terminal)


@implementer(ILogObserver)
class _LastLine:
    """Keeps the last line of the log, the only place where twistd writes why it gives up."""

    text = ""

    def __call__(self, event: LogEvent) -> None:
        self.text = (formatEvent(event) or "").strip().rpartition("\n")[2] or self.text


class _Guarded(MultiService):
    """A parent of services which reports an error at their start to the operator.

    It also has the log written by our observer, and its last line when all services have stopped.
    """

    def __init__(self, launch: Launch, observer: ILogObserver | None) -> None:
        super().__init__()
        self._launch = launch
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Give twistd's application the observer: twistd looks there for one."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def stopService(self) -> Deferred[Any]:
        """Stop the services; fires when all have stopped."""

        def stopped(result: Any) -> Any:
            if self._launch.has_served:
                start_lines.stopped()
            return result

        return maybeDeferred(super().stopService).addCallback(stopped)

    def privilegedStartService(self) -> None:
        """Start the parts that need privileges."""
        self._guard(super().privilegedStartService)

    def startService(self) -> None:
        """Start the services."""
        self._guard(super().startService)

    def _guard(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except BaseException as error:  # for instance a plugin that calls sys.exit()
            self._launch.fail_now(error)


def _daemonize(reactor: Any, pidfile: str | None) -> int:
    """Continue as a daemon, in a session of its own.

    The process that was started stays at the terminal. It exits with 0 when the server serves, and
    with 1 when the daemon ends before.

    :return: the descriptor of a pipe to that process, which prints what it reads.
    """
    if IReactorDaemonize.providedBy(reactor):
        reactor.beforeDaemonize()
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    if os.fork():
        os.close(theirs)
        os._exit(_wait(ours, pidfile))
    os.close(ours)
    os.setsid()
    if os.fork():
        os._exit(0)
    _write(theirs, b"%d\n" % os.getpid())
    if IReactorDaemonize.providedBy(reactor):
        reactor.afterDaemonize()
    return theirs


def _wait(pipe: int, pidfile: str | None) -> int:
    """Wait at the terminal for the daemon; return the exit status.

    :param pipe: the descriptor that the daemon's process id, error and end of start come from.
    """
    heard = b""
    try:
        while more := untilConcludes(os.read, pipe, 4096):
            heard += more
            if more.endswith(_SERVES):
                return 0
    except KeyboardInterrupt:
        daemon = heard.partition(b"\n")[0]
        if daemon.isdigit():
            with suppress(OSError):
                os.kill(int(daemon), signal.SIGTERM)
        return 130
    number, _, said = heard.partition(b"\n")
    with suppress(OSError):
        _write(2, said or f"{PROGRAM}: it ended before it served; see the log\n".encode())
    if number.isdigit():
        _remove_pidfile(pidfile, int(number))
    return 1


def _remove_pidfile(pidfile: str | None, pid: int) -> None:
    """Remove the pidfile if it names that process and this one is allowed to remove it."""
    if not pidfile:
        return
    with suppress(OSError, ValueError):
        path = Path(pidfile)
        if int(path.read_text()) == pid:
            path.unlink()


def _write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[untilConcludes(os.write, descriptor, text) :]
