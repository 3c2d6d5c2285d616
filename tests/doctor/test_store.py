"""What ``doctor`` says about stores, on real disks and a real PostgreSQL."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from synapse_login_module.model import Level
from synapse_login_module.stores import sqlite_diagnosis
from synapse_login_module.stores.postgresql import diagnosis as postgresql_diagnosis
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.tokens import keyfile
from tests.chaos.test_disk_full import Disk
from tests.doctor.case import POSTGRESQL_STORE, DoctorCase
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL, shared_postgresql

PASSWORD = "a-password-that-nothing-prints"
LAST_LATER = (
    "SET issued_at = issued_at + 7200000 WHERE session_id = (SELECT max(session_id) FROM {table})"
)


class SQLiteDoctorTests(DoctorCase):
    """The file is tried for real, and stays as it is."""

    async def test_well(self) -> None:
        """A store in use is read, written to and compared with the keys, and nothing changes."""
        path = self.write()
        await self.use(path)
        before = self.contents()
        findings = await self.diagnose(path)
        lines = self.assert_well(findings, "store")
        self.assertIn("all tables are there", str(lines))
        self.assertIn("rolled back", str(lines))
        self.assertIn("free of", str(lines))
        self.assertIn("key 1 signs; 1 in the store match", str(self.assert_well(findings, "keys")))
        self.assertEqual(self.contents(), before)

    async def test_never_started(self) -> None:
        """Before the first start there is neither file nor key; that is said, and none is made."""
        path = self.write()
        findings = await self.diagnose(path)
        self.assert_line(findings, Level.WARNING, "store", "there is no such file", "first start")
        self.assert_line(findings, Level.WARNING, "keys", "there is no key file", "backup")
        self.assertEqual(set(self.contents()), {"config.yaml"})

    async def test_missing_table(self) -> None:
        """A table that is missing is named."""
        path = self.write()
        await self.use(path)
        with closing(sqlite3.connect(self.folder / "sessions.db")) as connection:
            connection.execute("DROP TABLE links")
        findings = await self.diagnose(path)
        found = "the table links is missing"
        self.assert_line(findings, Level.FAILED, "store", found, "from a backup")

    async def test_no_database(self) -> None:
        """A file that is no database is a mistake of the configuration, and one line."""
        path = self.write()
        (self.folder / "sessions.db").write_bytes(b"not a database" * 1000)
        findings = await self.diagnose(path)
        self.assert_line(
            findings, Level.FAILED, "configuration", "file is not a database", "from a backup"
        )

    async def test_locked(self) -> None:
        """A file that another program holds is said to be held."""
        path = self.write()
        await self.use(path)
        with closing(
            sqlite3.connect(self.folder / "sessions.db", isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            findings = await self.diagnose(path)
        self.assert_line(findings, Level.FAILED, "store", "database is locked", "fuser")

    async def test_other_key(self) -> None:
        """A key file that is not that of the sessions is told by its fingerprint."""
        path = self.write()
        await self.use(path)
        (self.folder / "token.key").unlink()
        keyfile.load_or_make(self.folder / "token.key", lambda size: b"\7" * size)
        findings = await self.diagnose(path)
        found = "token key 1 here is not the token key 1 in use"
        self.assert_line(findings, Level.FAILED, "keys", found, "copy the key file here")

    async def test_lost_key(self) -> None:
        """A key file that is gone, while the store has keys, is a failure."""
        path = self.write()
        await self.use(path)
        (self.folder / "token.key").unlink()
        findings = await self.diagnose(path)
        self.assert_line(
            findings, Level.FAILED, "keys", "there is no key file here", "from a backup"
        )

    async def test_clock_behind(self) -> None:
        """A clock that is behind the newest session is a failure."""
        path = self.write()
        await self.use(path)
        with closing(sqlite3.connect(self.folder / "sessions.db")) as connection:
            connection.execute("UPDATE sessions SET issued_at = issued_at + 7200000")
            connection.commit()
        findings = await self.diagnose(path)
        found = "2 hours behind the newest session"
        self.assert_line(findings, Level.FAILED, "system", found, "NTP")

    async def test_clock_behind_the_last(self) -> None:
        """Of more sessions than are read, those that began last are read."""
        self.patch(sqlite_diagnosis, "SAMPLE", 1)
        path = self.write()
        await self.use(path)
        await self.use(path, "LAPTOP")
        with closing(sqlite3.connect(self.folder / "sessions.db")) as connection:
            connection.execute(f"UPDATE sessions {LAST_LATER.format(table='sessions')}")
            connection.commit()
        findings = await self.diagnose(path)
        found = "2 hours behind the newest session"
        self.assert_line(findings, Level.FAILED, "system", found, "NTP")

    async def test_memory(self) -> None:
        """A store in memory is a warning."""
        path = self.write(token_store={"module": "synapse_login_module.stores.MemoryTokenStore"})
        findings = await self.diagnose(path)
        self.assert_line(findings, Level.WARNING, "store", "a restart ends", "another store")


class DiskDoctorTests(DoctorCase):
    """The disk of the store is tried for real."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = Disk(self.folder / "disk")
        self.addCleanup(self.disk.unmount)
        database = str(self.disk.folder / "sessions.db")
        self.path = self.write(
            token_store={
                "module": "synapse_login_module.stores.SQLiteTokenStore",
                "config": {"path": database},
            }
        )

    async def test_full(self) -> None:
        """A full disk is one failure, which says so, while no server has the file open."""
        await self.use(self.path)
        self.disk.fill()
        findings = await self.diagnose(self.path)
        self.assert_line(
            findings, Level.FAILED, "configuration", "its disk is full", "free some space"
        )

    async def test_full_while_open(self) -> None:
        """A full disk is one failure, which says so, while a server has the file open."""
        await self.use(self.path)
        with closing(connect(self.disk.folder / "sessions.db")) as server:
            server.execute("SELECT * FROM sessions").fetchall()
            self.disk.fill()
            findings = await self.diagnose(self.path)
        found = "cannot be written to: No space left on device"
        self.assert_line(findings, Level.FAILED, "store", found, "free some space")

    async def test_little_room(self) -> None:
        """A disk with little room is a warning."""
        await self.use(self.path)
        findings = await self.diagnose(self.path)
        self.assert_line(findings, Level.WARNING, "store", "free of 8 MiB", "free some space")

    async def test_read_only(self) -> None:
        """A disk that is mounted for reading alone is told before anything writes."""
        await self.use(self.path)
        remount = ["mount", "-o", "remount,ro", str(self.disk.folder)]
        subprocess.run(remount, check=True)
        findings = await self.diagnose(self.path)
        self.assert_line(
            findings, Level.FAILED, "configuration", "cannot read and write", "mounted for writing"
        )


class PostgreSQLDoctorTests(DoctorCase):
    """The database is tried for real, and stays as it is."""

    def setUp(self) -> None:
        super().setUp()
        self.database = shared_postgresql()
        self.conninfo = self.database.new_database("doctor")

    def configured(self, dsn: str, **more: Any) -> Path:
        """Write a configuration with this store."""
        config = {"dsn": dsn, "timeout": "2s", **more}
        return self.write(token_store={"module": POSTGRESQL_STORE, "config": config})

    async def test_well(self) -> None:
        """A database in use is read, written to and compared with the keys."""
        path = self.configured(self.conninfo)
        await self.use(path)
        findings = await self.diagnose(path)
        lines = str(self.assert_well(findings, "store"))
        for each in ("connected in", "all tables are there", "rolled back", "may read and write"):
            self.assertIn(each, lines)
        self.assertIn("1 in the store match", str(self.assert_well(findings, "keys")))
        leases = self.database.query("SELECT * FROM synapse_login_leases", dbname="doctor")
        self.assertEqual(leases, [])

    async def test_empty(self) -> None:
        """An empty database is a warning, and stays empty."""
        path = self.configured(self.conninfo)
        findings = await self.diagnose(path)
        self.assert_line(
            findings, Level.WARNING, "store", "there are no tables yet", "at its first start"
        )
        tables = self.database.query(
            "SELECT * FROM pg_tables WHERE schemaname = 'public'", dbname="doctor"
        )
        self.assertEqual(tables, [])

    async def test_missing_table(self) -> None:
        """A table that is missing is named."""
        path = self.configured(self.conninfo)
        await self.use(path)
        self.database.query("DROP TABLE synapse_login_limits", dbname="doctor")
        findings = await self.diagnose(path)
        found = "the table synapse_login_limits is missing"
        self.assert_line(findings, Level.FAILED, "store", found, "from a backup")

    async def test_no_database(self) -> None:
        """A database that does not exist is named."""
        path = self.configured(self.conninfo.replace("dbname=doctor", "dbname=nowhere"))
        findings = await self.diagnose(path)
        found = 'database "nowhere" does not exist'
        self.assert_line(findings, Level.FAILED, "store", found, "create the database")

    async def test_away(self) -> None:
        """A server that is away is one failure."""
        path = self.configured(f"host=127.0.0.1 port={free_port()} user=x dbname=x")
        findings = await self.diagnose(path)
        self.assert_line(findings, Level.FAILED, "store", "refused", "start PostgreSQL")

    async def test_clock_behind_the_last(self) -> None:
        """Of more sessions than are read, those that began last are read."""
        self.patch(postgresql_diagnosis, "SAMPLE", 1)
        path = self.configured(self.conninfo)
        await self.use(path)
        await self.use(path, "LAPTOP")
        table = "synapse_login_sessions"
        self.database.query(f"UPDATE {table} {LAST_LATER.format(table=table)}", dbname="doctor")
        findings = await self.diagnose(path)
        found = "2 hours behind the newest session"
        self.assert_line(findings, Level.FAILED, "system", found, "NTP")

    async def test_no_rights(self) -> None:
        """A role that may not write to a table is told."""
        path = self.configured(self.conninfo)
        await self.use(path)
        for statement in (
            "DROP ROLE IF EXISTS reader_of_doctor",
            "CREATE ROLE reader_of_doctor LOGIN",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_of_doctor",
        ):
            self.database.query(statement, dbname="doctor")
        dsn = self.conninfo.replace("user=postgres", "user=reader_of_doctor")
        findings = await self.diagnose(self.configured(dsn))
        failures = [each for each in findings if each.level is Level.FAILED]
        self.assertEqual(len(failures), 1, failures)
        self.assertIn("this role may not INSERT rows", failures[0].found)
        self.assertIn("GRANT", failures[0].advice)


class PostgreSQLPasswordTests(DoctorCase):
    """A password that PostgreSQL refuses is one failure, and printed nowhere."""

    async def test_wrong_password(self) -> None:
        """It says that the password is wrong."""
        database = PostgreSQL()
        self.addCleanup(database.remove)
        database.query(f"CREATE ROLE service LOGIN PASSWORD '{PASSWORD}'")
        database.ask_password("service")
        wrong = f"wrong-{PASSWORD}"
        dsn = f"host=127.0.0.1 port={database.port} user=service password={wrong} dbname=postgres"
        path = self.write(token_store={"module": POSTGRESQL_STORE, "config": {"dsn": dsn}})
        findings = await self.diagnose(path)
        found = 'password authentication failed for user "service"'
        self.assert_line(findings, Level.FAILED, "store", found, "correct the password")
        self.assertNotIn(PASSWORD, str(findings))

    async def test_hanging(self) -> None:
        """A PostgreSQL that hangs is told within the deadline, and the other checks go on."""
        database = PostgreSQL()
        self.addCleanup(database.remove)
        path = self.write(
            token_store={
                "module": POSTGRESQL_STORE,
                "config": {"dsn": database.conninfo, "timeout": "60s"},
            }
        )
        database.hold()
        findings = await self.diagnose(path, 2.0)
        found = "did not end within 2 seconds"
        self.assert_line(findings, Level.FAILED, "store", found, "see whether it hangs")
        self.assertTrue([each for each in findings if each.area == "hashing"])


class AdviceTests(DoctorCase):
    """What to do about libpq's messages."""

    def test_each_is_known(self) -> None:
        """Each advice is given for a message with its words."""
        for words, advice in postgresql_diagnosis._ADVICE.items():
            found = postgresql_diagnosis._broken(RuntimeError(f"FATAL: {words} …"))
            self.assertEqual(found.advice, advice)
