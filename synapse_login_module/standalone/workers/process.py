"""A worker as its parent sees it."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import LoginServiceError
from synapse_login_module.standalone.workers import worker

HEARTBEAT_INTERVAL = 5.0
"""Seconds from one sign of life of a worker to its next."""

_MAX_MISSED = 6
"""How many signs of life in a row may be missing."""

_MAX_MISSED_AT_START = 120
"""The same, before it serves: its database may have to be brought up to date."""

_SETTLED = 10.0
_LONGEST_PAUSE = 60.0
_KILL_AFTER = 60.0
_PIPE_DRAIN = 1.0
_OUTPUTS = (1, 2)
_LINE = re.compile(r"\S+ \[(?P<system>[^\]]*)\] (?P<text>.*)")
_NOT_THEIRS = ("LISTEN_", "NOTIFY_", "WATCHDOG_")


class CannotStart(LoginServiceError):
    """A worker ended before it was ready."""


@dataclass(frozen=True)
class WorkerSpec:
    """What every worker of a server is given.

    :param path: where the configuration was read.
    :param document: what stood there.
    :param workers: how many there are.
    :param limits: the descriptor of the rate limits' table.
    :param counts: the descriptor of the counts of connections.
    :param sockets: the descriptors of the listening sockets, as the configuration lists them.
    :param relay_output: whether the log goes into this process's own, and not straight to its
        standard output.
    """

    path: Path
    document: bytes
    workers: int
    limits: int
    counts: int
    sockets: Sequence[int]
    relay_output: bool


class WorkerProcess(ProcessProtocol):
    """A worker's process, from its start to its end.

    :ivar ready: fires when it serves; fails with :class:`CannotStart` if it ends before.
    :ivar ended: fires with how it ended.
    """

    log = Logger()
    transport: Any

    def __init__(self, number: int, spec: WorkerSpec, reactor: Any) -> None:
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()
        self._number = number
        self._reactor = reactor
        self._said = b""
        self._output = dict.fromkeys(_OUTPUTS, b"")
        self._serves = False
        self._leaves = False
        self._missed = 0
        self._next: IDelayedCall | None = None
        descriptors: dict[int, str | int] = {
            worker.CONFIGURATION: "w",
            worker.TO_PARENT: "r",
            worker.LIMITS: spec.limits,
            worker.COUNTS: spec.counts,
            **{each: "r" if spec.relay_output else each for each in _OUTPUTS},
            **dict(enumerate(spec.sockets, worker.FIRST_SOCKET)),
        }
        self.pid: int | None = None
        self._then(HEARTBEAT_INTERVAL, self._miss)
        try:
            with _held_back(worker.NOT_THEIRS):
                reactor.spawnProcess(
                    self,
                    sys.executable,
                    worker.command(number, spec.workers, spec.path, HEARTBEAT_INTERVAL),
                    env=_environment(os.environ),
                    childFDs=descriptors,
                )
        except OSError as error:
            self._said = str(error).encode()
            self.processEnded(Failure(error))
            return
        self.pid = self.transport.pid
        self.transport.writeToChild(worker.CONFIGURATION, worker.frame(spec.document))

    def stop(self) -> None:
        """Have it answer what is in flight and end."""
        if not self.ended.called:
            self._signal("TERM")
            self._kill_in_the_end()

    def retire(self) -> None:
        """The same, while others take over: nobody who talks to it is to notice."""
        if not self.ended.called:
            self.transport.closeChildFD(worker.CONFIGURATION)
            self._kill_in_the_end()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Hear that it is ready, or why it is not; or take its log."""
        if childFD in _OUTPUTS:
            *lines, self._output[childFD] = (self._output[childFD] + data).split(b"\n")
            for line in lines:
                self._relay(line.decode("utf-8", "replace"))
            return
        self._missed = 0
        if self._serves:
            return
        self._said += data
        if self._said.startswith(worker.READY):
            self._said = b""
            self._serves = True
            self.ready.callback(None)

    def processExited(self, reason: Failure) -> None:
        """Wait for what is still in the pipes, but not for others who have them open too, such as
        a process that the worker started.
        """
        self._leaves = True
        self._then(_PIPE_DRAIN, self._close)

    def processEnded(self, reason: Failure) -> None:
        """Tell who waits."""
        self._then(None)
        for line in filter(None, self._output.values()):
            self._relay(line.decode("utf-8", "replace"))
        how = " ".join(self._said.decode("utf-8", "replace").split()) or _how(reason.value)
        if not self.ready.called:
            self.ready.errback(CannotStart(f"worker {self._number} cannot start: {how}"))
        self.ended.callback(how)

    def _relay(self, line: str) -> None:
        match = _LINE.match(line)
        system, text = match.groups() if match else (f"worker={self._number} pid={self.pid}", line)
        self.log.info("{text}", text=text, log_system=system)

    def _miss(self) -> None:
        """Look for a sign of life.

        What counts is how often there was none, and not for how long: while this process stands
        still itself, or all of the machine, nobody is silent.
        """
        self._missed += 1
        if self._missed <= (_MAX_MISSED if self._serves else _MAX_MISSED_AT_START):
            self._then(HEARTBEAT_INTERVAL, self._miss)
            return
        self.log.error(
            "worker {number}, process {pid}, gives no sign of life: killed",
            number=self._number,
            pid=self.pid,
        )
        self._signal("KILL")

    def _kill_in_the_end(self) -> None:
        if not self._leaves:
            self._leaves = True
            self._then(_KILL_AFTER, self._signal, "KILL")

    def _close(self) -> None:
        for each in (worker.CONFIGURATION, worker.TO_PARENT, *_OUTPUTS):
            self.transport.closeChildFD(each)

    def _then(self, seconds: float | None, *what: Any) -> None:
        """Do something later, in the place of what was to be done."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None if seconds is None else self._reactor.callLater(seconds, *what)

    def _signal(self, name: str) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)


class WorkerSlot:
    """One worker's place: whoever leaves it unasked is replaced, at once or after a while.

    :param start: starts a worker.
    :param reactor: keeps the time.
    :ivar worker: who has it now, or had it last.
    """

    log = Logger()

    def __init__(self, number: int, start: Callable[[], WorkerProcess], reactor: Any) -> None:
        self._number = number
        self._start = start
        self._reactor = reactor
        self._pause = 0.0
        self._next: IDelayedCall | None = None
        self._given_up = False
        self._fill()

    def watch(self) -> None:
        """Replace whoever leaves, or has left."""
        self.worker.ended.addCallback(self._left)

    def give_up(self) -> None:
        """Replace nobody any more."""
        self._given_up = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _fill(self) -> None:
        self._since = self._reactor.seconds()
        self.worker = self._start()

    def _fill_again(self) -> None:
        self._fill()
        self.worker.ready.addErrback(lambda failure: failure.trap(CannotStart) and None)
        self.watch()

    def _left(self, how: str) -> None:
        if self._given_up:
            return
        settled = self._reactor.seconds() - self._since >= _SETTLED
        self._pause = 0.0 if settled else min(max(1.0, 2 * self._pause), _LONGEST_PAUSE)
        self.log.error(
            "worker {number}, process {pid}, ended: {how}; another starts in {pause:g} seconds",
            number=self._number,
            pid=self.worker.pid,
            how=how,
            pause=self._pause,
        )
        self._next = self._reactor.callLater(self._pause, self._fill_again)


@contextmanager
def _held_back(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Start processes for which signals wait until they can do something about them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: the same modules, and nothing that is for its parent alone."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_NOT_THEIRS)}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _how(reason: object) -> str:
    if isinstance(reason, ProcessTerminated) and reason.signal:
        return f"signal {reason.signal}"
    return f"exit status {getattr(reason, 'exitCode', 0)}"
