"""A worker process as its parent sees it: start, heartbeats, log and end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
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

from synapse_login_module.config.settings import LogFormat
from synapse_login_module.errors import LoginServiceError
from synapse_login_module.metrics.prometheus import FOLDER_VARIABLE
from synapse_login_module.standalone.workers import worker
from synapse_login_module.standalone.workers.output import OUTPUTS, WorkerOutput

HEARTBEAT_INTERVAL = 5.0
"""Seconds from one heartbeat of a worker to the next."""

_MAX_MISSED = 6
"""How many heartbeats in a row may be missing."""

_MAX_MISSED_AT_START = 120
"""The same before the worker serves: its database may have to be migrated first."""

_KILL_AFTER = 60.0
_PIPE_DRAIN = 1.0
_PARENT_VARIABLES = ("LISTEN_", "NOTIFY_", "WATCHDOG_")


class CannotStart(LoginServiceError):
    """A worker ended before it was ready."""


@dataclass(frozen=True)
class WorkerSpec:
    """What all workers of a server are started with.

    :param path: the path of the configuration file.
    :param document: the bytes of the configuration file.
    :param workers: the number of workers.
    :param limits: the descriptor of the rate limits' table.
    :param counts: the descriptor of the counts of connections.
    :param sockets: the descriptors of the listening sockets, in the order of the configuration.
    :param relay_output: whether the workers' output goes to the log of this process, instead of
        directly to its standard output and error.
    :param log_format: the form of the log.
    :param metrics: the folder in which workers keep their metrics, if they keep any.
    """

    path: Path
    document: bytes
    workers: int
    limits: int
    counts: int
    sockets: Sequence[int]
    relay_output: bool
    log_format: LogFormat = "text"
    metrics: Path | None = None


class WorkerProcess(ProcessProtocol):
    """A worker's process, from its start to its end.

    :param number: which worker it is, from 1 on.
    :param slot: names the files of its metrics; ``None`` when it keeps none.
    :ivar ready: fires when the worker serves; fails with :class:`CannotStart` if it ends before.
    :ivar ended: fires with the reason when the process has ended.
    """

    log = Logger()
    transport: Any

    def __init__(
        self, number: int, spec: WorkerSpec, reactor: Any, slot: int | None = None
    ) -> None:
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()
        self._number = number
        self._reactor = reactor
        self._reported = b""
        self._output = {each: WorkerOutput(each, spec.log_format, number) for each in OUTPUTS}
        self._serves = False
        self._exiting = False
        self._missed = 0
        self._next: IDelayedCall | None = None
        descriptors: dict[int, str | int] = {
            worker.CONFIGURATION: "w",
            worker.TO_PARENT: "r",
            worker.LIMITS: spec.limits,
            worker.COUNTS: spec.counts,
            **{each: "r" if spec.relay_output else each for each in OUTPUTS},
            **dict(enumerate(spec.sockets, worker.FIRST_SOCKET)),
        }
        self.pid: int | None = None
        self._schedule(HEARTBEAT_INTERVAL, self._check_heartbeat)
        try:
            with _signals_blocked(worker.PARENT_SIGNALS):
                reactor.spawnProcess(
                    self,
                    sys.executable,
                    worker.command(
                        number,
                        spec.workers,
                        spec.path,
                        HEARTBEAT_INTERVAL,
                        spec.log_format,
                        slot,
                    ),
                    env=_environment(os.environ, None if slot is None else spec.metrics),
                    childFDs=descriptors,
                )
        except OSError as error:
            self._reported = str(error).encode()
            self.processEnded(Failure(error))
            return
        self.pid = self.transport.pid
        self.transport.writeToChild(worker.CONFIGURATION, worker.frame(spec.document))

    def stop(self) -> None:
        """Tell the worker to answer its requests in flight and exit; kill it after a timeout."""
        if not self.ended.called:
            self._signal("TERM")
            self._kill_later()

    def retire(self) -> None:
        """Tell the worker to exit because others take over.

        Unlike after :meth:`stop`, it keeps idle connections open for some seconds, so that no
        client notices.
        """
        if not self.ended.called:
            self.transport.closeChildFD(worker.CONFIGURATION)
            self._kill_later()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Note that the worker is ready, or why it cannot start, or a heartbeat; relay its log."""
        if childFD in self._output:
            self._output[childFD].feed(data, self.pid)
            return
        self._missed = 0
        if self._serves:
            return
        self._reported += data
        if self._reported.startswith(worker.READY):
            self._reported = b""
            self._serves = True
            self.ready.callback(None)

    def processExited(self, reason: Failure) -> None:
        """Read the rest of the pipes for a moment, then close them.

        A process that the worker started may hold them open, and is not waited for.
        """
        self._exiting = True
        self._schedule(_PIPE_DRAIN, self._close)

    def processEnded(self, reason: Failure) -> None:
        """Fire the Deferreds."""
        self._schedule(None)
        for output in self._output.values():
            output.end(self.pid)
        how = " ".join(self._reported.decode("utf-8", "replace").split()) or _how(reason.value)
        if not self.ready.called:
            self.ready.errback(CannotStart(f"worker {self._number} cannot start: {how}"))
        self.ended.callback(how)

    def _check_heartbeat(self) -> None:
        """Count a missing heartbeat; kill the worker after too many in a row.

        Misses are counted instead of seconds, since this process or the whole machine may be
        suspended, which says nothing about the worker.
        """
        self._missed += 1
        if self._missed <= (_MAX_MISSED if self._serves else _MAX_MISSED_AT_START):
            self._schedule(HEARTBEAT_INTERVAL, self._check_heartbeat)
            return
        self.log.error(
            "worker {number}, process {process}, gives no sign of life: killed",
            number=self._number,
            process=self.pid,
        )
        self._signal("KILL")

    def _kill_later(self) -> None:
        if not self._exiting:
            self._exiting = True
            self._schedule(_KILL_AFTER, self._signal, "KILL")

    def _close(self) -> None:
        for each in (worker.CONFIGURATION, worker.TO_PARENT, *OUTPUTS):
            self.transport.closeChildFD(each)

    def _schedule(self, seconds: float | None, *what: Any) -> None:
        """Schedule a call instead of the pending one; with ``None``, only cancel that."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None if seconds is None else self._reactor.callLater(seconds, *what)

    def _signal(self, name: str) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)


@contextmanager
def _signals_blocked(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Block signals while a process is started, so that it gets them once it can handle them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment(inherited: Mapping[str, str], metrics: Path | None) -> dict[str, str]:
    """Build the environment of a worker: the same ``sys.path``, and no variable of systemd's that
    is meant for the parent.

    :param metrics: the folder of the workers' metrics. ``prometheus_client`` needs to find it here,
        whichever module imports it first.
    """
    kept = {
        name: value for name, value in inherited.items() if not name.startswith(_PARENT_VARIABLES)
    }
    kept.pop(FOLDER_VARIABLE, None)
    if metrics is not None:
        kept[FOLDER_VARIABLE] = str(metrics)
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _how(reason: object) -> str:
    if isinstance(reason, ProcessTerminated) and reason.signal:
        return f"signal {reason.signal}"
    return f"exit status {getattr(reason, 'exitCode', 0)}"
