"""``synapse-login-module links``, with a Synapse that runs and with one that does not."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import yaml
from twisted.internet.task import deferLater

from tests.support.configuration import password_hash
from tests.support.synapse.profile import PASSWORD, Profile
from tests.support.waiting import reactor
from tests.synapse.case import fresh, user_id
from tests.synapse.client import Pair
from tests.synapse.linkcase import PROVIDERS, LinkCase, linking
from tests.synapse.test_links import BRIDGE

_POLLS = 100
_PAUSE = 0.2


class CommandCase(LinkCase):
    """Runs commands as an operator does, in Synapse's folder."""

    async def run_links(
        self, *arguments: str, file: str = "homeserver.yaml"
    ) -> subprocess.CompletedProcess[str]:
        """Run ``links`` with a configuration."""
        return await self.server.run_command("links", *arguments, "--homeserver-config", file)

    async def links_command(self, *arguments: str) -> str:
        """Run a command that has to succeed; what it printed."""
        done = await self.run_links(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    async def assert_fails(
        self, problem: str, *arguments: str, file: str = "homeserver.yaml"
    ) -> None:
        """A command fails, and says why on one line."""
        done = await self.run_links(*arguments, file=file)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(problem, done.stderr)

    async def assert_ended(self, pair: Pair) -> None:
        """A session ends within seconds."""
        for _ in range(_POLLS):
            if (await self.client.whoami(pair.access)).status != 200:
                break
            await deferLater(reactor, _PAUSE)
        await self.assert_revoked(pair)


class LinkCommandTests(CommandCase):
    """With SQLite."""

    profile = linking("link-commands")

    async def test_list(self) -> None:
        """Links are listed, all or of one user."""
        name, other = fresh("a"), fresh("b")
        for each in (other, name):
            await self.assert_login(each, self.person(each, subject=f"id-{each}"), each)
        printed = await self.links_command("list")
        lines = [f"{user_id(each)}\tpeople\tid-{each}" for each in (name, other)]
        self.assertEqual([line for line in printed.splitlines() if line in lines], lines)
        self.assertEqual(await self.links_command("list", other), f"{lines[1]}\n")
        self.assertEqual(await self.links_command("list", user_id(other)), f"{lines[1]}\n")

    async def test_names(self) -> None:
        """A link is found by its user's name in whatever case, and by an address at Synapse."""
        name = fresh("named")
        await self.assert_login(name, self.person(name), name)
        line = f"{user_id(name)}\tpeople\t{name}\n"
        self.assertEqual(await self.links_command("list", name.upper()), line)
        address = f"{name}@example.org"
        self.server.query(
            "INSERT INTO user_threepids (user_id, medium, address, validated_at, added_at)"
            " VALUES (?, 'email', ?, 0, 0)",
            user_id(name),
            address,
        )
        self.assertEqual(await self.links_command("list", address.upper()), line)
        await self.assert_fails("no account of Synapse has that address", "list", "x@y.example")

    async def test_unlink(self) -> None:
        """An account that is unlinked loses its sessions, and is a local one from then on."""
        name = fresh("unlinked")
        password = self.person(name)
        pair = await self.client.pair_with(name, password)
        printed = await self.links_command("unlink", name)
        self.assertIn(f"the sessions of {user_id(name)} are ended by Synapse", printed)
        await self.assert_ended(pair)
        self.assertEqual(self.links(name), [])
        await self.assert_fails("is not linked", "unlink", name)

    async def removed(self, *options: str) -> tuple[str, str, str]:
        """Unlink a user who set a local password while linked, and who is gone at the provider.

        :return: the name, that password, and what the command printed.
        """
        name, local = fresh("removed"), fresh("set-while-linked-")
        self.client.secrets.add(local)
        pair = await self.client.pair_with(name, self.person(name))
        self.set_local_hash(name, password_hash(local))
        await self.assert_wrong(name, local)
        self.remove_person(name)
        printed = await self.links_command("unlink", name, *options)
        await self.assert_ended(pair)
        return name, local, printed

    async def test_unlinked_password(self) -> None:
        """A local password that was set while it did not count is gone with the link."""
        name, local, printed = await self.removed()
        self.assertIn(
            f"the local password of {user_id(name)} is removed; set a new one by the admin API",
            printed,
        )
        await self.assert_wrong(name, local)

    async def test_unlinked_without_password(self) -> None:
        """Without a local password, no line is printed about it."""
        name = fresh("unlinked")
        await self.client.pair_with(name, self.person(name))
        self.assertNotIn("password", await self.links_command("unlink", name))

    async def test_kept_password(self) -> None:
        """It may be left, and counts again then."""
        name, local, printed = await self.removed("--keep-password")
        self.assertNotIn("password", printed)
        await self.assert_login(name, local, name)

    async def test_relinked_password(self) -> None:
        """A user whose link is replaced by another user's loses the local password, too."""
        name, other, local = fresh("a"), fresh("b"), fresh("set-while-linked-")
        self.client.secrets.add(local)
        for each in (name, other):
            await self.client.pair_with(each, self.person(each))
            self.set_local_hash(each, password_hash(local))
        printed = await self.links_command("relink", name, "people", other)
        self.assertIn(f"the local password of {user_id(other)} is removed", printed)
        self.assertNotIn(f"the local password of {user_id(name)}", printed)
        kept = self.server.query(
            "SELECT name FROM users WHERE name IN (?, ?) AND password_hash IS NOT NULL",
            user_id(name),
            user_id(other),
        )
        self.assertEqual(kept, [(user_id(name),)])

    async def test_relink(self) -> None:
        """A name was given to another person: the account is linked to them, and sessions end."""
        name = fresh("relinked")
        old = self.person(name, subject="old")
        pair = await self.client.pair_with(name, old)
        new = self.person(name.upper(), subject="new")
        await self.assert_not_linked(name.upper(), new)
        await self.assert_fails(
            "is linked to another account already", "link", name, "people", "new"
        )
        await self.links_command("relink", name, "people", "new")
        await self.assert_ended(pair)
        await self.assert_login(name.upper(), new, name)
        await self.assert_not_linked(name, old)
        self.assert_linked(name, "new")

    async def test_link(self) -> None:
        """An account is linked whatever it is, or ahead of its first login."""
        admin, new = fresh("root"), fresh("new")
        await self.local_account(admin, fresh("password-of-the-administrator"), admin=True)
        for name in (admin, new):
            password = self.person(f"{name}.x", subject=f"id-{name}")
            printed = await self.links_command("link", name, "people", f"id-{name}")
            self.assertEqual(printed, f"{user_id(name)}\tpeople\tid-{name}\n")
            await self.assert_login(f"{name}.x", password, name)
        await self.assert_fails("no password provider is called", "link", admin, "poeple", "1")

    async def test_stopped(self) -> None:
        """While Synapse does not run, what they want ended ends at its next start."""
        name = fresh("stopped")
        pair = await self.client.pair_with(name, self.person(name))
        await self.server.stop()
        try:
            await self.links_command("relink", name, "people", "somebody")
            printed = await self.links_command("list", name)
        finally:
            await self.server.start()
        self.assertEqual(printed, f"{user_id(name)}\tpeople\tsomebody\n")
        await self.assert_ended(pair)

    async def test_wrong_files(self) -> None:
        """An error in the files is printed on one line."""
        folder = self.server.folder
        whole = self.server.homeserver_yaml()
        module = whole["modules"][0]
        for name, content, problem in (
            ("no-module.yaml", {"modules": []}, "SynapseLoginModule is not among them"),
            (
                "bad-module.yaml",
                {"modules": [{**module, "config": {**module["config"], "nonsense": 1}}]},
                "modules.0.config.nonsense: unknown key",
            ),
            (
                "no-database.yaml",
                {"database": {"name": "sqlite3", "args": {"database": "none.db"}}},
                "there is no none.db",
            ),
        ):
            (folder / name).write_text(yaml.safe_dump({**whole, **content}))
            await self.assert_fails(problem, "list", file=name)
        # As Synapse does, files are laid over one another, key by key.
        await self.links_command("list", "--homeserver-config", "no-database.yaml")
        self.assertFalse((folder / "none.db").exists())
        await self.assert_fails("No such file", "list", file="missing.yaml")


class PostgreSQLCommandTests(CommandCase):
    """With PostgreSQL, and a worker."""

    profile = Profile("link-races", {"password_providers": PROVIDERS}, worker=True)

    async def test_relink(self) -> None:
        """Links are read and written there too, and sessions end on the worker as well."""
        name = fresh("relinked")
        pair = await self.client.pair_with(name, self.person(name))
        self.assertEqual((await self.at_the_worker(pair)).status, 200)
        await self.links_command("relink", name, "people", "somebody")
        self.assertIn(f"{user_id(name)}\tpeople\tsomebody\n", await self.links_command("list"))
        await self.assert_ended(pair)
        self.assert_error(await self.at_the_worker(pair), 401, "M_UNKNOWN_TOKEN")

    async def at_the_worker(self, pair: Pair):  # type: ignore[no-untyped-def]
        """What the worker says of an access token."""
        return await self.client.whoami(pair.access, self.server.worker_client_url)


class WouldRefuseTests(CommandCase):
    """``links list --would-refuse`` says what logins would then be told."""

    profile = replace(
        linking("link-would-refuse", {"app_service_config_files": ["bridge.yaml"]}),
        files={"bridge.yaml": yaml.safe_dump(BRIDGE)},
    )

    async def test_would_refuse(self) -> None:
        """Logins of the accounts that it lists are refused, and of no others."""
        local, sso, fine, stranger = [await self.passwordless() for _ in range(4)]
        self.set_local_hash(local, "$2b$04$" + 53 * "x")
        self.server.query(
            "INSERT INTO user_external_ids (auth_provider, external_id, user_id)"
            " VALUES ('oidc', 'x', ?)",
            user_id(sso),
        )
        admin, puppet = fresh("root"), "irc_dora"
        await self.local_account(admin, fresh("password-of-the-administrator"), admin=True)
        answer = await self.client.post(
            self.client.own,
            "/register",
            {"type": "m.login.application_service", "username": puppet, "inhibit_login": True},
            BRIDGE["as_token"],
        )
        self.assertEqual(answer.status, 200, str(answer))
        linked = fresh("linked")
        await self.assert_login(linked, self.person(linked), linked)
        passwords = {name: self.person(name) for name in (local, sso, fine, admin, puppet)}
        self.users = {**self.users, stranger: self.users["bob"]}
        self.set_local_hash(stranger, "x")
        self.write_users()
        passwords[stranger] = PASSWORD
        printed = await self.links_command("list", "--would-refuse")
        found = {line.split("\t")[0]: line.split("\t")[1:] for line in printed.splitlines()}
        ours = {user_id(name) for name in passwords}
        refused = ours & set(found)
        for name, password in passwords.items():
            if user_id(name) in refused:
                await self.assert_not_linked(name, password)
                provider, problem, setting = found[user_id(name)]
                self.assertEqual(provider, "file" if name == stranger else "people")
                self.assertIn(problem, self.logged())
                self.assertIn(setting, self.logged())
            else:
                await self.assert_login(name, password, name)
        self.assertEqual(ours - refused, {user_id(fine)})
        self.assertNotIn(user_id(linked), found)
        one = await self.links_command("list", "--would-refuse", sso)
        self.assertEqual(len(one.splitlines()), 1)
