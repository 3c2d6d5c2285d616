"""What workers share: the rate limits, the database and the log."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from unittest import SkipTest

from twisted.internet.defer import Deferred, gatherResults

from synapse_login_module.tokens import format as token_format
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import TokenKind
from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Use
from tests.chaos.server import USER
from tests.standalone.workers.case import WORKERS, WorkersTestCase
from tests.support import REPOSITORY
from tests.support.folders import temporary_folder
from tests.support.postgresql import shared_postgresql
from tests.support.process import subprocess_environment
from tests.support.waiting import until
from tests.support.wire import connect, request

FILTER = REPOSITORY / "contrib" / "fail2ban" / "filter.d" / "synapse-login.conf"


class LimitsTests(WorkersTestCase):
    """Rate limits across workers."""

    async def guess(self, number: int, port: int | None = None) -> int:
        """Guess a password on a new connection; return the status of the response."""
        wire = await connect(port or self.server.port)
        credentials = {"type": "m.login.password", "user": USER, "password": f"guess {number}"}
        wire.send(request("POST", "/_matrix/client/v3/login", credentials))
        status, _ = await wire.answer()
        await wire.abort()
        return status

    async def test_failures(self) -> None:
        """Workers together allow as many guesses as one process, and no more after a reload."""
        limits = {"failed_attempts": {"per_second": 0.001, "burst_count": 5}}
        none = {"address": None, "account": None}
        await self.serve(("--workers", "3"), change={"rate_limits": {**none, **limits}})
        answers: Counter[int] = Counter()
        for _ in range(2):
            guesses = [Deferred.fromCoroutine(self.guess(number)) for number in range(30)]
            answers.update(await gatherResults(guesses))
            await self.reload()
        self.assertEqual(answers, {403: 5, 429: 55})
        self.assertGreater(len(set(re.findall(r"worker=(\d) pid=\d+\] login", self.log()))), 1)

    async def test_machines(self) -> None:
        """Servers on one PostgreSQL together allow as many guesses as one server."""
        store = {
            "module": "synapse_login_module.stores.PostgreSQLTokenStore",
            "config": {"dsn": shared_postgresql().new_database("machines")},
        }
        failures = {"failed_attempts": {"per_second": 0.001, "burst_count": 5}}
        limits = {"address": None, "account": None, **failures}
        ports = []
        for options in (("--workers", "2"), ()):
            await self.serve(options, change={"rate_limits": limits, "token_store": store})
            ports.append(self.server.port)
        guesses = [
            Deferred.fromCoroutine(self.guess(number, ports[number % 2])) for number in range(40)
        ]
        self.assertEqual(Counter(await gatherResults(guesses)), {403: 5, 429: 35})


class DatabaseTests(WorkersTestCase):
    """One database of several processes."""

    async def test_sqlite(self) -> None:
        """Workers on one SQLite file refresh consistently."""
        await self.serve()
        await self.race()

    async def test_postgresql(self) -> None:
        """So do workers on PostgreSQL, each with its own connections."""
        store = {
            "module": "synapse_login_module.stores.PostgreSQLTokenStore",
            "config": {"dsn": shared_postgresql().new_database("workers")},
        }
        await self.serve(change={"token_store": store})
        await self.race()

    async def test_keys(self) -> None:
        """A worker that has not read a new key yet repeats the response of one that has."""
        await self.serve()
        one, other = [await self.client_of(pid) for pid in self.server.workers]
        old = await one.log_in("phone")
        keyfile.rotate(self.server.config.with_name("token.key"), os.urandom, now=True)
        await one.log_in("laptop")
        assert old is not None
        refreshed, repeated = [
            (await each.use("phone", old, Use.LENIENT)).answer for each in (one, other)
        ]
        assert refreshed is not None
        parsed = token_format.parse(TokenKind.REFRESH, refreshed.refresh)
        assert parsed is not None
        self.assertEqual(parsed.key_id, 2)
        self.assertEqual(repeated, refreshed)

    async def race(self) -> None:
        """Log in at one worker, and refresh at all workers at once, repeatedly.

        Of concurrent strict refreshes of one pair one succeeds; lenient ones all get one pair.
        """
        clients = [await self.client_of(pid) for pid in self.server.workers]
        pair = await clients[0].log_in("phone")
        assert pair is not None
        for use in [Use.STRICT, Use.LENIENT] * 10:
            racing = [Deferred.fromCoroutine(each.use("phone", pair, use)) for each in clients]
            answers = [each.answer for each in await gatherResults(racing) if each.answer]
            self.assertEqual(len(answers), 1 if use is Use.STRICT else WORKERS)
            (pair,) = set(answers)
        self.assertEqual([each.surprises for each in clients], [[]] * WORKERS)

    async def client_of(self, worker: int) -> RecordingClient:
        """Make a client with one connection to this worker."""
        others = [pid for pid in self.server.workers if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        client = RecordingClient(self.server.port, History())
        self.addCleanup(client.close)
        await client.log_in(f"device {worker}")
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        await self.logged(f"pid={worker}] login outcome=ok")
        return client

    def test_made_at_once(self) -> None:
        """Processes can create the database at the same time."""
        make = (
            "import sys, pathlib\n"
            "from synapse_login_module.stores import sqlite_file\n"
            "for path in sys.stdin:\n"
            "    sqlite_file.prepare(pathlib.Path(path.strip()))\n"
            "    print(flush=True)\n"
        )
        folder = temporary_folder(self)
        makers = [
            subprocess.Popen(
                [sys.executable, "-c", make],
                env=subprocess_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for number in range(50):
            path = folder / f"{number}.db"
            for maker in makers:
                assert maker.stdin is not None
                maker.stdin.write(f"{path}\n")
                maker.stdin.flush()
            for maker in makers:
                assert maker.stdout is not None
                maker.stdout.readline()
            with closing(sqlite3.connect(path)) as connection:
                self.assertEqual(connection.execute("PRAGMA journal_mode").fetchone(), ("wal",))
        for maker in makers:
            maker.communicate()
        self.assertEqual([maker.returncode for maker in makers], [0] * 4)


class LogTests(WorkersTestCase):
    """The name of the worker in log lines."""

    def refusals(self) -> list[str]:
        """Return the complete lines of the log, which is read while it is written."""
        *whole, _ = self.log().split("\n")
        return [each for each in whole if "reason=unknown_user" in each]

    async def check(self) -> None:
        """Fail to log in; assert that the line names the worker and fail2ban finds it."""
        wire = await connect(self.server.port)
        credentials = {"type": "m.login.password", "user": "nobody", "password": "x"}
        wire.send(request("POST", "/_matrix/client/v3/login", credentials))
        await wire.answer()
        await wire.abort()
        await until(self.refusals, "the line")
        (line,) = self.refusals()
        head = (
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[synapse_login_module\.audit\.AuditLog#info"
        )
        found = re.match(head + r" worker=(\d) pid=(\d+)\] login outcome=refused ", line)
        assert found is not None, line
        self.assertIn(int(found[1]), range(1, WORKERS + 1))
        self.assertIn(int(found[2]), self.server.workers)
        fail2ban = shutil.which("fail2ban-regex")
        if fail2ban is None:
            raise SkipTest("fail2ban-regex is not installed")
        path = Path(self.mktemp())
        path.write_text(self.log())
        done = subprocess.run(
            [fail2ban, "--out", "<ip>", str(path), str(FILTER)],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.stdout.split(), ["127.0.0.1"])

    async def test_standard_output(self) -> None:
        """Lines on standard output name the worker."""
        await self.serve()
        await self.check()

    async def test_file(self) -> None:
        """Lines in twistd's own log file, which all workers share, name the worker."""
        path = Path(self.mktemp()).absolute()
        self.log = lambda: path.read_text() if path.exists() else ""  # type: ignore[method-assign]
        await self.serve(twistd_options=[f"--logfile={path}"])
        await self.check()
        await self.server.terminate()
        await until(lambda: self.log().count("total: login outcome=refused") == 1)
        self.assertNotIn("worker=", self.server.log())
