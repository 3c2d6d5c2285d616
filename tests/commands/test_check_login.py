"""``synapse-login-module check-login`` beside a standalone server, and the login that follows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import yaml
from twisted.trial.unittest import TestCase

from synapse_login_module.common.concurrency import at_once
from synapse_login_module.testing import SERVER_NAME
from tests.providers.ldap.case import ALICE, PASSWORDS, SEARCH, person
from tests.support.configuration import good_config, password_hash, write_config
from tests.support.folders import temporary_folder
from tests.support.foretelling import Foretold, answer_of, foretell, log_in, run_check
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.process import cli
from tests.support.server import Server
from tests.support.slapd import Slapd
from tests.support.waiting import until

RIGHT = "the-password-of-them-all"
ALICE_PASSWORD = PASSWORDS["alice"]
HASH = password_hash(RIGHT)
OF_THE_SERVER = ("leases", "token_keys", "keys")
"""The tables that a server writes to of its own accord, at its start and to renew its lease."""

PROVIDERS = "synapse_login_module.providers."


def file_entry(**more: Any) -> dict[str, Any]:
    """Return an entry of the users file."""
    return {"password_hash": HASH, **more}


class ForetellingCase(TestCase):
    """A test with a standalone server.

    :ivar where: the options that name its configuration.
    """

    timeout = 300

    async def start(self, **changes: Any) -> None:
        """Start a server with changes to a valid configuration."""
        self.folder = temporary_folder(self)
        self.port = free_port()
        self.config = good_config(self.port, **changes)
        self.path = write_config(self.folder, self.config)
        self.where = ("--config", str(self.path))
        server = Server(self.path, self.port)
        self.addCleanup(server.stop)
        await server.start()

    def state(self) -> object:
        """Return all rows of the store."""
        raise NotImplementedError

    async def foretell(self, user: str, password: str = RIGHT, *options: str) -> Foretold:
        """Run the command, which changes nothing."""
        before = self.state()
        foretold = await foretell(self.where, user, password, *options)
        self.assertEqual(self.state(), before)
        return foretold

    async def assert_foretold(
        self, status: int, said: str, user: str, password: str = RIGHT, *options: str
    ) -> Foretold:
        """The command foretells what a client is answered, and says why."""
        (foretold,) = await self.assert_all_foretold((status, said, user, password), *options)
        return foretold

    async def assert_all_foretold(
        self, *cases: tuple[int, str, str, str] | str
    ) -> Sequence[Foretold]:
        """The command foretells what each login is answered, and says why.

        :param cases: the status, what the command says, the user and the password; and options of
            the command.
        """
        options = [case for case in cases if isinstance(case, str)]
        logins = [case for case in cases if not isinstance(case, str)]

        async def one(case: tuple[int, str, str, str]) -> Foretold:
            return await foretell(self.where, *case[2:], *options)

        before = self.state()
        all_foretold = await at_once(2, one, logins)
        self.assertEqual(self.state(), before)
        for (status, said, *login), foretold in zip(logins, all_foretold, strict=True):
            self.assertIn(said, foretold.texts)
            self.assertEqual(foretold.status, status, foretold.texts)
            reply = await log_in(self.port, *login)
            self.assertEqual(answer_of(reply), foretold.answer, foretold.texts)
        return all_foretold


class SQLiteForetoldTests(ForetellingCase):
    """A server with a directory, a file and a database, whose sessions are in SQLite."""

    def state(self) -> object:
        connection = sqlite3.connect(self.folder / "sessions.db", timeout=60)
        try:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            rows = {
                name: connection.execute(f"SELECT * FROM {name}").fetchall()
                for (name,) in tables.fetchall()
                if name not in OF_THE_SERVER
            }
            return rows, self.hashes()
        finally:
            connection.close()

    def hashes(self) -> list[tuple[str, str]]:
        """Return the hashes in the database of accounts."""
        connection = sqlite3.connect(self.accounts)
        try:
            return connection.execute("SELECT name, hash FROM accounts ORDER BY name").fetchall()
        finally:
            connection.close()

    async def setUp(self) -> None:  # type: ignore[override]
        self.slapd = Slapd()
        self.addCleanup(self.slapd.remove)
        self.slapd.fill(ALICE + person("taken", RIGHT))
        self.slapd.start()
        self.accounts = temporary_folder(self) / "accounts.db"
        connection = sqlite3.connect(self.accounts)
        with connection:
            connection.execute("CREATE TABLE accounts (name TEXT PRIMARY KEY, hash TEXT)")
            connection.executemany(
                "INSERT INTO accounts VALUES (?, ?)", [("sam", HASH), ("broken", "$2b$broken")]
            )
        connection.close()
        users = {
            "bob": file_entry(emails=["bob@example.net"], phones=["447700900456"]),
            "lock": file_entry(locked=True),
            "gone": file_entry(deactivated=True),
        }
        ldap = {**SEARCH, "servers": [self.slapd.url]}
        await self.start(
            password_providers=[
                {"module": f"{PROVIDERS}LDAPProvider", "config": ldap, "deadline": "3s"},
                {"module": f"{PROVIDERS}BcryptProvider", "config": {"users": users}},
                {
                    "module": f"{PROVIDERS}SQLProvider",
                    "config": {
                        "sqlite": str(self.accounts),
                        "queries": {
                            "by_user": "SELECT name AS localpart, hash AS password_hash"
                            " FROM accounts WHERE name = :localpart",
                            "update": "UPDATE accounts SET hash = :new_hash"
                            " WHERE name = :localpart AND hash = :old_hash",
                        },
                    },
                },
            ],
            hashing={"rounds": 5},
        )

    def link(self, user_id: str, provider: str, subject: str) -> None:
        """Link an account with the command."""
        done = cli("links", "link", *self.where, user_id, provider, subject)
        self.assertEqual(done.stderr, "")

    async def test_names(self) -> None:
        """Every kind of name and of password."""
        elsewhere = "@alice:elsewhere.example"
        wrong, unknown, *_ = await self.assert_all_foretold(
            (403, "says ldap", "alice", "not-wonderland"),
            (403, "no provider knows the name", "nobody", RIGHT),
            (403, "another server", elsewhere, ALICE_PASSWORD),
            (403, "no valid user ID", "no user", RIGHT),
            (403, "the stored hash cannot be used", "broken", RIGHT),
            (400, "not a telephone number", "+44", RIGHT),
        )
        self.assertIn("final, so bcrypt and sql would not be asked", wrong.texts)
        asked = [step["provider"] for step in unknown.steps if step["step"] == "provider"]
        self.assertEqual(asked, ["ldap", "bcrypt", "sql"])

    async def test_accounts(self) -> None:
        """Every kind of account and of link."""
        self.link(f"@taken:{SERVER_NAME}", "bcrypt", "somebody")
        await self.assert_all_foretold(
            (200, "is not linked yet: this login would link", "alice", ALICE_PASSWORD),
            (200, "bob of bcrypt is not linked yet", f"@bob:{SERVER_NAME}", RIGHT),
            (401, "lock of bcrypt: locked", "lock", RIGHT),
            (403, "gone of bcrypt: deactivated", "gone", RIGHT),
            (403, "of bcrypt (to link it:", "taken", RIGHT),
        )
        await self.assert_all_foretold(
            (200, " is linked to @alice:", "ALICE@example.com", ALICE_PASSWORD),
            (200, "bob of bcrypt is linked to", "+447700900456", RIGHT),
        )

    async def test_rehash(self) -> None:
        """A login renews a hash of a low cost, and to foretell it does not, but says what it is."""
        before = self.hashes()
        foretold = await self.foretell("sam")
        self.assertEqual(foretold.status, 200)
        self.assertIn("accepted the password, whose stored hash is bcrypt cost=4", foretold.texts)
        self.assertEqual(self.hashes(), before)
        await log_in(self.port, "sam", RIGHT)
        await until(lambda: self.hashes() != before, "a new hash")

    async def test_outages(self) -> None:
        """A directory that is away, or refuses the service account, is said to be unavailable."""
        self.slapd.stop()
        away = await self.assert_foretold(503, "ldap, asked for @alice:", "alice", ALICE_PASSWORD)
        self.assertIn("is unavailable", away.texts)
        self.assertIn("the login fails with it", away.texts)
        self.slapd.start()
        providers = self.config["password_providers"]
        providers[0]["config"]["bind_password"] = "not-the-password"
        other = self.folder / "other.yaml"
        other.write_text(yaml.safe_dump(self.config))
        self.where = ("--config", str(other))
        foretold = await self.foretell("alice", ALICE_PASSWORD)
        self.assertEqual((foretold.status, foretold.errcode), (503, "M_UNKNOWN"))
        self.assertIn("bind_dn", foretold.texts)
        self.assertNotIn("not-the-password", foretold.texts)

    async def test_passed_outage(self) -> None:
        """With ``on_unavailable: next``, the next provider is asked."""
        self.slapd.stop()
        self.config["password_providers"][0]["on_unavailable"] = "next"
        self.path.write_text(yaml.safe_dump(self.config))
        foretold = await self.foretell("bob")
        self.assertEqual(foretold.status, 200)
        self.assertIn("bcrypt is asked next", foretold.texts)

    async def test_lines(self) -> None:
        """People get a line a step, and the result in a sentence."""
        done = await run_check(self.where, "lock", RIGHT)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines[:2]], ["name", "limit"])
        self.assertTrue(all(line[12:].strip() for line in lines), lines)
        self.assertTrue(lines[-1].startswith("result      the login would fail: "))
        self.assertTrue(lines[-1].endswith("; a client is answered 401 M_USER_LOCKED"), lines)
        good = await run_check(self.where, "bob", RIGHT)
        self.assertEqual(good.returncode, 0)
        self.assertEqual(
            good.stdout.splitlines()[-1],
            f"result      the login would succeed as @bob:{SERVER_NAME}; a client is answered 200",
        )


class PostgreSQLForetoldTests(ForetellingCase):
    """A server that counts attempts in PostgreSQL."""

    def state(self) -> object:
        tables = self.database.query(
            "SELECT tablename FROM pg_tables WHERE starts_with(tablename, 'synapse_login')"
        )
        return {
            name: self.database.query(f"SELECT * FROM {name}")
            for (name,) in sorted(tables)
            if name.removeprefix("synapse_login_") not in OF_THE_SERVER
        }

    async def start_limited(self, **limits: int) -> None:
        """Start a server with limits that hardly refill."""
        self.database = PostgreSQL()
        self.addCleanup(self.database.remove)
        users = {
            name: file_entry(emails=[f"{name}{number}@example.net" for number in range(3)])
            for name in ("alice", "bob")
        }
        names = ("address", "account", "failed_attempts")
        await self.start(
            users=users,
            rate_limits={
                name: {"per_second": 0.001, "burst_count": limits.get(name, 100)} for name in names
            },
            token_store={
                "module": "synapse_login_module.stores.PostgreSQLTokenStore",
                "config": {"dsn": self.database.conninfo},
            },
        )

    async def repeat(self, number: int, user: str, password: str, status: int) -> None:
        """Log in a number of times."""
        for _ in range(number):
            reply = await log_in(self.port, user, password)
            self.assertEqual(reply.status, status, reply)

    async def test_account(self) -> None:
        """An account that logged in too often has to wait."""
        await self.start_limited(account=2)
        await self.repeat(2, "alice", RIGHT, 200)
        await self.assert_foretold(429, "account of @alice:example.com is reached until", "alice")
        await self.assert_foretold(200, "not reached: tried_anywhere, account", "bob")

    async def test_address(self) -> None:
        """Too many attempts came from an address."""
        await self.start_limited(address=2)
        await self.repeat(2, "nobody", RIGHT, 403)
        there = ("--address", "127.0.0.1")
        foretold = await self.assert_foretold(
            429, "address of 127.0.0.1 is reached until 20", "alice", RIGHT, *there
        )
        self.assertIn("goes on like this:", foretold.texts)
        self.assertIn("bcrypt, asked for @alice:example.com, accepted", foretold.texts)
        wrong = await self.foretell("alice", "not-the-password", *there)
        self.assertIn("after that the password is wrong, says bcrypt", wrong.texts)
        self.assertEqual((await self.foretell("alice", RIGHT, "--address", "::1")).status, 200)
        unknown = await self.foretell("alice")
        self.assertEqual(unknown.status, 200)
        self.assertIn("give --address", unknown.texts)

    async def test_failures(self) -> None:
        """Too many passwords were wrong for a name, or for an account by its other names."""
        await self.start_limited(failed_attempts=3)
        there = ("--address", "127.0.0.1")
        await self.repeat(3, "alice", "not-the-password", 403)
        await self.assert_foretold(
            429, "failures of @alice:example.com 127.0.0.1 is", "alice", RIGHT, *there
        )
        for number in range(3):
            await self.repeat(1, f"bob{number}@example.net", "not-the-password", 403)
        foretold = await self.assert_foretold(
            403, "too many passwords were wrong", "bob", RIGHT, *there
        )
        self.assertIn("tried of @bob:example.com 127.0.0.1 is reached", foretold.texts)

    async def test_store_away(self) -> None:
        """A database that is away is said in one line."""
        await self.start_limited()
        self.database.stop()
        done = await run_check(self.where, "alice", RIGHT)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("token_store.config.dsn: cannot use the database", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)


class OptionTests(TestCase):
    """The command's options."""

    def test_usage(self) -> None:
        """Wrong arguments are a usage error."""
        for arguments in (
            ("alice",),
            ("--config", "a", "--homeserver-config", "b", "alice"),
            ("--config", "a"),
            ("--config", "a", "--address", "nowhere", "alice"),
        ):
            done = cli("check-login", *arguments, given=f"{RIGHT}\n")
            self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)

    def test_no_password(self) -> None:
        """Without a password nothing is asked."""
        done = cli("check-login", "--config", "a", "alice")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr, "synapse-login-module: no password given\n")

    def test_no_server(self) -> None:
        """A server that has never run has no sessions to look at."""
        path = write_config(temporary_folder(self), good_config())
        done = cli("check-login", "--config", str(path), "alice", given=f"{RIGHT}\n")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("the server makes it at its first start", done.stderr)
