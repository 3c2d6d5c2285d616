"""What clients get, over HTTP, from accounts in MariaDB, and what the log says."""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread

from synapse_login_module.model import AccountStatus
from tests.providers.case import WONDERLAND, in_coroutine
from tests.providers.sql.test_mysql import TABLE
from tests.providers.sql.test_sql import POSTGRESQL
from tests.providers.test_answers import (
    SOON,
    AnswersMixin,
    Entry,
    HangingMixin,
    OutagesMixin,
    ServedCase,
)
from tests.support.accounts import ALICE
from tests.support.certificates import Authority
from tests.support.fake_mysql import FakeMySQL
from tests.support.mariadb import DATABASE, MariaDB, shared_mariadb
from tests.support.waiting import until


class MariaDBCase(ServedCase):
    """A server with a table that ignores case and accents in names, as it is by default."""

    database: MariaDB

    def use(self, server: MariaDB) -> None:
        """Have a table with alice in it."""
        self.database = server
        self.execute("DROP TABLE IF EXISTS accounts")
        self.execute(TABLE.replace("COLLATE utf8mb4_bin", ""))
        self.execute(
            "INSERT INTO accounts (name, hash, email) VALUES ('alice', %s, 'alice@example.com')",
            WONDERLAND,
        )

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement."""
        return self.database.query(statement, values, DATABASE)

    def sql(self, **more: Any) -> Entry:
        """An entry for the server."""
        config = {"mysql": self.database.config, "queries": POSTGRESQL, **more}
        return self.entry("SQLProvider", config)


class MariaDBAnswerTests(AnswersMixin, MariaDBCase):
    """MariaDB, and what it says of an account."""

    async def provider(self) -> Entry:
        self.use(shared_mariadb())
        return self.sql()

    async def become(self, status: AccountStatus | None) -> None:
        if status is None:
            self.execute("DELETE FROM accounts")
        else:
            values = (status is AccountStatus.LOCKED, status is AccountStatus.DEACTIVATED)
            self.execute("UPDATE accounts SET locked = %s, closed = %s", *values)

    async def test_spellings(self) -> None:
        """Whatever spelling of a name the database takes, it is one account: it gets one user ID,
        and guesses at its password under all spellings are limited together, so that the right
        password is refused too.
        """
        spellings = ("alice", "ALICE", "\xe1lice", "\xe0lice", "\xe2lice")
        few = {"per_second": 0.0001, "burst_count": 3}
        limits = {"address": None, "account": None, "failed_attempts": few}
        self.serve(await self.provider(), rate_limits=limits)
        for name in spellings:
            self.assertEqual(await self.log_in(name), (200, ALICE))
        for name in spellings[:3]:
            self.assertEqual((await self.log_in(name, "x"))[0], 403)
        for name in spellings:
            self.assertEqual(await self.log_in(name), (429, "M_LIMIT_EXCEEDED"))


class MariaDBOutageTests(OutagesMixin, MariaDBCase):
    """MariaDB, and what stands in its place."""

    kind = "sql"

    def own(self) -> MariaDB:
        """A server of the test's own."""
        server = self.stopped(MariaDB(), "remove")
        self.use(server)
        return server

    def in_its_place(self, first: bytes) -> Entry:
        """An entry for a server that begins so."""
        server = self.stopped(FakeMySQL(first))
        config = {"host": "127.0.0.1", "port": server.port, "user": "x", "database": "x"}
        config = {"mysql": config, "queries": POSTGRESQL, "timeout": SOON}
        return self.entry("SQLProvider", config)

    async def test_down(self) -> None:
        """It is down when the server starts, and hangs later."""
        server = self.own()
        server.stop()
        self.serve(self.sql(timeout="2s"))
        await self.assert_outage("Connection refused")
        server.start()
        self.assertEqual(await self.log_in("alice"), (200, ALICE))
        server.hold()
        await self.assert_outage("did not answer in 2.0 seconds", "timed out")
        server.release()
        self.assertEqual(await self.log_in("alice"), (200, ALICE))

    async def test_dying(self) -> None:
        """It dies in the middle of a login."""
        server = self.own()
        slow = POSTGRESQL["by_user"].replace("name =", "SLEEP(1000) = 0 AND name =")
        self.serve(self.sql(queries={**POSTGRESQL, "by_user": slow}, timeout="1m"))
        met = in_coroutine(self.assert_outage("Lost connection", "Connection refused"))
        asleep = "SELECT 1 FROM information_schema.processlist WHERE state = 'User sleep'"
        await until(lambda: server.query(asleep))
        await deferToThread(server.kill)
        await met

    async def test_in_its_place(self) -> None:
        """Something else listens there, and says nothing, or what is not MySQL's."""
        await self.outage(self.in_its_place(b""), "did not answer in 0.3 seconds", "timed out")
        for first in (b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100):
            await self.outage(self.in_its_place(first), "sequence number wrong", "not an answer")

    async def test_certificate(self) -> None:
        """It has the wrong certificate."""
        authority = Authority()
        self.write("ca.pem", authority.certificate)
        server = self.own()
        server.use_certificate(authority.sign("elsewhere.example"))
        entry = self.sql(mysql={**server.config, "ca_file": "ca.pem"})
        await self.outage(entry, "certificate is not valid for '127.0.0.1'")


class MariaDBHangingTests(HangingMixin, MariaDBCase):
    """MariaDB, with a table that another connection has locked."""

    room = 68

    async def provider(self) -> Entry:
        self.use(shared_mariadb())
        self.holder = self.stopped(self.database.connect(DATABASE), "close")
        return self.sql(timeout="1m")

    async def hang(self) -> None:
        self.holder.query("LOCK TABLES accounts WRITE")

    async def let_go(self) -> None:
        self.holder.query("UNLOCK TABLES")
