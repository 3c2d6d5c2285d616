"""Tests for ``sessions list --homeserver-config``: what Synapse's database knows of devices."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

import yaml

from synapse_login_module.model import SeenSession, SessionInfo
from synapse_login_module.synapse.device_list import SynapseDevices
from synapse_login_module.testing import SERVER_NAME
from tests.support.sessions import add_session, make_files
from tests.test_cli import CommandCase

_TABLES = """
CREATE TABLE users (name TEXT PRIMARY KEY);
CREATE TABLE user_threepids (user_id TEXT, medium TEXT, address TEXT);
CREATE TABLE devices (user_id TEXT, device_id TEXT, display_name TEXT, last_seen BIGINT, ip TEXT);
CREATE UNIQUE INDEX device_uniqueness ON devices (user_id, device_id);
CREATE TABLE access_tokens (id INTEGER PRIMARY KEY, user_id TEXT, device_id TEXT,
    valid_until_ms BIGINT, last_validated BIGINT, refresh_token_id BIGINT);
CREATE INDEX access_tokens_device_id ON access_tokens (user_id, device_id);
"""
_SEEN = 1_700_000_000_000


def at(name: str) -> str:
    """Return the user ID of a local part."""
    return f"@{name}:{SERVER_NAME}"


class DevicesCase(CommandCase):
    """A test case with the database of a Synapse."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.folder / "homeserver.db"
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(_TABLES)
        self.homeserver = self.folder / "homeserver.yaml"
        self.write_homeserver(SERVER_NAME)

    def write_homeserver(self, server_name: str) -> None:
        """Write Synapse's configuration."""
        database = {"name": "sqlite3", "args": {"database": str(self.database)}}
        self.homeserver.write_text(
            yaml.safe_dump({"server_name": server_name, "database": database})
        )

    def insert(self, table: str, **values: object) -> None:
        """Insert a row."""
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(
                f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values())
            )

    def log_in(self, name: str, device: str, **token: object) -> None:
        """Make a device with an access token, which was used."""
        user = {"user_id": at(name), "device_id": device}
        self.insert("access_tokens", **user, last_validated=_SEEN - 5, **token)
        self.insert("devices", **user, display_name="mine", last_seen=_SEEN, ip="192.0.2.7")

    def source(self) -> SynapseDevices:
        """Open the database."""
        source = SynapseDevices([str(self.homeserver)])
        self.addCleanup(source.close)
        return source

    def listed(self, *arguments: str) -> list[dict[str, object]]:
        """Run ``sessions list --json``."""
        said = self.good(
            *("sessions", "list", "--json", "--homeserver-config", str(self.homeserver)),
            *arguments,
        )
        return [json.loads(line) for line in said.splitlines()]


class SourceTests(DevicesCase):
    """The queries."""

    def test_pages(self) -> None:
        """Each device that is logged in is listed once, whatever the size of a page."""
        for number in range(5):
            self.log_in(f"user{number % 2}", f"D{number}")
        user = {"user_id": at("user0"), "device_id": "D0"}
        self.insert("access_tokens", **user, last_validated=_SEEN + 9)
        self.insert("access_tokens", user_id=at("user0"), device_id=None)
        source = self.source()
        for page in (1, 2, 5, 9):
            for user_id, devices in (
                (None, ["D0", "D2", "D4", "D1", "D3"]),
                (at("user1"), ["D1", "D3"]),
                (at("user2"), []),
            ):
                found = [each for some in source.pages(user_id, page) for each in some]
                self.assertEqual([each.session.device_id for each in found], devices)
        first = next(source.pages(None, 1))[0]
        session = SessionInfo(f"{at('user0')} D0", at("user0"), "D0", "mine", issued_at=_SEEN + 9)
        self.assertEqual(first, SeenSession(session, _SEEN, "192.0.2.7"))

    def test_over(self) -> None:
        """A device whose tokens have expired for good is not listed."""
        now = int(time.time() * 1000)
        self.log_in("alice", "ENDED", valid_until_ms=now - 1)
        self.log_in("alice", "REFRESHABLE", valid_until_ms=now - 1, refresh_token_id=1)
        self.log_in("alice", "LIVING", valid_until_ms=now + 3_600_000)
        found = [each.session.device_id for some in self.source().pages(None, 9) for each in some]
        self.assertEqual(found, ["LIVING", "REFRESHABLE"])

    def test_seen(self) -> None:
        """The last use is added to any number of sessions, in their order, where it is known."""
        for number in range(450):
            self.log_in("alice", f"D{number}")
        sessions = [SessionInfo(n, at("alice"), f"D{n}") for n in range(449, -1, -1)]
        sessions.append(SessionInfo(450, at("bob"), "D0"))
        seen = self.source().seen(sessions)
        self.assertEqual([each.session for each in seen], sessions)
        self.assertEqual({each[1:] for each in seen[:-1]}, {(_SEEN, "192.0.2.7")})
        self.assertEqual(seen[-1][1:], (None, None))
        self.assertEqual(self.source().seen([]), [])

    def test_users(self) -> None:
        """Users are found by user ID, by name in any case, and by address."""
        for name in ("alice", "Alice"):
            self.insert("users", name=at(name))
        self.insert("user_threepids", user_id=at("alice"), medium="email", address="a@example.org")
        source = self.source()
        for given, found in (
            ("ALICE", ["alice", "Alice"]),
            (at("Alice"), ["Alice"]),
            ("A@example.org", ["alice"]),
            ("bob", []),
        ):
            self.assertEqual(source.find_users(given), [at(name) for name in found])


class CommandTests(DevicesCase):
    """The command."""

    def test_synapse(self) -> None:
        """With Synapse's configuration alone, the devices that are logged in there are listed."""
        self.insert("users", name=at("alice"))
        self.log_in("alice", "PHONE")
        (alice,) = self.listed("alice")
        self.assertEqual(
            alice,
            {
                "user_id": at("alice"),
                "device_id": "PHONE",
                "display_name": "mine",
                "created_ts": None,
                "refreshed_ts": _SEEN - 5,
                "last_seen_ts": _SEEN,
                "last_seen_ip": "192.0.2.7",
            },
        )
        said = self.bad("sessions", "list", "--homeserver-config", str(self.homeserver), "nobody")
        self.assertIn("nobody: no user of that name is logged in", said)

    def test_both(self) -> None:
        """With both, the server's sessions are listed with the addresses that Synapse knows."""
        config = self.config()
        make_files(config)
        self.log_in("carol", "PHONE")
        for device in ("PHONE", "TABLET"):
            add_session(self.folder / "sessions.db", at("carol"), device)
        both = ("-c", str(config), "--homeserver-config", str(self.homeserver))
        lines = self.good("sessions", "list", *both).splitlines()
        self.assertEqual(
            [line.split("\t")[5:] for line in lines],
            [["seen=2023-11-14T22:13:20+00:00", "address=192.0.2.7"], ["seen=-", "address=-"]],
        )
        self.write_homeserver("elsewhere.example")
        self.assertIn(
            f"server_name: it is {SERVER_NAME}, and elsewhere.example in Synapse's",
            self.bad("sessions", "list", *both),
        )

    def test_neither(self) -> None:
        """One of the two is needed."""
        said = self.bad("sessions", "list", status=2)
        self.assertIn("Give --config, --homeserver-config, or both.", said)
