"""What clients get, over HTTP, from each provider before the real thing, and what the log says."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from twisted.internet.defer import gatherResults
from twisted.logger import LogLevel

from synapse_login_module.model import AccountStatus
from tests.providers.backends import HTTPBackend, WildServer
from tests.providers.case import PASSWORD, WONDERLAND, in_coroutine, lines
from tests.providers.http.test_http import MAPPED
from tests.providers.ldap.case import ALICE as ALICE_ENTRY
from tests.providers.ldap.case import SEARCH
from tests.providers.ldap.wire import Flood, Listener, Proxy, Talker
from tests.providers.served import PROVIDERS, ComposedCase
from tests.providers.sql.test_sql import POSTGRESQL, SQLITE, TABLE
from tests.support.accounts import ALICE
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL, shared_postgresql
from tests.support.slapd import PEOPLE, Slapd
from tests.support.waiting import until

T = TypeVar("T")

CROWD = 100
SOON = 300
"""How long a backend that hangs is waited for: milliseconds."""

BOB = "@bob:example.com"

Entry = dict[str, Any]

HOSTILE = (
    "\0",
    "\r\nX-Header: x",
    "\ud800",
    "\x7f\x1b[31m",
    "\u202e",
    "a" * 10_000,
    "\u0301" * 300,
    "\U0001f916" * 300,
    "*",
    "*)(uid=*))(|(uid=*",
    "\\2a",
    ",ou=people,dc=example,dc=com",
    "' OR ''='",
    "%(localpart)s",
    ":localpart",
    "{password}",
    '"},"password":"wonderland',
    "/../../admin",
    "?status=active#",
    "%2e%2e%2f",
    "$2b$04$",
    ":!",
)
"""Texts that have a special meaning in some syntax."""


class ServedCase(ComposedCase):
    """A server with one provider, whose backend knows alice."""

    def stopped(self, server: T, stop: str = "stop") -> T:
        """Have a backend end with the test."""
        self.addCleanup(getattr(server, stop))
        return server

    def entry(self, provider: str, config: Entry, **more: Any) -> Entry:
        """An entry of the configuration."""
        return {"module": f"{PROVIDERS}.{provider}", "config": config, **more}

    async def session(self, user: str = "alice", password: str = PASSWORD) -> Any:
        """The answer to a login that is good."""
        body = {"type": "m.login.password", "user": user, "password": password}
        code, answer = await self.post("login", body)
        self.assertEqual(code, 200, answer)
        return answer

    async def refresh(self, session: Any, path: str = "refresh") -> tuple[int, Any]:
        """Refresh a session; a new pair takes the place of the old one in it."""
        access_token = session["access_token"] if path == "tokenrefresh" else None
        body = {"refresh_token": session["refresh_token"]}
        code, answer = await self.post(path, body, access_token)
        if code == 200:
            session.update(answer)
        return code, answer if isinstance(answer, str) else answer.get("errcode")


if TYPE_CHECKING:
    Case = ServedCase
else:
    Case = object


class AnswersMixin(Case):
    """What is the same for every provider."""

    emails = True
    statuses = frozenset(AccountStatus) - {AccountStatus.UNVERIFIABLE}
    removed = "gone"
    """What becomes of the sessions of an account that was removed: ``gone`` or ``kept``."""

    async def provider(self) -> Entry:
        """Start the backend; the entry for it."""
        raise NotImplementedError

    async def become(self, status: AccountStatus | None) -> None:
        """Change alice's account in the backend; ``None`` removes it."""
        raise NotImplementedError

    async def test_login(self) -> None:
        """Right and wrong password, unknown user, and an e-mail address in the user's place."""
        self.serve(await self.provider())
        events = self.catch_log()
        for name, password, expected in (
            ("alice", PASSWORD, (200, ALICE)),
            (ALICE, PASSWORD, (200, ALICE)),
            ("alice", "x", (403, "M_FORBIDDEN")),
            ("nobody", PASSWORD, (403, "M_FORBIDDEN")),
            ("@alice:elsewhere.example", PASSWORD, (403, "M_FORBIDDEN")),
        ):
            self.assertEqual(await self.log_in(name, password), expected, name)
        body = {"type": "m.login.password", "medium": "email", "address": "Alice@Example.com"}
        for password, code in ((PASSWORD, 200 if self.emails else 403), ("x", 403)):
            self.assertEqual((await self.post("login", {**body, "password": password}))[0], code)
        self.assertEqual(lines(events, LogLevel.warn), [])

    async def test_statuses(self) -> None:
        """A locked and a deactivated account, at the login and at the refresh; a wrong password
        tells nothing of either.
        """
        self.serve(await self.provider())
        for status, login, refresh, tokenrefresh in (
            (
                AccountStatus.LOCKED,
                (401, "M_USER_LOCKED"),
                (401, "M_USER_LOCKED"),
                (401, "M_USER_LOCKED"),
            ),
            (
                AccountStatus.DEACTIVATED,
                (403, "M_USER_DEACTIVATED"),
                (401, "M_UNKNOWN_TOKEN"),
                (403, "M_FORBIDDEN"),
            ),
        ):
            if status not in self.statuses:
                continue
            sessions = [await self.session(), await self.session()]
            await self.become(status)
            self.assertEqual(await self.log_in("alice"), login)
            self.assertEqual(await self.log_in("alice", "x"), (403, "M_FORBIDDEN"))
            self.assertEqual(await self.refresh(sessions[0]), refresh)
            self.assertEqual(await self.refresh(sessions[1], "tokenrefresh"), tokenrefresh)
            await self.become(AccountStatus.ACTIVE)
            self.assertEqual(
                await self.refresh(sessions[0]),
                (200, None) if status is AccountStatus.LOCKED else (401, "M_UNKNOWN_TOKEN"),
            )

    async def test_removed(self) -> None:
        """An account that was removed logs in no more, and its sessions end at the refresh, where
        the backend can be asked.
        """
        self.serve(await self.provider())
        sessions = [await self.session(), await self.session()]
        await self.become(None)
        self.assertEqual(await self.log_in("alice"), (403, "M_FORBIDDEN"))
        refreshed = [
            (await self.refresh(session, path))[0]
            for session, path in zip(sessions, ("refresh", "tokenrefresh"), strict=True)
        ]
        self.assertEqual(refreshed, [401, 403] if self.removed == "gone" else [200, 200])

    async def test_hostile(self) -> None:
        """Any hostile text as name and password is wrong or malformed. It logs no user in, and
        causes no outage.
        """
        self.serve(await self.provider())
        events = self.catch_log()
        for odd in HOSTILE:
            for identifier in (
                {"type": "m.id.user", "user": odd},
                {"type": "m.id.user", "user": f"@{odd}:example.com"},
                {"type": "m.id.user", "user": f"alice{odd}"},
                {"type": "m.id.thirdparty", "medium": "email", "address": odd},
                {
                    "type": "m.id.thirdparty",
                    "medium": "email",
                    "address": f"alice@example.com{odd}",
                },
                {"type": "m.id.phone", "country": "GB", "phone": odd},
            ):
                body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
                self.assertIn((await self.post("login", body))[0], (400, 403), repr(identifier))
            for password in (odd, f"{PASSWORD}{odd}", f"{odd}{PASSWORD}"):
                code, answer = await self.log_in("alice", password)
                self.assertIn(code, (400, 403), (password, answer))
        self.assertEqual(lines(events, LogLevel.warn), [])


class OutagesMixin(Case):
    """What is the same for every provider with a server behind it."""

    kind: str

    async def outage(self, entry: Entry, *problems: str) -> None:
        """The login meets an outage: 503, one line with one of these problems, one audit line."""
        self.serve(entry)
        await self.assert_outage(*problems)
        await self.server.stopService()

    async def assert_outage(self, *problems: str) -> None:
        """The same, of the server that runs."""
        events = self.catch_log()
        self.assertEqual(await self.log_in("alice"), (503, "M_UNKNOWN"))
        said = [line for line in lines(events) if line.startswith(f"{self.kind} is unavailable: ")]
        self.assertEqual(len(said), 1, lines(events))
        self.assertTrue(any(problem in said[0] for problem in problems), said)
        audited = [line for line in lines(events, LogLevel.info) if line.startswith("login ")]
        self.assertEqual(len(audited), 1)
        self.assertIn("login outcome=unavailable reason=provider address=127.0.0.1", audited[0])
        for line in lines(events, LogLevel.debug):
            self.assertNotIn(PASSWORD, line)


class HangingMixin(Case):
    """A backend that hangs, and a crowd that waits for it.

    :cvar room: how many logins may wait for it; it waits for longer than the test takes.
    """

    room: ClassVar[int]

    async def provider(self) -> Entry:
        """Start the backend; the entry for it."""
        raise NotImplementedError

    async def hang(self) -> None:
        """Have the backend take what comes, and answer nothing."""
        raise NotImplementedError

    async def let_go(self) -> None:
        """Have it answer again, and be done with those who wait."""
        raise NotImplementedError

    async def test_others_go_on(self) -> None:
        """While a backend hangs and its queue is full of logins, users of the providers before and
        after it log in and refresh, and the sessions of its own accounts are refreshed as well.
        """
        self.write("before", f"carol:{WONDERLAND}\n")
        self.write("after", f"bob:{WONDERLAND}\n")
        before, after = (
            self.entry("HtpasswdProvider", {"path": name}, name=name)
            for name in ("before", "after")
        )
        hanging = {**await self.provider(), "on_unavailable": "next", "deadline": "2m"}
        self.serve(
            *(before, hanging, after),
            tokens={"refresh_token": "always", "account_check_timeout": SOON},
            hashing={"rounds": 4, "queue": CROWD},
        )
        own, carols, bobs = [await self.session(name) for name in ("alice", "carol", "bob")]
        await self.hang()
        answered: list[int] = []

        async def log_in(number: int) -> None:
            answered.append((await self.log_in(f"user{number}", "x"))[0])

        crowd = [in_coroutine(log_in(number)) for number in range(CROWD)]
        await until(lambda: len(answered) == CROWD - self.room)
        events = self.catch_log()
        for _ in range(5):
            for session in (carols, bobs):
                for path in ("refresh", "tokenrefresh"):
                    self.assertEqual(await self.refresh(session, path), (200, None))
            self.assertEqual(await self.log_in("carol"), (200, "@carol:example.com"))
        self.assertEqual([line for line in lines(events) if "unchecked" in line], [])
        self.assertEqual(await self.refresh(own), (200, None))
        self.assertEqual(await self.log_in("bob"), (200, BOB))
        self.assertEqual(answered, [503] * (CROWD - self.room))
        await self.let_go()
        await gatherResults(crowd)
        self.assertLessEqual(set(answered), {403, 503})
        self.assertEqual(await self.log_in("alice"), (200, ALICE))


# LDAP


class LDAPCase(ServedCase):
    """slapd."""

    def slapd(self, **more: Any) -> Slapd:
        """A slapd with alice in its tree."""
        slapd = self.stopped(Slapd(**more), "remove")
        slapd.fill(ALICE_ENTRY)
        return slapd

    def ldap(self, *servers: Slapd | Listener, **more: Any) -> Entry:
        """An entry for these servers."""
        config = {
            **SEARCH,
            "servers": [each.url for each in servers],
            "disabled_filter": "(title=closed)",
            "locked_filter": "(title=locked)",
            **more,
        }
        return self.entry("LDAPProvider", config)


class LDAPAnswerTests(AnswersMixin, LDAPCase):
    """slapd, and what it says of an account."""

    async def provider(self) -> Entry:
        self.directory = self.slapd()
        self.directory.start()
        return self.ldap(self.directory)

    async def become(self, status: AccountStatus | None) -> None:
        name = f"dn: uid=alice,{PEOPLE}\nchangetype: "
        title = {AccountStatus.LOCKED: "title: locked", AccountStatus.DEACTIVATED: "title: closed"}
        if status is None:
            self.directory.change(f"{name}delete\n")
        else:
            value = title.get(status, "")
            self.directory.change(f"{name}modify\nreplace: title\n{value}\n")


class LDAPOutageTests(OutagesMixin, LDAPCase):
    """slapd, and what stands in its place."""

    kind = "ldap"

    async def test_down_before_the_start(self) -> None:
        """It is down when the server starts, and then it is not."""
        slapd = self.slapd()
        self.serve(self.ldap(slapd))
        await self.assert_outage("it cannot be reached: Connection was refused")
        slapd.start()
        self.assertEqual(await self.log_in("alice"), (200, ALICE))

    async def test_dying(self) -> None:
        """It dies in the middle of a login, when it has the password."""
        slapd = self.slapd()
        slapd.start()
        proxy = self.stopped(Proxy(slapd.port))

        def watch(data: bytes) -> bool:
            if PASSWORD.encode() in data:
                proxy.stop_listening()
                slapd.stop()
            return True

        proxy.watch = watch
        await self.outage(self.ldap(proxy), "it closed the connection", "it cannot be reached")

    async def test_hanging(self) -> None:
        """It takes a connection and says nothing."""
        entry = self.ldap(self.stopped(Listener()), read_timeout=SOON)
        await self.outage(entry, "it did not answer within 0.3 seconds")

    async def test_garbage(self) -> None:
        """It says what is no LDAP."""
        server = self.stopped(Talker(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        await self.outage(self.ldap(server), "what it says is not LDAP")

    async def test_ten_megabytes(self) -> None:
        """It says too much."""
        server = self.stopped(Flood(b"\x30\x84\x00\x98\x96\x80", b"\0" * 65_536))
        await self.outage(self.ldap(server), "what it says is not LDAP, or too much")

    async def test_certificate(self) -> None:
        """It has the wrong certificate."""
        authority = Authority()
        self.write("ca.pem", authority.certificate)
        slapd = self.slapd(certificate=authority.sign(common_name="127.0.0.1"))
        slapd.start()
        entry = self.ldap(slapd, start_tls=True, ca_file="ca.pem")
        await self.outage(entry, "its certificate names nobody")


class LDAPHangingTests(HangingMixin, LDAPCase):
    """slapd behind a proxy that falls silent."""

    room = 44

    async def provider(self) -> Entry:
        slapd = self.slapd()
        slapd.start()
        self.proxy = self.stopped(Proxy(slapd.port))
        return self.ldap(self.proxy, read_timeout="1m", timeout="2m", connections=4, queue=40)

    async def hang(self) -> None:
        self.proxy.silent = True

    async def let_go(self) -> None:
        self.proxy.silent = False
        self.proxy.hang_up()


# HTTP


class HTTPCase(ServedCase):
    """A service on a socket of this process."""

    def http(self, url: str, **more: Any) -> Entry:
        """An entry for the service, asked in its own words."""
        config = {
            "url": f"{url}/login",
            "status_url": f"{url}/status/{{user_id}}",
            "timeout": "20s",
            **MAPPED,
            **more,
        }
        return self.entry("HTTPProvider", config)

    def backend(self, tls: Any = None) -> HTTPBackend:
        """A service."""
        backend = self.stopped(HTTPBackend(tls))
        backend.service.unknown_code = 404
        return backend


class HTTPAnswerTests(AnswersMixin, HTTPCase):
    """A service that knows statuses, and what it says of an account."""

    async def provider(self) -> Entry:
        backend = self.backend()
        self.service = backend.service
        return self.http(backend.url)

    async def become(self, status: AccountStatus | None) -> None:
        if status is None:
            del self.service.passwords[ALICE], self.service.statuses[ALICE]
        else:
            self.service.statuses[ALICE] = status.value


class RestAnswerTests(AnswersMixin, HTTPCase):
    """A service that speaks the REST protocol, which knows no statuses and no e-mail logins."""

    emails = False
    statuses = frozenset()
    removed = "kept"

    async def provider(self) -> Entry:
        backend = self.backend()
        backend.service.unknown_code = None
        self.service = backend.service
        return self.entry("HTTPProvider", {"endpoint": backend.url})

    async def become(self, status: AccountStatus | None) -> None:
        assert status is None
        del self.service.passwords[ALICE]


class HTTPOutageTests(OutagesMixin, HTTPCase):
    """The service, and what stands in its place."""

    kind = "http"

    def wild(self, mode: str, **more: Any) -> Entry:
        """An entry for a server that misbehaves in this way."""
        return self.http(self.stopped(WildServer(mode, self.folder()), "kill").url, **more)

    async def test_down_before_the_start(self) -> None:
        """It is down when the server starts, and then it is not."""
        port = free_port()
        self.serve(self.http(f"http://127.0.0.1:{port}"))
        await self.assert_outage("ConnectionRefusedError")
        self.stopped(HTTPBackend(port=port))
        self.assertEqual(await self.log_in("alice"), (200, ALICE))

    async def test_dying(self) -> None:
        """It dies in the middle of its answer, or before."""
        for mode in ("die", "die_early"):
            await self.outage(self.wild(mode), "Connection")

    async def test_hanging(self) -> None:
        """It says nothing, or half of something."""
        for mode in ("hang", "half"):
            await self.outage(self.wild(mode, timeout=SOON), "no whole answer in 0.3 seconds")

    async def test_garbage(self) -> None:
        """It says what is no HTTP."""
        await self.outage(self.wild("garbage"), "ParseError")

    async def test_ten_megabytes(self) -> None:
        """It says too much, announced or not."""
        for mode in ("big", "big_unsaid"):
            await self.outage(self.wild(mode), "an answer of more than 65536 bytes")

    async def test_certificate(self) -> None:
        """It has the wrong certificate."""
        authority = Authority()
        self.write("ca.pem", authority.certificate)
        backend = self.backend(authority.sign(common_name="127.0.0.1").server())
        entry = self.http(backend.url, ca_file="ca.pem")
        await self.outage(entry, "TLS: its certificate names nobody")
        self.assertEqual(backend.service.seen, [])


class HTTPHangingTests(HangingMixin, HTTPCase):
    """A service that holds requests back."""

    room = 40

    async def provider(self) -> Entry:
        backend = self.backend()
        self.service = backend.service
        self.cut = backend.cut
        return self.http(backend.url, timeout="1m", connections=40)

    async def hang(self) -> None:
        self.service.held = []

    async def let_go(self) -> None:
        self.service.held = None
        self.cut()


# Databases


class SQLiteAnswerTests(AnswersMixin, ServedCase):
    """A file, and what it says of an account."""

    async def provider(self) -> Entry:
        self.execute(TABLE)
        self.execute(
            "INSERT INTO accounts (name, hash, email) VALUES (?, ?, ?)",
            ("alice", WONDERLAND, "alice@example.com"),
        )
        return self.entry("SQLProvider", {"sqlite": "accounts.db", "queries": SQLITE})

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        """Run a statement."""
        connection = sqlite3.connect(self.folder() / "accounts.db")
        with connection:
            connection.execute(statement, values)
        connection.close()

    async def become(self, status: AccountStatus | None) -> None:
        if status is None:
            self.execute("DELETE FROM accounts")
        else:
            values = (status is AccountStatus.LOCKED, status is AccountStatus.DEACTIVATED)
            self.execute("UPDATE accounts SET locked = ?, closed = ?", values)


class SQLiteOutageTests(OutagesMixin, ServedCase):
    """A file that is not there, is not a database, or is locked."""

    kind = "sql"

    def opened(self, **more: Any) -> tuple[Entry, sqlite3.Connection]:
        """An entry for a file, and a connection to it."""
        connection = self.stopped(sqlite3.connect(self.folder() / "accounts.db"), "close")
        connection.executescript(TABLE)
        config = {"sqlite": "accounts.db", "queries": SQLITE, **more}
        return self.entry("SQLProvider", config), connection

    async def test_gone(self) -> None:
        """The file is taken away, and comes back."""
        entry, connection = self.opened()
        connection.execute("INSERT INTO accounts (name, hash) VALUES ('alice', ?)", [WONDERLAND])
        connection.commit()
        self.serve(entry)
        (self.folder() / "accounts.db").rename(self.folder() / "elsewhere.db")
        await self.assert_outage("unable to open database file")
        (self.folder() / "elsewhere.db").rename(self.folder() / "accounts.db")
        self.assertEqual(await self.log_in("alice"), (200, ALICE))

    async def test_garbage(self) -> None:
        """Something else is written over it."""
        entry, _ = self.opened()
        self.serve(entry)
        self.write("accounts.db", b"garbage " * 1000)
        await self.assert_outage("file is not a database")

    async def test_hanging(self) -> None:
        """Another connection has locked it."""
        entry, connection = self.opened(timeout=SOON)
        self.serve(entry)
        connection.execute("BEGIN EXCLUSIVE")
        await self.assert_outage("the database did not answer in 0.3 seconds", "is locked")


class PostgreSQLCase(ServedCase):
    """A cluster."""

    database: PostgreSQL

    def use(self, server: PostgreSQL) -> None:
        """Have a table with alice in it."""
        self.database = server
        server.query("DROP TABLE IF EXISTS accounts")
        server.query(TABLE)
        server.query(
            "INSERT INTO accounts (name, hash, email) VALUES ('alice', %s, 'alice@example.com')",
            [WONDERLAND],
        )

    def sql(self, conninfo: str, **more: Any) -> Entry:
        """An entry for a server."""
        return self.entry("SQLProvider", {"postgresql": conninfo, "queries": POSTGRESQL, **more})


class PostgreSQLAnswerTests(AnswersMixin, PostgreSQLCase):
    """PostgreSQL, and what it says of an account."""

    async def provider(self) -> Entry:
        self.use(shared_postgresql())
        return self.sql(self.database.conninfo)

    async def become(self, status: AccountStatus | None) -> None:
        if status is None:
            self.database.query("DELETE FROM accounts")
        else:
            values = [status is AccountStatus.LOCKED, status is AccountStatus.DEACTIVATED]
            self.database.query("UPDATE accounts SET locked = %s, closed = %s", values)


class PostgreSQLOutageTests(OutagesMixin, PostgreSQLCase):
    """PostgreSQL, and what stands in its place."""

    kind = "sql"

    def wild(self, mode: str) -> Entry:
        """An entry for a server that misbehaves in this way."""
        server = self.stopped(WildServer(mode, self.folder()), "kill")
        return self.sql(f"host=127.0.0.1 port={server.port} user=x dbname=x", timeout=SOON)

    async def test_down_before_the_start(self) -> None:
        """It is down when the server starts, and then it is not."""
        server = self.stopped(PostgreSQL(), "remove")
        self.use(server)
        server.stop()
        self.serve(self.sql(server.conninfo))
        await self.assert_outage("Connection refused")
        server.start()
        self.assertEqual(await self.log_in("alice"), (200, ALICE))

    async def test_dying(self) -> None:
        """It dies in the middle of a login."""
        server = self.stopped(PostgreSQL(), "remove")
        self.use(server)
        slow = POSTGRESQL["by_user"].replace("FROM accounts", "FROM accounts, pg_sleep(1000)")
        self.serve(self.sql(server.conninfo, queries={**POSTGRESQL, "by_user": slow}))
        met = in_coroutine(self.assert_outage("terminating connection due to"))
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await until(lambda: server.query(asleep))
        server.stop()
        await met

    async def test_hanging(self) -> None:
        """It says nothing."""
        await self.outage(self.wild("hang"), "the database did not answer in 0.3 seconds")

    async def test_garbage(self) -> None:
        """It says what is not PostgreSQL's, and 10 MB of it."""
        for mode in ("garbage", "line", "big"):
            await self.outage(self.wild(mode), "the database did not answer", "connection failed")

    async def test_certificate(self) -> None:
        """It has the wrong certificate."""
        authority = Authority()
        ca = self.write("ca.pem", authority.certificate)
        server = self.stopped(PostgreSQL(), "remove")
        server.use_certificate(authority.sign("elsewhere.example"))
        conninfo = f"{server.conninfo} sslmode=verify-full sslrootcert={ca}"
        await self.outage(self.sql(conninfo), "does not match host name")


class PostgreSQLHangingTests(HangingMixin, PostgreSQLCase):
    """PostgreSQL, with a table that another connection has locked."""

    room = 68

    async def provider(self) -> Entry:
        self.use(shared_postgresql())
        self.holder = self.stopped(self.database.connect(), "close")
        return self.sql(self.database.conninfo, timeout="1m")

    async def hang(self) -> None:
        self.holder.execute("BEGIN")
        self.holder.execute("LOCK TABLE accounts")

    async def let_go(self) -> None:
        self.holder.execute("ROLLBACK")


# Files and checkers


class HtpasswdAnswerTests(AnswersMixin, ServedCase):
    """An Apache file, which knows neither e-mail addresses nor statuses."""

    emails = False
    statuses = frozenset()

    async def provider(self) -> Entry:
        self.write("passwords", f"alice:{WONDERLAND}\nbob:{WONDERLAND}\n")
        return self.entry("HtpasswdProvider", {"path": "passwords"})

    async def become(self, status: AccountStatus | None) -> None:
        self.write("passwords", f"bob:{WONDERLAND}\n")


class PasswdAnswerTests(AnswersMixin, ServedCase):
    """A file like /etc/passwd, which locks accounts."""

    statuses = frozenset({AccountStatus.LOCKED})

    async def provider(self) -> Entry:
        await self.become(AccountStatus.ACTIVE)
        return self.entry("PasswdProvider", {"path": "passwords"})

    async def become(self, status: AccountStatus | None) -> None:
        mark = "!" if status is AccountStatus.LOCKED else ""
        alice = f"alice:{mark}{WONDERLAND}:Alice:alice@example.com\n"
        bob = f"bob:{WONDERLAND}\n"
        self.write("passwords", bob if status is None else f"{alice}{bob}")


class BcryptAnswerTests(AnswersMixin, ServedCase):
    """A users file."""

    async def provider(self) -> Entry:
        await self.become(AccountStatus.ACTIVE)
        return self.entry("BcryptProvider", {"path": "users.yaml"})

    async def become(self, status: AccountStatus | None) -> None:
        alice = (
            f"{{password_hash: '{WONDERLAND}', emails: [alice@example.com],"
            f" locked: {status is AccountStatus.LOCKED},"
            f" deactivated: {status is AccountStatus.DEACTIVATED}}}"
        )
        bob = f"bob: {{password_hash: '{WONDERLAND}'}}"
        users = f"{{{bob}}}" if status is None else f"{{alice: {alice}, {bob}}}"
        self.write(
            "users.yaml", f"users: {users}\n".replace("True", "true").replace("False", "false")
        )


class CredAnswerTests(AnswersMixin, ServedCase):
    """Twisted's own checker of a file, which knows neither addresses nor statuses."""

    emails = False
    statuses = frozenset()
    removed = "kept"

    async def provider(self) -> Entry:
        path = self.write("plain", f"alice:{PASSWORD}\n")
        arguments = {"filename": str(path)}
        checker = "twisted.cred.checkers.FilePasswordDB"
        return self.entry("CredProvider", {"checker": checker, "arguments": arguments})

    async def become(self, status: AccountStatus | None) -> None:
        self.write("plain", "")
