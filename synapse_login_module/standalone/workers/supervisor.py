"""Several processes behind one socket: starts them, watches over them, and replaces them.

The parent opens the listening sockets and never accepts. Its workers inherit them, so that no
connection is refused or dropped while one of them is replaced, and they end when it does.
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
from synapse_login_module.standalone.workers.process import (
    CannotStart,
    WorkerProcess,
    WorkerSlot,
    WorkerSpec,
)

_Sockets = dict[str, OpenSocket]


class Supervisor(Service):
    """Keeps a number of workers at work.

    :param path: the configuration file.
    :param loaded: what it says at the start.
    :param workers: how many.
    :param reactor: everything of it.
    :param notifier: tells the service manager.
    :param started: called when the workers serve for the first time.
    :param fail: called with the reason when the workers cannot start at all.
    :param relay_output: whether the workers' log goes into the log of this process, and not
        straight to its standard output.
    :raise ConfigError: when the store is not for several processes.
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
        fail: Callable[[object], None],
        *,
        relay_output: bool,
    ) -> None:
        _refuse_lonely_store(loaded)
        self._path = path.absolute()
        self._loaded = loaded
        self._workers = workers
        self._reactor = reactor
        self._notifier = notifier
        self._started = started
        self._fail = fail
        self._relay_output = relay_output
        self._limits = shared_memory.make_table()
        self._counts = connection_counts.make_counts(workers)
        self._sockets: _Sockets = {}
        self._slots: list[WorkerSlot] = []
        self._alive: set[WorkerProcess] = set()
        self._changes = DeferredLock()

    def privilegedStartService(self) -> None:
        """Open the listening sockets.

        :raise ConfigError: when one cannot be opened.
        """
        self._sockets = self._open(self._loaded)
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the workers."""
        super().startService()
        self._change(self._begin)

    def stopService(self) -> Deferred[None]:
        """Have the workers answer what is in flight; fires when all have ended."""
        super().stopService()
        return Deferred.fromCoroutine(self._end())

    def reload(self) -> None:
        """Replace the workers by some with the configuration and the keys as they are now.

        If it cannot be used, this is logged and everything stays as it is.
        """
        if not self._changes.waiting:  # one that waits will find what this one would
            self._change(self._reload)

    def _change(self, change: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        """Make one change after the other."""

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
        if not self._slots:  # it could not start, and is about to end
            return
        self._notifier.reloading()
        opened: _Sockets = {}
        try:
            loaded = load_config(self._path, self._reactor)
            _refuse_lonely_store(loaded)
            opened = self._open(loaded)
            known = self._sockets | opened
            sockets = {each: known[each] for each in loaded.config.listen}
            slots = await self._spawn(loaded, sockets)
        except Exception as error:
            await _close(opened)
            if not self.running:
                return
            if isinstance(error, (ConfigError, CannotStart)):
                self.log.error("{path}: {error}: not reloaded", path=self._path, error=error)
            else:  # as of a plugin that does not say what is wrong
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
        self._report("reloaded: {count} new workers serve")

    def _report(self, what: str) -> None:
        self.log.info(what, count=self._workers)
        self._notifier.ready()

    async def _end(self) -> None:
        for slot in self._slots:
            slot.give_up()
        # First of all, for connections to be refused once the workers take none.
        await _close(self._sockets)
        for each in self._alive:
            each.stop()
        await DeferredList([each.ended for each in self._alive])
        self._limits.close()
        self._counts.close()

    def _open(self, loaded: LoadedConfig) -> _Sockets:
        """Open the sockets of a configuration that are not open yet."""
        opened: _Sockets = {}
        for index, description in enumerate(loaded.config.listen):
            if description in self._sockets:
                continue
            try:
                opened[description] = OpenSocket(self._reactor, description)
            except ConfigError as error:
                for each in opened.values():
                    each.close()
                raise error.within(f"listen.{index}") from None
        return opened

    async def _spawn(self, loaded: LoadedConfig, sockets: _Sockets) -> list[WorkerSlot]:
        """Start the workers; when one of them cannot start, stop all."""
        spec = WorkerSpec(
            self._path,
            loaded.document,
            self._workers,
            self._limits.fileno(),
            self._counts.fileno(),
            [sockets[each].descriptor for each in loaded.config.listen],
            self._relay_output,
        )
        slots = [
            WorkerSlot(number, partial(self._start, number, spec), self._reactor)
            for number in range(1, self._workers + 1)
        ]
        try:
            await gatherResults([slot.worker.ready for slot in slots], consumeErrors=True)
        except FirstError as error:
            for slot in slots:
                slot.worker.stop()
            error.subFailure.raiseException()
        if not self.running:  # they were told to end, all the same
            raise CannotStart("the server stops")
        for slot in slots:
            slot.watch()
        return slots

    def _start(self, number: int, spec: WorkerSpec) -> WorkerProcess:
        started = WorkerProcess(number, spec, self._reactor)
        self._alive.add(started)

        def gone(how: str) -> str:
            self._alive.discard(started)
            return how

        started.ended.addCallback(gone)
        return started


async def _close(sockets: _Sockets) -> None:
    await DeferredList([each.close() for each in sockets.values()])


def _refuse_lonely_store(loaded: LoadedConfig) -> None:
    if getattr(loaded.store[0], "one_process", False):
        problem = "its sessions are of one process alone: leave --workers out, or take another"
        raise ConfigError("token_store.module", problem)
