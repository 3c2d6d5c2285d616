"""The contract of token stores that reserve user IDs whose accounts are about to be made."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList
from twisted.internet.task import Clock

from synapse_login_module.errors import AccountNotLinked
from synapse_login_module.model import APPLICATION_SERVICE, Claim, Link, Login
from synapse_login_module.testing.stores import StoreContract

_ALICE = "@alice:example.com"
_BOB = "@bob:example.com"
_CLAIM = Claim(("ldap",), "entryUUID:1")
_OTHER = Claim(("ldap",), "entryUUID:2")


class NameReservationsContract(StoreContract):
    """The contract of the reservations of names in an ``IDelegatedStore``.

    ``make_store`` makes the store as for a server that a homeserver delegates to.
    """

    async def _reserving(self) -> tuple[Any, Clock]:
        """Make a store, which provides all interfaces of stores."""
        return await self._store()

    async def test_reserve_name(self) -> None:
        """A name is reserved for one account for ten minutes, under any name of its provider."""
        store, clock = await self._reserving()
        renamed = Claim(("directory", "ldap"), _CLAIM.subject)
        self.assertFalse(await store.has_reserved_name(_ALICE, _CLAIM))
        await store.reserve_name(_ALICE, _CLAIM)
        clock.advance(300)
        others = [_OTHER, Claim(("sql",), _CLAIM.subject), Claim(("directory",), _CLAIM.subject)]
        for other in others:
            with self.assertRaises(AccountNotLinked) as raised:
                await store.reserve_name(_ALICE, other)
            self.assertEqual(raised.exception.user_id, _ALICE)
            with self.assertRaises(AccountNotLinked):
                await store.require_name(_ALICE, other)
            self.assertFalse(await store.has_reserved_name(_ALICE, other))
        self.assertFalse(await store.has_reserved_name(_BOB, _CLAIM))
        self.assertTrue(await store.has_reserved_name(_ALICE, renamed))
        await store.reserve_name(_ALICE, renamed)
        clock.advance(599)
        self.assertTrue(await store.has_reserved_name(_ALICE, renamed))
        clock.advance(1)
        self.assertFalse(await store.has_reserved_name(_ALICE, renamed))
        await store.require_name(_ALICE, _OTHER)
        await store.reserve_name(_ALICE, _OTHER)
        self.assertTrue(await store.has_reserved_name(_ALICE, _OTHER))

    async def test_reserve_linked_name(self) -> None:
        """A name is not reserved where the user ID or the account has another link."""
        store, _ = await self._reserving()
        await store.link(Link(_ALICE, "ldap", _CLAIM.subject), False)
        for user_id, claim in ((_ALICE, _OTHER), (_BOB, _CLAIM)):
            with self.assertRaises(AccountNotLinked) as raised:
                await store.reserve_name(user_id, claim)
            self.assertIn("linked", raised.exception.problem)
            with self.assertRaises(AccountNotLinked) as foretold:
                await store.require_name(user_id, claim)
            self.assertEqual(str(foretold.exception), str(raised.exception))
            self.assertFalse(await store.has_reserved_name(user_id, claim))
        await store.reserve_name(_ALICE, _CLAIM)
        await store.reserve_name(_BOB, _OTHER)
        await _log_in(store, _BOB, _OTHER)
        self.assertEqual(await store.linked_user(_OTHER), _BOB)

    async def test_require_name(self) -> None:
        """To check whether a name can be reserved reserves nothing, and keeps the links."""
        store, _ = await self._reserving()
        await store.require_name(_ALICE, _CLAIM)
        self.assertFalse(await store.has_reserved_name(_ALICE, _CLAIM))
        await _log_in(store, _BOB, Claim((APPLICATION_SERVICE,), _BOB))
        await store.require_name(_BOB, _CLAIM)
        self.assertEqual((await store.link_of(_BOB)).provider, APPLICATION_SERVICE)

    async def test_withdraw_name(self) -> None:
        """A reservation can be withdrawn by its own account alone."""
        store, _ = await self._reserving()
        await store.reserve_name(_ALICE, _CLAIM)
        await store.withdraw_name(_ALICE, _OTHER)
        self.assertTrue(await store.has_reserved_name(_ALICE, _CLAIM))
        await store.withdraw_name(_ALICE, _CLAIM)
        self.assertFalse(await store.has_reserved_name(_ALICE, _CLAIM))
        await store.reserve_name(_ALICE, _OTHER)

    async def test_reserve_name_of_service(self) -> None:
        """A user ID that an application service has logged in to is the person's who comes. The
        session of the application service goes on, and from then on is of the person's account.
        """
        store, _ = await self._reserving()
        of_service = Claim((APPLICATION_SERVICE,), _ALICE)
        session = await _log_in(store, _ALICE, of_service)
        presented = await store.present(session.tokens.refresh_token)
        self.assertEqual(presented.session.link.provider, APPLICATION_SERVICE)
        await store.reserve_name(_ALICE, _CLAIM)
        with self.assertRaises(AccountNotLinked):
            await store.reserve_name(_ALICE, _OTHER)
        await _log_in(store, _ALICE, _CLAIM, "LAPTOP")
        self.assertEqual(await store.link_of(_ALICE), Link(_ALICE, "ldap", _CLAIM.subject))
        presented = await store.present(session.tokens.refresh_token)
        self.assertEqual(presented.session.link.provider, "ldap")
        self.assertEqual(len(await store.sessions(_ALICE)), 2)

    async def test_unlinked_name(self) -> None:
        """A reservation ends with the link of its user ID, which another account may then get."""
        store, _ = await self._reserving()
        await store.reserve_name(_ALICE, _CLAIM)
        await _log_in(store, _ALICE, _CLAIM)
        await store.unlink(_ALICE)
        self.assertFalse(await store.has_reserved_name(_ALICE, _CLAIM))
        await store.reserve_name(_ALICE, _OTHER)

    async def test_two_names_at_once(self) -> None:
        """Of two accounts that reserve a name at once, one gets it."""
        store, _ = await self._reserving()
        for number in range(5):
            user_id = f"@user{number}:example.com"
            results = await DeferredList(
                [store.reserve_name(user_id, each) for each in (_CLAIM, _OTHER)],
                consumeErrors=True,
            )
            self.assertEqual(sorted(good for good, _ in results), [False, True])
            winner, loser = (_CLAIM, _OTHER) if results[0][0] else (_OTHER, _CLAIM)
            self.assertTrue(await store.has_reserved_name(user_id, winner))
            self.assertFalse(await store.has_reserved_name(user_id, loser))


async def _log_in(store: Any, user_id: str, claim: Claim, device: str = "PHONE") -> Login:
    await store.reserve_device(user_id, device, False)
    login: Login = await store.issue(user_id, device, None, True, True, claim=claim)
    return login
