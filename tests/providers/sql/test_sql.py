"""Tests for the SQL provider, on SQLite files and on a PostgreSQL server."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from synapse_login_module import testing
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    Overloaded,
    ProviderUnavailable,
    UnusableAccount,
)
from synapse_login_module.hashes import parse_hash
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from synapse_login_module.passwords import check_password, hash_password
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.sql.postgresql import PostgreSQLDriver
from synapse_login_module.providers.sql.provider import SQLProvider
from synapse_login_module.providers.sql.work import Idle, Work
from synapse_login_module.providers.wrappers.chain import ProviderChain
from tests.providers.backends import WildServer
from tests.providers.case import (
    PASSWORD,
    WONDERLAND,
    ProviderCase,
    email,
    fake_hashing,
    lines,
    phone,
    user,
)
from tests.support.accounts import ALICE
from tests.support.certificates import Authority
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL, shared_postgresql
from tests.support.waiting import until

if TYPE_CHECKING:
    Case = ProviderCase
else:
    Case = object

TABLE = """
CREATE TABLE accounts (
    name TEXT PRIMARY KEY, hash TEXT, email TEXT, phone TEXT, display_name TEXT,
    locked BOOLEAN DEFAULT FALSE, closed BOOLEAN DEFAULT FALSE
)
"""

COLUMNS = (
    "name AS localpart, hash AS password_hash, display_name, email AS emails,"
    " locked, closed AS deactivated"
)


def queries(parameter: str) -> dict[str, str]:
    """Statements for the table.

    :param parameter: how the database names a parameter, with ``NAME`` in it.
    """

    def named(name: str) -> str:
        return parameter.replace("NAME", name)

    select = f"SELECT {COLUMNS} FROM accounts WHERE"
    return {
        "by_user": f"{select} name = {named('localpart')}",
        "by_email": f"{select} lower(email) = {named('email')}",
        "by_phone": f"{select} phone = {named('phone')}",
        "status": (
            "SELECT name AS localpart, locked, closed AS deactivated FROM accounts"
            f" WHERE name = {named('localpart')}"
        ),
        "update": (
            f"UPDATE accounts SET hash = {named('new_hash')}"
            f" WHERE name = {named('localpart')} AND hash = {named('old_hash')}"
        ),
    }


SQLITE = queries(":NAME")
POSTGRESQL = queries("%(NAME)s")


STRAY_SALT = WONDERLAND[:28] + "/" + WONDERLAND[29:]
"""Well-formed, but bcrypt does not take it: four bits of its salt are none of the 128."""

VOUCHED = Account(ALICE, status=AccountStatus.ACTIVE, subject="alice")


class SQLMixin(Case):
    """Helpers for any database."""

    statements: Mapping[str, str]
    full_user_id = "'@' || name || ':example.com'"
    """The full user ID of a name, in SQL."""
    id_in_status = ""
    """The column of a status by id that holds the id, if the database needs it."""

    def config(self) -> dict[str, Any]:
        """Return the keys that name the database."""
        raise NotImplementedError

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement whose parameters are written ``?``."""
        raise NotImplementedError

    def provider(
        self,
        environment: Environment | None = None,
        queries: Mapping[str, str | None] | None = None,
        **config: Any,
    ) -> SQLProvider:
        """A provider on the database.

        :param queries: statements in the place of the usual ones.
        """
        statements = {**self.statements, **(queries or {})}
        built: SQLProvider = self.build(
            SQLProvider,
            {"queries": statements, "timeout": "20s", **self.config(), **config},
            environment,
        )
        return built

    def by_subject(self, **more: str | None) -> SQLProvider:
        """A provider whose accounts have an id: their number in the column ``phone``."""
        named = {
            name: self.statements[name].replace(COLUMNS, f"{COLUMNS}, phone AS subject")
            for name in ("by_user", "by_email", "by_phone")
        }
        status = (
            self.statements["status"]
            .replace("name AS localpart, ", self.id_in_status)
            .replace("name =", "phone =")
            .replace("localpart", "subject")
        )
        return self.provider(queries={**named, "status": status, **more})

    def add(self, name: str, **columns: object) -> None:
        """Add an account."""
        row = {"name": name, "hash": WONDERLAND, **columns}
        places = ", ".join("?" * len(row))
        self.execute(f"INSERT INTO accounts ({', '.join(row)}) VALUES ({places})", [*row.values()])

    def forbid_updates(self) -> None:
        """Make the database refuse changes to the table."""
        raise NotImplementedError

    def hash_of(self, name: str) -> str:
        """Read the hash in the table."""
        ((password_hash,),) = self.execute("SELECT hash FROM accounts WHERE name = ?", [name])
        assert isinstance(password_hash, str)
        return password_hash


class ContractMixin(
    testing.PasswordProviderContract,
    testing.FindsAccountsContract,
    testing.DiagnosableContract,
    SQLMixin,
):
    """The contract."""

    def make_provider(self) -> IPasswordProvider:
        self.add("alice")
        return self.provider()


class IgnoringCaseContractMixin(ContractMixin):
    """The contract, for a statement that ignores case."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        self.add("alice")
        statement = re.sub(r"name = (\S+)", r"lower(name) = lower(\1)", self.statements["by_user"])
        return self.provider(queries={"by_user": statement})


class SQLTestsMixin(SQLMixin):
    """Tests for any database."""

    async def test_account(self) -> None:
        """A login by name, e-mail address or telephone number returns all that the table has."""
        self.add("alice", email="Alice@example.com", phone="447700900123", display_name="Alice")
        provider = self.provider()
        expected = replace(VOUCHED, display_name="Alice", emails=("Alice@example.com",))
        for identifier in (user("alice"), email(), phone()):
            self.assertEqual(await provider.authenticate(identifier, PASSWORD), expected)
            await self.fails(provider.authenticate(identifier, "x"), InvalidCredentials)
        for unknown in (user("bob"), email("bob@example.com"), phone("447700900124")):
            self.assertIsNone(await provider.authenticate(unknown, PASSWORD))

    async def test_left_out(self) -> None:
        """Identifiers without a statement are left to the next provider; status has a default."""
        self.add("alice", email="alice@example.com", phone="447700900123", locked=True)
        provider = self.provider(
            queries={"by_email": None, "by_phone": None, "status": None, "update": None}
        )
        self.assertIsNone(await provider.authenticate(email(), PASSWORD))
        self.assertIsNone(await provider.authenticate(phone(), PASSWORD))
        self.assertIs(await provider.account_status(ALICE), AccountStatus.LOCKED)

    async def test_injection(self) -> None:
        """A name never becomes part of a statement."""
        self.add("alice")
        provider = self.provider()
        for name in (
            "' OR '1'='1",
            "alice' --",
            "alice'; DROP TABLE accounts; --",
            'alice" OR ""="',
            "%(localpart)s",
            "%s",
            "?",
            ":localpart",
            "$1",
            "alice\\",
            "alice/*",
            "alic_",
            "al%",
        ):
            self.assertIsNone(await provider.authenticate(user(name), PASSWORD), name)
            self.assertIsNone(await provider.authenticate(email(name), PASSWORD), name)
            self.assertIsNone(await provider.account_status(f"@{name}:example.com"), name)
            await self.fails(provider.authenticate(user("alice"), name), InvalidCredentials)
        self.assertEqual(self.execute("SELECT name FROM accounts"), [("alice",)])

    async def test_names_with_quotes(self) -> None:
        """A name that looks like a statement is a name, and finds its row."""
        self.add("o'brien;--")
        provider = self.provider()
        status = await provider.account_status("@o'brien;--:example.com")
        self.assertIs(status, AccountStatus.ACTIVE)
        asked = provider.authenticate(user("o'brien;--"), PASSWORD)
        self.assertEqual((await self.fails(asked, InvalidCredentials)).reason, "bad_user_id")

    async def test_impossible_names(self) -> None:
        """A name that makes no user ID is refused after the right password, and logged then."""
        provider = self.provider()
        for name in ("käse", "\u212aate", "a,b"):
            self.add(name)
            events = self.catch_log()
            for password, reason in (("x", "wrong_password"), (PASSWORD, "bad_user_id")):
                error = await self.fails(
                    provider.authenticate(user(name), password), InvalidCredentials
                )
                self.assertEqual((error.reason, error.user_id), (reason, None))
            self.assertEqual(
                lines(events, LogLevel.warn),
                [f"sql: {name!r} cannot log in: its name makes no user ID"],
            )

    async def test_odd_text(self) -> None:
        """Text that no database can hold is an unknown name, and not an outage."""
        self.add("alice")
        provider = self.provider()
        for name in ("a\0", "\ud800", "a" * 10_000, "\n", ""):
            self.assertIsNone(await provider.authenticate(user(name), PASSWORD))
            self.assertIsNone(await provider.authenticate(email(name), PASSWORD))

    async def test_statuses(self) -> None:
        """The status is that of the table; the password of a locked account is still right."""
        self.add("alice")
        self.add("bob", locked=True)
        self.add("carol", closed=True)
        self.add("dora", locked=True, closed=True)
        self.add("emma", locked=None)
        provider = self.provider()
        for name, expected in (
            ("alice", AccountStatus.ACTIVE),
            ("bob", AccountStatus.LOCKED),
            ("carol", AccountStatus.DEACTIVATED),
            ("dora", AccountStatus.DEACTIVATED),
            ("emma", AccountStatus.ACTIVE),
        ):
            self.assertIs(await provider.account_status(f"@{name}:example.com"), expected, name)
            self.assertIsNotNone(await provider.authenticate(user(name), PASSWORD))
            await self.fails(provider.authenticate(user(name), "x"), InvalidCredentials)
        for stranger in ("@nobody:example.com", "@alice:elsewhere.example", "nobody", "@alice", ""):
            self.assertIsNone(await provider.account_status(stranger), stranger)

    async def test_changes(self) -> None:
        """A change of the table counts from the next query on."""
        self.add("alice")
        provider = self.provider()
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)
        self.execute("UPDATE accounts SET locked = ? WHERE name = ?", [True, "alice"])
        self.assertIs(await provider.account_status(ALICE), AccountStatus.LOCKED)
        self.execute("DELETE FROM accounts WHERE name = ?", ["alice"])
        self.assertIsNone(await provider.account_status(ALICE))
        self.assertIsNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_spelling(self) -> None:
        """If a statement that ignores case finds several rows, the exact spelling decides."""
        folding = {
            name: re.sub(r"name = (\S+)", r"lower(name) = lower(\1)", self.statements[name])
            for name in ("by_user", "status")
        }
        provider = self.provider(queries=folding)
        self.add("Alice", hash=hash_password("one", "", 4))
        account = await provider.authenticate(user("ALICE"), "one")
        self.assertEqual(account, replace(VOUCHED, subject="Alice"))
        for spelled in ("Alice", "@Alice:example.com"):
            self.assertIs(await provider.account_status(spelled), AccountStatus.ACTIVE)
        for spelled in ("alice", ALICE):
            self.assertIsNone(await provider.account_status(spelled))
        self.add("alice", hash=hash_password("two", "", 4))
        self.assertIsNotNone(await provider.authenticate(user("Alice"), "one"))
        self.assertIsNotNone(await provider.authenticate(user("alice"), "two"))
        events = self.catch_log()
        self.assertIsNone(await provider.authenticate(user("ALICE"), "one"))
        (line,) = lines(events)
        self.assertIn("queries.by_user finds more than one account", line)

    async def test_ambiguous_email(self) -> None:
        """An e-mail address of two accounts is unknown."""
        self.add("alice", email="same@example.com")
        self.add("bob", email="same@example.com")
        self.assertIsNone(await self.provider().authenticate(email("same@example.com"), PASSWORD))

    async def test_pepper(self) -> None:
        """A password is right only with its pepper."""
        self.add("alice", hash=hash_password(PASSWORD, "salty", 4))
        provider = self.provider(pepper="salty")
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        await self.fails(self.provider().authenticate(user("alice"), PASSWORD), InvalidCredentials)

    async def test_no_usable_hash(self) -> None:
        """Every password of an account without a usable hash is wrong, in the same time."""
        for number, password_hash in enumerate((None, "", "x", "disabled", PASSWORD, STRAY_SALT)):
            self.add(f"user{number}", hash=password_hash)
            environment = self.environment()
            events = self.catch_log()
            asked = self.provider(environment).authenticate(user(f"user{number}"), PASSWORD)
            error = await self.fails(asked, InvalidCredentials)
            self.assertEqual(error.reason, "no_usable_hash")
            self.assertEqual(error.user_id, f"@user{number}:example.com")
            self.assertEqual(fake_hashing(environment).decoys, [PASSWORD])
            line = f"sql: 'user{number}' cannot log in: its hash cannot be used: "
            found = lines(events)
            self.assertEqual(len(found), 1 if password_hash else 0)
            self.assertTrue(all(each.startswith(line) for each in found), found)

    async def test_cost(self) -> None:
        """It reports the cost of a hash, so that a decoy costs as much."""
        self.add("alice", hash=hash_password(PASSWORD, "", 5))
        environment = self.environment()
        await self.provider(environment).authenticate(user("alice"), PASSWORD)
        self.assertEqual(fake_hashing(environment).kinds, [new_hashes(5).kind])

    async def test_usual_cost(self) -> None:
        """It reports the cost of most hashes, not that of a single odd one."""
        for name, cost in (("alice", 4), ("bob", 4), ("odd", 6)):
            self.add(name, hash=hash_password(PASSWORD, "", cost))
        environment = self.environment()
        provider = self.provider(environment)
        for name in ("alice", "bob", "odd", "odd", "odd"):
            await provider.authenticate(user(name), PASSWORD)
        self.assertEqual(set(fake_hashing(environment).kinds), {new_hashes(4).kind})

    async def test_overloaded(self) -> None:
        """When the hashing queue is full, a login fails with ``Overloaded``."""
        self.add("alice")
        environment = self.environment()
        fake_hashing(environment).failure = Overloaded(1.0)
        provider = self.provider(environment)
        await self.fails(provider.authenticate(user("alice"), PASSWORD), Overloaded)

    async def test_rehash(self) -> None:
        """A right password whose hash has a lower cost than the current one is rehashed."""
        self.add("alice", hash=hash_password(PASSWORD, "salty", 4))
        self.add("bob")
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        events = self.catch_log()
        provider = self.provider(environment, pepper="salty")
        await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)
        self.assertEqual(parse_hash(self.hash_of("alice")).kind, new_hashes(4).kind)
        await provider.authenticate(user("alice"), PASSWORD)
        await until(lambda: parse_hash(self.hash_of("alice")).kind == new_hashes(5).kind)
        self.assertTrue(check_password(PASSWORD, self.hash_of("alice"), "salty"))
        self.assertEqual(self.hash_of("bob"), WONDERLAND)
        await until(lambda: any("is renewed in 1 rows" in line for line in info(events)))
        renewed = self.hash_of("alice")
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        self.assertEqual(self.hash_of("alice"), renewed)
        for line in info(events):
            self.assertNotIn(PASSWORD, line)
            self.assertNotIn("$2b$", line)

    async def test_rehash_not_wanted(self) -> None:
        """Without an update statement, or when the hash has the current cost, it stays."""
        costly = hash_password(PASSWORD, "", 5)
        self.add("alice")
        self.add("bob", hash=costly)
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        await self.provider(environment, {"update": None}).authenticate(user("alice"), PASSWORD)
        await self.provider(environment).authenticate(user("bob"), PASSWORD)
        self.assertEqual((self.hash_of("alice"), self.hash_of("bob")), (WONDERLAND, costly))

    async def test_rehash_fails(self) -> None:
        """A hash that cannot be renewed is logged, and the login succeeds all the same."""
        self.add("alice")
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        self.forbid_updates()
        events = self.catch_log()
        provider = self.provider(environment)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        await until(lambda: any("was not renewed: " in line for line in lines(events)))
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_columns(self) -> None:
        """A statement that lacks a column is an outage that names the statement."""
        self.add("alice")
        select = self.statements["by_user"]
        for columns, problem in (
            ("name AS localpart", "queries.by_user: it has no column password_hash"),
            ("hash AS password_hash", "queries.by_user: localpart or user_id is not a name of"),
            ("name AS localpart, 7 AS password_hash", "queries.by_user: password_hash: "),
            ("hash AS password_hash, '' AS localpart", "queries.by_user: localpart or user_id is"),
            ("hash AS password_hash, '@a:b' AS user_id", "queries.by_user: localpart or user_id"),
            (
                "hash AS password_hash, name AS localpart, 2 AS locked",
                "queries.by_user: locked: not true, false, 1, 0 or NULL",
            ),
            (
                "hash AS password_hash, name AS localpart, 7 AS emails",
                "queries.by_user: emails: neither text nor an array of texts",
            ),
        ):
            provider = self.provider(queries={"by_user": select.replace(COLUMNS, columns)})
            asked = provider.authenticate(user("alice"), PASSWORD)
            self.assertIn(problem, str(await self.fails(asked, ProviderUnavailable)))

    async def test_full_user_id(self) -> None:
        """The table may hold full user IDs; other columns are ignored."""
        self.add(ALICE, email="a@example.com, b@example.com,")
        text = (
            self.statements["by_user"]
            .replace("localpart", "user_id")
            .replace("display_name,", "display_name, 1 AS favourite_number,")
        )
        provider = self.provider(queries={"by_user": text, "status": None, "update": None})
        self.assertEqual(
            await provider.authenticate(user("alice"), PASSWORD),
            replace(VOUCHED, emails=("a@example.com", "b@example.com"), subject=ALICE),
        )
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)

    async def test_subject(self) -> None:
        """If accounts have an id, it is their subject, whatever their name is later."""
        self.add("alice", phone="17", email="alice@example.com")
        self.add("bob", phone="18", locked=True)
        provider = self.by_subject()
        for identifier in (user("alice"), email(), phone("17")):
            account = await provider.authenticate(identifier, PASSWORD)
            assert account is not None
            self.assertEqual((account.user_id, account.subject), (ALICE, "id:17"))
        for subject, status in (
            ("id:17", AccountStatus.ACTIVE),
            ("id:18", AccountStatus.LOCKED),
            *(("id:19", None), ("id:alice", None), ("id:id:17", None), ("id:", None)),
            *(("17", None), ("19", None), ("@id:17", None), ("@id:17:example.com", None)),
            *(("alice", AccountStatus.ACTIVE), ("Alice", None)),
            (ALICE, AccountStatus.ACTIVE),
            ("@bob:example.com", AccountStatus.LOCKED),
            ("@Alice:example.com", None),
            ("@17:example.com", None),
        ):
            self.assertIs(await provider.account_status(subject), status, subject)
        self.execute("UPDATE accounts SET name = ? WHERE phone = ?", ["alison", "17"])
        self.assertIs(await provider.account_status("id:17"), AccountStatus.ACTIVE)
        self.assertIsNone(await provider.account_status(ALICE))
        account = await provider.authenticate(user("alison"), PASSWORD)
        assert account is not None
        self.assertEqual((account.user_id, account.subject), ("@alison:example.com", "id:17"))
        self.assertIsNone(await self.provider().account_status("id:17"))

    async def test_name_like_an_id(self) -> None:
        """An account whose name is another's id is never taken for the other: not when names were
        what accounts were known by before, nor when it is looked at again.
        """
        self.add("alice", phone="17", locked=True)
        self.add("17", phone="18", hash=hash_password("mine", "", 4))
        by_name, by_id = self.provider(), self.by_subject()
        victim = await by_id.authenticate(user("alice"), PASSWORD)
        named = await by_name.authenticate(user("17"), "mine")
        assert victim is not None
        assert named is not None
        self.assertEqual((victim.subject, named.subject), ("id:17", "17"))
        self.assertIs(await by_id.account_status("17"), AccountStatus.ACTIVE)
        self.assertIs(await by_id.account_status("id:17"), AccountStatus.LOCKED)
        for name in ("id:17", "id:17:example.com"):
            self.add(name, hash=hash_password("mine", "", 4))
            self.assertIsNone(await by_name.authenticate(user(name), "mine"))
            self.assertIsNone(await by_name.account_status(name))

    async def test_status_names_every_parameter(self) -> None:
        """A look by id does not find an account whose name looks like the id."""
        self.add("alice", phone="17", locked=True)
        self.add("17", phone="18")
        status = self.statements["status"]
        where = status[status.index("name = ") :]
        status = status.replace("name AS localpart, ", f"name AS localpart, {self.id_in_status}")
        either = f"{status} OR {where.replace('name', 'phone').replace('localpart', 'subject')}"
        provider = self.by_subject(status=either)
        self.assertIs(await provider.account_status("id:17"), AccountStatus.LOCKED)

    async def test_names_as_subjects(self) -> None:
        """The status statement may use the subject if that is the name."""
        self.add("Alice", locked=True)
        status = re.sub(r"(name = \S+)localpart", r"\1subject", self.statements["status"])
        provider = self.provider(queries={"status": status})
        for subject in ("Alice", "@Alice:example.com"):
            self.assertIs(await provider.account_status(subject), AccountStatus.LOCKED)
        for subject in ("alice", ALICE, "bob"):
            self.assertIsNone(await provider.account_status(subject), subject)
        giving = status.replace("name AS localpart", "name AS subject")
        provider = self.provider(queries={"status": giving})
        problem = str(await self.fails(provider.account_status("Alice"), ProviderUnavailable))
        self.assertEqual(
            problem, "queries.by_user: it has no column subject, which queries.status has given"
        )

    async def test_unusable_subject(self) -> None:
        """An account whose id is missing, or cannot be a subject, is an outage."""
        provider = self.by_subject()
        for number, subject in enumerate((None, "", "@alice:example.com", "a\nb", "x" * 510)):
            self.add(f"a{number}", phone=subject)
            asked = provider.authenticate(user(f"a{number}"), PASSWORD)
            problem = str(await self.fails(asked, UnusableAccount))
            self.assertEqual(problem, "queries.by_user: subject is no id (text or a number)")
        self.add("long", phone="x" * 509)
        account = await provider.authenticate(user("long"), PASSWORD)
        assert account is not None
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)

    async def test_two_customers(self) -> None:
        """Two names that differ in case alone are two accounts with one user ID."""
        self.add("operator")
        self.add("Operator", hash=hash_password("other", "", 4), locked=True)
        provider = self.provider()
        for name, password, status in (
            ("operator", PASSWORD, AccountStatus.ACTIVE),
            ("Operator", "other", AccountStatus.LOCKED),
        ):
            account = await provider.authenticate(user(name), password)
            assert account is not None
            self.assertEqual(account.user_id, "@operator:example.com")
            self.assertEqual((account.subject, account.status), (name, status))
            self.assertIs(await provider.account_status(name), status)

    async def test_status_in_hand(self) -> None:
        """A login has the status if the row has all of it."""
        self.add("alice", locked=True, email="alice@example.com")
        both = self.statements["by_user"]
        one = both.replace(", closed AS deactivated", "")
        neither = one.replace(", locked", "")
        locked, active = AccountStatus.LOCKED, AccountStatus.ACTIVE
        for by_user, status, expected in (
            (both, self.statements["status"], locked),
            (one, self.statements["status"], None),
            (neither, self.statements["status"], None),
            (one, None, locked),
            (neither, None, active),
        ):
            provider = self.provider(queries={"by_user": by_user, "status": status})
            account = await provider.authenticate(user("alice"), PASSWORD)
            assert account is not None
            self.assertIs(account.status, expected, by_user)
        by_email = self.statements["by_email"].replace(", locked, closed AS deactivated", "")
        provider = self.provider(queries={"by_email": by_email, "status": None})
        account = await provider.authenticate(email(), PASSWORD)
        assert account is not None
        self.assertIsNone(account.status)

    async def test_rehash_spelling(self) -> None:
        """A hash is renewed in its row, by the name as it is spelled there."""
        self.add("Alice")
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        provider = self.provider(environment)
        self.assertIsNotNone(await provider.authenticate(user("Alice"), PASSWORD))
        await until(lambda: parse_hash(self.hash_of("Alice")).kind == new_hashes(5).kind)

    async def test_two_forms_of_a_name(self) -> None:
        """One statement may return a local part, and another the full user ID."""
        self.add("alice", locked=True)
        text = self.statements["status"].replace(
            "name AS localpart", f"{self.full_user_id} AS user_id"
        )
        provider = self.provider(queries={"status": text})
        for subject in ("alice", ALICE):
            self.assertIs(await provider.account_status(subject), AccountStatus.LOCKED)

    async def test_many_at_once(self) -> None:
        """More logins at once than connections all succeed."""
        self.add("alice")
        provider = self.provider(connections=3)
        asked = [provider.authenticate(user("alice"), PASSWORD) for _ in range(60)]
        self.assertEqual(set(await gatherResults(asked)), {VOUCHED})

    async def test_stopping(self) -> None:
        """After the stop every request is an outage at once."""
        self.add("alice")
        provider = self.provider()
        await provider.authenticate(user("alice"), PASSWORD)
        provider.stopService()
        await self.fails(provider.account_status(ALICE), ProviderUnavailable)


def info(events: Any) -> list[str]:
    """Return the lines that are logged at least at level info."""
    return lines(events, LogLevel.info)


class ServerTestsMixin(SQLTestsMixin):
    """Tests of all databases that are servers.

    :cvar says_read_only: what the server's error says of a transaction that may not write.
    :cvar many_rows: a query of 10,000 names and hashes.
    """

    says_read_only: str
    many_rows: str

    async def test_read_only(self) -> None:
        """Without an update statement transactions are read-only."""
        self.add("alice")
        writing = (
            "DELETE FROM accounts WHERE name = %(localpart)s"
            " RETURNING name AS localpart, hash AS password_hash"
        )
        provider = self.provider(queries={"by_user": writing, "update": None})
        asked = provider.authenticate(user("alice"), PASSWORD)
        self.assertIn(self.says_read_only, str(await self.fails(asked, ProviderUnavailable)))
        self.assertEqual(self.hash_of("alice"), WONDERLAND)

    async def test_percent(self) -> None:
        """A percent sign in a statement is written twice."""
        self.add("alice")
        text = self.statements["by_user"] + " AND name LIKE 'al%%'"
        provider = self.provider(queries={"by_user": text})
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_ten_megabytes(self) -> None:
        """Of a statement that finds everything only the first rows are read, and none is used."""
        self.execute(f"INSERT INTO accounts (name, hash) {self.many_rows}")
        text = self.statements["by_user"].replace("name =", "name <>")
        asked = self.provider(queries={"by_user": text}).authenticate(user("alice"), PASSWORD)
        self.assertIsNone(await asked)


class SQLiteMixin(SQLMixin):
    """A file with the table."""

    statements = SQLITE

    def setUp(self) -> None:
        self.path = self.folder() / "accounts.db"
        self.execute(TABLE)

    def config(self) -> dict[str, Any]:
        return {"sqlite": "accounts.db"}

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def forbid_updates(self) -> None:
        self.execute(
            "CREATE TRIGGER no_update BEFORE UPDATE ON accounts"
            " BEGIN SELECT RAISE(ABORT, 'not today'); END"
        )


class SQLiteContractTests(SQLiteMixin, ContractMixin, ProviderCase):
    """The contract, on SQLite."""


class SQLiteIgnoringCaseContractTests(SQLiteMixin, IgnoringCaseContractMixin, ProviderCase):
    """The contract, on SQLite, however a name is typed."""


class SQLiteTests(SQLiteMixin, SQLTestsMixin, ProviderCase):
    """SQLite."""

    def test_interfaces(self) -> None:
        """The class is a plugin and implements a provider."""
        self.assertTrue(IPluginClass.providedBy(SQLProvider))
        self.assertTrue(verifyClass(IPasswordProvider, SQLProvider))

    async def test_read_only(self) -> None:
        """Without an update statement the file is opened for reading alone."""
        self.add("alice")
        queries = {"update": None, "by_user": self.statements["by_user"]}
        provider = self.provider(queries=queries)
        os.chmod(self.path, 0o444)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        writing = (
            "DELETE FROM accounts WHERE name = :localpart RETURNING name AS localpart, '' AS x"
        )
        asked = self.provider(queries={"update": None, "by_user": writing}).authenticate(
            user("alice"), PASSWORD
        )
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertIn("readonly", problem)

    async def test_replaced(self) -> None:
        """A file that replaces the old one counts from the next query on."""
        self.add("alice")
        provider = self.provider()
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        old, self.path = self.path, self.folder() / "new.db"
        self.execute(TABLE)
        self.add("bob")
        os.replace(self.path, old)
        self.assertIsNone(await provider.authenticate(user("alice"), PASSWORD))
        self.assertIsNotNone(await provider.authenticate(user("bob"), PASSWORD))

    async def test_gone(self) -> None:
        """A file that is gone, or no longer a database, is an outage until it is back."""
        self.add("alice")
        provider = self.provider()
        content = self.path.read_bytes()
        self.path.unlink()
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)
        self.assertFalse(self.path.exists())
        for garbage in (b"no database" * 100, content[: len(content) // 2]):
            self.path.write_bytes(garbage)
            await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)
        self.path.write_bytes(content)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_locked_file(self) -> None:
        """A file that another process locks for too long is an outage, until it is unlocked."""
        self.add("alice")
        provider = self.provider(timeout=200)
        holder = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(holder.close)
        holder.execute("BEGIN EXCLUSIVE")
        await self.fails(provider.authenticate(user("alice"), PASSWORD), ProviderUnavailable)
        holder.execute("ROLLBACK")
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_endless_statement(self) -> None:
        """A statement that never ends is interrupted, and its thread is free again."""
        self.add("alice")
        endless = (
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT max(i) AS localpart, :email AS x FROM n"
        )
        provider = self.provider(queries={"by_email": endless}, timeout=200, connections=1)
        problem = await self.fails(provider.authenticate(email(), PASSWORD), ProviderUnavailable)
        self.assertEqual(str(problem), "the database did not answer in 0.2 seconds")
        patient = provider.authenticate(user("alice"), PASSWORD)
        self.assertIsNotNone(await patient)

    async def test_cancelled(self) -> None:
        """A client that goes away is no outage, and its statement is interrupted."""
        self.add("alice")
        endless = (
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT max(i) AS localpart, :email AS x FROM n"
        )
        provider = self.provider(queries={"by_email": endless}, connections=1)
        asked = provider.authenticate(email(), PASSWORD)
        asked.cancel()
        await self.fails(asked, CancelledError)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))


class PostgreSQLMixin(SQLMixin):
    """A table on the shared server."""

    statements = POSTGRESQL

    def setUp(self) -> None:
        self.server = self.make_server()
        self.execute("DROP TABLE IF EXISTS accounts")
        self.execute(TABLE)

    def make_server(self) -> PostgreSQL:
        """Return the server to use."""
        return shared_postgresql()

    def config(self) -> dict[str, Any]:
        return {"postgresql": self.server.conninfo}

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self.server.query(statement.replace("?", "%s"), values)

    def forbid_updates(self) -> None:
        self.execute("CREATE RULE no_update AS ON UPDATE TO accounts DO INSTEAD SELECT 1 / 0")


class PostgreSQLContractTests(PostgreSQLMixin, ContractMixin, ProviderCase):
    """The contract, on PostgreSQL."""


class PostgreSQLIgnoringCaseContractTests(PostgreSQLMixin, IgnoringCaseContractMixin, ProviderCase):
    """The contract, on PostgreSQL, however a name is typed."""


class PostgreSQLTests(PostgreSQLMixin, ServerTestsMixin, ProviderCase):
    """PostgreSQL."""

    says_read_only = "read-only"
    many_rows = "SELECT 'user' || i, repeat('x', 1000) FROM generate_series(1, 10000) i"

    async def test_array(self) -> None:
        """E-mail addresses may be an array."""
        self.add("alice")
        text = self.statements["by_user"].replace(
            "email AS emails", "ARRAY['a@example.com', 'b@example.com'] AS emails"
        )
        account = await self.provider(queries={"by_user": text}).authenticate(
            user("alice"), PASSWORD
        )
        self.assertEqual(account, replace(VOUCHED, emails=("a@example.com", "b@example.com")))

    async def test_subject_is_lost(self) -> None:
        """An id that ``queries.status`` does not use is an outage at the first login: otherwise the
        account would look gone.
        """
        self.add("alice", phone="17")
        by_user = self.statements["by_user"].replace(COLUMNS, f"{COLUMNS}, phone AS subject")
        for status in (self.statements["status"], None):
            provider = self.provider(queries={"by_user": by_user, "status": status})
            asked = provider.authenticate(user("alice"), PASSWORD)
            problem = str(await self.fails(asked, ProviderUnavailable))
            self.assertIn("queries.status: it does not use the parameter subject", problem)

    async def test_subject_in_one_query(self) -> None:
        """An account whose name is another's id does not become the other where a query has no
        column ``subject``; once another query has given one, that is an outage.
        """
        self.add("alice", phone="17")
        self.add("17", phone="18", email="mallory@example.com", hash=hash_password("mine", "", 4))
        provider = self.by_subject(by_email=self.statements["by_email"])
        mallory = await provider.authenticate(email("mallory@example.com"), "mine")
        victim = await provider.authenticate(user("alice"), PASSWORD)
        assert mallory is not None
        assert victim is not None
        self.assertNotEqual(mallory.subject, victim.subject)
        events = self.catch_log()
        chain = ProviderChain([provider], None)
        for password in ("mine", "x"):
            asked = chain.authenticate(email("mallory@example.com"), password)
            await self.fails(asked, ProviderUnavailable)
        problem = "queries.by_email: it has no column subject, which queries.by_user has given"
        self.assertEqual(lines(events, LogLevel.warn), [f"sql is unavailable: {problem}"] * 2)
        self.assertIsNotNone(await provider.authenticate(user("17"), "mine"))
        other = self.by_subject(by_user=self.statements["by_user"])
        self.assertIsNotNone(await other.authenticate(phone("17"), PASSWORD))
        for looked in ("alice", ALICE):
            problem = str(await self.fails(other.account_status(looked), ProviderUnavailable))
            self.assertIn("queries.by_user: it has no column subject", problem)

    async def test_kinds_of_subject(self) -> None:
        """An id may be a number or a UUID."""
        self.add("alice", phone="17")
        uuid = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
        for column, expected in (("phone::bigint", "id:17"), (f"'{uuid}'::uuid", f"id:{uuid}")):
            by_user = self.statements["by_user"].replace(COLUMNS, f"{COLUMNS}, {column} AS subject")
            status = f"SELECT locked FROM accounts WHERE {column} = %(subject)s"
            provider = self.provider(queries={"by_user": by_user, "status": status})
            account = await provider.authenticate(user("alice"), PASSWORD)
            assert account is not None
            self.assertEqual(account.subject, expected)
            self.assertIs(await provider.account_status(expected), AccountStatus.ACTIVE)

    async def test_connections_are_kept(self) -> None:
        """No more connections are made than configured, and they are kept."""
        self.add("alice")
        provider = self.provider(
            connections=2, postgresql=f"{self.server.conninfo} options=-cx.y=1"
        )
        for _ in range(3):
            await gatherResults([provider.account_status(ALICE) for _ in range(10)])
        self.assertLessEqual(len(self.server.backends()), 2)
        provider.stopService()
        await until(lambda: not self.server.backends())

    async def test_connections_cut(self) -> None:
        """Kept connections that were cut meanwhile are no outage."""
        self.add("alice")
        provider = self.provider(connections=3)
        await gatherResults([provider.account_status(ALICE) for _ in range(10)])
        for pid in self.server.backends():
            self.server.query("SELECT pg_terminate_backend(%s)", [pid])
        await until(lambda: not self.server.backends())
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    def test_connections_grow_old(self) -> None:
        """A connection that was idle for long is not used again: a firewall on the way may have
        dropped it.
        """
        clock = Clock()
        idle = Idle(clock.seconds)
        self.addCleanup(idle.close)
        driver = PostgreSQLDriver(self.server.conninfo, 5, writes=False)

        def pid() -> int:
            ((row,), _) = Work(driver, idle, "SELECT pg_backend_pid() AS pid", {})()
            found: int = row["pid"]
            return found

        first = pid()
        clock.advance(59)
        self.assertEqual(pid(), first)
        clock.advance(61)
        second = pid()
        self.assertNotEqual(second, first)
        self.assertEqual(pid(), second)

    async def test_slow_statement(self) -> None:
        """A statement that takes too long is an outage, and is cancelled on the server too."""
        self.add("alice")
        slow = "SELECT 'alice' AS localpart, %(email)s AS x, pg_sleep(1000)"
        provider = self.provider(queries={"by_email": slow}, timeout=300, connections=1)
        await self.fails(provider.authenticate(email(), PASSWORD), ProviderUnavailable)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        await until(lambda: len(self.server.backends()) <= 1)

    async def test_hanging_server(self) -> None:
        """A server that hangs during a statement is an outage, and the threads are free again."""
        self.add("alice")
        provider = self.provider(timeout=300, connections=1)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        (hanging,) = self.server.backends()
        os.kill(hanging, signal.SIGSTOP)
        try:
            asked = provider.authenticate(user("alice"), PASSWORD)
            problem = str(await self.fails(asked, ProviderUnavailable))
            self.assertEqual(problem, "the database did not answer in 0.3 seconds")
            self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        finally:
            os.kill(hanging, signal.SIGCONT)

    async def test_hanging_before_the_first_word(self) -> None:
        """A server that takes connections and says nothing is an outage."""
        silent = WildServer("hang", self.folder())
        self.addCleanup(silent.kill)
        conninfo = f"host=127.0.0.1 port={silent.port} user=x dbname=x"
        provider = self.provider(postgresql=conninfo, timeout=300)
        asked = provider.authenticate(user("alice"), PASSWORD)
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertEqual(problem, "the database did not answer in 0.3 seconds")

    async def test_hanging_after_the_login(self) -> None:
        """A server that lets us in and says nothing more, as a pooler does that is paused, is an
        outage, and the connection is given up.
        """
        server = WildServer("postgresql", self.folder())
        self.addCleanup(server.kill)
        conninfo = f"host=127.0.0.1 port={server.port} user=x dbname=x"
        conninfo = f"{conninfo} sslmode=disable gssencmode=disable"
        provider = self.provider(postgresql=conninfo, timeout=300, connections=1)
        asked = provider.authenticate(user("alice"), PASSWORD)
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertEqual(problem, "the database did not answer in 0.3 seconds")
        await until(lambda: "the connection is over" in server.said())

    async def test_garbage(self) -> None:
        """A server that does not speak PostgreSQL's protocol is an outage."""
        for mode in ("garbage", "line", "big"):
            server = WildServer(mode, self.folder())
            self.addCleanup(server.kill)
            conninfo = f"host=127.0.0.1 port={server.port} user=x dbname=x connect_timeout=2"
            provider = self.provider(postgresql=conninfo, timeout=500)
            asked = provider.authenticate(user("alice"), PASSWORD)
            await self.fails(asked, ProviderUnavailable)

    async def test_no_tls(self) -> None:
        """If TLS is required, a server without TLS is an outage."""
        provider = self.provider(postgresql=f"{self.server.conninfo} sslmode=require")
        asked = provider.authenticate(user("alice"), PASSWORD)
        self.assertIn("SSL", str(await self.fails(asked, ProviderUnavailable)))

    async def test_wrong_table(self) -> None:
        """A statement that the server does not understand is an outage that says why."""
        wrong = self.statements["by_user"].replace("accounts", "nowhere")
        asked = self.provider(queries={"by_user": wrong}).authenticate(user("alice"), PASSWORD)
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertEqual(problem, 'relation "nowhere" does not exist')


class OwnPostgreSQLTests(PostgreSQLMixin, ProviderCase):
    """A server of the test's own, which is stopped and started."""

    def make_server(self) -> PostgreSQL:
        server = PostgreSQL()
        self.addCleanup(server.remove)
        return server

    async def test_restarts(self) -> None:
        """While the server is down logins are outages; when it is back they succeed."""
        self.add("alice")
        provider = self.provider(connections=2)
        await gatherResults([provider.account_status(ALICE) for _ in range(5)])
        self.server.stop()
        for _ in range(3):
            asked = provider.authenticate(user("alice"), PASSWORD)
            problem = str(await self.fails(asked, ProviderUnavailable))
            self.assertIn("Connection refused", problem)
        self.server.start()
        for _ in range(3):
            self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    async def test_dying_in_the_middle(self) -> None:
        """A server that dies while a login waits for it is an outage."""
        self.add("alice")
        slow = "SELECT 'alice' AS localpart, %(email)s AS x, pg_sleep(1000)"
        provider = self.provider(queries={"by_email": slow})
        asked = provider.authenticate(email(), PASSWORD)
        await until(
            lambda: self.server.query(
                "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s"
                " AND pid <> pg_backend_pid()",
                ["%pg_sleep%"],
            )
        )
        self.server.stop()
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertIn("terminating connection due to", problem)

    async def test_certificates(self) -> None:
        """A certificate of another authority or for another host is an outage; a good one is
        accepted.
        """
        self.add("alice")
        authority = Authority()
        other = Authority("Another authority")
        self.write("ca.pem", authority.certificate)
        self.write("other.pem", other.certificate)
        for hosts, trusted, problem in (
            (["127.0.0.1"], "ca.pem", None),
            (["127.0.0.1"], "other.pem", "certificate verify failed"),
            (["elsewhere.example"], "ca.pem", "does not match host name"),
            (["*"], "ca.pem", "does not match host name"),
        ):
            self.server.use_certificate(authority.sign(*hosts))
            root = self.folder() / trusted
            conninfo = f"{self.server.conninfo} sslmode=verify-full sslrootcert={root}"
            asked = self.provider(postgresql=conninfo).authenticate(user("alice"), PASSWORD)
            if problem is None:
                self.assertIsNotNone(await asked)
            else:
                self.assertIn(problem, str(await self.fails(asked, ProviderUnavailable)))


class PostgreSQLDownTests(ProviderCase):
    """No server."""

    def test_unverified(self) -> None:
        """It warns of a server on another machine whose certificate is not verified."""
        shared_postgresql()
        events = self.catch_log()
        far = "host=db.example.com"
        for conninfo in (f"{far} sslmode=verify-full", "host=127.0.0.1", far):
            self.build(SQLProvider, {"postgresql": conninfo, "queries": POSTGRESQL})
        self.assertEqual(
            lines(events),
            [
                "sql: anyone in between can pose as db.example.com: set sslmode=verify-full in"
                " postgresql"
            ],
        )

    async def test_down_before_the_start(self) -> None:
        """The service starts while the server is down, and every login is an outage."""
        shared_postgresql()
        conninfo = f"host=127.0.0.1 port={free_port()} user=x password=swordfish dbname=x"
        provider = self.build(SQLProvider, {"postgresql": conninfo, "queries": POSTGRESQL})
        asked = provider.authenticate(user("alice"), PASSWORD)
        problem = str(await self.fails(asked, ProviderUnavailable))
        self.assertIn("Connection refused", problem)
        self.assertNotIn("swordfish", problem)
        self.assertNotIn("\n", problem)


NO_NAME = "it does not use the parameter localpart or user_id"


class SQLConfigTests(SynchronousTestCase):
    """Its configuration."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        connection = sqlite3.connect(self.folder / "accounts.db")
        connection.execute(TABLE)
        connection.close()

    def problem(self, **config: Any) -> str:
        """Return the error of a configuration, which is one line."""
        with self.assertRaises(ConfigError) as raised:
            SQLProvider.parse_config(
                {"sqlite": "accounts.db", "queries": SQLITE, **config}, self.folder
            )
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        return problem

    def query_problem(self, name: str, statement: str, **config: Any) -> str:
        """Return the error of a statement."""
        statements = POSTGRESQL if config.get("postgresql") else SQLITE
        problem = self.problem(queries={**statements, name: statement}, **config)
        self.assertTrue(problem.startswith(f"queries.{name}: "), problem)
        return problem.partition(": ")[2]

    def test_good(self) -> None:
        """The statements of these tests are accepted."""
        SQLProvider.parse_config({"sqlite": "accounts.db", "queries": SQLITE}, self.folder)

    def test_subject(self) -> None:
        """If one statement returns an id, all have to, and the status is queried by it."""
        have = {
            name: SQLITE[name].replace(COLUMNS, f"{COLUMNS}, phone AS subject")
            for name in ("by_user", "by_email", "by_phone")
        }
        by_id = "SELECT locked FROM accounts WHERE phone = :subject"
        for queries, problem in (
            (
                have,
                "queries.status: it does not use the parameter subject, which queries.by_user has"
                " a column for",
            ),
            (
                {**have, "status": by_id, "by_email": SQLITE["by_email"]},
                "queries.by_email: the column subject must be in every by_ query, or in none",
            ),
        ):
            self.assertEqual(self.problem(queries={**SQLITE, **queries}), problem)
        for by_user in (have["by_user"], f"{have['by_user']} -- by name", f"{have['by_user']};"):
            queries = {**SQLITE, **have, "status": by_id, "by_user": by_user}
            config = {"sqlite": "accounts.db", "queries": queries}
            self.assertTrue(SQLProvider.parse_config(config, self.folder).by_subject)

    def test_one_of_two(self) -> None:
        """It takes exactly one database."""
        mysql = {"host": "localhost", "user": "x", "database": "x"}
        for given in (
            {"sqlite": None},
            {"postgresql": "dbname=x"},
            {"mysql": mysql},
            {"sqlite": None, "postgresql": "dbname=x", "mysql": mysql},
        ):
            problem = self.problem(**given)
            self.assertEqual(problem, "takes one of sqlite, postgresql and mysql", given)

    def test_missing_file(self) -> None:
        """A file that is missing, or not a database, is rejected, and no file is created."""
        problem = self.problem(sqlite="missing.db")
        self.assertTrue(problem.startswith("sqlite: "), problem)
        self.assertIn("missing.db: cannot open it: ", problem)
        self.assertFalse((self.folder / "missing.db").exists())
        (self.folder / "garbage.db").write_text("no database at all" * 100)
        self.assertIn("not a database", self.problem(sqlite="garbage.db"))

    def test_statements(self) -> None:
        """SQLite parses the statements at the start."""
        self.assertIn(
            "no such column",
            self.query_problem("by_user", "SELECT x WHERE :localpart"),
        )
        self.assertIn("syntax", self.query_problem("status", "SELEKT :user_id"))
        self.assertIn("one statement", self.query_problem("by_user", "SELECT :localpart; SELECT 2"))

    def test_parameters(self) -> None:
        """A statement uses known parameters only, and one that names the account."""
        select = "SELECT 1 WHERE name = "
        for name, statement, problem in (
            (
                "by_user",
                select + "'{localpart}'",
                NO_NAME,
            ),
            ("by_user", select + ":name", "there is no parameter name, but localpart, user_id"),
            (
                "by_user",
                select + "':localpart'",
                NO_NAME,
            ),
            ("by_user", select + '":localpart"', NO_NAME),
            ("by_user", select + """'"' OR ':localpart' = '"'""", NO_NAME),
            ("by_email", select + ":localpart", "there is no parameter localpart, but email"),
            ("by_phone", select + "1", "it does not use the parameter phone"),
            (
                "status",
                select + "1",
                "it does not use the parameter localpart or subject or user_id",
            ),
            (
                "by_user",
                select + ":subject",
                "there is no parameter subject, but localpart, user_id",
            ),
            (
                "update",
                "UPDATE accounts SET hash = :new_hash WHERE name = :localpart",
                "it does not use the parameter old_hash",
            ),
        ):
            self.assertEqual(self.query_problem(name, statement), problem)

    def test_postgresql(self) -> None:
        """PostgreSQL's statements are checked as far as they can be without a server."""
        where = "SELECT 1 WHERE name = "
        for statement, problem in (
            (where + "%(name)s", "there is no parameter name, but localpart, user_id"),
            (where + ":localpart", NO_NAME),
            (where + "%(localpart)s AND x LIKE 'a%'", "a percent sign that begins no parameter"),
            (where + "%s", "a percent sign that begins no parameter"),
        ):
            found = self.query_problem("by_user", statement, sqlite=None, postgresql="dbname=x")
            self.assertIn(problem, found)
        SQLProvider.parse_config({"postgresql": "dbname=x", "queries": POSTGRESQL}, self.folder)

    def test_connection_string(self) -> None:
        """An invalid connection string is rejected, and not quoted."""
        for conninfo in ("swordfish", "swordfish=1", "dbname='x swordfish"):
            problem = self.problem(sqlite=None, postgresql=conninfo, queries=POSTGRESQL)
            self.assertEqual(problem, "postgresql: not a PostgreSQL connection string")

    def test_no_driver(self) -> None:
        """Without psycopg the error says what to install."""
        self.patch(sys, "modules", {**sys.modules, "psycopg": None})
        self.assertIn("[postgres]", self.problem(sqlite=None, postgresql="dbname=x"))

    def test_numbers(self) -> None:
        """Timeouts and connections are positive."""
        for key, value in (
            ("timeout", 0),
            ("timeout", "x"),
            ("connections", 0),
            ("connections", "4"),
        ):
            self.assertTrue(self.problem(**{key: value}).startswith(f"{key}: "))
