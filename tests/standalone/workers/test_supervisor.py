"""Tests for the supervisor, with workers that are no processes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.sd_notify import Notifier
from synapse_login_module.standalone.workers import supervisor
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.waiting import reactor


class ReadySlot:
    """A slot whose worker is ready at once."""

    def __init__(self, number: int, start: Callable[[], Any], reactor: Any) -> None:
        self.worker = SimpleNamespace(ready=succeed(None), retire=lambda: None)

    def watch(self) -> None:
        """Watch nothing."""

    def give_up(self) -> None:
        """Have nothing to replace."""


class ReloadTests(TestCase):
    """A reload."""

    async def test_broken_listener(self) -> None:
        """When what follows a reload fails, the log says that the new workers serve."""
        self.patch(supervisor, "WorkerSlot", ReadySlot)
        path = write_config(temporary_folder(self), good_config(free_port()))
        started: list[None] = []
        failed: list[object] = []

        def broken(loaded: LoadedConfig) -> None:
            raise RuntimeError("a broken listener")

        server = supervisor.Supervisor(
            path,
            load_config(path, reactor),
            2,
            reactor,
            Notifier({}, reactor),
            lambda: started.append(None),
            broken,
            failed.append,
            relay_output=False,
        )
        server.privilegedStartService()
        server.startService()
        self.addCleanup(server.stopService)
        self.assertEqual(len(started), 1)
        with capturedLogs() as events:
            server.reload()
        lines = [(formatEvent(each) or "").partition("\n")[0] for each in events]
        self.assertIn("reloaded: 2 new workers serve", lines)
        self.assertEqual(lines[-1], "the new workers serve, but what follows a reload has failed")
        self.assertNotIn("the workers were not changed", lines)
        self.assertEqual(failed, [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
