"""Tests of hangs, signals, inherited descriptors and orphans, on real processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.standalone.workers import worker
from synapse_login_module.standalone.workers.worker import PARENT_SIGNALS
from tests.chaos.server import ChaosServer
from tests.standalone.workers.case import WORKERS, WorkersTestCase
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.process import children, run
from tests.support.server import start_server
from tests.support.waiting import until
from tests.support.wire import connect, request

reactor = cast(Any, global_reactor)

HEARTBEAT_INTERVAL = 0.5
"""A heartbeat interval with which a hanging worker is noticed after three seconds."""

PROVIDER = "tests.standalone.workers.brittle.{}"

_HASTY = (
    "from synapse_login_module.standalone.workers import process;"
    f" process.HEARTBEAT_INTERVAL = {HEARTBEAT_INTERVAL};"
    " from twisted.scripts.twistd import run; run()"
)
_FROM_ELSEWHERE = """
import sys
sys.path[:] = filter(None, sys.path)
from twisted.scripts.twistd import run
run()
"""
_NOT_WAITED_FOR = (f"--workers={WORKERS}",)


def send(number: signal.Signals, processes: Iterable[int]) -> None:
    """Send a signal to the processes that still exist."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class HangTests(WorkersTestCase):
    """A worker that hangs."""

    async def hasty(self) -> ChaosServer:
        """Start a server with a short heartbeat interval."""
        server = await self.serve(program=["-c", _HASTY])
        self.addCleanup(send, signal.SIGCONT, server.workers)
        return server

    async def test_hangs(self) -> None:
        """It is killed, and another takes its place."""
        server = await self.hasty()
        victim, other = server.workers
        os.kill(victim, signal.SIGSTOP)
        await self.logged(f"process {victim}, gives no sign of life: killed")
        await self.logged(f"process {victim}, ended: signal 9")
        await until(lambda: len(server.workers) == WORKERS)
        self.assertNotIn(victim, server.workers)
        self.assertIn(other, server.workers)
        self.assertTrue(server.listens())

    async def test_stands_still(self) -> None:
        """No worker is killed when the parent was suspended too, as when the machine slept."""
        server = await self.hasty()
        workers = server.workers
        send(signal.SIGSTOP, workers)
        server.hold()
        await deferLater(reactor, 8 * HEARTBEAT_INTERVAL)
        send(signal.SIGCONT, workers)
        server.release()
        await self.reload()
        self.assertNotIn("no sign of life", self.log())


class SignalTests(WorkersTestCase):
    """Signals at unfavourable moments."""

    async def test_all_are_told(self) -> None:
        """Workers ignore the parent's signals, even while they start."""
        await self.serve(_NOT_WAITED_FOR)
        await until(lambda: len(self.server.workers) == WORKERS)
        workers = self.server.workers
        for number in PARENT_SIGNALS:
            send(number, workers)
        await self.logged("workers serve")
        for number in PARENT_SIGNALS:
            send(number, workers)
        await self.reload()
        self.assertNotIn("ended:", self.log())
        self.assertNotIn("Traceback", self.log())

    async def test_told_to_end_while_retiring(self) -> None:
        """A worker that is exiting already handles SIGTERM without an error."""
        await self.serve()
        wire = await connect(self.server.port)
        self.addCleanup(wire.abort)
        wire.send(request("GET", "/health"))
        await wire.answer()
        await self.reload()
        self.assertGreater(len(self.server.workers), WORKERS)  # an open connection keeps one
        self.assertEqual(await self.server.terminate(), 0)
        self.assertNotIn("Traceback", self.log())

    async def test_told_to_end_while_starting(self) -> None:
        """The parent exits at once, without an error."""
        await self.serve(_NOT_WAITED_FOR)
        await until(lambda: len(self.server.workers) == WORKERS)
        await until(self.server.heeds_terminate)
        self.assertEqual(await self.server.terminate(), 0)
        for what in ("Traceback", "cannot start", "serve", "ended:"):
            self.assertNotIn(what, self.log())

    async def test_told_too_early(self) -> None:
        """SIGHUP while the server starts does not end it."""
        hasty = {"module": PROVIDER.format("HastyProvider"), "config": {}}
        await self.serve((), change={"password_providers": [hasty]})
        await self.logged("SIGHUP: new tokens are under key 1")

    async def test_reload_of_what_cannot_start(self) -> None:
        """Without workers that serve, SIGHUP reloads nothing and reports nothing."""
        brittle = {"module": PROVIDER.format("BrittleProvider"), "config": {"unless": "."}}
        await self.serve(_NOT_WAITED_FOR, change={"password_providers": [brittle]})
        self.server.hang_up()
        await self.logged("Server Shut Down")
        self.assertIn("config.unless: ", self.log())
        self.assertNotIn("as before", self.log())


class InheritanceTests(WorkersTestCase):
    """The descriptors that a program which a plugin starts inherits."""

    async def serve_helped(self, **launch: Any) -> list[int]:
        """Start a server whose workers start such programs; return the programs."""
        helped = {"module": PROVIDER.format("HelpedProvider"), "config": {}}
        server = await self.serve(change={"password_providers": [helped]}, **launch)
        helpers = [each for pid in server.workers for each in children(pid)]
        self.addCleanup(send, signal.SIGKILL, helpers)
        self.assertEqual(len(helpers), WORKERS)
        return helpers

    async def test_descriptors(self) -> None:
        """It inherits neither the sockets, nor the rate limits, nor the pipe to the parent."""
        for helper in await self.serve_helped():
            self.assertEqual(
                sorted(int(each.name) for each in Path(f"/proc/{helper}/fd").iterdir()), [0, 1, 2]
            )

    async def test_outlives_its_worker(self) -> None:
        """A dead worker is replaced even if such a program holds its output open."""
        path = Path(self.mktemp()).absolute()
        self.log = lambda: path.read_text() if path.exists() else ""  # type: ignore[method-assign]
        await self.serve_helped(twistd_options=[f"--logfile={path}"])
        victim = self.server.workers[0]
        os.kill(victim, signal.SIGKILL)
        await self.logged(f"process {victim}, ended: signal 9")
        await until(lambda: len(self.server.workers) == WORKERS)
        for pid in self.server.workers:
            await until(lambda pid=pid: len(children(pid)) == 1)  # type: ignore[misc]
            self.addCleanup(send, signal.SIGKILL, children(pid))
        self.assertEqual(await self.server.terminate(), 0)


class OrphanTests(SynchronousTestCase):
    """A worker whose parent is killed while it sends the configuration."""

    def test_part_of_a_configuration(self) -> None:
        """It exits without an error, and does not use the part that it has."""
        command = worker.command(1, WORKERS, Path("config.yaml"), HEARTBEAT_INTERVAL)
        for told in ("", "200\n", "200\nserver_name: example.com\n"):
            end = run(["sh", "-c", 'exec "$@" 3>&1', "sh", *command], told)
            self.assertEqual((end.returncode, end.stderr), (1, ""), told)
            self.assertEqual(end.stdout, "the parent is gone\n")


class FolderTests(SynchronousTestCase):
    """The current folder of the server."""

    def test_modules(self) -> None:
        """Neither workers nor their parent import modules from it: any user may write there."""
        folder = temporary_folder(self)
        (folder / "bcrypt.py").write_text("raise SystemExit('bcrypt of the current folder')")
        port = free_port()
        config = write_config(folder, good_config(port))
        server = start_server(
            config, port, program=["-c", _FROM_ELSEWHERE], options=["--workers", str(WORKERS)]
        )
        self.assertEqual(server.stop(), 0)
