"""Tests for which account a login is linked to, on a real Synapse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from tests.support.client import password_login
from tests.support.synapse.profile import LATER_PASSWORD, PASSWORD
from tests.synapse.case import fresh, user_id
from tests.synapse.linkcase import PROVIDERS, LinkCase, linking

PLAIN = linking("links")

BRIDGE: dict[str, Any] = {
    "id": "irc",
    "url": None,
    "as_token": "token-of-the-bridge-of-the-tests",
    "hs_token": "token-for-the-bridge-of-the-tests",
    "sender_localpart": "ircbot",
    "namespaces": {
        "users": [
            {"exclusive": True, "regex": "@irc_.*"},
            {"exclusive": False, "regex": "@soft_.*"},
        ],
        "rooms": [],
        "aliases": [],
    },
    "rate_limited": False,
}


class OthersAccountsTests(LinkCase):
    """In the default configuration, no login gets another person's account."""

    profile = PLAIN

    async def test_administrator(self) -> None:
        """A provider's account does not become the administrator's whose name differs in case."""
        name = fresh("admin")
        local = fresh("password-of-the-administrator")
        await self.local_account(name, local, admin=True)
        for spelled in (name, name.capitalize()):
            await self.assert_not_linked(spelled, self.person(spelled))
            self.remove_person(spelled)
        self.assertIn(f'link_accounts: ["{user_id(name)}"]', self.logged())
        self.assertEqual(self.links(name), [])
        await self.assert_login(name, local, name)

    async def test_local_user(self) -> None:
        """Nor is it that of a user with a local password, who can still log in."""
        name, local = fresh("dup"), fresh("password-of-the-local-user")
        await self.local_account(name, local)
        provided = self.person(name)
        await self.assert_not_linked(name, provided)
        self.assertIn("existing_accounts: all", self.logged())
        await self.assert_login(name, local, name)
        # If both passwords are the same, it is the local user, as before.
        self.people[name]["password"] = local
        self.write_people()
        content = await self.assert_login(name, local, name)
        self.assertEqual(self.links(name), [])
        # The local user is independent of the account in the directory.
        self.remove_person(name)
        refreshed = await self.client.post(
            self.client.module, "/refresh", {"refresh_token": content["refresh_token"]}
        )
        self.assertEqual(refreshed.status, 200, str(refreshed))

    async def test_two_customers(self) -> None:
        """Of two accounts whose names differ in case, the first has the account, the other none."""
        name = fresh("operator")
        other = name.capitalize()
        first, second = self.person(name, subject="1"), self.person(other, subject="2")
        await self.assert_login(other, second, name)
        await self.assert_not_linked(name, first)
        self.assertIn("it is linked to 2 of people", self.logged())
        self.assert_linked(name, "2")

    async def test_single_sign_on(self) -> None:
        """An account that was logged in to by single sign-on is not linked."""
        name = await self.passwordless()
        self.server.query(
            "INSERT INTO user_external_ids (auth_provider, external_id, user_id)"
            " VALUES ('oidc-corp', ?, ?)",
            name,
            user_id(name),
        )
        await self.assert_not_linked(name, self.person(name))

    async def test_extraordinary(self) -> None:
        """Nor are guests, accounts with a user_type, and those that an application service made."""
        for change in (
            "is_guest = 1",
            "user_type = 'support'",
            "password_hash = ''",
            "appservice_id = 'irc'",
            "deactivated = 1",
            "admin = 1",
        ):
            name = await self.passwordless()
            self.server.query(f"UPDATE users SET {change} WHERE name = ?", user_id(name))
            await self.assert_not_linked(name, self.person(name))
            self.assertEqual(self.links(name), [], change)

    async def test_one_subject_one_account(self) -> None:
        """A person who gets another name in the directory keeps the account."""
        name, later = fresh("before"), fresh("after")
        password = self.person(name, subject="17")
        await self.assert_login(name, password, name)
        self.remove_person(name)
        password = self.person(later, subject="17")
        await self.assert_login(later, password, name)
        # The name belongs to another person now, who gets no account by it.
        await self.assert_not_linked(name, self.person(name, subject="18"))
        self.assertEqual(self.links(later), [])


class OldAccountsTests(LinkCase):
    """Accounts from before there were links."""

    profile = PLAIN

    async def refresh_thrice(self, name: str, password: str, user: str) -> None:
        """Log in, and refresh three times."""
        pair = await self.client.pair_with(name, password)
        self.assertEqual(pair.user_id, user_id(user))
        for _ in range(3):
            pair = await self.client.rotate(pair)
        await self.assert_live(pair)

    async def test_passwordless(self) -> None:
        """One without a password is linked at the first login, whatever case it is spelled in."""
        name = await self.passwordless()
        self.users = {**self.users, name.capitalize(): self.users["bob"]}
        self.write_users()
        await self.refresh_thrice(name.capitalize(), PASSWORD, name)
        await self.refresh_thrice(name, PASSWORD, name)
        self.assertEqual(len(self.links(name)), 1)
        self.assertIn(f"linked {user_id(name)} to", self.logged())

    async def test_old_spelling(self) -> None:
        """So is one whose user ID is not in lower case."""
        name = await self.passwordless()
        old = name.replace("old", "SomeUser")
        for table, column in (("users", "name"), ("profiles", "full_user_id")):
            self.server.query(
                f"UPDATE {table} SET {column} = ? WHERE {column} = ?", user_id(old), user_id(name)
            )
        self.server.query("UPDATE profiles SET user_id = ? WHERE user_id = ?", old, name)
        for spelled in (old, old.lower()):
            await self.refresh_thrice(spelled, self.person(f"*{old.lower()}"), old)
        self.assert_linked(old, old.lower())

    async def test_several_spellings(self) -> None:
        """Where there are two such, neither is linked."""
        name, other = await self.passwordless(), await self.passwordless()
        for user, new in ((name, f"Two{name}"), (other, f"TWO{name}")):
            self.server.query(
                "UPDATE users SET name = ? WHERE name = ?", user_id(new), user_id(user)
            )
        await self.assert_not_linked(f"two{name}", self.person(f"two{name}"))
        self.assertIn("several accounts of this name", self.logged())

    async def test_former_mark(self) -> None:
        """One that an earlier version marked is a candidate; the mark goes as it is linked."""
        for name, known in ((await self.passwordless(), True), (await self.passwordless(), False)):
            self.server.query(
                "INSERT INTO user_external_ids (auth_provider, external_id, user_id)"
                " VALUES ('synapse_login_module', ?, ?)",
                name,
                user_id(name),
            )
            password = self.person(name)
            pair = await self.client.pair_with(name, password)
            self.assert_linked(name, name)
            marks = self.server.query(
                "SELECT 1 FROM user_external_ids WHERE user_id = ?", user_id(name)
            )
            self.assertEqual(marks, [])
            if not known:
                self.remove_person(name)
            refreshed = await self.client.tokenrefresh(pair)
            self.assertEqual(refreshed.status, 200 if known else 403, str(refreshed))

    async def test_session_of_a_former_mark(self) -> None:
        """Its sessions from before go on as long as a provider knows the name."""
        name = await self.passwordless()
        password = self.person(name)
        pair = await self.client.pair_with(name, password)
        self.server.query("DELETE FROM synapse_login_links WHERE user_id = ?", user_id(name))
        self.server.query(
            "INSERT INTO user_external_ids (auth_provider, external_id, user_id)"
            " VALUES ('synapse_login_module', 'x', ?)",
            user_id(name),
        )
        pair = await self.client.rotate(pair)
        self.remove_person(name)
        self.assert_error(await self.client.tokenrefresh(pair), 403, "M_FORBIDDEN")
        await self.assert_dead(pair.access, soft_logout=True)


class FirstLoginTests(LinkCase):
    """Accounts that are made."""

    profile = PLAIN

    async def test_spellings(self) -> None:
        """Where the backend does not say which account it was, all spellings are one account."""
        name = fresh("alice")
        password = self.person(f"*{name}")
        for spelled in (name.upper(), name.capitalize(), name):
            await self.assert_login(spelled, password, name)
        self.assert_linked(name, name)

    async def test_names_that_are_none(self) -> None:
        """A name that Synapse never registers is refused like a wrong password, with a line."""
        for name in ("_hidden", "12345", "b\u00e9b\u00e9"):
            before = len(self.logged())
            await self.assert_wrong(name, self.person(name))
            self.assertIn("cannot be registered", self.logged()[before:])
            self.assertEqual(self.links(name), [])

    async def test_kelvin(self) -> None:
        """What a database takes for the same letter is another one here."""
        name = fresh("kate")
        await self.assert_login(name, self.person(name), name)
        await self.assert_wrong(f"\u212a{name[1:]}", self.person(f"\u212a{name[1:]}"))
        self.assert_linked(name, name)

    async def test_given_user_id(self) -> None:
        """A provider may give the user ID; of this server alone."""
        name, other = fresh("given"), fresh("given")
        await self.assert_login(other, self.person(other, user_id=user_id(name)), name)
        await self.assert_wrong(
            "abroad", self.person("abroad", user_id="@abroad:elsewhere.example")
        )
        self.assertEqual(len(self.links(name)), 1)

    async def test_spelling_of_the_path(self) -> None:
        """A login is one, however the client spells its path: it links, and a second account of the
        name is refused.
        """
        name = await self.passwordless()
        password, other = (
            self.person(name, subject="first"),
            self.person(name.upper(), subject="second"),
        )
        for user, given, status in ((name, password, 200), (name.upper(), other, 403)):
            body = password_login(user, given)
            answer = await self.client.post(self.client.module, "/log%69n", body)
            self.assertEqual(answer.status, status, str(answer))
        self.assert_linked(name, "first")

    async def test_password_given_again(self) -> None:
        """Nothing is linked or made where a user gives the password again, or by a login token."""
        name, local = fresh("twice"), fresh("password-of-the-local-user")
        await self.local_account(name, local)
        pair = await self.client.pair_with(name, local)
        made = await self.client.post(
            self.client.own, "/login/get_token", {}, pair.access, prefix="v1"
        )
        provided = self.person(name)
        self.set_local_hash(name, None)
        body = {"type": "m.login.token", "token": made.json["login_token"]}
        answer = await self.client.post(self.client.module, "/login", body)
        self.assertEqual(answer.status, 200, str(answer))
        answer = await self.reauthenticate(pair, name, provided)
        self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(self.links(name), [])

    async def test_device_called_login(self) -> None:
        """Nor is anything linked where a device is deleted whose name looks like a login's path."""
        name, local = fresh("twice"), fresh("password-of-the-local-user")
        await self.local_account(name, local)
        login = (await self.client.login(self.client.own, name, local, device_id="login")).json
        provided = self.person(name)
        self.set_local_hash(name, None)
        answer = await self.client.delete_device("login", login["access_token"], name, provided)
        self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(self.links(name), [])

    async def test_password_given_again_by_another(self) -> None:
        """A provider's account that a login would not link is good for nothing there either."""
        name, local = fresh("twice"), fresh("password-of-the-local-user")
        await self.local_account(name, local)
        pair = await self.client.pair_with(name, local)
        answer = await self.reauthenticate(pair, name, self.person(name))
        self.assert_error(answer, 403, "M_FORBIDDEN")
        await self.assert_live(pair)

    async def test_many_at_once(self) -> None:
        """Of first logins at once, of one person and of another of that name, one person's win."""
        for _ in range(5):
            name = fresh("race")
            passwords = {
                name: self.person(name, subject=f"{name}-1"),
                name.upper(): self.person(name.upper(), subject=f"{name}-2"),
            }
            answers = await self.at_once(
                *(
                    (base, spelled, password)
                    for spelled, password in passwords.items()
                    for base in self.listeners * 2
                )
            )
            good = {spelled for spelled, answer in answers if answer.status == 200}
            self.assertEqual(len(good), 1)
            for spelled, answer in answers:
                self.assertEqual(answer.status, 200 if spelled in good else 403, str(answer))
            self.assertEqual(len(self.links(name)), 1)
            self.assertEqual(self.links(name)[0][3], 0)


class LinkedAccountsTests(LinkCase):
    """Accounts that are linked."""

    profile = PLAIN

    async def test_local_password(self) -> None:
        """The local password does not count, nor where a password is given again."""
        name = fresh("linked")
        password = self.person(name)
        pair = await self.client.pair_with(name, password)
        local = fresh("password-of-the-administrator")
        self.client.secrets.add(local)
        changed = await self.client.change_user(
            await self.administrator(), name, password=local, logout_devices=False
        )
        self.assertEqual(changed.status, 200, str(changed))
        await self.assert_wrong(name, local)
        self.assert_error(await self.reauthenticate(pair, name, local), 401, "M_FORBIDDEN")
        # Nor when the provider has dropped the account.
        person = self.people.pop(name)
        self.write_people()
        await self.assert_wrong(name, local)
        self.assert_error(await self.reauthenticate(pair, name, local), 401, "M_FORBIDDEN")
        self.people[name] = person
        self.write_people()
        self.assertEqual((await self.reauthenticate(pair, name, password)).status, 200)

    async def test_status_of_the_link(self) -> None:
        """Whether it is still there is asked by the subject, of the one provider."""
        name = fresh("linked")
        pair = await self.client.pair_with(name, self.person(name, subject=f"id-{name}"))
        # Another provider knows the name; that is another account.
        self.users = {**self.users, name: self.users["bob"]}
        self.write_users()
        pair = await self.client.rotate(pair)
        self.remove_person(name)
        self.assert_error(await self.client.tokenrefresh(pair), 403, "M_FORBIDDEN")
        await self.assert_dead(pair.access, soft_logout=True)

    async def test_becomes_an_administrator(self) -> None:
        """A line says when a linked account becomes an administrator; it can still log in."""
        name = fresh("linked")
        password = self.person(name)
        pair = await self.client.pair_with(name, password)
        self.assertNotIn("has become a server administrator", self.logged())
        changed = await self.client.change_user(await self.administrator(), name, admin=True)
        self.assertEqual(changed.status, 200, str(changed))
        pair = await self.client.rotate(pair)
        await self.client.rotate(pair)
        await self.assert_login(name, password, name)
        self.assertEqual(self.logged().count("has become a server administrator"), 1)


class SettingsTests(LinkCase):
    """What the settings allow."""

    profile = linking(
        "links-all",
        {"enable_registration": True, "enable_registration_without_verification": True},
        existing_accounts="all",
        link_accounts=["@root:hs.example", "file:@ops:hs.example"],
    )

    async def test_all(self) -> None:
        """With existing_accounts: all, ordinary accounts are linked, with a password or without."""
        for name in (await self.passwordless(), (await self.local_user())[0]):
            await self.assert_login(name, self.person(name), name)
            self.assert_linked(name, name)

    async def test_local_password_until_then(self) -> None:
        """The local password counts until the account is linked."""
        name, local = await self.local_user()
        provided = self.person(name)
        await self.assert_login(name, local, name)
        await self.assert_login(name, provided, name)
        await self.assert_wrong(name, local)

    async def test_exceptions(self) -> None:
        """An account that is named is linked whatever it is, if wanted for one provider alone."""
        local = fresh("password-of-the-administrator")
        for name in ("root", "ops", "other"):
            await self.local_account(name, local, admin=True)
        await self.assert_login("root", self.person("root"), "root")
        await self.assert_not_linked("ops", self.person("ops"))
        await self.assert_not_linked("other", self.person("other"))
        self.remove_person("ops")
        self.users = {**self.users, "ops": self.users["bob"]}
        self.write_users()
        await self.assert_login("ops", PASSWORD, "ops")

    async def test_warning(self) -> None:
        """Open registration is warned of at the start."""
        self.assertIn("existing_accounts is all, and enable_registration is on", self.server.log())


class NoneTests(LinkCase):
    """``existing_accounts: none``."""

    profile = linking("links-none", existing_accounts="none")

    async def test_none(self) -> None:
        """No account is linked that was there; new ones are made."""
        name = await self.passwordless()
        await self.assert_not_linked(name, self.person(name))
        self.assertIn("existing_accounts: passwordless", self.logged())
        new = fresh("new")
        await self.assert_login(new, self.person(new), new)
        self.assertNotIn("enable_registration is on", self.server.log())


class LaterModuleTests(LinkedAccountsTests):
    """The same, where another module is asked after this one."""

    profile = replace(
        linking("links-later"), more_modules=[{"module": "tests.synapse.modules.LaterModule"}]
    )

    async def test_later_module(self) -> None:
        """The other module still logs users in, linked ones too; a wrong password has one line."""
        name = fresh("linked")
        await self.assert_login(name, self.person(name), name)
        for user in (name, (await self.local_user())[0]):
            for base in self.listeners:
                answer = await self.client.login(base, user, LATER_PASSWORD)
                self.assertEqual(answer.status, 200, str(answer))
        before = len(self.logged())
        answer = await self.client.login(self.client.own, name, "wrong")
        self.assert_error(answer, 403, "M_FORBIDDEN")
        line = "login outcome=refused reason=wrong_password"
        self.assertEqual(self.logged()[before:].count(line), 1)


class ProviderGoneTests(LinkCase):
    """A provider that is renamed, or is no longer configured."""

    profile = linking("links-renamed")

    async def restart_with(self, *providers: Mapping[str, object]) -> None:
        """Restart Synapse with other providers."""
        module = self.server.homeserver_yaml()["modules"][0]
        config = {**module["config"], "password_providers": list(providers)}
        await self.server.restart({"modules": [{**module, "config": config}]})

    async def test_renamed(self) -> None:
        """Links go on under a new name where the earlier one is listed; else sessions do."""
        name = fresh("linked")
        password = self.person(name)
        pair = await self.client.pair_with(name, password)
        people, file = PROVIDERS
        await self.restart_with({**people, "name": "staff", "former_names": ["people"]}, file)
        pair = await self.client.rotate(pair)
        await self.assert_login(name, password, name)
        self.assert_linked(name, name)
        await self.restart_with(file)
        self.remove_person(name)
        for _ in range(2):
            pair = await self.client.rotate(pair)
        self.assertEqual(self.logged().count("accounts are linked to people, which is not"), 1)
        await self.restart_with(people, file)
        self.assert_error(await self.client.tokenrefresh(pair), 403, "M_FORBIDDEN")


class BridgeTests(LinkCase):
    """Application services."""

    profile = replace(
        linking("links-bridge", {"app_service_config_files": ["bridge.yaml"]}),
        files={"bridge.yaml": yaml.safe_dump(BRIDGE)},
    )

    async def register_puppet(self, name: str) -> None:
        """Have the bridge make an account."""
        answer = await self.client.post(
            self.client.own,
            "/register",
            {"type": "m.login.application_service", "username": name, "inhibit_login": True},
            BRIDGE["as_token"],
        )
        self.assertEqual(answer.status, 200, str(answer))

    async def test_exclusive(self) -> None:
        """Names in an exclusive namespace are not linked, whether the accounts exist or not."""
        await self.register_puppet("irc_bob")
        for name in ("irc_bob", "irc_carol", "ircbot"):
            await self.assert_not_linked(name, self.person(name))
            self.assertEqual(self.links(name), [])

    async def test_shared(self) -> None:
        """In another namespace, those are not that the bridge has made."""
        await self.register_puppet("soft_bob")
        await self.assert_not_linked("soft_bob", self.person("soft_bob"))
        await self.assert_login("soft_carol", self.person("soft_carol"), "soft_carol")
