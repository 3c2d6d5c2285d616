"""Accounts that a provider makes server administrators, at a real Synapse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.support.slapd import GROUP_DN, PEOPLE, READER_DN, READER_PASSWORD, SUFFIX, Slapd
from tests.support.synapse.profile import Profile
from tests.support.waiting import until
from tests.synapse.case import fresh, user_id
from tests.synapse.endings import INTERVAL, MODULE, sleep
from tests.synapse.linkcase import PROVIDERS
from tests.synapse.logins import LoginCase
from tests.synapse.test_link_commands import CommandCase

_MADE = "is a server administrator now"
_TAKEN = "is no longer a server administrator"
_BECAME = "has become a server"


def profile(name: str, **more: Any) -> Profile:
    """A Synapse with the provider ``people``, that looks at accounts every two seconds."""
    module: Mapping[str, Any] = {**MODULE, "password_providers": PROVIDERS}
    return Profile(name, module, **more)


class AdministratorCase(LoginCase):
    """Helpers."""

    async def is_admin(self, access: str) -> bool:
        """Whether Synapse lets the user of an access token administer it."""
        answer = await self.client.admin("GET", "/v2/users?limit=1", None, access)
        self.assertIn(answer.status, (200, 403), str(answer))
        return answer.status == 200

    async def until_admin(self, access: str, expected: bool) -> None:
        """Wait until the user is an administrator, or is none any more."""
        for _ in range(200):
            if await self.is_admin(access) is expected:
                return
            await sleep(0.1)
        self.fail(f"it does not become {expected}:\n{self.logged()}")

    def made(self, name: str) -> list[tuple[Any, ...]]:
        """The note about an account, without its time."""
        return self.server.query(
            "SELECT provider, subject FROM synapse_login_admins WHERE user_id = ?", user_id(name)
        )

    def lines(self, name: str, what: str) -> int:
        """How many lines the log has of this kind about a user."""
        return sum(
            f"{user_id(name)} " in each and what in each for each in self.logged().split("\n")
        )


class PeopleCase(AdministratorCase, CommandCase):
    """Helpers, and what is tried with each database."""

    async def log_in(self, name: str, password: str, base: str | None = None) -> str:
        """Log in; the access token."""
        return (await self.client.pair_with(name, password, base)).access

    def say(self, name: str, admin: bool | None) -> None:
        """Have the provider say something else."""
        self.people[name]["admin"] = admin
        self.write_people()

    async def until_forgotten(self, name: str) -> None:
        """Wait until the note about an account is gone."""
        await until(lambda: self.made(name) == [], "the end of the note")

    async def give_and_take(self) -> None:
        """A login gives it, with the first session already; the next look takes it."""
        for base in self.listeners:
            name = fresh("chief")
            password = self.person(name, subject=f"id-{name}", admin=True)
            access = await self.log_in(name, password, base)
            self.assertTrue(await self.is_admin(access))
            self.assertEqual(self.made(name), [("people", f"id-{name}")])
            await self.log_in(name, password, base)
            await sleep(1.5 * INTERVAL)
            self.assertTrue(await self.is_admin(access))
            self.say(name, False)
            await self.until_admin(access, False)
            self.assertEqual(self.made(name), [])
            counts = [self.lines(name, each) for each in (_MADE, _TAKEN, _BECAME, "administrator")]
            self.assertEqual(counts, [1, 1, 0, 2], self.logged())

    async def unlink_and_relink(self) -> None:
        """With the link goes what was given by it, and the next person does not have it."""
        for command in ("unlink", "relink"):
            name = fresh("chief")
            access = await self.log_in(name, self.person(name, subject="old-" + name, admin=True))
            self.assertTrue(await self.is_admin(access))
            more = ("people", f"new-{name}") if command == "relink" else ()
            await self.links_command(command, name, *more)
            await self.until_forgotten(name)
            (found,) = self.server.query("SELECT admin FROM users WHERE name = ?", user_id(name))
            self.assertEqual(found, (0,))
            self.assertEqual(self.lines(name, "it is not linked any more to the account"), 1)
            password = self.person(name, subject=f"new-{name}")
            self.assertFalse(await self.is_admin(await self.log_in(name, password)))


class AdministratorTests(PeopleCase):
    """With SQLite."""

    profile = profile("administrators")

    async def test_given_and_taken(self) -> None:
        """A login gives it, with the first session already; the next look takes it."""
        await self.give_and_take()

    async def test_unlinked(self) -> None:
        """With the link goes what was given by it, and the next person does not have it."""
        await self.unlink_and_relink()

    async def test_at_login(self) -> None:
        """A login takes it as well, and gives it again."""
        name = fresh("chief")
        password = self.person(name, subject=f"id-{name}")
        self.assertFalse(await self.is_admin(await self.log_in(name, password)))
        for admin in (True, False, True, False, False):
            self.say(name, admin)
            self.assertIs(await self.is_admin(await self.log_in(name, password)), admin)

    async def test_others_stay(self) -> None:
        """Who is an administrator for another reason stays one, whatever the provider says."""
        name = fresh("chief")
        password = self.person(name, admin=False)
        access = await self.log_in(name, password)
        root = await self.administrator()
        changed = await self.client.change_user(root, name, admin=True)
        self.assertEqual(changed.status, 200, str(changed))
        for admin in (False, True, False, None):
            self.say(name, admin)
            self.assertTrue(await self.is_admin(await self.log_in(name, password)))
            await sleep(INTERVAL)
        self.assertTrue(await self.is_admin(access))
        self.assertEqual(self.made(name), [])
        self.assertEqual(self.lines(name, _TAKEN), 0)

    async def test_taken_by_another(self) -> None:
        """If another administrator takes it away and gives it back, it is that one's gift."""
        name = fresh("chief")
        password = self.person(name, admin=True)
        access = await self.log_in(name, password)
        root = await self.administrator()
        for admin in (False, True):
            changed = await self.client.change_user(root, name, admin=admin)
            self.assertEqual(changed.status, 200, str(changed))
            await self.until_forgotten(name)
        self.say(name, False)
        await sleep(1.5 * INTERVAL)
        self.assertTrue(await self.is_admin(access))

    async def test_nothing_said(self) -> None:
        """An outage, a provider that says nothing, and an account that is gone take nothing."""
        name = fresh("chief")
        password = self.person(name, admin=True)
        access = await self.log_in(name, password)
        away = self.server.folder / "no-directory"
        self.addCleanup(away.unlink, missing_ok=True)
        away.touch()
        self.say(name, False)
        await sleep(1.5 * INTERVAL)
        self.assertTrue(await self.is_admin(access))
        self.say(name, None)
        away.unlink()
        await sleep(1.5 * INTERVAL)
        self.assertTrue(await self.is_admin(access))
        self.assertTrue(await self.is_admin(await self.log_in(name, password)))
        self.assertEqual(self.lines(name, _TAKEN), 0)

    async def test_confirmation(self) -> None:
        """A password that confirms something is no login, and gives nothing."""
        name = fresh("chief")
        password = self.person(name)
        pair = await self.client.pair_with(name, password)
        other = await self.client.pair_with(name, password)
        self.say(name, True)
        done = await self.client.delete_device(other.device_id, pair.access, name, password)
        self.assertEqual(done.status, 200, str(done))
        self.assertFalse(await self.is_admin(pair.access))

    async def test_existing_administrator(self) -> None:
        """It links no administrator's account: the name of one gives nobody its powers."""
        name = fresh("root")
        await self.local_account(name, fresh("password-of-the-administrator"), admin=True)
        password = self.person(name, admin=True)
        await self.assert_not_linked(name, password)
        self.assertEqual(self.made(name), [])

    async def test_no_more_named(self) -> None:
        """If the provider names none any more, those that it made stay; a line says so, once."""
        name = fresh("chief")
        await self.log_in(name, self.person(name, admin=True))
        for table in ("admins", "links"):
            self.server.query(
                f"UPDATE synapse_login_{table} SET provider = 'file' WHERE user_id = ?",
                user_id(name),
            )
        line = "stays a server administrator: file made it one"
        await until(lambda: self.lines(name, line) > 0, "the line")
        await sleep(1.5 * INTERVAL)
        (found,) = self.server.query("SELECT admin FROM users WHERE name = ?", user_id(name))
        self.assertEqual((found, self.lines(name, line)), ((1,), 1))


class WorkerTests(PeopleCase):
    """With PostgreSQL, and a worker that Synapse's own ``/login`` is served by."""

    profile = profile("administrators-worker", worker=True)

    @property
    def listeners(self) -> tuple[str, ...]:
        """The worker's, and the module's."""
        return self.server.worker_client_url, self.client.module

    async def test_given_and_taken(self) -> None:
        """The worker gives it; the main process takes it."""
        await self.give_and_take()

    async def test_unlinked(self) -> None:
        """With the link goes what was given by it."""
        await self.unlink_and_relink()


class DirectoryTests(AdministratorCase):
    """With an LDAP directory, from the group to Synapse's admin API."""

    @classmethod
    def slapd(cls) -> Slapd:
        """The directory, with a group of which Ann is a member; Ben is none."""
        slapd = Slapd()
        person = (
            "dn: uid={name},{people}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\n"
            "sn: {name}\nuserPassword: {name}-has-this-password\n\n"
        )
        slapd.fill("".join(person.format(name=name, people=PEOPLE) for name in ("ann", "ben")))
        slapd.start()
        members = f"member: uid=ann,{PEOPLE}\nmember: cn=nobody,{SUFFIX}\n"
        slapd.change(f"dn: {GROUP_DN}\nchangetype: add\nobjectClass: groupOfNames\n{members}\n")
        return slapd

    async def setUp(self) -> None:  # type: ignore[override]
        if not hasattr(DirectoryTests, "directory"):
            DirectoryTests.directory = DirectoryTests.slapd()
            config = {
                "servers": [DirectoryTests.directory.url],
                "start_tls": False,
                "bind_dn": READER_DN,
                "bind_password": READER_PASSWORD,
                "base": PEOPLE,
                "admin_group": GROUP_DN,
            }
            entry = {
                "module": "synapse_login_module.providers.ldap.LDAPProvider",
                "config": config,
            }
            module = {**MODULE, "password_providers": [entry]}
            DirectoryTests.profile = Profile("administrators-ldap", module)
        await super().setUp()

    directory: Slapd

    async def test_group(self) -> None:
        """A member is an administrator from the first login on, and until the membership ends. A
        group that is not there takes nothing.
        """
        self.assertIn("LDAP: admin_group is on", self.server.log())
        tokens = {}
        for name, expected in (("ann", True), ("ben", False)):
            pair = await self.client.pair_with(name, f"{name}-has-this-password")
            tokens[name] = pair.access
            self.assertIs(await self.is_admin(pair.access), expected)
        rename = "changetype: modrdn\nnewrdn: cn={}\ndeleteoldrdn: 1\n\n"
        hidden = GROUP_DN.replace("cn=matrix", "cn=hidden")
        self.directory.change(f"dn: {GROUP_DN}\n{rename.format('hidden')}")
        await until(lambda: "no administrator is taken away" in self.logged(), "the line")
        self.assertTrue(await self.is_admin(tokens["ann"]))
        self.directory.change(f"dn: {hidden}\n{rename.format('matrix')}")
        change: Callable[[str], str] = (
            f"dn: {GROUP_DN}\nchangetype: modify\n{{}}: member\nmember: uid=ann,{PEOPLE}\n".format
        )
        self.directory.change(change("delete"))
        await self.until_admin(tokens["ann"], False)
        self.directory.change(change("add"))
        pair = await self.client.pair_with("ann", "ann-has-this-password")
        self.assertTrue(await self.is_admin(pair.access))
        self.directory.stop()
        await sleep(1.5 * INTERVAL)
        self.assertTrue(await self.is_admin(pair.access))
