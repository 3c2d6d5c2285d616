"""Tests that the page's blocks for other applications read those applications' accounts."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml
from twisted.trial.unittest import SkipTest

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import Account, AccountStatus, Level
from synapse_login_module.providers import SQLProvider
from tests.hashes.vectors import PASSWORD
from tests.providers.case import ProviderCase, email, user
from tests.providers.sql.applications import (
    GITEA_ALGORITHM,
    HASHES,
    MYSQL,
    POSTGRESQL,
    Application,
    Table,
)
from tests.support import REPOSITORY
from tests.support.accounts import ALICE
from tests.support.mariadb import MariaDB
from tests.support.postgresql import shared_postgresql

_PAGE = REPOSITORY / "docs" / "providers" / "applications.rst"


class Section:
    """A section of the page: the statements that make the role, and the configuration."""

    def __init__(self, heading: str) -> None:
        text = _PAGE.read_text("utf-8")
        _, section = re.split(rf"^{heading}\n-+$", text, flags=re.MULTILINE)
        self._text = re.split(r"^-+$", section, maxsplit=1, flags=re.MULTILINE)[0]

    @property
    def grants(self) -> list[str]:
        """The statements."""
        return [each for each in self._block("sql").split(";\n") if each.strip()]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        (entry,) = yaml.safe_load(self._block("yaml"))["password_providers"]
        config: dict[str, Any] = entry["config"]
        return config

    @property
    def expression(self) -> str:
        """The expression that is shown besides."""
        found = re.search(r"^::\n\n((?:    .*\n)+)", self._text.replace("statements::", "::"), re.M)
        assert found is not None
        return " ".join(found[1].split())

    def _block(self, language: str) -> str:
        found = re.search(
            rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", self._text, re.MULTILINE
        )
        assert found is not None
        return textwrap.dedent(found[1])


def create(table: Table) -> str:
    """The statement that makes a table."""
    return f"CREATE TABLE {table.name} ({table.columns})"


def insert(table: Table, row: Any, place: str = "%s") -> str:
    """The statement that inserts a row, which may lack the last columns."""
    columns = re.sub(r"\([^)]*\)", "", re.sub(r"(, PRIMARY)? KEY \([^)]*\)", "", table.columns))
    names = [each.split()[0] for each in columns.rstrip(", ").split(", ")][: len(row)]
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join([place] * len(row))})"


class ApplicationCase(ProviderCase):
    """Logs in at an application's database, with the role and the configuration of the page."""

    def make(self, application: Application) -> Mapping[str, Any]:
        """Make the database and the role; return the keys of the configuration that name them."""
        raise NotImplementedError

    def execute(self, application: Application, statement: str) -> None:
        """Run a statement as the application."""
        raise NotImplementedError

    async def check(self, application: Application) -> None:
        """Every claim of a section."""
        section = Section(application.heading)
        provider: SQLProvider = self.build(
            SQLProvider, {**section.config, **self.make(application), "timeout": "20s"}
        )
        for identifier in (user("alice"), user("ALICE"), email()):
            account = await provider.authenticate(identifier, PASSWORD)
            assert account is not None, (application.heading, identifier)
            emails = tuple(each.lower() for each in account.emails)
            self.assertEqual(
                (account.user_id, account.subject, account.display_name, emails, account.status),
                (
                    *(ALICE, application.subject, application.display_name),
                    *(("alice@example.com",), AccountStatus.ACTIVE),
                ),
                application.heading,
            )
            for wrong in ("password", f"{PASSWORD}x", ""):
                await self.fails(provider.authenticate(identifier, wrong), InvalidCredentials)
        for name in (*application.others, "nobody", "alice%"):
            self.assertIsNone(await provider.authenticate(user(name), PASSWORD), name)
        for address in ("nobody@example.com", "alice@example.org"):
            self.assertIsNone(await provider.authenticate(email(address), PASSWORD), address)
        await self._check_statuses(provider, application)
        for finding in await provider.diagnose():
            self.assertNotEqual(finding.level, Level.FAILED, (application.heading, finding))

    async def _check_statuses(self, provider: SQLProvider, application: Application) -> None:
        subject = application.subject
        self.assertIs(await provider.account_status(subject), AccountStatus.ACTIVE)
        for change, status in (
            (application.lock, AccountStatus.LOCKED),
            (application.deactivate, AccountStatus.DEACTIVATED),
        ):
            if change is not None:
                self.execute(application, change)
                self.assertIs(await provider.account_status(subject), status, application.heading)
                account = await provider.authenticate(user("alice"), PASSWORD)
                assert account is not None
                self.assertIs(account.status, status, application.heading)
        self.assertIsNone(await provider.account_status(application.gone))


class MariaDBApplicationTests(ApplicationCase):
    """Applications whose database is MariaDB or MySQL."""

    def make(self, application: Application) -> Mapping[str, Any]:
        # The statements of the page make users that the shared server has already.
        self.server = MariaDB()
        self.addCleanup(self.server.remove)
        name = application.database
        self.server.query(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        for table in application.tables:
            self.server.query(create(table), dbname=name)
            for row in table.rows:
                self.server.query(insert(table, row), row, name)
        self.server.query("DROP USER IF EXISTS matrix@'%%'")
        for statement in Section(application.heading).grants:
            self.server.query(statement.replace("%", "%%"), dbname=name)
        keys = Section(application.heading).config["mysql"]
        self.assertEqual((keys["user"], keys["database"]), ("matrix", name))
        del keys["password_file"]
        here = {"host": "127.0.0.1", "port": self.server.port, "password": "a-long-password"}
        return {"mysql": {**keys, **here}}

    def execute(self, application: Application, statement: str) -> None:
        self.server.query(statement, dbname=application.database)


class PostgreSQLApplicationTests(ApplicationCase):
    """Applications whose database is PostgreSQL."""

    def make(self, application: Application) -> Mapping[str, Any]:
        self.server = shared_postgresql()
        name = application.database
        conninfo = self.server.new_database(name)
        for table in application.tables:
            self.server.query(create(table), dbname=name)
            for row in table.rows:
                self.server.query(insert(table, row), row, name)
        self.server.query("DROP ROLE IF EXISTS matrix")
        for statement in Section(application.heading).grants:
            self.server.query(statement, dbname=name)
        self.addCleanup(self.server.query, f"DROP DATABASE {name} WITH (FORCE)")
        stated = Section(application.heading).config["postgresql"]
        self.assertIn(f"dbname={name} user=matrix", stated)
        return {"postgresql": conninfo.replace("user=postgres", "user=matrix")}

    def execute(self, application: Application, statement: str) -> None:
        self.server.query(statement, dbname=application.database)

    def test_role(self) -> None:
        """The role of the page reads the columns that it was granted, and writes nothing."""
        import psycopg

        (mastodon,) = (each for each in POSTGRESQL if each.heading == "Mastodon")
        with psycopg.connect(self.make(mastodon)["postgresql"], autocommit=True) as connection:
            connection.execute("SELECT encrypted_password FROM users")
            for statement in (
                "SELECT otp_secret FROM users",
                "SELECT * FROM users",
                "UPDATE users SET disabled = FALSE",
                "DELETE FROM accounts",
            ):
                with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)

    async def test_memorial(self) -> None:
        """Mastodon's account of a person who has died is deactivated."""
        (mastodon,) = (each for each in POSTGRESQL if each.heading == "Mastodon")
        config = {**Section("Mastodon").config, **self.make(mastodon)}
        provider = self.build(SQLProvider, config)
        self.execute(mastodon, "UPDATE accounts SET memorial = TRUE WHERE id = 70")
        self.assertIs(await provider.account_status("id:7"), AccountStatus.DEACTIVATED)
        for identifier in (user("alice"), email()):
            account = await provider.authenticate(identifier, PASSWORD)
            assert account is not None
            self.assertIs(account.status, AccountStatus.DEACTIVATED)

    async def test_old_gitea(self) -> None:
        """The expression for hashes of Gitea before 1.19 reads them."""
        (gitea,) = (each for each in POSTGRESQL if each.heading == "Gitea")
        section, here = Section("Gitea"), self.make(gitea)
        queries = section.config["queries"]
        columns = "passwd_hash_algo || '$' || salt || '$' || passwd AS password_hash"
        self.assertIn(columns, queries["by_user"])
        old = {"by_user": queries["by_user"].replace(columns, section.expression)}
        provider = self.build(SQLProvider, {**here, "queries": {**queries, **old}})
        salt, given = b"AbCdEfGhIj", PASSWORD.encode()
        for algorithm, made in (
            ("pbkdf2", hashlib.pbkdf2_hmac("sha256", given, salt, 10_000, 50).hex()),
            ("bcrypt", HASHES["php_bcrypt"].replace("$2y$", "$2a$")),
            (GITEA_ALGORITHM, hashlib.pbkdf2_hmac("sha256", given, salt, 1000, 50).hex()),
        ):
            change = 'UPDATE "user" SET passwd_hash_algo = %s, salt = %s, passwd = %s'
            self.server.query(change, (algorithm, salt.decode(), made), gitea.database)
            account = await provider.authenticate(user("alice"), PASSWORD)
            self.assertIsInstance(account, Account, algorithm)


def _add_test(case: Any, application: Application) -> None:
    async def test(self: ApplicationCase) -> None:
        await self.check(application)

    test.__doc__ = f"The section on {application.heading} is so."
    setattr(case, f"test_{application.heading.lower()}", test)


for _each in MYSQL:
    _add_test(MariaDBApplicationTests, _each)
for _each in POSTGRESQL:
    _add_test(PostgreSQLApplicationTests, _each)


class SQLiteApplicationTests(ProviderCase):
    """The same statements in SQLite, with its parameters."""

    async def test_statements(self) -> None:
        """Three of them read SQLite too, as the page says."""
        known = {each.heading: each for each in (*MYSQL, *POSTGRESQL)}
        if sqlite3.sqlite_version_info < (3, 23):
            raise SkipTest("this SQLite has no FALSE")
        for heading in ("Nextcloud", "Django", "Gitea"):
            application, config = known[heading], Section(heading).config
            path = self.folder() / f"{heading}.db"
            connection = sqlite3.connect(path)
            for table in application.tables:
                columns = table.columns.replace(", KEY (uid_lower)", "")
                connection.execute(f"CREATE TABLE {table.name} ({columns})")
                for row in table.rows:
                    connection.execute(insert(table, row, "?"), row)
            connection.commit()
            connection.close()
            statements = {
                name: re.sub(r"%\((\w+)\)s", r":\1", text)
                for name, text in config["queries"].items()
            }
            provider = self.build(SQLProvider, {"sqlite": str(path), "queries": statements})
            account = await provider.authenticate(user("alice"), PASSWORD)
            self.assertIsInstance(account, Account)
            self.assertEqual((account.user_id, account.subject), (ALICE, application.subject))
