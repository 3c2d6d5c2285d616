"""Tests that what stands in docs/providers/sql.rst about MariaDB works."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import yaml

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.hashes import parse_hash
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.model import AccountStatus
from synapse_login_module.passwords import check_password
from synapse_login_module.providers.sql.provider import SQLProvider
from tests.providers.case import PASSWORD, WONDERLAND, ProviderCase, email, fake_hashing, user
from tests.support import REPOSITORY
from tests.support.certificates import Authority
from tests.support.mariadb import DATABASE, USER, MariaDB
from tests.support.waiting import until

CUSTOMERS = """
CREATE TABLE shop.customers (
    id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, username VARCHAR(60) UNIQUE NOT NULL,
    password_hash VARCHAR(255), email VARCHAR(100), blocked TINYINT(1) NOT NULL DEFAULT 0,
    deleted_at TIMESTAMP NULL, card_number VARCHAR(19)
)
"""


class ViewTests(ProviderCase):
    """The view, the user who reads it, and the configuration, on a server with TLS."""

    def setUp(self) -> None:
        self.server = MariaDB()
        self.addCleanup(self.server.remove)
        authority = Authority()
        self.server.use_certificate(authority.sign("127.0.0.1"))
        self.write("ca.pem", authority.certificate)
        self.write("mysql-password", "a long random password\n")
        self.server.query(f"DROP USER {USER}")
        self.server.query(CUSTOMERS)
        self.execute(
            "INSERT INTO customers (username, password_hash, email)"
            " VALUES ('alice', %s, 'alice@example.com')",
            WONDERLAND,
        )
        page = (REPOSITORY / "docs" / "providers" / "sql.rst").read_text("utf-8")
        section = page[page.index("\nMariaDB and MySQL\n---") : page.index("\nStatements\n---")]
        self.statements = [
            each
            for block in re.findall(r"::\n\n((?:    .*\n)+)", section)
            for each in textwrap.dedent(block).strip().split(";")
            if each
        ]
        (config,) = (
            each
            for each in re.findall(r"code-block:: yaml\n\n((?:   .*\n|\n)+)", page)
            if "mysql:" in each
        )
        self.example = yaml.safe_load(config)["password_providers"][0]["config"]

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as root."""
        return self.server.query(statement, values, DATABASE)

    def provider(self, queries: dict[str, str] | None = None, **mysql: Any) -> SQLProvider:
        """The provider of the page, on the test's server."""
        environment = self.environment()
        fake_hashing(environment).new = new_hashes(5)
        here = {"host": "127.0.0.1", "port": self.server.port, "ca_file": "ca.pem"}
        path = {"password_file": "mysql-password"}
        config = {
            "mysql": {**self.example["mysql"], **here, **path, **mysql},
            "queries": {**self.example["queries"], **(queries or {})},
        }
        built: SQLProvider = self.build(SQLProvider, config, environment)
        return built

    async def test_page(self) -> None:
        """The user reads the view over TLS, and nothing else; with one more GRANT they renew
        hashes.
        """
        *reading, writing = self.statements
        self.assertEqual(len(reading), 3)
        for each in reading:
            self.server.query(each.replace("%", "%%"))
        provider = self.provider()
        for identifier in (user("alice"), email()):
            account = await provider.authenticate(identifier, PASSWORD)
            assert account is not None
            self.assertEqual((account.subject, account.status), ("id:1", AccountStatus.ACTIVE))
        for change, status in (
            ("blocked = 1", AccountStatus.LOCKED),
            ("deleted_at = NOW()", AccountStatus.DEACTIVATED),
        ):
            self.execute(f"UPDATE customers SET {change}")
            self.assertIs(await provider.account_status("id:1"), status)
        self.execute("UPDATE customers SET blocked = 0, deleted_at = NULL")
        for queries, mysql, problem in (
            ({"status": "SELECT 1 AS x FROM customers WHERE id = %(subject)s"}, {}, "denied"),
            ({}, {"ca_file": None, "tls": False}, "Access denied"),
        ):
            asked = self.provider(queries, **mysql).account_status("id:1")
            self.assertIn(problem, str(await self.fails(asked, ProviderUnavailable)))
        self.server.query(writing.replace("%", "%%"))
        update = (
            "UPDATE matrix_accounts SET password_hash = %(new_hash)s"
            " WHERE localpart = %(localpart)s AND password_hash = %(old_hash)s"
        )
        await self.provider({"update": update}).authenticate(user("alice"), PASSWORD)

        def stored() -> str:
            found: str = self.execute("SELECT password_hash FROM customers")[0][0]
            return found

        await until(lambda: parse_hash(stored()).kind == new_hashes(5).kind)
        self.assertTrue(check_password(PASSWORD, stored(), ""))
