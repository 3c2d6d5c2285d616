"""Tests for ``import-synapse`` on a database with Synapse's tables, without a Synapse."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from synapse_login_module.commands.import_report import Tally
from synapse_login_module.commands.import_sessions import PAGE
from synapse_login_module.errors import ConfigError, StoreUnavailable
from synapse_login_module.synapse import import_rows
from synapse_login_module.synapse.homeserver_files import read_homeserver_files
from synapse_login_module.synapse.importing import SynapseSource
from synapse_login_module.testing import SERVER_NAME
from tests.support.configuration import CHEAP_HASH
from tests.support.folders import temporary_folder
from tests.support.process import cli, subprocess_environment
from tests.support.sessions import make_files
from tests.support.waiting import block_until
from tests.test_cli import CommandCase

BCRYPT = "synapse_login_module.providers.BcryptProvider"
NOW = 1_700_000_000_000
_MANY = 20_000
TABLES = """
CREATE TABLE users (name TEXT PRIMARY KEY, password_hash TEXT, is_guest SMALLINT DEFAULT 0,
    appservice_id TEXT, user_type TEXT, deactivated SMALLINT DEFAULT 0, locked BOOLEAN DEFAULT 0,
    admin SMALLINT DEFAULT 0);
CREATE TABLE profiles (full_user_id TEXT PRIMARY KEY, displayname TEXT);
CREATE TABLE user_external_ids (auth_provider TEXT, external_id TEXT, user_id TEXT);
CREATE TABLE user_threepids (user_id TEXT, medium TEXT, address TEXT, added_at BIGINT);
CREATE TABLE devices (user_id TEXT, device_id TEXT, display_name TEXT, last_seen BIGINT);
CREATE TABLE refresh_tokens (id BIGINT PRIMARY KEY, user_id TEXT, device_id TEXT, token TEXT,
    next_token_id BIGINT, expiry_ts BIGINT, ultimate_session_expiry_ts BIGINT);
CREATE TABLE access_tokens (id BIGINT PRIMARY KEY, user_id TEXT, device_id TEXT, token TEXT,
    valid_until_ms BIGINT, puppets_user_id TEXT, last_validated BIGINT, refresh_token_id BIGINT,
    used BOOLEAN);
CREATE INDEX access_tokens_device_id ON access_tokens (user_id, device_id);
"""


def at(name: str) -> str:
    """Return the user ID of a local part."""
    return f"@{name}:{SERVER_NAME}"


def digests(*tokens: str) -> frozenset[bytes]:
    """Return the digests of tokens."""
    return frozenset(sha256(token.encode()).digest() for token in tokens)


class Database:
    """A database with the tables of Synapse that are read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = itertools.count(1)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(TABLES)

    def add(self, table: str, **values: object) -> None:
        """Insert a row."""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values())
            )

    def execute(self, sql: str) -> None:
        """Run a statement."""
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(sql)

    def user(self, name: str, password_hash: str | None = CHEAP_HASH, **more: object) -> None:
        """Add an account."""
        self.add("users", name=at(name), password_hash=password_hash, **more)

    def access(self, name: str, device: str | None, token: str, **more: object) -> None:
        """Add an access token."""
        given = {"user_id": at(name), "device_id": device, "token": token, "used": 1}
        given |= {"id": next(self._ids), "last_validated": NOW}
        self.add("access_tokens", **{**given, **more})

    def refresh(self, name: str, device: str, token: str, **more: object) -> int:
        """Add a refresh token; return its id."""
        number = 1000 + next(self._ids)
        given = {"user_id": at(name), "device_id": device, "token": token}
        self.add("refresh_tokens", id=number, **given, **more)
        return number


class ImportCase(CommandCase):
    """A test case with Synapse's database and the server's configuration."""

    def setUp(self) -> None:
        super().setUp()
        self.database = Database(self.folder / "homeserver.db")
        self.homeserver = self.folder / "homeserver.yaml"
        self.write_homeserver()
        self.accounts = self.folder / "accounts.yaml"
        self.serve()

    def write_homeserver(self, **changes: Any) -> None:
        """Write Synapse's configuration."""
        arguments = {"database": str(self.folder / "homeserver.db")}
        database = {"name": "sqlite3", "args": arguments}
        given = {"server_name": SERVER_NAME, "database": database, **changes}
        self.homeserver.write_text(yaml.safe_dump(given))

    def serve(self, *, pepper: str = "") -> None:
        """Write the server's configuration, whose provider serves the file of accounts."""
        is_there = self.accounts.exists()
        if not is_there:
            self.accounts.write_text("users: {}\n")
        config = {"path": str(self.accounts), "pepper": pepper}
        self.path = self.config(password_providers=[{"module": BCRYPT, "config": config}])
        make_files(self.path)
        if not is_there:
            self.accounts.unlink()

    def run_import(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        files = ("--config", str(self.path), "--homeserver-config", str(self.homeserver))
        return cli("import-synapse", *files, *arguments)

    def take_over(self, *arguments: str) -> str:
        """Run the command, which has to succeed; return what it printed."""
        done = self.run_import(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def fails(self, *arguments: str, status: int = 1) -> str:
        """Run the command, which has to fail; return the error."""
        done = self.run_import(*arguments)
        self.assertEqual(done.returncode, status, done.stdout)
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr

    def users(self) -> dict[str, Any]:
        """Return the entries of the file of accounts."""
        users: dict[str, Any] = yaml.safe_load(self.accounts.read_text())["users"]
        return users

    def source(self) -> SynapseSource:
        """Open the database."""
        source = SynapseSource([str(self.homeserver)])
        self.addCleanup(source.close)
        return source


class AccountsTests(ImportCase):
    """The accounts."""

    def test_who(self) -> None:
        """Only ordinary accounts with a password are taken over, and others have a reason."""
        self.database.user("alice", admin=1)
        self.database.user("typed", user_type="ordinary")
        self.database.user("guest", is_guest=1)
        self.database.user("bridged", "")
        self.database.user("owned", appservice_id="irc")
        self.database.user("helper", user_type="support")
        self.database.user("ldap", None)
        self.database.user("left", None, deactivated=1)
        self.database.user("odd", "$2b$04$short")
        self.database.user("ALICE")
        self.database.user("notices", None)
        self.write_homeserver(
            user_types={"default_user_type": "ordinary"},
            server_notices={"system_mxid_localpart": "notices"},
        )
        said = self.take_over("--accounts", str(self.accounts), "--verbose")
        damaged = "a bcrypt hash that is cut short or damaged"
        # Of two spellings, the first in the order of the database is taken.
        self.assertEqual(set(self.users()), {"ALICE", "typed"})
        for name, reason in (
            ("alice", "its name differs from another in case alone"),
            ("guest", "it is a guest's"),
            ("bridged", "it is an application service's"),
            ("owned", "it is an application service's"),
            ("helper", "it is of the type support"),
            ("ldap", "it has no password"),
            ("left", "it is deactivated"),
            ("odd", f"it is not usable: {damaged} (hash-password makes a new one)"),
        ):
            self.assertIn(f"accounts\t{at(name)}\t{reason}\n", said)
        self.assertNotIn("notices", said)
        self.assertIn(f'admins: ["{at("alice")}"]', said)
        self.assertIn("links\ttaken\t2\t", said)

    def test_entry(self) -> None:
        """An entry has the hash, the name, the addresses that are valid, and the lock."""
        self.database.user("alice", locked=1)
        self.database.add(
            "profiles", full_user_id=at("alice"), displayname="A\u00e9: '\U0001f600'\n"
        )
        for number, (medium, address) in enumerate(
            (
                ("email", "alice@example.com"),
                ("email", "not an address"),
                ("msisdn", "447700900123"),
                ("msisdn", "0123"),
            )
        ):
            self.database.add(
                "user_threepids",
                user_id=at("alice"),
                medium=medium,
                address=address,
                added_at=number,
            )
        self.take_over("--accounts", str(self.accounts))
        self.assertEqual(
            self.users()["alice"],
            {
                "password_hash": CHEAP_HASH,
                "display_name": "A\u00e9: '\U0001f600'\n",
                "emails": ["alice@example.com"],
                "phones": ["447700900123"],
                "locked": True,
            },
        )
        self.assertEqual(stat.S_IMODE(self.accounts.stat().st_mode), 0o600)

    def test_again(self) -> None:
        """A file that is as it was written follows Synapse; accounts that left are deactivated."""
        self.database.user("alice")
        self.database.user("bob")
        self.take_over("--accounts", str(self.accounts))
        before = self.accounts.read_bytes()
        self.take_over("--accounts", str(self.accounts))
        self.assertEqual(self.accounts.read_bytes(), before)
        self.database.execute("UPDATE users SET locked = 1 WHERE name LIKE '@alice:%'")
        self.database.execute(
            "UPDATE users SET deactivated = 1, password_hash = NULL WHERE name LIKE '@bob:%'"
        )
        self.database.user("carol")
        said = self.take_over("--accounts", str(self.accounts))
        for line in ("accounts\trenewed\t1", "accounts\tdeactivated\t1", "accounts\ttaken\t1"):
            self.assertIn(line, said)
        users = self.users()
        self.assertTrue(users["alice"]["locked"])
        self.assertTrue(users["bob"]["deactivated"])
        self.assertIn("carol", users)

    def test_changed_by_hand(self) -> None:
        """A file that was changed by hand keeps what is in it, and gets new accounts alone."""
        self.database.user("alice")
        self.take_over("--accounts", str(self.accounts))
        changed = self.accounts.read_text() + "    display_name: By hand  # a comment\n"
        self.accounts.write_text(changed)
        self.database.user("bob")
        said = self.take_over("--accounts", str(self.accounts), "--verbose")
        self.assertIn("was changed by hand and has it with other content", said)
        self.assertTrue(self.accounts.read_text().startswith(changed))
        self.assertEqual(set(self.users()), {"alice", "bob"})
        self.assertEqual(self.users()["alice"]["display_name"], "By hand")

    def test_foreign_file(self) -> None:
        """A file that the command did not write is left alone."""
        self.database.user("alice")
        self.accounts.write_text("users: {}\n")
        self.assertIn("did not write it", self.fails("--accounts", str(self.accounts)))
        self.assertEqual(self.accounts.read_text(), "users: {}\n")

    def test_pepper(self) -> None:
        """A provider with another pepper than Synapse's is an error, and no pepper is printed."""
        self.database.user("alice")
        self.write_homeserver(password_config={"pepper": "secret pepper"})
        said = self.fails("--accounts", str(self.accounts))
        self.assertIn(f"{self.path}: password_providers.0.config.pepper: ", said)
        self.assertIn(f"password_config.pepper in {self.homeserver}", said)
        self.assertIn("keep pepper beside enabled: false", said)
        self.assertNotIn("secret pepper", said)
        self.serve(pepper="secret pepper")
        self.assertIn("links\ttaken\t1", self.take_over("--accounts", str(self.accounts)))

    def test_no_folder(self) -> None:
        """A folder that is not there is an error, and nothing is said to be taken."""
        self.database.user("alice")
        missing = self.folder / "missing" / "accounts.yaml"
        for more in ((), ("--dry-run",)):
            done = self.run_import("--accounts", str(missing), *more)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{missing}: there is no folder {missing.parent}\n", done.stderr)
            self.assertNotIn("taken", done.stdout)

    def test_not_written(self) -> None:
        """Nothing is said to be taken when the file could not be written."""
        self.database.user("alice")
        self.take_over("--accounts", str(self.accounts))
        self.accounts.write_text(self.accounts.read_text() + "other: 1\n")
        self.database.user("bob")
        done = self.run_import("--accounts", str(self.accounts))
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("taken", done.stdout)

    def test_sql(self) -> None:
        """``--accounts-sql`` prints statements that an SQLite database accepts, twice too."""
        self.database.user("ohara")
        self.database.add("profiles", full_user_id=at("ohara"), displayname="O'Hara; --\\")
        self.database.user("locked", locked=1)
        self.database.user("ldap", None)
        said = self.take_over("--accounts-sql")
        table = "".join(
            line.removeprefix("-- ") for line in said.splitlines()[:3] if line.startswith("-- ")
        )
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(table + said + said)
            rows = connection.execute(
                "SELECT localpart, password_hash, display_name, locked, deactivated FROM accounts"
                " ORDER BY localpart"
            ).fetchall()
        self.assertEqual(
            rows,
            [("locked", CHEAP_HASH, None, 1, 0), ("ohara", CHEAP_HASH, "O'Hara; --\\", 0, 0)],
        )
        self.assertIn("-- accounts\tprinted\t2\t\n", said)


class NextTests(ImportCase):
    """What the command says is to be done next."""

    def setUp(self) -> None:
        super().setUp()
        self.database.user("alice", admin=1)
        self.other = self.folder / "other.yaml"

    def next(self, said: str) -> Any:
        """Return the YAML that is printed behind ``next:``."""
        _, found, text = said.partition("next: ")
        self.assertTrue(found, said)
        return yaml.safe_load(text.partition("\n")[2])

    def test_provider(self) -> None:
        """The provider is printed as YAML, with a name of its own beside another."""
        self.accounts.write_text("users: {}\n")
        for names, name in ((["local"], "synapse"), (["local", "synapse"], "synapse2")):
            users = {"bob": {"password_hash": CHEAP_HASH}}
            providers = [
                {"module": BCRYPT, "name": each, "config": {"users": users}} for each in names
            ]
            self.path = self.config(password_providers=providers)
            said = self.take_over("--accounts", str(self.other))
            expected = {"module": BCRYPT, "name": name, "config": {"path": str(self.other)}}
            self.assertEqual(self.next(said), {"password_providers": [expected]})
            self.assertNotIn("pepper", said)

    def test_first_provider(self) -> None:
        """The first provider of this kind needs no name."""
        module = "synapse_login_module.providers.HTTPProvider"
        http = {"module": module, "config": {"endpoint": "http://127.0.0.1:1"}}
        self.path = self.config(password_providers=[http])
        (provider,) = self.next(self.take_over("--accounts", str(self.other)))["password_providers"]
        self.assertNotIn("name", provider)

    def test_pepper(self) -> None:
        """A comment says where the pepper is to be copied from, and does not have it."""
        self.accounts.write_text("users: {}\n")
        self.write_homeserver(password_config={"pepper": "secret pepper"})
        said = self.take_over("--accounts", str(self.other))
        self.assertIn(
            f"        # pepper: copy it from password_config.pepper in {self.homeserver}\n", said
        )
        self.assertNotIn("secret pepper", said)
        self.assertEqual(list(self.next(said)["password_providers"][0]["config"]), ["path"])

    def test_unusable_providers(self) -> None:
        """If the providers cannot be used, that is an error after all else is said, in a dry run
        too.
        """
        for more in (("--dry-run",), ()):
            done = self.run_import("--accounts", str(self.other), *more)
            self.assertEqual(done.returncode, 1)
            self.assertIn("password_providers.0.config.path: ", done.stderr)
            self.assertIn("cannot read it", done.stderr)
            self.assertIn(f'admins: ["{at("alice")}"]', done.stdout)
            self.assertEqual(self.next(done.stdout)["password_providers"][0]["name"], "synapse")
        self.assertTrue(self.other.exists())

    def test_file_of_another_mistake(self) -> None:
        """A dry run says what is wrong with other providers than the one of the file."""
        providers = [{"module": BCRYPT, "config": {"path": str(self.accounts)}}]
        providers.append({"module": BCRYPT, "name": "two", "config": {"path": str(self.other)}})
        self.path = self.config(password_providers=providers)
        done = self.run_import("--accounts", str(self.accounts), "--dry-run")
        self.assertEqual(done.returncode, 1)
        self.assertIn("password_providers.1.config.path: ", done.stderr)
        self.assertNotIn("next: ", done.stdout)


class SessionRowsTests(ImportCase):
    """Which tokens of a device are taken over."""

    def devices(self, page: int = 100) -> dict[tuple[str, str], Any]:
        """Read all devices, by local part and device."""
        found = [each for page in self.source().devices(page, NOW) for each in page]
        self.assertEqual(len(found), len({each[:2] for each in found}))
        return {(each.user_id[1:].partition(":")[0], each.device_id): each for each in found}

    def test_plain(self) -> None:
        """A token without a refresh token is taken with its expiry; an expired one is not."""
        self.database.user("alice")
        self.database.access("alice", "A", "syt_a")
        self.database.access("alice", "B", "syt_b", valid_until_ms=NOW + 5)
        self.database.access("alice", "C", "syt_c", valid_until_ms=NOW)
        self.database.add(
            "devices", user_id=at("alice"), device_id="A", display_name="Phone", last_seen=NOW - 7
        )
        self.database.execute("UPDATE access_tokens SET last_validated = NULL")
        found = self.devices()
        session = found["alice", "A"].session
        self.assertEqual(session.access_tokens, digests("syt_a"))
        self.assertEqual(session.refresh_tokens, frozenset())
        self.assertEqual((session.display_name, session.known_at), ("Phone", NOW - 7))
        self.assertIsNone(session.access_expires_at)
        session = found["alice", "B"].session
        self.assertEqual((session.access_expires_at, session.known_at), (NOW + 5, NOW))
        self.assertEqual(found["alice", "C"].problem, "its tokens have expired")

    def test_chain(self) -> None:
        """Of a chain, the newest pair counts, and the one before while the newest is unused."""
        self.database.user("alice")
        for device, used in (("USED", 1), ("UNUSED", 0)):
            new = self.database.refresh("alice", device, f"syr_new_{device}")
            old = self.database.refresh("alice", device, f"syr_old_{device}", next_token_id=new)
            self.database.access(
                "alice", device, f"syt_old_{device}", refresh_token_id=old, valid_until_ms=NOW + 1
            )
            self.database.access(
                "alice",
                device,
                f"syt_new_{device}",
                refresh_token_id=new,
                used=used,
                valid_until_ms=NOW + 2,
            )
        found = self.devices()
        session = found["alice", "USED"].session
        self.assertEqual(session.access_tokens, digests("syt_new_USED"))
        self.assertEqual(session.refresh_tokens, digests("syr_new_USED"))
        self.assertEqual(session.access_expires_at, NOW + 2)
        session = found["alice", "UNUSED"].session
        self.assertEqual(session.access_tokens, digests("syt_new_UNUSED", "syt_old_UNUSED"))
        self.assertEqual(session.refresh_tokens, digests("syr_new_UNUSED", "syr_old_UNUSED"))

    def test_expired_access_token(self) -> None:
        """A session whose access token has expired can be refreshed until that ends too."""
        self.database.user("alice")
        for device, more in (
            ("LIVE", {}),
            ("IDLE", {"expiry_ts": NOW}),
            ("OLD", {"ultimate_session_expiry_ts": NOW}),
        ):
            number = self.database.refresh("alice", device, f"syr_{device}", **more)
            self.database.access(
                "alice", device, f"syt_{device}", refresh_token_id=number, valid_until_ms=NOW - 1
            )
        found = self.devices()
        session = found["alice", "LIVE"].session
        self.assertEqual(session.tokens, digests("syt_LIVE", "syr_LIVE"))
        self.assertEqual(session.access_expires_at, NOW - 1)
        for device in ("IDLE", "OLD"):
            self.assertEqual(found["alice", device].problem, "its tokens have expired")

    def test_left_out(self) -> None:
        """Tokens of guests, services, puppets and unknown or deactivated accounts stay behind."""
        self.database.user("guest", None, is_guest=1)
        self.database.user("bridged", "")
        self.database.user("gone", None, deactivated=1)
        self.database.user("admin", admin=1)
        for name in ("guest", "bridged", "gone", "nobody"):
            self.database.access(name, "A", f"syt_{name}")
        self.database.access("admin", "A", "syt_puppet", puppets_user_id=at("gone"))
        self.database.access("admin", "X" * 256, "syt_long")
        self.database.access("admin", None, "syt_none")
        self.database.access("admin", None, "syt_other", puppets_user_id=at("gone"))
        found = self.devices()
        for name, device, problem in (
            ("guest", "A", "its account is a guest's"),
            ("bridged", "A", "its account is an application service's"),
            ("gone", "A", "its account is deactivated"),
            ("nobody", "A", "its account does not exist"),
            ("admin", "A", "its tokens are of an administrator who acts as another user"),
            ("admin", "X" * 256, "its device ID is longer than 255 characters, or has a NUL"),
        ):
            self.assertEqual(found[name, device].problem, problem)
            self.assertIsNone(found[name, device].session)
        (deviceless,) = self.source().without_device()
        self.assertEqual(deviceless, (at("admin"), 2, 1))

    def test_pages(self) -> None:
        """Whatever the size of a page, each device is read once with all its tokens."""
        for name in ("a", "b", "c"):
            self.database.user(name)
            for device in ("1", "2"):
                for number in range(3):
                    self.database.access(name, device, f"syt_{name}{device}{number}")
        for page in range(1, 20):
            found = self.devices(page)
            self.assertEqual(len(found), 6, page)
            self.assertEqual({each.tokens for each in found.values()}, {3}, page)
            users = [each for users in self.source().users(page) for each in users]
            self.assertEqual([each.user_id for each in users], [at("a"), at("b"), at("c")])

    def test_written_nothing(self) -> None:
        """The database is opened for reading alone."""
        rows = self.source()._rows
        with self.assertRaises(StoreUnavailable):
            rows.fetch("DELETE FROM users")
        self.assertEqual(import_rows.number_of_tokens(rows), 0)


class SessionsTests(ImportCase):
    """``--sessions``."""

    def setUp(self) -> None:
        super().setUp()
        self.database.user("alice")
        self.database.access("alice", "PHONE", "syt_alice")
        self.database.access("alice", "TABLET", "syt_tablet")

    def listed(self) -> list[str]:
        """List the devices of the sessions in the store."""
        done = cli("sessions", "list", "-c", str(self.path))
        return [line.split("\t")[1] for line in done.stdout.splitlines()]

    def test_order(self) -> None:
        """Without accounts nothing is taken; with them all is, once."""
        self.accounts.write_text("users: {}\n")
        said = self.take_over("--sessions")
        self.assertIn("sessions\tleft out\t2\tno provider knows its account\n", said)
        self.assertIn("accounts come before sessions", said)
        self.accounts.unlink()
        said = self.take_over("--accounts", str(self.accounts), "--sessions")
        self.assertIn("sessions\ttaken\t2\t", said)
        self.assertTrue(said.startswith("restart the server now, unless it was restarted"), said)
        self.assertEqual(said.count("restart the server"), 1)
        self.assertNotIn("accounts come before sessions", said)
        self.assertEqual(sorted(self.listed()), ["PHONE", "TABLET"])
        said = self.take_over("--sessions")
        self.assertIn("sessions\tthere already\t2\t", said)

    def test_dry_run(self) -> None:
        """``--dry-run`` says what would be done, and writes nothing."""
        said = self.take_over("--accounts", str(self.accounts), "--sessions", "--dry-run")
        self.assertIn("links and sessions are not tried", said)
        self.assertNotIn("restart the server now", said)
        self.assertIn("accounts\ttaken\t1\t", said)
        self.assertFalse(self.accounts.exists())
        self.take_over("--accounts", str(self.accounts))
        said = self.take_over("--sessions", "--dry-run")
        self.assertIn("nothing is written (--dry-run)\n", said)
        self.assertIn("sessions\ttaken\t2\t", said)
        self.assertEqual(self.listed(), [])

    def test_interrupted(self) -> None:
        """An interrupted run leaves whole batches, and the next run takes over the rest."""
        with closing(sqlite3.connect(self.folder / "homeserver.db")) as connection, connection:
            connection.executemany(
                "INSERT INTO access_tokens (id, user_id, device_id, token) VALUES (?, ?, ?, ?)",
                ((100 + n, at("alice"), f"D{n:05}", f"syt_{n}") for n in range(_MANY - 2)),
            )
        self.take_over("--accounts", str(self.accounts))
        files = ("--config", str(self.path), "--homeserver-config", str(self.homeserver))
        program = (sys.executable, "-m", "synapse_login_module.cli")
        with subprocess.Popen(
            [*program, "import-synapse", *files, "--sessions"],
            env=subprocess_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            block_until(lambda: self.number() > 0, "the first batch")
            process.send_signal(signal.SIGINT)
        first = self.number()
        # A page leaves its last device to the next one, since that may have more tokens.
        self.assertTrue(first == _MANY or first % (PAGE - 1) == 0, first)
        said = self.take_over("--sessions")
        self.assertIn(f"sessions\tthere already\t{first}\t", said)
        self.assertEqual(self.number(), _MANY)

    def number(self) -> int:
        """Count the sessions in the store."""
        with closing(sqlite3.connect(self.folder / "sessions.db")) as connection:
            number: int = connection.execute("SELECT COUNT(*) FROM sessions").fetchone()[0]
            return number

    def test_unserved(self) -> None:
        """Sessions of accounts in a file that no provider serves yet are an error that says so."""
        self.accounts.write_text("users: {}\n")
        other = self.folder / "other.yaml"
        said = self.fails("--accounts", str(other), "--sessions")
        self.assertIn("no provider serves", said)
        self.assertTrue(other.exists())
        self.assertEqual(self.listed(), [])

    def test_ended_here(self) -> None:
        """A session that was ended here does not come back, and its device is listed."""
        self.take_over("--accounts", str(self.accounts), "--sessions")
        cli("sessions", "revoke", "-c", str(self.path), "alice", "PHONE")
        said = self.take_over("--sessions")
        self.assertIn("it was taken over before and has ended here:\n  @alice", said)
        self.assertEqual(self.listed(), ["TABLET"])

    def test_other_link(self) -> None:
        """A session whose account is linked to a provider that is gone is left out."""
        self.take_over("--accounts", str(self.accounts))
        config = yaml.safe_load(self.path.read_text())
        config["password_providers"][0]["name"] = "renamed"
        self.path.write_text(yaml.safe_dump(config))
        said = self.take_over("--sessions")
        self.assertIn("its account is linked to bcrypt, which is no provider here", said)
        config["password_providers"][0]["former_names"] = ["bcrypt"]
        self.path.write_text(yaml.safe_dump(config))
        self.assertIn("sessions\ttaken\t2\t", self.take_over("--sessions"))


class ArgumentsTests(ImportCase):
    """Wrong arguments and files."""

    def test_nothing_wanted(self) -> None:
        """Something has to be asked for, and SQL goes with nothing else."""
        self.assertIn("Give at least one", self.fails(status=2))
        self.assertIn("goes with nothing", self.fails("--accounts-sql", "--sessions", status=2))

    def test_other_server(self) -> None:
        """A Synapse of another server name is an error."""
        self.write_homeserver(server_name="other.example")
        self.assertIn("server_name is other.example in", self.fails("--accounts-sql"))

    def test_no_database(self) -> None:
        """A database that is not there is an error, and is not made."""
        (self.folder / "homeserver.db").unlink()
        self.assertIn("there is no", self.fails("--accounts-sql"))
        self.assertFalse((self.folder / "homeserver.db").exists())

    def test_unknown_provider(self) -> None:
        """``--links`` names a provider that is there."""
        self.accounts.write_text("users: {}\n")
        self.assertIn("no provider is called ldap: there are bcrypt", self.fails("--links", "ldap"))

    def test_unable_provider(self) -> None:
        """``--links`` needs a provider that finds accounts without their passwords."""
        module = "synapse_login_module.providers.HTTPProvider"
        http = {"module": module, "config": {"endpoint": "http://127.0.0.1:1"}}
        self.path = self.config(password_providers=[http])
        self.assertIn("cannot find an account", self.fails("--links", "http"))


class HomeserverFilesTests(ImportCase):
    """Synapse's configuration files."""

    def test_merged(self) -> None:
        """Later files replace whole keys; of a folder, the files are read in order."""
        folder = temporary_folder(self)
        (folder / "b.yaml").write_text("server_name: b.example\npassword_config: {}\n")
        (folder / "a.yaml").write_text("server_name: a.example\n")
        (folder / "c.yml").write_text("server_name: c.example\n")
        (folder / "empty.yaml").write_text("")
        self.write_homeserver(password_config={"pepper": "x"})
        files = read_homeserver_files([str(self.homeserver), str(folder)])
        self.assertEqual((files.server_name, files.pepper), ("b.example", ""))
        files = read_homeserver_files([str(folder), str(self.homeserver)])
        self.assertEqual((files.server_name, files.pepper), (SERVER_NAME, "x"))
        self.assertNotIn("pepper='x'", repr(files))

    def test_databases(self) -> None:
        """Of several databases, the one with the main data is read."""
        state = {"name": "psycopg2", "data_stores": ["state"], "args": {}}
        main = {"name": "psycopg2", "data_stores": ["main"], "args": {"host": "db"}}
        self.write_homeserver(database=None, databases={"one": state, "two": main})
        files = read_homeserver_files([str(self.homeserver)])
        self.assertEqual((files.database, files.arguments), ("psycopg2", {"host": "db"}))
        self.write_homeserver(database=None, database_path="/tmp/homeserver.db")
        files = read_homeserver_files([str(self.homeserver)])
        self.assertEqual(files.arguments, {"database": "/tmp/homeserver.db"})

    def test_mistakes(self) -> None:
        """A mistake is named, and no text of the file is quoted."""
        for changes, problem in (
            ({"server_name": None}, "server_name: it is missing"),
            ({"database": None}, "database: it is missing"),
            ({"database": "x"}, "database: not a mapping"),
            ({"database": {"name": "mysql"}}, "database.name: it is neither sqlite3 nor psycopg2"),
            ({"password_config": 5}, "password_config: not a mapping"),
        ):
            self.write_homeserver(**changes)
            with self.assertRaises(ConfigError) as caught:
                read_homeserver_files([str(self.homeserver)])
            self.assertEqual(str(caught.exception), problem)
        self.homeserver.write_text("a: 1\nsecret: [")
        with self.assertRaises(ConfigError) as caught:
            read_homeserver_files([str(self.homeserver)])
        self.assertIn("it is not YAML", str(caught.exception))
        self.assertNotIn("secret", str(caught.exception))
        with self.assertRaises(ConfigError):
            read_homeserver_files([str(self.folder / "missing.yaml")])


class TallyTests(ImportCase):
    """The report."""

    def test_limit(self) -> None:
        """Ten examples for each reason are listed, and all are counted."""
        self.database.user("alice")
        for number in range(12):
            self.database.user(f"user{number:02}", None)
        said = self.take_over("--accounts", str(self.accounts))
        self.assertIn("accounts left out: it has no password:\n", said)
        self.assertEqual(said.count("  @user"), 10)
        self.assertIn("  …; --verbose lists all\n", said)
        self.assertIn("accounts\tleft out\t12\tit has no password\n", said)
        said = self.take_over("--accounts", str(self.accounts), "--verbose")
        self.assertEqual(said.count(f":{SERVER_NAME}\tit has no password\n"), 12)

    def test_number(self) -> None:
        """What was counted can be asked for."""
        tally = Tally(False)
        tally.done("sessions", "taken", 3)
        self.assertEqual(tally.number("sessions", "taken"), 3)
