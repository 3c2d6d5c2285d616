"""Tests for the commands ``links …``, beside a server and without one."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from synapse_login_module.testing import SERVER_NAME
from tests.support.accounts import ALICE, ALICE_PASSWORD
from tests.support.configuration import good_config, password_hash, write_config
from tests.support.ports import free_port
from tests.support.server import start_server
from tests.support.sessions import make_files
from tests.test_cli import V3, CommandCase

BOB = f"@bob:{SERVER_NAME}"
BOB_PASSWORD = "builder-of-things"


class LinkCommandTests(CommandCase):
    """The commands on a database that nobody else uses."""

    def setUp(self) -> None:
        super().setUp()
        provider = {**good_config()["password_providers"][0], "former_names": ["users", "staff"]}
        self.path = str(self.config(password_providers=[provider]))
        make_files(Path(self.path))

    def links(self, command: str, *arguments: str) -> str:
        """What a command says that succeeds."""
        return self.good("links", command, "-c", self.path, *arguments)

    def refused(self, command: str, *arguments: str) -> str:
        """What a command says that does not."""
        said = self.bad("links", command, "-c", self.path, *arguments)
        self.assertTrue(said.startswith(f"synapse-login-module: {self.path}: "), said)
        return said.rstrip("\n").removeprefix(f"synapse-login-module: {self.path}: ")

    def test_nothing(self) -> None:
        """Where nobody is linked there is nothing to list; who is asked for is not linked."""
        self.assertEqual(self.links("list"), "")
        for command in (("list", "alice"), ("unlink", ALICE), ("relink", "alice", "bcrypt", "a")):
            self.assertEqual(self.refused(*command), f"{ALICE} is not linked")

    def test_no_local_passwords(self) -> None:
        """There are no local passwords here to be kept."""
        self.links("link", "alice", "bcrypt", "alice")
        said = self.refused("unlink", "alice", "--keep-password")
        self.assertEqual(said, "--keep-password needs --homeserver-config")
        self.assertEqual(self.links("list"), f"{ALICE}\tbcrypt\talice\n")

    def test_link(self) -> None:
        """A user is linked by ID or by local part, and listed, all or one."""
        alice, bob = f"{ALICE}\tbcrypt\talice\n", f"{BOB}\tbcrypt\tBob\n"
        self.assertEqual(self.links("link", BOB, "bcrypt", "Bob"), bob)
        self.assertEqual(self.links("link", "alice", "bcrypt", "alice"), alice)
        self.assertEqual(self.links("list"), alice + bob)
        self.assertEqual(self.links("list", "bob"), bob)

    def test_no_user_id(self) -> None:
        """What can be no user ID here is not linked."""
        for name in ("", "a b", "é", "EXAMPLE\\alice", "x\ny", "a" * 250):
            said = self.refused("link", name, "bcrypt", "other")
            self.assertTrue(said.endswith(" is no valid user ID"), said)
            self.assertTrue(said.isascii() and said.isprintable(), said)
        self.assertEqual(self.links("list"), "")

    def test_taken(self) -> None:
        """Neither a linked user nor a linked account is linked again, under whatever name."""
        self.links("link", "alice", "bcrypt", "alice")
        taken = f"{ALICE} is linked to another account already: see links relink"
        self.assertEqual(self.refused("link", "alice", "bcrypt", "other"), taken)
        taken = f"that account is linked to {ALICE} already"
        self.assertEqual(self.refused("link", "bob", "bcrypt", "alice"), taken)
        self.assertEqual(self.refused("link", "alice", "bcrypt", "alice"), taken)
        self.rename("users")
        self.assertEqual(self.refused("link", "bob", "bcrypt", "alice"), taken)
        self.assertEqual(self.links("list"), f"{ALICE}\tusers\talice\n")

    def rename(self, name: str) -> None:
        """Have the link be from when the provider had another name."""
        database = sqlite3.connect(self.folder / "sessions.db")
        with database:
            database.execute("UPDATE links SET provider = ?", [name])
        database.close()

    def test_relink(self) -> None:
        """A linked user is given to another account; a user that was linked to that is not any
        more, were it under a former name of the provider.
        """
        for former in ("bcrypt", "users"):
            self.links("link", "bob", "bcrypt", "theirs")
            self.rename(former)
            self.links("link", "alice", "bcrypt", "alice")
            said = self.links("relink", "alice", "bcrypt", "theirs").splitlines()
            self.assertEqual(
                said,
                [
                    f"{ALICE}\tbcrypt\ttheirs",
                    "0 sessions revoked",
                    f"{BOB} is no longer linked",
                    "0 sessions revoked",
                ],
            )
            self.assertEqual(self.links("list"), f"{ALICE}\tbcrypt\ttheirs\n")
            self.links("unlink", "alice")

    def test_relink_from_a_former_name(self) -> None:
        """Relinking a user to its own account brings the provider's new name in."""
        self.links("link", "alice", "bcrypt", "alice")
        self.rename("staff")
        said = self.links("relink", "alice", "bcrypt", "alice")
        self.assertEqual(said, f"{ALICE}\tbcrypt\talice\n0 sessions revoked\n")
        self.assertEqual(self.links("list"), f"{ALICE}\tbcrypt\talice\n")

    def test_no_such_provider(self) -> None:
        """A provider must be configured, under the name that it has today."""
        self.links("link", "alice", "bcrypt", "alice")
        for name in ("ldap", "users", "Bcrypt", ""):
            for command, user in (("link", "bob"), ("relink", "alice")):
                self.assertEqual(
                    self.refused(command, user, name, "x"),
                    f"no password provider is called {name}; there is bcrypt".replace("  ", " "),
                )

    def test_user_of_another_server(self) -> None:
        """Nobody of another server is linked."""
        stranger = "@alice:elsewhere.example"
        problem = f"{stranger} is no user of {SERVER_NAME}"
        for command in (("link", stranger, "bcrypt", "a"), ("list", stranger)):
            self.assertEqual(self.refused(*command), problem)

    def test_printed_guid(self) -> None:
        """An id is linked as it is kept, also where it is written as Active Directory's tools do;
        what only looks like one is kept as it is.
        """
        octets = "33221100554477668899aabbccddeeff"
        for user, typed, kept in (
            ("alice", "objectguid:{00112233-4455-6677-8899-AABBCCDDEEFF}", f"objectGUID:{octets}"),
            ("bob", "entryUUID:00112233-4455-6677-8899-aabbccddeeff", None),
            ("carol", "objectGUID:00112233-4455-6677-8899-aabbccddee", None),
        ):
            self.links("link", user, "bcrypt", typed)
            self.assertIn(f"\t{kept or typed}", self.links("list", user))

    def test_odd_subjects(self) -> None:
        """A subject cannot forge a line or a column of the list."""
        self.links("link", "alice", "bcrypt", "a\n@root:example.com\tbcrypt\tx\x1b[2J")
        listed = self.links("list")
        self.assertEqual((len(listed.splitlines()), listed.count("\t")), (1, 2))
        self.assertTrue(listed.replace("\t", "").rstrip("\n").isprintable())

    def test_usage(self) -> None:
        """What is missing is said, and nothing done."""
        for command in (
            ("links",),
            ("links", "list"),
            ("links", "link", "-c", self.path, "alice", "bcrypt"),
            ("links", "relink", "-c", self.path, "alice"),
            ("links", "unlink", "-c", self.path),
        ):
            self.bad(*command, status=2)

    def test_memory(self) -> None:
        """Links in the server's memory are seen by no command."""
        store = {"module": "synapse_login_module.stores.MemoryTokenStore"}
        self.path = str(self.config(token_store=store))
        self.assertTrue(self.refused("list").startswith("token_store: "))


class LinksOfAServerTests(CommandCase):
    """The commands beside a running server."""

    def setUp(self) -> None:
        super().setUp()
        port = free_port()
        config = good_config(port)
        users = config["password_providers"][0]["config"]["users"]
        users["bob"] = {"password_hash": password_hash(BOB_PASSWORD)}
        self.path = str(write_config(self.folder, config))
        self.server = start_server(self.folder / "config.yaml", port)
        self.addCleanup(self.server.stop)

    def log_in(self, user: str = "alice", password: str = ALICE_PASSWORD) -> tuple[int, Any]:
        """Log in; the status and the answer."""
        return self.server.ask(
            "POST",
            f"{V3}/login",
            {"type": "m.login.password", "user": user, "password": password, "refresh_token": True},
        )

    def refresh(self, login: Any) -> int:
        """Refresh; the status."""
        body = {"refresh_token": login["refresh_token"]}
        return self.server.ask("POST", f"{V3}/refresh", body)[0]

    def whoami(self, login: Any) -> int:
        """What the server says to an access token."""
        return self.server.ask("GET", f"{V3}/account/whoami", token=login["access_token"])[0]

    def links(self, command: str, *arguments: str) -> list[str]:
        """What a command says that succeeds, line by line."""
        return self.good("links", command, "-c", self.path, *arguments).splitlines()

    def test_handed_over(self) -> None:
        """When a user ID is given to another account, the sessions and login tokens of the one
        before end at once, and its password does not log in as that user any more; the other's
        does.
        """
        _, alice = self.log_in()
        self.assertEqual(self.refresh(alice), 200)
        (linked,) = self.links("list", "alice")
        subject = linked.split("\t")[2]
        _, bob = self.log_in("bob", BOB_PASSWORD)
        bobs = self.links("list", "bob")[0].split("\t")[2]
        token = self.good("create-login-token", "-c", self.path, "alice").strip()
        said = self.links("relink", "alice", "bcrypt", bobs)
        self.assertEqual(
            said,
            [
                f"{ALICE}\tbcrypt\t{bobs}",
                "1 sessions revoked",
                f"{BOB} is no longer linked",
                "1 sessions revoked",
            ],
        )
        for login in (alice, bob):
            self.assertEqual((self.whoami(login), self.refresh(login)), (401, 401))
        login = {"type": "m.login.token", "token": token}
        self.assertEqual(self.server.ask("POST", f"{V3}/login", login)[0], 403)
        status, answer = self.log_in()
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        self.assertIn("not linked", answer["error"])
        log = (self.folder / "server.log").read_text()
        self.assertIn("links relink", log)
        self.assertIn("reason=not_linked", log)
        status, answer = self.log_in("bob", BOB_PASSWORD)
        self.assertEqual((status, answer["user_id"]), (200, ALICE))
        self.links("relink", "alice", "bcrypt", subject)
        self.assertEqual(self.log_in()[1]["user_id"], ALICE)
        self.assertEqual(self.log_in("bob", BOB_PASSWORD)[1]["user_id"], BOB)

    def test_unlinked(self) -> None:
        """When a user is unlinked all sessions end, and the next login links anew."""
        logins = [self.log_in()[1] for _ in range(2)]
        before = self.links("list")
        self.assertEqual(self.links("unlink", "alice"), ["2 sessions revoked"])
        self.assertEqual(self.links("list"), [])
        self.assertEqual([self.whoami(each) for each in logins], [401, 401])
        self.assertEqual(self.log_in()[0], 200)
        self.assertEqual(self.links("list"), before)
