"""Tests for ``sessions …`` and ``create-login-token`` without a running server."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from synapse_login_module.testing import SERVER_NAME
from synapse_login_module.tokens.keyfile import load_or_make
from tests.support.configuration import CHEAP_HASH
from tests.support.postgresql import shared_postgresql
from tests.support.process import require, subprocess_environment
from tests.support.sessions import add_link, add_session, make_files
from tests.support.terminal import at_terminal
from tests.support.waiting import TIMEOUT
from tests.test_cli import CommandCase

PROGRAM = (sys.executable, "-m", "synapse_login_module.cli")
BCRYPT = "synapse_login_module.providers.BcryptProvider"
LATER = 1_700_000_002_000
"""After the sessions that are there at the start, in milliseconds since the epoch."""


def at(name: str) -> str:
    """Return the user ID of a local part."""
    return f"@{name}:{SERVER_NAME}"


class SessionsCase(CommandCase):
    """A test case with a database, and accounts in a file."""

    def setUp(self) -> None:
        super().setUp()
        self.users(
            carol={"emails": ["Carol@example.org"]},
            locked={"locked": True},
            closed={"deactivated": True},
        )
        self.path = self.config(
            password_providers=[{"module": BCRYPT, "config": {"path": "users.yaml"}}]
        )
        make_files(self.path)
        self.database = self.folder / "sessions.db"

    def users(self, **users: dict[str, Any]) -> None:
        """Write the file of accounts."""
        accounts = {name: {"password_hash": CHEAP_HASH, **more} for name, more in users.items()}
        (self.folder / "users.yaml").write_text(json.dumps({"users": accounts}))

    def sessions(self, command: str, *arguments: str) -> str:
        """Run a command successfully; return its output."""
        return self.good("sessions", command, "-c", str(self.path), *arguments)

    def refused(self, *arguments: str) -> str:
        """Run a command that fails; return its error after the path."""
        said = self.bad(*arguments, "-c", str(self.path))
        start = f"synapse-login-module: {self.path}: "
        self.assertTrue(said.startswith(start), said)
        return said.removeprefix(start).rstrip("\n")

    def left(self) -> set[str]:
        """Return the users who still have sessions."""
        lines = self.sessions("list").splitlines()
        return {line.split("\t")[0].split(":")[0] for line in lines}


class NameTests(SessionsCase):
    """The user that a name means."""

    def test_spellings(self) -> None:
        """A name means users of any case of its letters, a full user ID that user alone."""
        for name in ("carol", "Carol", "dave", "Dave", "DAVE"):
            add_session(self.database, at(name))
            add_link(self.database, at(name), "bcrypt", name)
        self.assertEqual(self.sessions("revoke", at("Dave")), "1 sessions revoked\n")
        self.assertEqual(self.left(), {"@carol", "@Carol", "@dave", "@DAVE"})
        self.assertEqual(self.sessions("revoke", "dAVE"), "2 sessions revoked\n")
        self.assertEqual(self.left(), {"@carol", "@Carol"})
        self.assertEqual(self.sessions("revoke", at("cAROL")), "2 sessions revoked\n")
        self.assertEqual(self.left(), set())

    def test_old_spelling(self) -> None:
        """A user with upper-case letters is found by the lower-case name, linked or not."""
        add_session(self.database, at("Carol"))
        add_session(self.database, at("Dave"))
        add_link(self.database, at("Dave"), "bcrypt", "Dave")
        for name in ("carol", "dave"):
            self.assertEqual(self.sessions("revoke", name), "1 sessions revoked\n")

    def test_old_spelling_beside(self) -> None:
        """Sessions of an unlinked upper-case user end with those of the lower-case user."""
        for name in ("carol", "Carol"):
            add_session(self.database, at(name))
        add_link(self.database, at("carol"), "bcrypt", "carol")
        self.assertEqual(self.sessions("revoke", "carol"), "2 sessions revoked\n")
        self.assertEqual(self.left(), set())

    def test_letters_alone(self) -> None:
        """Only the case of ASCII letters is ignored, so no other user's session ends."""
        add_session(self.database, at("\u212aate"))
        self.assertIn("kate: no user of that name", self.refused("sessions", "revoke", "kate"))

    def test_linked_name(self) -> None:
        """The name of an account that is linked to another user means that user."""
        add_session(self.database, at("bob"))
        add_link(self.database, at("bob"), "bcrypt", "carol")
        self.assertTrue(self.sessions("list", "Carol").startswith(at("bob")))
        self.assertEqual(self.sessions("revoke", "carol"), "1 sessions revoked\n")

    def test_address(self) -> None:
        """An e-mail address means the user who logs in by it."""
        add_session(self.database, at("carol"))
        self.assertEqual(self.sessions("revoke", "carol@EXAMPLE.org"), "1 sessions revoked\n")
        add_session(self.database, at("carol.x"))
        add_link(self.database, at("carol.x"), "bcrypt", "carol")
        self.assertEqual(self.sessions("revoke", "CAROL@example.org"), "1 sessions revoked\n")
        self.assertEqual(
            self.refused("sessions", "revoke", "dave@example.org"),
            "dave@example.org: no password provider has an account with that address",
        )

    def test_nothing_found(self) -> None:
        """A name without sessions is an error that names it."""
        add_session(self.database, at("carol"))
        for command in ("list", "revoke"):
            said = self.refused("sessions", command, "nobody")
            self.assertIn("nobody: no user of that name has a session or is linked", said)
            said = self.refused("sessions", command, "@carol:elsewhere.example")
            self.assertEqual(said, f"@carol:elsewhere.example is no user of {SERVER_NAME}")
        said = self.refused("sessions", "revoke", "carol", "TV")
        self.assertEqual(said, "carol has no session on the device TV, only on PHONE")
        add_link(self.database, at("dave"), "bcrypt", "dave")
        self.assertEqual(
            self.refused("sessions", "list", "Dave"), f"Dave: {at('dave')} has no session"
        )

    def test_login_token(self) -> None:
        """A login token is refused for an account that could not log in with it."""
        for name, status in (("locked", "locked"), (at("closed"), "deactivated")):
            said = self.refused("create-login-token", name)
            self.assertIn(f" is {status}: no login token would log it in", said)
        self.assertIn("no password provider knows", self.refused("create-login-token", "nobody"))
        for name in ("Carol", at("carol"), "carol@example.org"):
            self.good("create-login-token", "-c", str(self.path), name)

    def test_login_tokens_end(self) -> None:
        """When all sessions of a user are revoked, login tokens end too, even without a session."""
        path = str(self.path)
        add_link(self.database, at("carol"), "bcrypt", "carol")
        for with_session in (True, False):
            self.good("create-login-token", "-c", path, "carol")
            self.assertEqual(self.login_tokens(), 1)
            if with_session:
                add_session(self.database, at("carol"))
                self.assertEqual(self.sessions("revoke", "carol"), "1 sessions revoked\n")
            else:
                said = self.refused("sessions", "revoke", "carol")
                self.assertEqual(said, f"carol: {at('carol')} has no session")
            self.assertEqual(self.login_tokens(), 0)

    def login_tokens(self) -> int:
        """Return the number of login tokens."""
        with closing(sqlite3.connect(self.database)) as connection:
            number: int = connection.execute("SELECT COUNT(*) FROM login_tokens").fetchone()[0]
        return number

    def test_links(self) -> None:
        """``links`` finds users by the same rules, and links as a first login does."""
        path = str(self.path)
        link = f"{at('carol')}\tbcrypt\tcarol\n"
        self.assertEqual(self.good("links", "link", "-c", path, "Carol", "bcrypt", "carol"), link)
        for name in ("CAROL", at("Carol"), "carol@example.org"):
            self.assertEqual(self.good("links", "list", "-c", path, name), link)
        add_link(self.database, at("CAROL"), "bcrypt", "CAROL")
        self.assertIn(
            f"Carol may be {at('carol')} or {at('CAROL')}: give the user ID",
            self.refused("links", "unlink", "Carol"),
        )
        self.good("links", "unlink", "-c", path, "carol")
        self.assertEqual(self.good("links", "list", "-c", path), f"{at('CAROL')}\tbcrypt\tCAROL\n")


class MissingFileTests(SessionsCase):
    """Commands with a mistyped path."""

    def files(self) -> set[str]:
        """Return the files in the folder, without SQLite's auxiliary files."""
        return {each for each in os.listdir(self.folder) if not each.startswith("sessions.db-")}

    def test_no_file_is_made(self) -> None:
        """A missing database or key file is an error, and is not made."""
        before = self.files()
        store = {"module": "synapse_login_module.stores.SQLiteTokenStore"}
        for change, path, file in (
            (
                {"token_store": {**store, "config": {"path": "session.db"}}},
                "token_store.config.path",
                "session.db",
            ),
            ({"tokens": {"key_file": "tokens.key"}}, "tokens.key_file", "tokens.key"),
        ):
            self.path = self.config(**change)
            for command in (
                ("sessions", "list"),
                ("sessions", "revoke", "alice"),
                ("create-login-token", "alice"),
                ("links", "link", "alice", "bcrypt", "alice"),
            ):
                said = self.refused(*command)
                self.assertTrue(said.startswith(f"{path}: there is no {self.folder / file}"), said)
            self.assertEqual(self.files(), before)

    def test_other_database(self) -> None:
        """A file that is no database of a server is rejected."""
        (self.folder / "other.db").touch()
        store = "synapse_login_module.stores.SQLiteTokenStore"
        self.path = self.config(token_store={"module": store, "config": {"path": "other.db"}})
        self.assertIn("is no database of sessions", self.refused("sessions", "list"))
        self.assertEqual((self.folder / "other.db").stat().st_size, 0)

    def test_synapse(self) -> None:
        """With Synapse's configuration, the error says that they are for the standalone server."""
        path = self.folder / "homeserver.yaml"
        path.write_text("server_name: x\nlisteners: []\nmodules: []\ndatabase: {name: sqlite3}\n")
        self.path = path
        for command in ("list", "revoke", "list"):
            said = self.refused("sessions", command, "alice")
            self.assertIn("this is Synapse's configuration", said)


class PostgreSQLTests(CommandCase):
    """Commands on a PostgreSQL store."""

    def test_no_table_is_made(self) -> None:
        """An unused database stays empty; a used one works."""
        require("psycopg")
        postgresql = shared_postgresql()
        dsn = postgresql.new_database("commands")
        store = "synapse_login_module.stores.PostgreSQLTokenStore"
        config = self.config(token_store={"module": store, "config": {"dsn": dsn}})
        path = str(config)
        load_or_make(self.folder / "token.key", os.urandom)
        for command in (("sessions", "revoke"), ("links", "list")):
            said = self.bad(*command, "-c", path, "alice")
            self.assertIn(f"{path}: token_store.config.dsn: this database holds no tables", said)
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        self.assertEqual(postgresql.query(tables, dbname="commands"), [(0,)])
        make_files(config)
        self.assertIn("alice: no user", self.bad("sessions", "revoke", "-c", path, "alice"))
        self.good("links", "link", "-c", path, "Alice", "bcrypt", "alice")
        self.assertTrue(self.good("links", "list", "-c", path, "ALICE").startswith(at("alice")))


class BrokenAccountsTests(SessionsCase):
    """Commands while the providers have a mistake."""

    def assert_ends(self, name: str, problem: str) -> None:
        """Assert that a session can be revoked, with a warning on one line."""
        add_session(self.database, at(name))
        done = self.invoke(["sessions", "revoke", "-c", str(self.path), name], "")
        self.assertEqual((done.returncode, done.stdout), (0, "1 sessions revoked\n"), done.stderr)
        (warning,) = done.stderr.splitlines()
        start = (
            f"synapse-login-module: {self.path}: warning: the password providers cannot be used: "
        )
        self.assertTrue(warning.startswith(start), warning)
        self.assertIn(problem, warning)

    def test_broken(self) -> None:
        """Sessions can be ended despite a broken or missing file, or an invalid provider."""
        (self.folder / "users.yaml").write_text("users: {carol: {")
        self.assert_ends("carol", "password_providers.0.config")
        said = self.invoke(["sessions", "revoke", "-c", str(self.path), "carol@example.org"], "")
        self.assertEqual((said.returncode, said.stdout), (1, ""))
        self.assertIn("give the user ID", said.stderr.splitlines()[-1])
        (self.folder / "users.yaml").unlink()
        self.assert_ends("carol", "password_providers.0.config.path")
        self.path = self.config(password_providers=[{"module": f"{BCRYPT}s", "config": {}}])
        self.assert_ends("carol", "password_providers.0.module")
        self.path = self.config(password_providers=[{"modul": BCRYPT}])
        self.assert_ends("carol", "password_providers.0.")

    def test_other_mistakes(self) -> None:
        """Any other mistake in the configuration stops the commands."""
        self.path = self.config(tokens={"kee_file": "x"})
        self.assertIn("tokens.kee_file: ", self.refused("sessions", "list"))

    def test_backend_away(self) -> None:
        """They can be ended while a backend is down too, since it is not asked for a name."""
        http = {
            "module": "synapse_login_module.providers.HTTPProvider",
            "config": {"endpoint": "http://127.0.0.1:1"},
        }
        self.path = self.config(password_providers=[http])
        add_session(self.database, at("carol"))
        self.assertEqual(self.sessions("revoke", "carol"), "1 sessions revoked\n")
        said = self.refused("sessions", "revoke", "carol@example.org")
        self.assertIn("cannot look up an address without a password", said)


class OutputTests(SessionsCase):
    """The output of ``sessions list``."""

    def setUp(self) -> None:
        super().setUp()
        for device, name in (("PHONE", "日本"), ("TABLET\n", None)):
            add_session(self.database, at("carol"), device, name)

    def run_in_terminal(self, *arguments: str) -> list[str]:
        """Run a command at a terminal; return its output."""
        leader, follower = pty.openpty()
        with subprocess.Popen(
            [*PROGRAM, *arguments], stdout=follower, env=subprocess_environment()
        ) as process:
            os.close(follower)
            said = b""
            while block := _read(leader):
                said += block
            self.assertEqual(process.wait(TIMEOUT), 0)
        os.close(leader)
        return said.decode().splitlines()

    def test_pipe(self) -> None:
        """Into a pipe, each line is a session with a fixed number of tabs, without a heading."""
        moment = "2023-11-14T22:13:2"
        self.assertEqual(
            self.sessions("list").splitlines(),
            [
                f"{at('carol')}\tPHONE\tsince={moment}0+00:00\trefreshed={moment}0+00:00\t日本",
                f"{at('carol')}\t'TABLET\\n'\tsince={moment}1+00:00\trefreshed={moment}0+00:00\t",
            ],
        )

    def test_terminal(self) -> None:
        """To a terminal, sessions are printed in aligned columns under a heading."""
        heading, *lines = self.run_in_terminal("sessions", "list", "-c", str(self.path))
        self.assertEqual(heading.split(), ["USER", "DEVICE", "SINCE", "REFRESHED", "NAME"])
        self.assertEqual(
            [line.split() for line in lines],
            [
                [at("carol"), device, moment, "2023-11-14T22:13:20+00:00", *name]
                for device, moment, name in (
                    ("PHONE", "2023-11-14T22:13:20+00:00", ["日本"]),
                    ("'TABLET\\n'", "2023-11-14T22:13:21+00:00", []),
                )
            ],
        )
        for line in lines:
            self.assertEqual(line.index("2023"), heading.index("SINCE"))
        add_link(self.database, at("carol"), "bcrypt", "carol")
        links = self.run_in_terminal("links", "list", "-c", str(self.path))
        self.assertEqual(links[0].split(), ["USER", "PROVIDER", "SUBJECT"])

    def test_json(self) -> None:
        """With ``--json``, each line is an object with the documented keys, in ASCII."""
        said = self.sessions("list", "--json", "carol")
        self.assertTrue(said.isascii())
        self.assertEqual(
            [json.loads(line) for line in said.splitlines()],
            [
                {
                    "user_id": at("carol"),
                    "device_id": device,
                    "display_name": name,
                    "created_ts": since,
                    "refreshed_ts": 1_700_000_000_000,
                    "last_seen_ts": None,
                    "last_seen_ip": None,
                }
                for device, name, since in (
                    ("PHONE", "日本", 1_700_000_000_000),
                    ("TABLET\n", None, 1_700_000_001_000),
                )
            ],
        )
        add_link(self.database, at("carol"), "bcrypt", "carol")
        said = self.good("links", "list", "--json", "-c", str(self.path))
        link = {"user_id": at("carol"), "provider": "bcrypt", "subject": "carol"}
        self.assertEqual(json.loads(said), link)

    def test_many(self) -> None:
        """Any number of sessions is listed, up to ``--limit``, each once, oldest first."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.executemany(
                "INSERT INTO sessions (session_id, user_id, device_id, salt, key_id, generation,"
                " confirmed, created_at, issued_at) VALUES (?, ?, ?, ?, 1, 0, 1, ?, 0)",
                ((10 + n, at("dave"), f"D{n}", bytes(16), LATER + n) for n in range(2500)),
            )
        every = ["PHONE", "'TABLET\\n'", *(f"D{n}" for n in range(2500))]
        for arguments, found in (
            ((), every),
            (("--limit", "1500"), every[:1500]),
            (("--limit", "3", "dave"), every[2:5]),
        ):
            lines = self.sessions("list", *arguments).splitlines()
            self.assertEqual([line.split("\t")[1] for line in lines], found)
        self.bad("sessions", "list", "-c", str(self.path), "--limit", "0", status=2)
        program = [*PROGRAM, "sessions", "list", "-c", str(self.path)]
        with subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=subprocess_environment()
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertEqual(process.wait(TIMEOUT), 1)

    def test_reader_gone(self) -> None:
        """When the reader of its output has gone, the command exits silently."""
        for arguments in (
            ("sessions", "list", "-c", str(self.path)),
            ("sessions", "list", "--json", "-c", str(self.path)),
            ("sessions", "revoke", "-c", str(self.path), "carol"),
            ("--help",),
        ):
            reader, writer = os.pipe()
            os.close(reader)
            done = subprocess.run(
                [*PROGRAM, *arguments],
                stdout=writer,
                stderr=subprocess.PIPE,
                env=subprocess_environment(),
                timeout=TIMEOUT,
                check=False,
            )
            os.close(writer)
            self.assertEqual((done.returncode, done.stderr), (1, b""), arguments)


class RevokeTests(SessionsCase):
    """``sessions revoke`` with a confirmation."""

    def setUp(self) -> None:
        super().setUp()
        for name, device in (("carol", "PHONE"), ("carol", "TABLET"), ("dave", "PHONE")):
            add_session(self.database, at(name), device)

    def test_usage(self) -> None:
        """It takes one of a user, ``--all-of`` and ``--everybody``, and needs ``--yes`` in a pipe.

        A user alone needs none, as before.
        """
        path = str(self.path)
        for wrong in ((), ("carol", "--everybody"), ("--all-of", "carol", "--everybody")):
            said = self.bad("sessions", "revoke", "-c", path, *wrong, "--yes", status=2)
            self.assertIn("Give one of USER, --all-of and --everybody.", said)
        for unconfirmed in (("--everybody",), ("--all-of", "carol")):
            said = self.bad("sessions", "revoke", "-c", path, *unconfirmed, status=2)
            self.assertIn("confirm it with --yes", said)

    def test_confirmation(self) -> None:
        """At a terminal, the question names the number of sessions; no answer but yes ends them."""
        path = str(self.path)
        ended, said = at_terminal(b"n\n", "sessions", "revoke", "-c", path, "--everybody")
        self.assertEqual(ended, 1, said)
        self.assertIn("End all 3 sessions of all users? [y/N]", said)
        ended, said = at_terminal(b"y\n", "sessions", "revoke", "-c", path, "--all-of", "Carol")
        self.assertEqual(ended, 0, said)
        self.assertIn(f"End 2 sessions of {at('carol')}? [y/N]", said)
        self.assertIn("2 sessions revoked", said)
        ended, said = at_terminal(b"\x03", "sessions", "revoke", "-c", path, "--everybody")
        self.assertEqual(ended, 1, said)
        self.assertEqual(self.left(), {"@dave"})

    def test_everybody(self) -> None:
        """With ``--yes``, all sessions of all users end, and login tokens do too."""
        self.good("create-login-token", "-c", str(self.path), "carol")
        self.assertEqual(self.sessions("revoke", "--everybody", "--yes"), "3 sessions revoked\n")
        self.assertEqual(self.left(), set())
        with closing(sqlite3.connect(self.database)) as connection:
            self.assertEqual(connection.execute("SELECT * FROM login_tokens").fetchall(), [])
        self.assertEqual(self.sessions("revoke", "--everybody", "--yes"), "0 sessions revoked\n")


class UnreadableTests(SessionsCase):
    """Errors of the system."""

    def test_configuration(self) -> None:
        """A configuration that cannot be read gives one line."""
        for path in (self.folder, self.folder / "none.yaml", Path("/" + "x" * 5000)):
            self.path = path
            self.refused("sessions", "list")


def _read(descriptor: int) -> bytes:
    """Read the next output; empty when the other side of a terminal is closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
