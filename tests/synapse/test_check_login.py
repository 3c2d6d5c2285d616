"""``synapse-login-module check-login`` beside a running Synapse, and the login that follows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import yaml
from twisted.internet.threads import deferToThread

from synapse_login_module.commands.check_login import login_body
from tests.support import REPOSITORY
from tests.synapse.case import fresh, user_id
from tests.synapse.linkcase import LinkCase, linking

_TIMEOUT = 60
_PROFILE = linking("check-login")

_TABLES = {
    # Synapse notes in the background when a device or a token was last used.
    "access_tokens": "id, user_id, device_id, valid_until_ms",
    "devices": "user_id, device_id",
    **dict.fromkeys(
        (
            *("users", "profiles", "refresh_tokens", "user_threepids", "user_external_ids"),
            *("synapse_login_links", "synapse_login_wishes", "synapse_login_sessions"),
        ),
        "*",
    ),
}
"""The tables and columns that a login changes."""


class Login(NamedTuple):
    """What a client would log in with."""

    user: str
    password: str


class Case(NamedTuple):
    """A login.

    :param prepare: a method of the test that makes the account.
    :param status: the expected status.
    :param said: what the lines say, among others.
    """

    name: str
    prepare: Callable[[ForetoldTests], Awaitable[Login]]
    status: int
    said: str


class ForetoldTests(LinkCase):
    """What is foretold is what Synapse then answers, at both listeners."""

    profile = _PROFILE

    async def check(
        self, user: str, password: str, *options: str, file: str = "homeserver.yaml"
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in Synapse's folder."""
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-m", "synapse_login_module.cli", "check-login"]
        done: subprocess.CompletedProcess[str] = await deferToThread(
            subprocess.run,
            [*command, "--homeserver-config", file, *options, user],
            cwd=self.server.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            input=f"{password}\n",
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
        self.assertEqual(done.stderr, "")
        self.assertNotIn(password, done.stdout)
        return done

    def state(self) -> Mapping[str, list[tuple[Any, ...]]]:
        """Return all rows that a login changes."""
        return {
            table: sorted(self.server.query(f"SELECT {columns} FROM {table}"), key=repr)
            for table, columns in _TABLES.items()
        }

    async def foretold(
        self, user: str, password: str, *options: str, file: str = "homeserver.yaml"
    ) -> tuple[Mapping[str, Any], str]:
        """Run the command; return its last object, and all texts. Nothing is changed."""
        before = self.state()
        done = await self.check(user, password, "--json", *options, file=file)
        self.assertEqual(self.state(), before)
        *steps, result = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(result["step"], "result")
        self.assertEqual(done.returncode, 0 if result["succeeds"] else 1)
        return result, "\n".join([*(step["text"] for step in steps), result["reason"]])

    async def assert_foretold(self, case: Case) -> None:
        """The command says before what a client is answered."""
        user, password = await case.prepare(self)
        result, texts = await self.foretold(user, password)
        self.assertIn(case.said, texts, case.name)
        self.assertEqual(result["status"], case.status, f"{case.name}: {texts}")
        for base in self.listeners:
            answer = await self.client.post(base, "/login", login_body(user, False, password))
            said = answer.json
            self.assertEqual(
                (answer.status, said.get("errcode", ""), said.get("user_id", "")),
                (result["status"], result["errcode"], result["user_id"]),
                f"{case.name} at {base}: {answer}\n{texts}",
            )

    # The accounts.

    async def new(self) -> Login:
        """A person who has never logged in."""
        name = fresh("new")
        return Login(name, self.person(name, subject=f"id-{name}"))

    async def linked(self) -> Login:
        """A person who has logged in."""
        login = await self.new()
        await self.assert_login(login.user, login.password, login.user)
        return login

    async def wrong(self) -> Login:
        """A wrong password."""
        return (await self.linked())._replace(password="not-the-right-password")

    async def unknown(self) -> Login:
        """A name that nobody has."""
        return Login(fresh("nobody"), "any-password-at-all")

    async def foreign(self) -> Login:
        """A user of another server."""
        return Login("@alice:elsewhere.example", "any-password-at-all")

    async def locked(self) -> Login:
        """A person whose account is locked at the provider."""
        name = fresh("locked")
        return Login(name, self.person(name, status="locked"))

    async def deactivated(self) -> Login:
        """A person whose account is deactivated at the provider."""
        name = fresh("gone")
        return Login(name, self.person(name, status="deactivated"))

    async def deactivated_there(self) -> Login:
        """A linked person whose account is deactivated in Synapse."""
        login = await self.linked()
        changed = await self.client.change_user(
            await self.administrator(), login.user, deactivated=True
        )
        self.assertEqual(changed.status, 200, str(changed))
        return login

    async def of_another(self) -> Login:
        """A name that is linked to another person's account."""
        name = (await self.linked()).user
        return Login(name, self.person(name, subject=f"other-{name}"))

    async def with_password(self) -> Login:
        """A name whose local account has a password."""
        name = fresh("local")
        await self.local_account(name, fresh("the-password-of-the-local-account"))
        return Login(name, self.person(name))

    async def with_local_password(self) -> Login:
        """A local account."""
        return Login(*await self.local_user())

    async def passwordless_there(self) -> Login:
        """An account that the older modules made."""
        name = await self.passwordless()
        return Login(name, self.person(name))

    async def admin(self) -> Login:
        """A name of a server administrator."""
        name = await self.passwordless()
        self.server.query("UPDATE users SET admin = 1 WHERE name = ?", user_id(name))
        return Login(name, self.person(name))

    async def numeric(self) -> Login:
        """A name that Synapse keeps for guests."""
        name = fresh("")
        return Login(name, self.person(name))

    async def underscore(self) -> Login:
        """A name that Synapse registers for nobody."""
        name = fresh("_under")
        return Login(name, self.person(name))

    async def bad_hash(self) -> Login:
        """A local account whose stored hash is broken."""
        name, password = await self.local_user()
        self.set_local_hash(name, "$2b$broken")
        return Login(name, password)

    async def bound_address(self) -> Login:
        """The address of a linked person at the homeserver."""
        login = await self.linked()
        address = f"{login.user}@example.org"
        self.server.query(
            "INSERT INTO user_threepids (user_id, medium, address, validated_at, added_at)"
            " VALUES (?, 'email', ?, 0, 0)",
            user_id(login.user),
            address,
        )
        return login._replace(user=address)

    async def address(self) -> Login:
        """An address that only the provider knows."""
        name = fresh("mailed")
        return Login(f"{name}@example.org", self.person(name, emails=[f"{name}@example.org"]))

    async def test_table(self) -> None:
        """All cases."""
        cases = (
            Case("new", ForetoldTests.new, 200, "this login would register it"),
            Case("linked", ForetoldTests.linked, 200, " is linked to "),
            Case("wrong", ForetoldTests.wrong, 403, "rejected the password"),
            Case("unknown", ForetoldTests.unknown, 403, "no provider knows the name"),
            Case("foreign", ForetoldTests.foreign, 403, "a user of another server"),
            Case("locked", ForetoldTests.locked, 401, "of people: locked"),
            Case("deactivated", ForetoldTests.deactivated, 403, "of people: deactivated"),
            Case("deactivated there", ForetoldTests.deactivated_there, 403, "is deactivated there"),
            Case("of another", ForetoldTests.of_another, 403, "it is linked to id-"),
            Case("password", ForetoldTests.with_password, 403, "it has a local password"),
            Case("local", ForetoldTests.with_local_password, 200, "synapse, asked for"),
            Case("passwordless", ForetoldTests.passwordless_there, 200, "would link it"),
            Case("admin", ForetoldTests.admin, 403, "a server administrator's"),
            Case("numeric", ForetoldTests.numeric, 403, "reserved for guest"),
            Case("underscore", ForetoldTests.underscore, 403, "may not begin with _"),
            Case("bad hash", ForetoldTests.bad_hash, 403, "is none that bcrypt takes"),
            Case("bound", ForetoldTests.bound_address, 200, "read as the e-mail address"),
            Case("address", ForetoldTests.address, 200, "read as the e-mail address"),
        )
        for case in cases:
            await self.assert_foretold(case)

    async def test_lines(self) -> None:
        """The last line says the result in a sentence."""
        done = await self.check(*await self.wrong())
        self.assertEqual(done.returncode, 1)
        self.assertEqual(
            done.stdout.splitlines()[-1],
            "result      the login would fail: the password is wrong, says people; a client is"
            " answered 403 M_FORBIDDEN",
        )

    async def test_changed_configuration(self) -> None:
        """What another configuration would answer is foretold before Synapse is restarted."""
        given = yaml.safe_load((self.server.folder / "homeserver.yaml").read_text())
        config = given["modules"][0]["config"]
        changes: tuple[tuple[dict[str, Any], dict[str, Any], int, str], ...] = (
            ({"register_users": False}, {}, 403, "register_users is off"),
            ({}, {"hs_disabled": True, "hs_disabled_message": "Closed"}, 403, "Closed"),
            ({}, {}, 200, "would link it"),
        )
        login = await self.new()
        for module, synapse, status, said in changes:
            changed = {**given, **synapse}
            changed["modules"] = [{**given["modules"][0], "config": {**config, **module}}]
            (self.server.folder / "other.yaml").write_text(yaml.safe_dump(changed))
            result, texts = await self.foretold(*login, file="other.yaml")
            self.assertEqual(result["status"], status, texts)
            self.assertIn(said, texts)


class PostgresForetoldTests(ForetoldTests):
    """The same, with PostgreSQL."""

    profile = replace(_PROFILE, name="check-login-postgres", postgres=True)
