"""Workers are killed, replaced and stopped while clients refresh without pause."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from pathlib import Path

from twisted.internet.defer import gatherResults

from synapse_login_module.tokens import format as token_format
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import TokenKind
from tests.chaos.history import Outcome, Use
from tests.standalone.workers.case import WORKERS, WorkersTestCase
from tests.standalone.workers.load import Load
from tests.support.waiting import until
from tests.support.wire import connect, request

RELOADS = int(os.environ.get("CHAOS_RELOADS", "3"))
KILLS = int(os.environ.get("CHAOS_WORKER_KILLS", "4"))


def all_under(key_id: int, load: Load) -> bool:
    """Return whether each session's newest pair has this key."""
    parsed = [token_format.parse(TokenKind.ACCESS, pair.access) for pair in load.newest.values()]
    return {each and each.key_id for each in parsed} == {key_id}


class KillTests(WorkersTestCase):
    """A worker is killed."""

    async def test_killed(self) -> None:
        """The others go on, a new worker starts, and no issued pair is lost."""
        await self.serve()
        load = await self.load(Use.LENIENT)
        for kills in range(1, KILLS + 1):
            await load.some_more()
            victim = self.server.workers[kills % WORKERS]
            os.kill(victim, signal.SIGKILL)
            # The other worker answers meanwhile.
            await self.logged(f"process {victim}, ended: signal 9")
            await load.some_more()
            await until(lambda: len(self.server.workers) == WORKERS)
        await load.stop()
        self.assertEqual(load.problems, [])
        self.assertEqual(await load.probe(), [])
        self.assertEqual(self.server.log().count("ended: signal 9"), KILLS)
        self.assertLessEqual(load.count(Outcome.UNKNOWN), KILLS * 8)

    async def test_parent_killed(self) -> None:
        """Workers exit when their parent is killed, and the address is free for another server."""
        await self.serve()
        workers = self.server.workers
        self.server.kill()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        await self.server.start()


class ReloadTests(WorkersTestCase):
    """SIGHUP under load."""

    async def test_new_key(self) -> None:
        """No request fails or is dropped while new workers with a new key take over."""
        await self.serve()
        load = await self.load(Use.STRICT)
        key_file = self.server.config.with_name("token.key")
        seen = set(self.server.workers)
        for _ in range(RELOADS):
            await load.some_more()
            newest = keyfile.rotate(key_file, os.urandom, now=True)
            await self.reload()
            await until(lambda: len(self.server.workers) == WORKERS)
            self.assertFalse(seen & set(self.server.workers))
            seen |= set(self.server.workers)
            await load.some_more()
            # With one SQLite file, one worker may be ahead of the other for a while.
            await until(partial(all_under, newest, load))
        await load.stop()
        self.assertEqual(load.problems, [])
        accepted = load.count(Outcome.ACCEPTED)
        self.assertEqual(accepted, len(load.history.requests))
        self.assertGreater(accepted, 200 * RELOADS)
        self.assertEqual(await load.probe(), [])
        self.assertNotIn("Traceback", self.server.log())


class TerminateTests(WorkersTestCase):
    """SIGTERM under load."""

    async def test_terminated(self) -> None:
        """Every accepted request is answered, and the exit status is 0."""
        await self.serve()
        load = await self.load(Use.STRICT)
        await load.some_more()
        status = await self.server.terminate()
        await load.stop()
        self.assertEqual(status, 0)
        self.assertEqual(load.problems, [])
        self.assertEqual(load.count(Outcome.ACCEPTED), len(load.history.requests))
        log = self.server.log()
        totals = re.findall(r"total: refresh outcome=ok reason=strict count=(\d+)", log)
        self.assertEqual(sum(map(int, totals)), load.count(Outcome.ACCEPTED))
        self.assertNotIn("Traceback", log)
        await self.server.start()
        self.assertEqual(await load.probe(), [])

    async def test_waiting_connections(self) -> None:
        """Requests on connections that are not accepted yet are answered too."""
        await self.serve()
        workers = self.server.workers
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        wires = [await connect(self.server.port) for _ in range(20)]
        for wire in wires:
            wire.send(request("GET", "/health"))
        ended = self.server.terminate()
        await self.logged("Closed)")  # the parent's own
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        answers = await gatherResults([wire.answer() for wire in wires], consumeErrors=True)
        self.assertEqual([status for status, _ in answers], [200] * len(wires))
        self.assertEqual(await ended, 0)
