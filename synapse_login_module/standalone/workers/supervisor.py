"""Starts several workers that share the listening sockets, watches over them and replaces them.

The parent opens the listening sockets and never accepts. Its workers inherit them, so no connection
is refused or dropped while a worker is replaced. Workers exit when the parent does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, FirstError, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import ConfigError
from synapse_login_module.limits import shared_memory
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.sd_notify import Notifier
from synapse_login_module.standalone.workers import connection_counts
from synapse_login_module.standalone.workers.inherited_sockets import OpenSocket
from synapse_login_module.standalone.workers.metrics_folder import MetricsFolder, folder_for
from synapse_login_module.standalone.workers.process import (
    CannotStart,
    WorkerProcess,
    WorkerSpec,
)
from synapse_login_module.standalone.workers.slot import WorkerSlot

_Sockets = dict[str, OpenSocket]


class Supervisor(Service):
    """The service in the parent which keeps a number of workers running.

    :param path: the configuration file.
    :param loaded: the configuration at the start.
    :param workers: the number of workers.
    :param reactor: the reactor.
    :param notifier: notifies the service manager.
    :param started: called when the workers serve for the first time.
    :param reloaded: called with the configuration of new workers, once they serve.
    :param fail: called with the reason when the workers cannot start at all.
    :param relay_output: whether the workers' output goes to the log of this process, instead of
        directly to its standard output and error.
    :raise ConfigError: when the store serves a single process only.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        loaded: LoadedConfig,
        workers: int,
        reactor: Any,
        notifier: Notifier,
        started: Callable[[], None],
        reloaded: Callable[[LoadedConfig], None],
        fail: Callable[[object], None],
        *,
        relay_output: bool,
    ) -> None:
        _refuse_single_process_store(loaded)
        self._path = path.absolute()
        self._loaded = loaded
        self._workers = workers
        self._reactor = reactor
        self._notifier = notifier
        self._started = started
        self._reloaded = reloaded
        self._fail = fail
        self._relay_output = relay_output
        self._log_format = loaded.config.log.format
        self._limits = shared_memory.make_table()
        self._counts = connection_counts.make_counts(workers)
        self._sockets: _Sockets = {}
        self._slots: list[WorkerSlot] = []
        self._alive: set[WorkerProcess] = set()
        self._changes = DeferredLock()
        self._metrics: MetricsFolder | None = None

    def privilegedStartService(self) -> None:
        """Open the listening sockets.

        :raise ConfigError: when one cannot be opened.
        """
        self._sockets = self._open(self._loaded)
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the workers. By now the process has the user that it keeps."""
        super().startService()
        self._change(self._begin)

    def stopService(self) -> Deferred[None]:
        """Tell the workers to answer their requests in flight; fires when all have ended."""
        super().stopService()
        return Deferred.fromCoroutine(self._end())

    def reload(self) -> None:
        """Replace the workers by new ones with the current configuration and keys.

        If these cannot be used, log why, and keep the workers.
        """
        if not self._changes.waiting:  # a waiting reload will read the same configuration
            self._change(self._reload)

    def _change(self, change: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        """Make a change when the changes before it are done, unless the service has stopped."""

        async def unless_stopping() -> None:
            if self.running:
                await change()

        def went_wrong(failure: Failure) -> None:
            self.log.failure("the workers were not changed", failure)
            if not self._slots:
                self._fail(failure.getErrorMessage())

        changed = self._changes.run(lambda: Deferred.fromCoroutine(unless_stopping()))
        changed.addErrback(went_wrong)

    async def _begin(self) -> None:
        try:
            self._slots = await self._spawn(self._loaded, self._sockets)
        except CannotStart as error:
            if self.running:
                self._fail(error)
            return
        self._report("{count} workers serve")
        self._started()

    async def _reload(self) -> None:
        if not self._slots:  # the start failed, and the process is about to end
            return
        self._notifier.reloading()
        opened: _Sockets = {}
        try:
            loaded = load_config(self._path, self._reactor, starts=True)
            _refuse_single_process_store(loaded)
            opened = self._open(loaded)
            known = self._sockets | opened
            sockets = {
                each.description: known[each.description] for each in loaded.config.listeners
            }
            slots = await self._spawn(loaded, sockets)
        except Exception as error:
            await _close(opened)
            if not self.running:
                return
            if isinstance(error, (ConfigError, CannotStart)):
                self.log.error("{path}: {error}: not reloaded", path=self._path, error=error)
            else:  # for instance of a plugin
                self.log.failure("{path}: not reloaded", path=self._path)
            self._report("{count} workers serve as before")
            return
        before, self._slots = self._slots, slots
        unused = {each: known[each] for each in known.keys() - sockets.keys()}
        self._loaded, self._sockets = loaded, sockets
        for slot in before:
            slot.give_up()
            slot.worker.retire()
        await _close(unused)
        if loaded.config.log.format != self._log_format:
            self.log.warn(
                "{path}: log.format: not reloaded; it stays {form} until a restart",
                path=self._path,
                form=self._log_format,
            )
        self._report("reloaded: {count} new workers serve")
        try:
            self._reloaded(loaded)
        except Exception:
            self.log.failure("the new workers serve, but what follows a reload has failed")

    def _report(self, what: str) -> None:
        self.log.info(what, count=self._workers)
        self._notifier.ready()

    async def _end(self) -> None:
        for slot in self._slots:
            slot.give_up()
        # First of all, so that connections are refused once the workers have stopped accepting.
        await _close(self._sockets)
        for each in self._alive:
            each.stop()
        await DeferredList([each.ended for each in self._alive])
        self._limits.close()
        self._counts.close()
        if self._metrics is not None:
            self._metrics.remove()

    def _open(self, loaded: LoadedConfig) -> _Sockets:
        """Open the sockets of a configuration that are not open yet.

        :raise ConfigError: when one cannot be opened; the others are closed again.
        """
        opened: _Sockets = {}
        for path, description, _ in loaded.config.listeners:
            if description in self._sockets:
                continue
            try:
                opened[description] = OpenSocket(self._reactor, description)
            except ConfigError as error:
                for each in opened.values():
                    each.close()
                raise error.within(path) from None
        return opened

    async def _spawn(self, loaded: LoadedConfig, sockets: _Sockets) -> list[WorkerSlot]:
        """Start the workers, and wait until all serve; if one cannot start, stop all of them.

        :raise CannotStart: when one cannot start, or the service has been stopped meanwhile.
        """
        metrics = folder_for(bool(loaded.config.internal_listen), self._metrics)
        self._metrics = metrics or self._metrics
        spec = WorkerSpec(
            self._path,
            loaded.document,
            self._workers,
            self._limits.fileno(),
            self._counts.fileno(),
            [sockets[each.description].descriptor for each in loaded.config.listeners],
            self._relay_output,
            self._log_format,
            None if metrics is None else metrics.path,
        )
        start = partial(self._start, metrics, spec)
        slots = [
            WorkerSlot(number, partial(start, number), self._reactor)
            for number in range(1, self._workers + 1)
        ]
        try:
            await gatherResults([slot.worker.ready for slot in slots], consumeErrors=True)
        except FirstError as error:
            for slot in slots:
                slot.worker.stop()
            error.subFailure.raiseException()
        if not self.running:  # stopService has told these workers to exit
            raise CannotStart("the server stops")
        for slot in slots:
            slot.watch()
        return slots

    def _start(self, metrics: MetricsFolder | None, spec: WorkerSpec, number: int) -> WorkerProcess:
        slot = None if metrics is None else metrics.take_slot(number)
        started = WorkerProcess(number, spec, self._reactor, slot)
        self._alive.add(started)
        if metrics is not None and slot is not None:
            metrics.started(slot, started.pid)

        def gone(how: str) -> str:
            self._alive.discard(started)
            if metrics is not None and slot is not None:
                metrics.ended(slot, started.pid)
            return how

        started.ended.addCallback(gone)
        return started


async def _close(sockets: _Sockets) -> None:
    await DeferredList([each.close() for each in sockets.values()])


def _refuse_single_process_store(loaded: LoadedConfig) -> None:
    if getattr(loaded.store[0], "one_process", False):
        problem = "this store serves a single process: omit --workers, or use another store"
        raise ConfigError("token_store.module", problem)
