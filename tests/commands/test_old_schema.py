"""Commands on a store whose schema is of an earlier version of this program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from synapse_login_module.stores import sqlite_schema
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_file import version_at
from synapse_login_module.tokens.keyfile import load_or_make
from tests.support.postgresql import shared_postgresql
from tests.support.process import cli, require
from tests.test_cli import CommandCase

Asking = Sequence[tuple[Sequence[str], Sequence[str]]]
"""Commands that only ask, and their arguments."""

FIRST: Asking = (
    (("check-login",), ("alice",)),
    (("sessions", "list"), ()),
)
OTHERS: Asking = (
    (("sessions", "end-gone"), ()),
    (("links", "list"), ()),
    (("show-keys",), ()),
    (("rotate-key",), ()),
)
WRITING = ("sessions", "expire", "--yes")


class OldSchemaCase(CommandCase):
    """A test case with a key file."""

    def setUp(self) -> None:
        super().setUp()
        load_or_make(self.folder / "token.key", os.urandom)

    def assert_old(self, config: Path, problem: str, asking: Asking = FIRST) -> None:
        """Commands that only ask fail with a problem."""
        for command, user in asking:
            done = cli(*command, "--config", str(config), *user, given="a-password\n")
            self.assertEqual((done.returncode, done.stdout), (1, ""), command)
            self.assertEqual(done.stderr, f"synapse-login-module: {config}: {problem}\n")


class SQLiteOldSchemaTests(OldSchemaCase):
    """A store in a file."""

    def test_left_alone(self) -> None:
        """Commands that only ask leave the file as it is; one that writes migrates it."""
        config = self.config()
        path = self.folder / "sessions.db"
        newest = len(sqlite_schema.MIGRATIONS)
        with closing(connect(path)) as connection:
            sqlite_schema.migrate(connection, sqlite_schema.MIGRATIONS[:-1])
        before = path.read_bytes()
        self.assert_old(
            config,
            f"token_store.config.path: its schema is version {newest - 1}, older than {newest},"
            " which this program needs: start the server once, which migrates it",
            (*FIRST, *OTHERS),
        )
        self.assertEqual(path.read_bytes(), before)
        self.good(*WRITING, "--config", str(config))
        self.assertEqual(version_at(path), newest)


class PostgreSQLOldSchemaTests(OldSchemaCase):
    """A store in PostgreSQL."""

    def test_left_alone(self) -> None:
        """Commands that only ask leave the tables as they are; one that writes migrates them."""
        require("psycopg")
        import psycopg

        from synapse_login_module.stores.postgresql.schema import MIGRATIONS, migrate

        postgresql = shared_postgresql()
        name = "oldschema"
        dsn = postgresql.new_database(name)
        store = "synapse_login_module.stores.PostgreSQLTokenStore"
        config = self.config(token_store={"module": store, "config": {"dsn": dsn}})
        newest = len(MIGRATIONS)
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection, MIGRATIONS[:-1])
        columns = (
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY table_name, column_name"
        )
        version = "SELECT version FROM synapse_login_schema"
        before = postgresql.query(columns, dbname=name)
        self.assert_old(
            config,
            f"token_store.config.dsn: its schema is version {newest - 1}, older than {newest},"
            " which this program needs: start the server once, which migrates it",
        )
        self.assertEqual(postgresql.query(columns, dbname=name), before)
        self.assertEqual(postgresql.query(version, dbname=name), [(newest - 1,)])
        self.good(*WRITING, "--config", str(config))
        self.assertEqual(postgresql.query(version, dbname=name), [(newest,)])
