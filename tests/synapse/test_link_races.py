"""First logins at the same time, on several processes, and Synapse killed in the midst of one."""

from __future__ import annotations

from tests.support.synapse.profile import FAULTY, Profile
from tests.synapse.case import fresh, user_id
from tests.synapse.linkcase import PROVIDERS, LinkCase, linking
from tests.synapse.test_crash import BROKEN

_RACES = 20


class RaceTests(LinkCase):
    """A main process and a worker, with PostgreSQL."""

    profile = Profile("link-races", {"password_providers": PROVIDERS}, worker=True)

    @property
    def listeners(self) -> tuple[str, ...]:
        """Synapse's own, the module's and the worker's."""
        return self.client.own, self.client.module, self.server.worker_client_url

    async def test_two_people(self) -> None:
        """Of two people of one name one gets the account, wherever both log in at once."""
        for _ in range(_RACES):
            name = fresh("race")
            passwords = {
                name: self.person(name, subject=f"{name}-1"),
                name.upper(): self.person(name.upper(), subject=f"{name}-2"),
            }
            answers = await self.at_once(
                *(
                    (base, spelled, password)
                    for base in self.listeners
                    for spelled, password in passwords.items()
                )
            )
            good = {spelled for spelled, answer in answers if answer.status == 200}
            self.assertEqual(len(good), 1, str(answers))
            for spelled, answer in answers:
                self.assertEqual(answer.status, 200 if spelled in good else 403, str(answer))
            subject = self.people[good.pop()]["subject"]
            self.assert_linked(name, subject)

    async def test_two_spellings(self) -> None:
        """Two spellings of one person are one account, and one link."""
        for _ in range(_RACES):
            name = fresh("race")
            password = self.person(f"*{name}")
            answers = await self.at_once(
                *(
                    (base, spelled, password)
                    for base in self.listeners
                    for spelled in (name, name.upper())
                )
            )
            self.assertEqual({answer.status for _, answer in answers}, {200}, str(answers))
            self.assert_linked(name, name)

    async def test_old_account(self) -> None:
        """So it is with an account from before."""
        for _ in range(_RACES):
            name = await self.passwordless()
            passwords = {
                name: self.person(name, subject=f"{name}-1"),
                name.upper(): self.person(name.upper(), subject=f"{name}-2"),
            }
            answers = await self.at_once(
                *(
                    (base, spelled, password)
                    for base in self.listeners
                    for spelled, password in passwords.items()
                )
            )
            good = {spelled for spelled, answer in answers if answer.status == 200}
            self.assertEqual(len(good), 1, str(answers))
            self.assert_linked(name, self.people[good.pop()]["subject"])

    async def test_one_address(self) -> None:
        """Of two people who list the same address one gets it."""
        for _ in range(_RACES):
            address = f"{fresh('shared')}@example.test"
            answers = await self.at_once(
                *(
                    (base, name, self.person(name, emails=[address]))
                    for base, name in zip(
                        self.listeners, (fresh("one"), fresh("two"), fresh("three")), strict=True
                    )
                )
            )
            self.assertEqual({answer.status for _, answer in answers}, {200}, str(answers))
            found = self.server.query(
                "SELECT user_id FROM user_threepids WHERE address = ?", address
            )
            self.assertEqual(len(found), 1)


class KilledTests(LinkCase):
    """Synapse is killed within a first login."""

    profile = linking(
        "links-killed",
        existing_accounts="none",
        password_providers=[{"module": FAULTY, "config": {"path": "fault"}}, *PROVIDERS],
    )

    async def test_killed(self) -> None:
        """The same person gets the account afterwards, and another of that name does not."""
        for fault, is_made in (("kill before registration", 0), ("kill before confirmation", 1)):
            name = fresh("killed")
            password = self.person(name)
            self.server.set_fault(fault)
            with self.assertRaises(BROKEN):
                await self.client.login(self.client.module, name, password)
            await self.server.wait_for_death()
            self.server.set_fault("")
            await self.server.start()
            self.assertEqual(self.links(name), [(user_id(name), "people", name, 1)])
            made = self.server.query("SELECT 1 FROM users WHERE name = ?", user_id(name))
            self.assertEqual(len(made), is_made)
            other = self.person(name.upper())
            await self.assert_not_linked(name.upper(), other)
            await self.assert_login(name, password, name)
            self.assert_linked(name, name)

    async def test_never_again(self) -> None:
        """A name that was reserved for an unfinished login is free after ten minutes."""
        name = fresh("killed")
        self.server.query(
            "INSERT INTO synapse_login_links"
            " (user_id, provider, subject, linked_at, looked_at, pending)"
            " VALUES (?, 'people', 'never', 0, 0, 1)",
            user_id(name),
        )
        await self.assert_login(name, self.person(name), name)
        self.assert_linked(name, name)
