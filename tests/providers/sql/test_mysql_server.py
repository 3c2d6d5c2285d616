"""Tests for the SQL provider while a MariaDB server is down, stalled, or not what it seems."""

from __future__ import annotations

import errno
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from twisted.internet.defer import gatherResults
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import ConfigError, ProviderUnavailable
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.sql.mysql_server import MySQLServer
from synapse_login_module.providers.sql.provider import SQLProvider
from tests.providers.case import PASSWORD, ProviderCase, email, lines, user
from tests.providers.sql.test_mysql import MariaDBMixin
from tests.providers.sql.test_sql import POSTGRESQL
from tests.support.accounts import ALICE
from tests.support.certificates import Authority
from tests.support.fake_mysql import OK, WANTS_A_FILE, WANTS_THE_PASSWORD, FakeMySQL, greeting
from tests.support.folders import temporary_folder
from tests.support.mariadb import MariaDB
from tests.support.ports import free_port
from tests.support.process import require
from tests.support.waiting import until

SECRET = "swordfish"


class OwnMariaDBTests(MariaDBMixin, ProviderCase):
    """A server of the test's own, which is stopped and started."""

    def make_server(self) -> MariaDB:
        server = MariaDB()
        self.addCleanup(server.remove)
        return server

    async def test_restarts(self) -> None:
        """While the server is down, stopped or killed, logins are outages; when it is back they
        succeed.
        """
        self.add("alice")
        provider = self.provider(connections=2)
        for end in (self.server.stop, self.server.kill):
            await gatherResults([provider.account_status(ALICE) for _ in range(5)])
            end()
            for _ in range(3):
                asked = provider.authenticate(user("alice"), PASSWORD)
                problem = str(await self.fails(asked, ProviderUnavailable))
                self.assertIn("Connection refused", problem)
            self.server.start()
            for _ in range(3):
                self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_restarts_under_load(self) -> None:
        """Whatever logins meet a restart, each is right or an outage, and nobody looks gone."""
        self.add("alice")
        provider = self.provider(connections=3, timeout="2s")
        seen: list[object] = []

        def ask() -> None:
            asked = provider.account_status(ALICE)
            asked.addCallbacks(seen.append, lambda failure: seen.append(failure.type))

        load = LoopingCall(ask)
        load.start(0.005)
        for end in (self.server.stop, self.server.kill):
            await until(lambda: AccountStatus.ACTIVE in seen[-1:])
            await deferToThread(end)
            await until(lambda: ProviderUnavailable in seen[-1:])
            await deferToThread(self.server.start)
        await until(lambda: AccountStatus.ACTIVE in seen[-1:])
        load.stop()
        self.assertLessEqual({AccountStatus.ACTIVE, ProviderUnavailable}, set(map(self.kind, seen)))
        self.assertNotIn(None, seen)

    @staticmethod
    def kind(seen: object) -> object:
        """What was seen, where an error that is a kind of outage is one."""
        outage = isinstance(seen, type) and issubclass(seen, ProviderUnavailable)
        return ProviderUnavailable if outage else seen

    async def test_stalled(self) -> None:
        """A server that hangs is an outage, with kept connections and new ones; the threads are
        free again, and when it goes on, so do logins.
        """
        self.add("alice")
        provider = self.provider(timeout="2s", connections=1)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        self.server.hold()
        self.addCleanup(self.server.release)
        for _ in range(2):
            asked = provider.authenticate(user("alice"), PASSWORD)
            problem = str(await self.fails(asked, ProviderUnavailable))
            self.assertEqual(problem, "the database did not answer in 2.0 seconds")
        self.server.release()
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_dying_in_the_middle(self) -> None:
        """A server that dies while a login waits for it is an outage."""
        self.add("alice")
        slow = "SELECT 'alice' AS localpart, %(email)s AS x, SLEEP(1000)"
        provider = self.provider(queries={"by_email": slow})
        asked = provider.authenticate(email(), PASSWORD)
        sleeping = "SELECT 1 FROM information_schema.processlist WHERE state = 'User sleep'"
        await until(lambda: self.server.query(sleeping))
        self.server.kill()
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertRegex(problem, "Connection refused|Lost connection")

    async def test_no_tls(self) -> None:
        """If TLS is wanted, a server without TLS is an outage."""
        asked = self.provider(mysql={**self.server.config, "tls": True}).account_status(ALICE)
        self.assertIn("SSL is required", str(await self.fails(asked, ProviderUnavailable)))

    async def test_certificates(self) -> None:
        """A certificate of another authority or for another host is an outage, unless it is not
        verified; a good one is accepted.
        """
        self.add("alice")
        authority = Authority()
        self.write("ca.pem", authority.certificate)
        self.write("other.pem", Authority("Another authority").certificate)
        failed = "certificate verify failed"
        lax = {"verify_certificate": False, "tls": True}
        for hosts, settings, problem in (
            (["127.0.0.1"], {"ca_file": "ca.pem"}, None),
            (["127.0.0.1"], {"ca_file": "other.pem"}, failed),
            (["127.0.0.1"], {"tls": True}, failed),
            (["elsewhere.example"], {"ca_file": "ca.pem"}, "certificate is not valid for"),
            (["*"], {"ca_file": "ca.pem"}, "certificate is not valid for"),
            (["elsewhere.example"], lax, None),
        ):
            self.server.use_certificate(authority.sign(*hosts))
            provider = self.provider(mysql={**self.server.config, **settings})
            asked = provider.authenticate(user("alice"), PASSWORD)
            if problem is None:
                self.assertIsNotNone(await asked)
            else:
                self.assertIn(problem, str(await self.fails(asked, ProviderUnavailable)))
        encrypted = "SELECT %(localpart)s AS localpart FROM information_schema.session_status"
        encrypted += " WHERE variable_name = 'Ssl_version' AND variable_value LIKE 'TLS%%'"
        for settings, found in ((lax, True), ({}, False)):
            queries = {"by_user": encrypted, "status": None}
            provider = self.provider(mysql={**self.server.config, **settings}, queries=queries)
            status = await provider.account_status(ALICE)
            self.assertIs(status, AccountStatus.ACTIVE if found else None)


class WildMySQLTests(ProviderCase):
    """Servers that are not what they seem."""

    def wild(self, *answers: bytes, first: bytes | None = None) -> FakeMySQL:
        """Start a server that gives these answers."""
        require("pymysql")
        server = FakeMySQL(greeting() if first is None else first, *answers)
        self.addCleanup(server.stop)
        return server

    def provider(self, server: FakeMySQL, timeout: int | str = 300, **more: Any) -> SQLProvider:
        """A provider on it."""
        config = {"host": "127.0.0.1", "port": server.port, "user": "x", "database": "x"}
        built: SQLProvider = self.build(
            SQLProvider,
            {
                "mysql": {**config, "password": SECRET, **more},
                "queries": POSTGRESQL,
                "timeout": timeout,
                "connections": 1,
            },
        )
        return built

    async def outage(self, provider: SQLProvider) -> str:
        """What an outage is for."""
        asked = provider.authenticate(user("alice"), PASSWORD)
        return str(await self.fails(asked, ProviderUnavailable))

    async def test_silent(self) -> None:
        """One that says nothing, from the start or after the login, is an outage, and the
        connection is given up.
        """
        for server in (self.wild(first=b""), self.wild(OK), self.wild()):
            provider = self.provider(server)
            for _ in range(2):
                problem = await self.outage(provider)
                self.assertEqual(problem, "the database did not answer in 0.3 seconds")
            await until(partial(server.has_ended, 2))

    async def test_trickling(self) -> None:
        """One whose greeting comes an octet at a time is cut off in time: the next login has the
        only thread.
        """
        server = FakeMySQL(b"\x50\0\0\0", trickle=b"\x0a")
        self.addCleanup(server.stop)
        provider = self.provider(server)
        for _ in range(2):
            problem = await self.outage(provider)
            self.assertEqual(problem, "the database did not answer in 0.3 seconds")
        await until(partial(server.has_ended, 2))

    async def test_says_that_it_ends(self) -> None:
        """One that says in answer to a statement that it closes the connection is asked again on
        another one.
        """
        for code in (1053, 1927, 3169, 4031):
            ends = b"\xff" + code.to_bytes(2, "little") + b"#08S01the end"
            # The login, its character set, its settings, and two statements.
            server = self.wild(OK, OK, OK, OK, ends)
            provider = self.provider(server, "20s")
            for _ in range(2):
                self.assertIsNone(await provider.authenticate(user("alice"), PASSWORD))
            self.assertTrue(server.has_ended())

    async def test_garbage(self) -> None:
        """One that does not speak MySQL's protocol is an outage."""
        for first in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100,
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\0\0\0\0",
            b"\xff\xff\xff\0" + b"x" * 1_000_000,
            greeting()[:40],
            b"\1\0\0\0\xff",
            b"\5\0\0\0\x0a\xff\xff\xff\xff",
        ):
            self.assertTrue(await self.outage(self.provider(self.wild(first=first))))
        for answer in (b"\xff", b"\xfe", b"\3abc", b"", b"\1\3"):
            self.assertTrue(await self.outage(self.provider(self.wild(answer))))
            self.assertTrue(await self.outage(self.provider(self.wild(OK, answer))))

    async def test_wants_a_file(self) -> None:
        """One that asks for a file of this machine gets none."""
        server = self.wild(OK, WANTS_A_FILE, OK)
        self.assertIn("did not answer", await self.outage(self.provider(server)))
        await until(server.has_ended)
        self.assertNotIn(b"root:", server.received)

    async def test_strips_tls(self) -> None:
        """One that says that it has no TLS gets neither the password nor the user's name."""
        server = self.wild(WANTS_THE_PASSWORD)
        provider = self.provider(server, tls=True, user="somebody")
        self.assertIn("SSL is required", await self.outage(provider))
        await until(server.has_ended)
        self.assertEqual(server.received, b"")


class MariaDBDownTests(ProviderCase):
    """No server."""

    def test_unverified(self) -> None:
        """It warns of a server on another machine whose certificate is not verified."""
        require("pymysql")
        events = self.catch_log()
        far = {"host": "db.example.com", "user": "x", "database": "x"}
        given: tuple[dict[str, Any], ...] = (
            {},
            {"host": "127.0.0.1"},
            {"verify_certificate": False},
            {"tls": False, "allow_plaintext": True},
        )
        for more in given:
            self.build(SQLProvider, {"mysql": {**far, **more}, "queries": POSTGRESQL})
        self.assertEqual(
            lines(events),
            [
                "sql: anyone in between can pose as db.example.com: set tls and verify_certificate"
                " in mysql to true"
            ]
            * 2,
        )

    async def test_no_more_files(self) -> None:
        """A process that may open no more files has an outage, whichever file is one too many."""
        require("pymysql")

        def connect(server: MySQLServer, seconds: float) -> Any:
            def dup() -> Any:
                raise OSError(errno.EMFILE, "Too many open files")

            return SimpleNamespace(dup=dup)

        self.patch(MySQLServer, "connect", connect)
        config = {"host": "127.0.0.1", "user": "x", "database": "x"}
        provider = self.build(SQLProvider, {"mysql": config, "queries": POSTGRESQL})
        outage = await self.fails(
            provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable
        )
        self.assertIn("Too many open files", str(outage))

    async def test_down_before_the_start(self) -> None:
        """The service starts while the server is down, and every login is an outage."""
        require("pymysql")
        for where, problem in (
            ({"host": "127.0.0.1", "port": free_port()}, "connection failed: [Errno 111]"),
            ({"socket": "/nowhere"}, "connection failed: [Errno 2]"),
            ({"host": "db.invalid", "port": 1}, "cannot resolve db.invalid: "),
        ):
            config = {**where, "user": "x", "password": SECRET, "database": "x"}
            provider = self.build(SQLProvider, {"mysql": config, "queries": POSTGRESQL})
            asked = provider.authenticate(user("alice"), PASSWORD)
            found = str(await self.fails(asked, ProviderUnavailable))
            self.assertIn(problem, found)
            self.assertNotIn(SECRET, found)


class MySQLConfigTests(SynchronousTestCase):
    """The key ``mysql``."""

    good: ClassVar[dict[str, Any]] = {"host": "db.example.com", "user": "x", "database": "x"}

    def setUp(self) -> None:
        require("pymysql")
        self.folder = temporary_folder(self)

    def parse(self, **mysql: Any) -> Any:
        """Check a configuration; ``None`` leaves a key out."""
        given = {key: value for key, value in {**self.good, **mysql}.items() if value is not None}
        return SQLProvider.parse_config({"mysql": given, "queries": POSTGRESQL}, self.folder)

    def problem(self, **mysql: Any) -> str:
        """The mistake in a configuration."""
        with self.assertRaises(ConfigError) as raised:
            self.parse(**mysql)
        return str(raised.exception)

    def test_mistakes(self) -> None:
        """Each mistake names its key."""
        (self.folder / "empty").touch()
        (self.folder / "secret").write_text("x\n")
        near = {"host": None, "socket": "s"}
        clear = "the password and hashes would go there in the clear"
        for given, problem in (
            ({"host": None}, "mysql: takes either host or socket"),
            ({"socket": "s"}, "mysql: takes either host or socket"),
            ({"host": "/run/s"}, "mysql.host: the path of a socket goes in socket"),
            ({**near, "port": 3306}, "mysql.port: it goes with host"),
            ({**near, "ca_file": "ca"}, "mysql.ca_file: it goes with host"),
            ({**near, "tls": True}, "mysql.tls: it goes with host"),
            ({"tls": False}, f"mysql.tls: {clear}"),
            ({"tls": False, "ca_file": "ca"}, "mysql.ca_file: it goes with tls"),
            ({"ca_file": "nowhere"}, "mysql.ca_file: "),
            ({"ca_file": "empty"}, "there is no certificate in it"),
            ({"password_file": "nowhere"}, "mysql.password_file: "),
            ({"password_file": "empty"}, "there is nothing in it"),
            ({"password": "x", "password_file": "secret"}, "there is a password already"),
            ({"user": None}, "mysql.user: "),
            ({"database": None}, "mysql.database: "),
            ({"port": 0}, "mysql.port: "),
            ({"username": "x"}, "mysql.username: "),
        ):
            self.assertIn(problem, self.problem(**given), given)

    def test_tls(self) -> None:
        """TLS is for other machines, and for this one if it is asked for."""
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        for given, secure in (
            ({}, True),
            ({"allow_plaintext": True}, True),
            ({"allow_plaintext": True, "tls": False}, False),
            ({"host": "127.0.0.1"}, False),
            ({"host": "::1"}, False),
            ({"host": "localhost", "tls": True}, True),
            ({"host": "localhost", "ca_file": "ca.pem"}, True),
            ({"host": None, "socket": "s"}, False),
        ):
            server = self.parse(**given).driver._server
            self.assertEqual(server.tls is not None, secure, given)

    def test_secrets(self) -> None:
        """The password is in no text about the configuration."""
        (self.folder / "secret").write_text(f"{SECRET}\n")
        for given in ({"password": SECRET}, {"password_file": "secret"}):
            config = self.parse(**given)
            self.assertEqual(config.driver._server.password, SECRET)
            self.assertNotIn(SECRET, repr(config))
            self.assertNotIn(SECRET, repr(config.driver._server))
            self.assertNotIn(SECRET, str(config.not_tried))

    def test_not_tried(self) -> None:
        """Which server was not connected to is said."""
        self.assertEqual(self.parse().not_tried, ["the MySQL at db.example.com, port 3306"])
        near = self.parse(host=None, socket="s").not_tried
        self.assertEqual(near, [f"the MySQL at {self.folder / 's'}"])

    def test_no_driver(self) -> None:
        """Without PyMySQL, or with one that is too old, the error says what to install."""
        for module in (None, SimpleNamespace(VERSION=(1, 1, 1, "final"))):
            self.patch(sys, "modules", {**sys.modules, "pymysql": module})
            self.assertIn("[mysql]", self.problem())
