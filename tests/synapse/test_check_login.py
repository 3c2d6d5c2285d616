"""``synapse-login-module check-login`` beside a running Synapse, and the login that follows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple

import yaml

from synapse_login_module.commands.check_login import login_body
from synapse_login_module.common.concurrency import at_once
from tests.support.foretelling import Foretold, foretell, run_check
from tests.synapse.case import fresh, user_id
from tests.synapse.linkcase import LinkCase, linking

_PROFILE = linking("check-login")

_TABLES = {
    # The sweep and Synapse change other columns in the background.
    "access_tokens": "id",
    "refresh_tokens": "id",
    "devices": "user_id, device_id",
    "synapse_login_links": "user_id, provider, subject, linked_at, pending, admin",
    "synapse_login_sessions": "*",
    "user_external_ids": "*",
    "user_threepids": "*",
    "profiles": "*",
    "users": "*",
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
    timeout = 300

    def state(self) -> set[tuple[Any, ...]]:
        """Return all rows that a login adds or changes."""
        return {
            (table, *row)
            for table, columns in _TABLES.items()
            for row in self.server.query(f"SELECT {columns} FROM {table}")
        }

    async def foretell(self, login: Login, file: str = "homeserver.yaml") -> Foretold:
        """Run the command in Synapse's folder."""
        where = ("--homeserver-config", file)
        return await foretell(where, *login, folder=self.server.folder)

    async def assert_foretold(self, *cases: Case) -> None:
        """The command says before what a client is answered, and changes nothing."""
        logins = [await case.prepare(self) for case in cases]
        before = self.state()
        foretold = await at_once(2, self.foretell, logins)
        self.assertEqual(self.state() - before, set())
        for case, login, each in zip(cases, logins, foretold, strict=True):
            self.assertIn(case.said, each.texts, case.name)
            self.assertEqual(each.status, case.status, f"{case.name}: {each.texts}")
            body = login_body(login.user, False, login.password)
            for base in self.listeners:
                answer = await self.client.post(base, "/login", body)
                said = answer.json
                self.assertEqual(
                    (answer.status, said.get("errcode", ""), said.get("user_id", "")),
                    each.answer,
                    f"{case.name} at {base}: {answer}\n{each.texts}",
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

    async def named_admin(self) -> Login:
        """A linked person whose provider says that the account is an administrator."""
        login = await self.linked()
        self.people[login.user]["admin"] = True
        self.write_people()
        return login

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

    async def test_passwords(self) -> None:
        """Names and passwords."""
        await self.assert_foretold(
            Case("wrong", ForetoldTests.wrong, 403, "rejected the password"),
            Case("unknown", ForetoldTests.unknown, 403, "no provider knows the name"),
            Case("foreign", ForetoldTests.foreign, 403, "a user of another server"),
            Case("bad hash", ForetoldTests.bad_hash, 403, "the stored hash cannot be used"),
            Case("bound", ForetoldTests.bound_address, 200, "read as the e-mail address"),
            Case("address", ForetoldTests.address, 200, "read as the e-mail address"),
        )

    async def test_accounts(self) -> None:
        """Accounts at the provider and in Synapse."""
        await self.assert_foretold(
            Case("new", ForetoldTests.new, 200, "this login would register it"),
            Case("locked", ForetoldTests.locked, 401, "of people: locked"),
            Case("deactivated", ForetoldTests.deactivated, 403, "of people: deactivated"),
            Case("deactivated there", ForetoldTests.deactivated_there, 403, "is deactivated there"),
            Case("local", ForetoldTests.with_local_password, 200, "synapse, asked for"),
            Case("numeric", ForetoldTests.numeric, 403, "reserved for guest"),
            Case("underscore", ForetoldTests.underscore, 403, "may not begin with _"),
        )

    async def test_links(self) -> None:
        """Links that exist, would be made, and may not be made."""
        await self.assert_foretold(
            Case("linked", ForetoldTests.linked, 200, " is linked to "),
            Case("of another", ForetoldTests.of_another, 403, "it is linked to id-"),
            Case("password", ForetoldTests.with_password, 403, "it has a local password"),
            Case("passwordless", ForetoldTests.passwordless_there, 200, "would link it"),
            Case("admin", ForetoldTests.admin, 403, "a server administrator's"),
            Case("named", ForetoldTests.named_admin, 200, "makes it a server administrator"),
        )

    async def test_lines(self) -> None:
        """The last line says the result in a sentence."""
        login = await self.wrong()
        where = ("--homeserver-config", "homeserver.yaml")
        done = await run_check(where, *login, folder=self.server.folder)
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
            before = self.state()
            foretold = await self.foretell(login, "other.yaml")
            self.assertEqual(self.state() - before, set())
            self.assertEqual(foretold.status, status, foretold.texts)
            self.assertIn(said, foretold.texts)


class PostgresForetoldTests(ForetoldTests):
    """The same, with PostgreSQL."""

    profile = replace(_PROFILE, name="check-login-postgres", postgres=True)
