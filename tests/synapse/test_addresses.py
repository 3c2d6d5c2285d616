"""Tests for bound e-mail addresses and telephone numbers, on a real Synapse."""

from __future__ import annotations

from typing import Any

from tests.support.synapse.profile import PASSWORD
from tests.synapse.case import fresh, user_id
from tests.synapse.linkcase import LinkCase, linking
from tests.synapse.logins import by_email


def by_phone(msisdn: str) -> dict[str, Any]:
    """An identifier for ``/login``."""
    return {"type": "m.id.thirdparty", "medium": "msisdn", "address": msisdn}


class AddressCase(LinkCase):
    """Helpers."""

    async def bind(self, localpart: str, medium: str, address: str) -> None:
        """Have the administrator bind an address."""
        changed = await self.client.change_user(
            await self.administrator(),
            localpart,
            threepids=[{"medium": medium, "address": address}],
        )
        self.assertEqual(changed.status, 200, str(changed))

    def owners_of(self, address: str) -> list[str]:
        """Whose an address is."""
        found = self.server.query("SELECT user_id FROM user_threepids WHERE address = ?", address)
        return [row[0] for row in found]

    async def assert_login_by(
        self, identifier: dict[str, Any], password: str, user: str | None
    ) -> None:
        """A login at each listener is good, and as this user; or is refused, for ``None``."""
        for base in self.listeners:
            answer = await self.client.login(base, password=password, identifier=identifier)
            if user is None:
                self.assert_error(answer, 403, "M_FORBIDDEN")
            else:
                self.assertEqual(answer.status, 200, str(answer))
                self.assertEqual(answer.json["user_id"], user_id(user))


class StolenAddressTests(AddressCase):
    """An address that is bound to a user is never moved."""

    profile = linking("addresses")

    async def test_first_login(self) -> None:
        """Another account that lists it does not get it, at any login; a line says so."""
        victim, local = await self.local_user("victim")
        address = f"{victim}@example.test"
        await self.bind(victim, "email", address)
        thief, own = fresh("mallory"), f"{fresh('mallory')}@example.test"
        password = self.person(thief, emails=[address.upper(), own])
        before = len(self.logged())
        await self.assert_login(thief, password, thief)
        self.assertEqual(self.owners_of(address), [user_id(victim)])
        self.assertEqual(self.owners_of(own), [user_id(thief)])
        line = f"{address} stays bound to {user_id(victim)}: "
        self.assertIn(line, self.logged()[before:])
        # Nor does the thief's entry stand in the way of the victim, or let the thief in.
        await self.assert_login_by(by_email(address), local, victim)
        await self.assert_login_by(by_email(address), password, None)
        await self.assert_login_by(by_email(own), password, thief)

    async def test_victim_of_a_provider(self) -> None:
        """So it is when the victim is a provider's too."""
        thief, address = fresh("mallory"), f"{fresh('victim')}@example.test"
        victim = self.new_user("victim")
        await self.client.pair(victim)
        await self.bind(victim, "email", address)
        stolen = self.person(thief, emails=[address])
        await self.assert_login_by(by_email(address), PASSWORD, victim)
        await self.assert_login_by(by_email(address), stolen, None)
        self.assertEqual(self.links(thief), [])
        await self.assert_login(thief, stolen, thief)
        self.assertEqual(self.owners_of(address), [user_id(victim)])

    async def test_claimed_at_once(self) -> None:
        """Of two who claim an address at the same time, one gets it."""
        for _ in range(5):
            address = f"{fresh('shared')}@example.test"
            names = [fresh("one"), fresh("two")]
            logins = [
                (base, name, self.person(name, emails=[address]))
                for name, base in zip(names, self.listeners, strict=True)
            ]
            answers = await self.at_once(*logins)
            self.assertEqual([answer.status for _, answer in answers], [200, 200])
            self.assertEqual(len(self.owners_of(address)), 1)


class SynchronizedAddressTests(StolenAddressTests):
    """Nor with ``sync_profile``."""

    profile = linking("addresses-sync", sync_profile=True)

    async def test_taken_in_turns(self) -> None:
        """Two who share an address do not take it from each other at each login."""
        address = f"{fresh('shared')}@example.test"
        first, second = fresh("one"), fresh("two")
        one = self.person(first, emails=[address], display_name="One")
        two = self.person(second, emails=[address])
        for _ in range(2):
            await self.assert_login(first, one, first)
            await self.assert_login(second, two, second)
            self.assertEqual(self.owners_of(address), [user_id(first)])
        self.assertEqual((await self.profile_of(first))[0], "One")


class BoundAddressTests(AddressCase):
    """A login by a bound address asks the provider about the user that it is bound to."""

    profile = linking("addresses-bound")

    async def test_unknown_to_the_provider(self) -> None:
        """It is good though the provider knows no addresses; so it is with a telephone number."""
        name = fresh("alice")
        password = self.person(name)
        await self.assert_login(name, password, name)
        address, number = f"{name}@home.test", "447700900555"
        await self.bind(name, "email", address)
        await self.assert_login_by(by_email(address), password, name)
        await self.assert_login_by(by_email(f" {address.upper()} "), password, name)
        await self.assert_login_by(by_email(address), "wrong", None)
        await self.bind(name, "msisdn", number)
        await self.assert_login_by(by_phone(number), password, name)
        await self.assert_login_by(by_phone(number), "wrong", None)

    async def test_spelled_otherwise_by_the_provider(self) -> None:
        """The provider is asked by its own spelling of the name."""
        name = fresh("alice")
        password = self.person(name.capitalize())
        await self.assert_login(name.capitalize(), password, name)
        await self.bind(name, "email", f"{name}@home.test")
        await self.assert_login_by(by_email(f"{name}@home.test"), password, name)
        await self.assert_login(name, password, name)

    async def test_first_login_by_it(self) -> None:
        """It links that user's account and no other."""
        name = await self.passwordless()
        await self.bind(name, "email", f"{name}@home.test")
        password = self.person(name, emails=[f"{name}@elsewhere.test"])
        await self.assert_login_by(by_email(f"{name}@home.test"), password, name)
        self.assert_linked(name, name)

    async def test_case_folded(self) -> None:
        """Addresses are compared as Synapse compares them."""
        name = fresh("strasse")
        password = self.person(name, emails=[f"Straße.{name}@X.Example"])
        await self.assert_login(name, password, name)
        self.assertEqual(self.owners_of(f"strasse.{name}@x.example"), [user_id(name)])
        for address in (f"Straße.{name}@X.Example", f"STRASSE.{name}@x.example"):
            await self.assert_login_by(by_email(address), password, name)

    async def test_none(self) -> None:
        """A text that is no address is unknown."""
        for address in ("a@b@c", "nobody", "@", "x\0@example.test"):
            answer = await self.client.login(
                self.client.module, password="wrong", identifier=by_email(address)
            )
            self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_one_hash(self) -> None:
        """A wrong password for such an address is asked for once, at either listener."""
        name = fresh("alice")
        await self.assert_login(name, self.person(name), name)
        await self.bind(name, "email", f"{name}@home.test")
        for base in self.listeners:
            before = await self.outcomes("provider_outcomes")
            start = len(self.logged())
            answer = await self.client.login(
                base, password="wrong", identifier=by_email(f"{name}@home.test")
            )
            self.assert_error(answer, 403, "M_FORBIDDEN")
            after = await self.outcomes("provider_outcomes")
            asked = {key: after[key] - before.get(key, 0) for key in after if "people" in key}
            self.assertEqual(sum(asked.values()), 1, str(asked))
            self.assertEqual(self.logged()[start:].count("login outcome=refused"), 1)
