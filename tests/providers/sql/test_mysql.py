"""Tests for the SQL provider on a MariaDB server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.model import AccountStatus
from synapse_login_module.passwords import hash_password
from synapse_login_module.providers.sql.driver import MOST_ROWS
from synapse_login_module.providers.sql.mysql import MySQLDriver
from synapse_login_module.providers.sql.mysql_server import MySQLKeys, read_server
from synapse_login_module.providers.sql.provider import SQLProvider
from synapse_login_module.providers.sql.work import Idle, Work
from tests.providers.case import (
    PASSWORD,
    WONDERLAND,
    ProviderCase,
    email,
    fake_hashing,
    lines,
    user,
)
from tests.providers.sql.test_sql import (
    COLUMNS,
    POSTGRESQL,
    VOUCHED,
    ContractMixin,
    IgnoringCaseContractMixin,
    ServerTestsMixin,
    SQLMixin,
)
from tests.support.accounts import ALICE
from tests.support.mariadb import DATABASE, MariaDB, shared_mariadb
from tests.support.waiting import until

TABLE = """
CREATE TABLE accounts (
    name VARCHAR(600) PRIMARY KEY, hash TEXT, email TEXT, phone TEXT, display_name TEXT,
    locked BOOLEAN DEFAULT FALSE, closed BOOLEAN DEFAULT FALSE
) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
"""


class MariaDBMixin(SQLMixin):
    """A table on the shared server."""

    statements = POSTGRESQL
    full_user_id = "CONCAT('@', name, ':example.com')"
    id_in_status = "phone AS subject, "
    table = TABLE

    def setUp(self) -> None:
        self.server = self.make_server()
        self.execute("DROP TABLE IF EXISTS accounts")
        self.execute(self.table)

    def make_server(self) -> MariaDB:
        """Return the server to use."""
        return shared_mariadb()

    def config(self) -> dict[str, Any]:
        return {"mysql": self.server.config}

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self.server.query(statement.replace("?", "%s"), values, DATABASE)

    def with_global(self, name: str, value: object) -> None:
        """Set a variable of the server for this test."""
        ((usual,),) = self.server.query(f"SELECT @@GLOBAL.{name}")
        self.addCleanup(self.server.query, f"SET GLOBAL {name} = %s", [usual])
        self.server.query(f"SET GLOBAL {name} = %s", [value])

    def forbid_updates(self) -> None:
        self.execute(
            "CREATE TRIGGER no_update BEFORE UPDATE ON accounts FOR EACH ROW"
            " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not today'"
        )

    @staticmethod
    def says(events: Sequence[LogEvent], words: str) -> bool:
        """Whether a warning has these words in it."""
        return any(words in line for line in lines(events))


class MariaDBContractTests(MariaDBMixin, ContractMixin, ProviderCase):
    """The contract, on MariaDB."""


class MariaDBIgnoringCaseContractTests(MariaDBMixin, IgnoringCaseContractMixin, ProviderCase):
    """The contract, on MariaDB, however a name is typed."""


class MariaDBTests(MariaDBMixin, ServerTestsMixin, ProviderCase):
    """MariaDB, with a table that distinguishes names as other databases do."""

    says_read_only = "READ ONLY"
    many_rows = "SELECT CONCAT('user', seq), REPEAT('x', 1000) FROM seq_1_to_10000"

    async def test_one_statement(self) -> None:
        """A second statement is not run."""
        self.add("alice")
        for more in ("; DELETE FROM accounts", "; SELECT 1"):
            provider = self.provider(queries={"by_user": self.statements["by_user"] + more})
            asked = provider.authenticate(user("alice"), PASSWORD)
            self.assertIn("SQL syntax", str(await self.fails(asked, ProviderUnavailable)))
        self.assertEqual(self.hash_of("alice"), WONDERLAND)

    async def test_no_local_files(self) -> None:
        """No statement reads a file of this machine."""
        path = self.write("secret", "swordfish\n")
        self.with_global("local_infile", 1)
        loading = (
            f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE accounts (name)"
            " SET hash = CONCAT(%(old_hash)s, %(new_hash)s, %(localpart)s)"
        )
        self.add("alice")
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        events = self.catch_log()
        provider = self.provider(environment, queries={"update": loading})
        await provider.authenticate(user("alice"), PASSWORD)
        await until(partial(self.says, events, "was not renewed: "))
        self.assertIn("local infile", " ".join(lines(events)))
        self.assertEqual(self.execute("SELECT name FROM accounts"), [("alice",)])

    async def test_modes_of_the_server(self) -> None:
        """Names are safe, and statements mean the same, whatever ``sql_mode`` the server has, and
        whatever character sets.
        """
        self.add("alice")
        self.with_global("character_set_server", "gbk")
        for mode in ("NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT", "ANSI", ""):
            self.with_global("sql_mode", mode)
            provider = self.provider()
            for name in (
                "alice\\'/**/OR/**/1=1#",
                "\\",
                "\\'",
                "x'",
                "\u5c5c'/**/OR/**/1=1#",
                "\xbf'",
            ):
                self.assertIsNone(await provider.authenticate(user(name), PASSWORD), name)
                self.assertIsNone(await provider.authenticate(email(name), PASSWORD), name)
            self.add("\\'\u5c5c", hash=WONDERLAND)
            asked = provider.authenticate(user("\\'\u5c5c"), PASSWORD)
            self.assertEqual((await self.fails(asked, InvalidCredentials)).reason, "bad_user_id")
            self.execute("DELETE FROM accounts WHERE name <> 'alice'")

    async def test_parameter_in_quotes(self) -> None:
        """A parameter that stands in quotes by mistake is no way into the statement."""
        self.add("alice")
        text = f"{self.statements['by_user']} AND '%(localpart)s' <> ''"
        asked = self.provider(queries={"by_user": text}).authenticate(user("' OR 1=1"), PASSWORD)
        self.assertIsNone(await asked)
        asked = self.provider(queries={"by_user": text}).authenticate(user("alice"), PASSWORD)
        self.assertIn("SQL syntax", str(await self.fails(asked, ProviderUnavailable)))

    async def test_text_that_a_column_cannot_hold(self) -> None:
        """A name with letters that the column's character set lacks is unknown, and no outage."""
        for charset in ("utf8mb3", "latin1", "ascii", "latin2"):
            self.execute(f"ALTER TABLE accounts CONVERT TO CHARACTER SET {charset}")
            self.execute("DELETE FROM accounts")
            self.add("alice")
            provider = self.provider()
            for name in ("\N{ROBOT FACE}", "\u0142ukasz", "\u5c5c", "\xe4"):
                self.assertIsNone(await provider.authenticate(user(name), PASSWORD), charset)
                self.assertIsNone(await provider.account_status(name), charset)
            self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_mixed_columns(self) -> None:
        """A statement that cannot be compared for any name is an outage, and loses nobody."""
        self.add("alice")
        text = self.statements["by_user"] + (
            " AND name COLLATE utf8mb4_bin = hash COLLATE utf8mb4_general_ci"
        )
        asked = self.provider(queries={"by_user": text}).authenticate(user("alice"), PASSWORD)
        self.assertIn("mix of collations", str(await self.fails(asked, ProviderUnavailable)))

    async def test_types(self) -> None:
        """Names and hashes may be bytes, flags bits, and ids numbers, UUIDs or 16 bytes."""
        self.execute("DROP TABLE IF EXISTS typed")
        self.addCleanup(self.execute, "DROP TABLE typed")
        self.execute(
            "CREATE TABLE typed (name VARBINARY(255), hash BINARY(70), locked BIT(1),"
            " closed TINYINT(1), full_name BLOB, big BIGINT UNSIGNED, exact DECIMAL(20, 0),"
            " uuid UUID, bytes BINARY(16), text VARBINARY(50))"
        )
        number = 2**63 + 1
        uuid = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
        self.execute(
            "INSERT INTO typed VALUES ('alice', ?, b'0', 0, '\xc4lice', ?, ?, ?, UNHEX(?), 'a-1')",
            [WONDERLAND, number, number, uuid, uuid.replace("-", "")],
        )
        for column, expected, where in (
            ("big", f"id:{number}", "big = %(subject)s"),
            ("exact", f"id:{number}", "exact = %(subject)s"),
            ("uuid", f"id:{uuid}", "uuid = %(subject)s"),
            ("bytes", f"id:{uuid.replace('-', '')}", "bytes = UNHEX(%(subject)s)"),
            ("text", "id:a-1", "text = %(subject)s"),
        ):
            columns = f"name AS localpart, locked, closed AS deactivated, {column} AS subject"
            by_user = (
                f"SELECT {columns}, hash AS password_hash, full_name AS display_name FROM typed"
                " WHERE name = %(localpart)s"
            )
            status = f"SELECT {columns} FROM typed WHERE {where}"
            provider = self.build(
                SQLProvider, {**self.config(), "queries": {"by_user": by_user, "status": status}}
            )
            account = await provider.authenticate(user("alice"), PASSWORD)
            self.assertEqual(account, replace(VOUCHED, display_name="\xc4lice", subject=expected))
            self.assertIs(await provider.account_status(expected), AccountStatus.ACTIVE)
            self.execute("UPDATE typed SET locked = b'1'")
            self.assertIs(await provider.account_status(expected), AccountStatus.LOCKED)
            self.execute("UPDATE typed SET locked = b'0'")
        self.execute("UPDATE typed SET name = X'616cff'")
        text = "SELECT name AS localpart FROM typed WHERE %(localpart)s <> ''"
        provider = self.build(SQLProvider, {**self.config(), "queries": {"by_user": text}})
        asked = provider.authenticate(user("alice"), PASSWORD)
        self.assertIn("localpart", str(await self.fails(asked, ProviderUnavailable)))

    async def test_neighbouring_numbers(self) -> None:
        """Ids that are the same as floating-point numbers are different accounts."""
        first, second = 2**53, 2**53 + 1
        self.execute("ALTER TABLE accounts MODIFY phone BIGINT")
        self.add("alice", phone=first)
        self.add("bob", phone=second, locked=True)
        provider = self.by_subject()
        self.assertIs(await provider.account_status(f"id:{first}"), AccountStatus.ACTIVE)
        self.assertIs(await provider.account_status(f"id:{second}"), AccountStatus.LOCKED)

    async def test_connections_are_kept(self) -> None:
        """No more connections are made than configured, and they are kept."""
        self.add("alice")
        await until(lambda: not self.server.clients())
        provider = self.provider(connections=2)
        for _ in range(3):
            await gatherResults([provider.account_status(ALICE) for _ in range(10)])
        self.assertLessEqual(len(self.server.clients()), 2)
        provider.stopService()
        await until(lambda: not self.server.clients())

    async def test_connections_killed(self) -> None:
        """Kept connections that were killed meanwhile are no outage."""
        self.add("alice")
        provider = self.provider(connections=3)
        await gatherResults([provider.account_status(ALICE) for _ in range(10)])
        self.server.kill_clients()
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_connections_idle_for_too_long(self) -> None:
        """Neither are those that the server closed since they were idle."""
        self.add("alice")
        self.with_global("wait_timeout", 1)
        provider = self.provider()
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)
        await until(lambda: not self.server.clients())
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_killed_in_a_statement(self) -> None:
        """A statement whose connection is killed runs again on another one."""
        self.add("alice")
        waiting = f"{self.statements['by_user']} AND GET_LOCK('held', 100) = 1"
        holder = self.server.connect()
        self.addCleanup(holder.close)
        with holder.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK('held', 0)")
        provider = self.provider(queries={"by_user": waiting}, connections=1)
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)
        asked = provider.authenticate(user("alice"), PASSWORD)
        blocked = "SELECT id FROM information_schema.processlist WHERE state = 'User lock'"
        await until(lambda: self.server.query(blocked))
        ((number,),) = self.server.query(blocked)
        with holder.cursor() as cursor:
            cursor.execute(f"KILL CONNECTION {number}")
            await until(lambda: number not in self.server.clients())
            cursor.execute("SELECT RELEASE_LOCK('held')")
        self.assertIsNotNone(await asked)

    def driver(self, writes: bool = False) -> MySQLDriver:
        """A driver that waits for five seconds."""
        server = read_server(MySQLKeys(**self.server.config), self.folder())
        return MySQLDriver(server, 5, writes)

    def idle(self, clock: Clock) -> Idle:
        """No idle connections; those that come are closed after the test."""
        idle = Idle(clock.seconds)
        self.addCleanup(idle.close)
        return idle

    def test_session(self) -> None:
        """The server has the same timeouts, sends few rows, and each statement is a transaction."""
        ask = (
            "SELECT @@max_statement_time AS statement, @@lock_wait_timeout AS locks,"
            " @@sql_select_limit AS most, @@autocommit AS autocommit, @@tx_read_only AS safe"
        )
        wanted = {"statement": 5.0, "locks": 5, "most": MOST_ROWS, "autocommit": 1}
        for writes in (False, True):
            rows, _ = Work(self.driver(writes), self.idle(Clock()), ask, {})()
            self.assertEqual(list(rows), [{**wanted, "safe": 0 if writes else 1}])
        _, count = Work(self.driver(), self.idle(Clock()), "SELECT 1 FROM seq_1_to_1000", {})()
        self.assertEqual(count, MOST_ROWS)

    def test_connections_grow_old(self) -> None:
        """A connection that was idle for long is not used again."""
        clock = Clock()
        idle, driver = self.idle(clock), self.driver()

        def number() -> int:
            ((row,), _) = Work(driver, idle, "SELECT CONNECTION_ID() AS number", {})()
            found: int = row["number"]
            return found

        first = number()
        clock.advance(59)
        self.assertEqual(number(), first)
        clock.advance(61)
        self.assertNotEqual(number(), first)

    async def test_slow_statement(self) -> None:
        """A statement that takes too long is an outage, and ends on the server too."""
        self.add("alice")
        slow = "SELECT 'alice' AS localpart, %(email)s AS x, SLEEP(1000)"
        await until(lambda: not self.server.clients())
        provider = self.provider(queries={"by_email": slow}, timeout="1s", connections=1)
        await self.fails(provider.authenticate(email(), PASSWORD), ProviderUnavailable)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        await until(lambda: len(self.server.clients()) <= 1)

    async def test_locked_table(self) -> None:
        """So is one that waits for a table that another connection has locked."""
        self.add("alice")
        holder = self.server.connect(DATABASE)
        self.addCleanup(holder.close)
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLES accounts WRITE")
            provider = self.provider(timeout=1000, connections=1)
            asked = provider.authenticate(user("alice"), PASSWORD)
            problem = str(await self.fails(asked, ProviderUnavailable))
            cursor.execute("UNLOCK TABLES")
        self.assertRegex(problem, "did not answer in 1.0 seconds|max_statement_time|Lock wait")
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_errors(self) -> None:
        """An error names what is wrong, and no value."""
        self.add("alice")
        select = self.statements["by_user"]
        for statement, problem in (
            (select.replace("accounts", "nowhere"), "Table 'shop.nowhere' doesn't exist (1146)"),
            (select.replace("name =", "nome ="), "Unknown column 'nome' in 'WHERE' (1054)"),
            (f"{select} ORDER", "the right syntax to use near '' at line 1 (1064)"),
            (select.replace("name =", "name"), "use near '\u2026' at line 1 (1064)"),
            (select.replace("accounts", "mysql.user"), "SELECT command denied to user 'matrix'@"),
        ):
            provider = self.provider(queries={"by_user": statement})
            asked = provider.authenticate(user("swordfish"), PASSWORD)
            found = str(await self.fails(asked, ProviderUnavailable))
            self.assertIn(problem.lower(), found.lower())
            self.assertNotIn("swordfish", found)
            self.assertNotIn(b"swordfish".hex(), found)

    async def test_errors_of_updates(self) -> None:
        """Nor is a hash in the line about one that was not renewed."""
        self.add("alice")
        self.add("bob")
        self.execute("ALTER TABLE accounts MODIFY hash VARCHAR(61)")
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        update = self.statements["update"]
        for wrong in (
            update.replace("hash = %(new_hash)s", "name = %(new_hash)s") + " OR name = 'bob'",
            update.replace("hash = %(new_hash)s", "locked = %(new_hash)s"),
            update.replace("hash = %(new_hash)s", "hash = CONCAT(%(new_hash)s, 'too long')"),
            update.replace("WHERE", "%(new_hash)s WHERE"),
        ):
            events = self.catch_log()
            provider = self.provider(environment, queries={"update": wrong})
            await provider.authenticate(user("alice"), PASSWORD)
            await until(partial(self.says, events, "was not renewed: "))
            for line in lines(events):
                self.assertNotIn("$2b$", line)
                self.assertNotIn(b"$2b$".hex(), line)

    async def test_truncated_hash(self) -> None:
        """A column that is too short for the new hash keeps the old one."""
        self.add("alice")
        self.execute("ALTER TABLE accounts MODIFY hash VARCHAR(60)")
        update = self.statements["update"].replace("%(new_hash)s", "CONCAT('x', %(new_hash)s)")
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        self.with_global("sql_mode", "")
        events = self.catch_log()
        provider = self.provider(environment, queries={"update": update})
        await provider.authenticate(user("alice"), PASSWORD)
        await until(partial(self.says, events, "Data too long for column"))
        self.assertEqual(self.hash_of("alice"), WONDERLAND)

    async def test_wrong_password(self) -> None:
        """A wrong password of ours is an outage that does not quote it."""
        wrong = {**self.server.config, "password": "swordfish"}
        asked = self.provider(mysql=wrong).authenticate(user("alice"), PASSWORD)
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertIn("Access denied for user 'matrix'@", problem)
        self.assertNotIn("swordfish", problem)

    async def test_unix_socket(self) -> None:
        """A server is reached by its Unix socket, and the password may be in a file."""
        self.add("alice")
        server = self.server.config
        self.write("password", f"{server.pop('password')}\n")
        for key in ("host", "port"):
            del server[key]
        server = {**server, "socket": str(self.server.socket), "password_file": "password"}
        provider = self.provider(mysql=server)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))


class DefaultCollationTests(MariaDBMixin, ProviderCase):
    """A table as most applications make it: its names ignore case, accents and spaces at the end.

    So a name finds the row of another spelling.
    """

    table = TABLE.replace("COLLATE utf8mb4_bin", "")

    async def test_spellings(self) -> None:
        """However the name is typed, it is one account, and its failures are charged to it."""
        self.add("alice", email="alice@example.com")
        provider = self.provider()
        for typed in ("alice", "ALICE", "\xe1lice", "\xc1L\xcfC\xcb"):
            account = await provider.authenticate(user(typed), PASSWORD)
            self.assertEqual(account, replace(VOUCHED, emails=("alice@example.com",)), typed)
            error = await self.fails(provider.authenticate(user(typed), "x"), InvalidCredentials)
            self.assertEqual(error.user_id, ALICE, typed)
        for typed in ("alice ", "alice\u3000", "ali\u200bce", " alice"):
            self.assertIsNone(await provider.authenticate(user(typed), PASSWORD), repr(typed))
        for address in ("ALICE@example.com", "\xe1lice@example.com"):
            error = await self.fails(provider.authenticate(email(address), "x"), InvalidCredentials)
            self.assertEqual(error.user_id, ALICE)

    async def test_statuses(self) -> None:
        """A look finds an account by its exact spelling alone: one that was renamed is gone."""
        self.add("alice")
        provider = self.provider()
        self.assertIs(await provider.account_status("alice"), AccountStatus.ACTIVE)
        for other in ("Alice", "ALICE", "\xe1lice", "alice ", "@\xe1lice:example.com"):
            self.assertIsNone(await provider.account_status(other), other)

    async def test_look_alikes(self) -> None:
        """Two rows that are the same to the database are two accounts."""
        self.execute("ALTER TABLE accounts DROP PRIMARY KEY")
        self.add("alice", hash=hash_password("one", "", 4))
        self.add("\xe1lice", hash=hash_password("two", "", 4))
        self.add("alice ", hash=hash_password("three", "", 4))
        provider = self.provider()
        account = await provider.authenticate(user("alice"), "one")
        self.assertEqual(account, VOUCHED)
        for password in ("two", "three"):
            await self.fails(provider.authenticate(user("alice"), password), InvalidCredentials)
        asked = provider.authenticate(user("\xe1lice"), "two")
        self.assertEqual((await self.fails(asked, InvalidCredentials)).reason, "bad_user_id")
        for password in ("one", "two", "three"):
            self.assertIsNone(await provider.authenticate(user("ALICE"), password))

    async def test_status_without_the_id(self) -> None:
        """A status by id that does not return the id is an outage: it may be another's."""
        self.add("alice", phone="abc")
        status = "SELECT locked FROM accounts WHERE phone = %(subject)s"
        provider = self.by_subject(status=status)
        account = await provider.authenticate(user("alice"), PASSWORD)
        assert account is not None
        self.assertEqual(account.subject, "id:abc")
        for subject in ("id:abc", "id:ABC"):
            problem = str(await self.fails(provider.account_status(subject), ProviderUnavailable))
            self.assertIn("queries.status: it has no column subject", problem)
        self.assertIsNone(await provider.account_status("id:nobody"))

    async def test_ids(self) -> None:
        """An id in another spelling, or with something after its number, is another's."""
        for column, subject, others in (
            ("VARCHAR(50)", "aBc", ("id:abc", "id:aBc ", "id:\xe1Bc")),
            ("INT", "17", ("id:17abc", "id:17.0", "id:017", "id: 17", "id:1.7e1")),
        ):
            self.execute(f"ALTER TABLE accounts MODIFY phone {column}")
            self.add("alice", phone=subject)
            by_user = self.statements["by_user"].replace(COLUMNS, f"{COLUMNS}, phone AS subject")
            status = "SELECT phone AS subject, locked FROM accounts WHERE phone = %(subject)s"
            provider = self.provider(
                queries={
                    "by_user": by_user,
                    "status": status,
                    "by_email": None,
                    "by_phone": None,
                }
            )
            account = await provider.authenticate(user("alice"), PASSWORD)
            assert account is not None
            self.assertEqual(account.subject, f"id:{subject}")
            self.assertIs(await provider.account_status(f"id:{subject}"), AccountStatus.ACTIVE)
            for other in others:
                self.assertIsNone(await provider.account_status(other), other)
            self.execute("DELETE FROM accounts")
