"""The contract of token stores that keep notes for a homeserver that delegates to this server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from synapse_login_module.errors import (
    AccountNotLinked,
    NotReserved,
    ReusedToken,
    UnknownToken,
)
from synapse_login_module.interfaces import IDelegatedStore
from synapse_login_module.model import Claim, DeviceDeletion, Link, Login, OwedDeletions
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.testing.stores import StoreContract

_ALICE = "@alice:example.com"
_BOB = "@bob:example.com"
_CLAIM = Claim(("ldap",), "entryUUID:1")
_OTHER = Claim(("ldap",), "entryUUID:2")

_MINUTE = 60
_CLAIM_LASTS = 30


class DelegatedStoreContract(StoreContract):
    """The contract of :class:`~synapse_login_module.interfaces.IDelegatedStore`.

    It is for a token store that provides ``IHousekeeping`` too. ``make_store`` makes it as for a
    server that a homeserver delegates to.
    """

    async def _delegated(self, **policy: int | None) -> tuple[Any, Clock]:
        """Make a store, which provides all interfaces of stores."""
        return await self._store(**policy)

    async def test_delegation_interface(self) -> None:
        """It provides the interface, and owes nothing at first."""
        store, _ = await self._delegated()
        verifyObject(IDelegatedStore, store)
        self.assertEqual(await store.lease_deletions(5), [])
        self.assertEqual(await store.owed_deletions(), OwedDeletions(0, None))

    # Sessions.

    async def test_login(self) -> None:
        """A session begins on a reserved device, which is not to be deleted from then on."""
        for owed in (True, False):
            store, clock = await self._delegated()
            self.assertTrue(await store.reserve_device(_ALICE, "PHONE", owed))
            login = await _issue(store)
            self.assertEqual((login.user_id, login.device_id), (_ALICE, "PHONE"))
            clock.advance(3600)
            self.assertEqual(await store.lease_deletions(5), [])
            self.assertEqual(await store.owed_deletions(), OwedDeletions(0, None))

    async def test_not_reserved(self) -> None:
        """On a device that is not reserved no session begins, and nothing else is changed."""
        store, _ = await self._delegated()
        await _log_in(store, "PHONE", _BOB)
        await store.reserve_device(_ALICE, "TABLET", True)
        made = await store.make_login_token(_ALICE)
        for changes in ({}, {"claim": _CLAIM}, {"login_token": made.token}):
            with self.assertRaises(NotReserved):
                await _issue(store, **changes)
        with self.assertRaises(NotReserved):
            await store.issue(_ALICE, None, None, True, True)
        self.assertEqual([each.user_id for each in await store.sessions(None)], [_BOB])
        self.assertEqual(await store.links(), [])
        await store.reserve_device(_ALICE, "PHONE", False)
        await _issue(store, login_token=made.token)

    async def test_reservation_is_used_up(self) -> None:
        """One session begins on one reservation."""
        store, _ = await self._delegated()
        login = await _log_in(store)
        with self.assertRaises(NotReserved):
            await _issue(store)
        await store.session_for_access_token(login.tokens.access_token, False)

    async def test_kinds_of_logins(self) -> None:
        """A login that links, one that is linked, and one with a login token use reservations."""
        store, _ = await self._delegated()
        for _ in range(2):
            login = await _log_in(store, claim=_CLAIM)
            self.assertEqual(await store.link_of(login.user_id), Link(_ALICE, "ldap", _CLAIM[1]))
        made = await store.make_login_token(_ALICE)
        await _log_in(store, login_token=made.token)
        with self.assertRaises(UnknownToken):
            await _log_in(store, login_token=made.token)
        with self.assertRaises(AccountNotLinked):
            await _log_in(store, claim=_OTHER)
        self.assertEqual(len(await store.sessions(None)), 1)

    async def test_logout(self) -> None:
        """A logout notes the device, which is leased and finished once."""
        store, clock = await self._delegated()
        await _log_in(store)
        await _log_in(store, "TABLET")
        (session,) = [each for each in await store.sessions(None) if each.device_id == "PHONE"]
        await store.revoke(session)
        self.assertEqual(await store.owed_deletions(), OwedDeletions(1, _now(clock)))
        (deletion,) = await store.lease_deletions(5)
        self.assertEqual(deletion[:3], (_ALICE, "PHONE", 1))
        await store.finish_deletion(deletion)
        await store.revoke(session)
        await _nothing_is_left(self, store, clock)

    async def test_revoke_all(self) -> None:
        """Ending all sessions notes every device that has a row, after the grace."""
        store, clock = await self._delegated(
            reuse_interval=0, refreshable_access_token=1000, refresh_token=1000
        )
        await _log_in(store, "EXPIRED")
        reused = (await _log_in(store, "REUSED")).tokens
        await refresh(store, reused.refresh_token or "", None, True)
        with self.assertRaises(ReusedToken):
            await refresh(store, reused.refresh_token or "", None, True)
        clock.advance(2)
        await _log_in(store, "LIVING")
        await _log_in(store, "BOBS", _BOB)
        self.assertEqual(await store.revoke_all(_ALICE, device_grace=5000), 1)
        clock.advance(4)
        self.assertEqual(await store.lease_deletions(5), [])
        clock.advance(1)
        self.assertEqual(_devices(await store.lease_deletions(5)), {"EXPIRED", "REUSED", "LIVING"})
        await store.revoke_all(_BOB)
        self.assertEqual(_devices(await store.lease_deletions(5)), {"BOBS"})

    async def test_prune(self) -> None:
        """The device of a session that ended otherwise is noted when its row is pruned."""
        store, clock = await self._delegated(
            reuse_interval=0, session=100_000, keep_ended=10_000, login_token=1000
        )
        await store.make_login_token(_ALICE)
        await _log_in(store, "OLD")
        clock.advance(95)
        reused = (await _log_in(store, "REUSED")).tokens
        await refresh(store, reused.refresh_token or "", None, True)
        with self.assertRaises(ReusedToken):
            await refresh(store, reused.refresh_token or "", None, True)
        await _log_in(store, "EXPIRED")
        await store.expire(None, 100)
        await _log_in(store, "LIVING")
        self.assertEqual((await store.prune(None, 100, 100)).sessions, 0)
        self.assertEqual(await store.lease_deletions(5), [])
        clock.advance(15)
        self.assertEqual(await store.lease_deletions(5), [])
        self.assertEqual((await store.prune(None, 100, 100)).sessions, 3)
        self.assertEqual(await store.owed_deletions(), OwedDeletions(3, _now(clock)))
        self.assertEqual(_devices(await store.lease_deletions(5)), {"OLD", "REUSED", "EXPIRED"})

    async def test_revoke_everybody(self) -> None:
        """When everybody's sessions are revoked, their devices are noted as due at once."""
        store, clock = await self._delegated()
        for number in range(5):
            await _log_in(store, f"D{number}")
        after = None
        for noted in (2, 4, 5):
            batch = await store.revoke_everybody(after, 2)
            after = batch.after
            self.assertEqual(await store.owed_deletions(), OwedDeletions(noted, _now(clock)))
        self.assertIsNone(after)
        leased = await store.lease_deletions(9)
        self.assertEqual(_devices(leased), {f"D{number}" for number in range(5)})

    async def test_taken_again(self) -> None:
        """A login on the device of an ended session ends the deletion, and so does a later login.

        A login that replaces a session notes nothing.
        """
        store, clock = await self._delegated()
        await _log_in(store)
        await store.revoke_all(_ALICE)
        await _log_in(store)
        await _log_in(store)
        await _nothing_is_left(self, store, clock)

    async def test_delete_device(self) -> None:
        """A device can be deleted with its session, and without one."""
        store, clock = await self._delegated()
        login = await _log_in(store)
        other = await _log_in(store, "TABLET")
        await store.delete_device(_ALICE, "PHONE")
        await store.delete_device(_ALICE, "LAPTOP")
        with self.assertRaises(UnknownToken):
            await store.session_for_access_token(login.tokens.access_token, True)
        await store.session_for_access_token(other.tokens.access_token, False)
        self.assertEqual(_devices(await _carry_out(store)), {"PHONE", "LAPTOP"})
        await _nothing_is_left(self, store, clock)

    # Reservations of devices.

    async def test_end_during_login(self) -> None:
        """The end of a session respects the reservation of a login that is under way."""
        for name in ("logout", "deleted"):
            store, clock = await self._delegated()
            await _log_in(store)
            (session,) = await store.sessions(None)
            await store.reserve_device(_ALICE, "PHONE", False)
            if name == "logout":
                await store.revoke(session)
            else:
                await store.delete_device(_ALICE, "PHONE")
            clock.advance(_MINUTE - 1)
            self.assertEqual(await store.lease_deletions(5), [])
            clock.advance(1)
            self.assertEqual(_devices(await store.lease_deletions(5)), {"PHONE"})

    async def test_unused_reservation(self) -> None:
        """After a minute without a session, a device is deleted that is owed, and no other."""
        store, clock = await self._delegated()
        await store.delete_device(_ALICE, "BEFORE")
        for device, owed in (("NEW", True), ("KNOWN", False), ("BEFORE", False)):
            self.assertTrue(await store.reserve_device(_ALICE, device, owed))
        await store.reserve_device(_ALICE, "NEW", False)
        clock.advance(_MINUTE - 1)
        self.assertEqual(await store.lease_deletions(5), [])
        clock.advance(1)
        self.assertEqual(_devices(await _carry_out(store)), {"NEW", "BEFORE"})
        await _nothing_is_left(self, store, clock)

    async def test_grace_outlasts_a_reservation(self) -> None:
        """A reservation that no session uses leaves a later deletion where it was."""
        store, clock = await self._delegated()
        await _log_in(store)
        await store.revoke_all(_ALICE, device_grace=3_600_000)
        await store.reserve_device(_ALICE, "PHONE", False)
        await store.withdraw_device(_ALICE, "PHONE", False)
        clock.advance(3599)
        self.assertEqual(await store.lease_deletions(5), [])
        clock.advance(1)
        self.assertEqual(_devices(await store.lease_deletions(5)), {"PHONE"})

    async def test_withdraw(self) -> None:
        """A withdrawn device is deleted now if it was made, and otherwise as without a session."""
        store, clock = await self._delegated()
        for device, owed in (("MADE", False), ("OWED", True), ("KNOWN", False)):
            await store.reserve_device(_ALICE, device, owed)
            await store.withdraw_device(_ALICE, device, device == "MADE")
        await store.withdraw_device(_ALICE, "FORGOTTEN", True)
        self.assertEqual(_devices(await _carry_out(store)), {"MADE", "FORGOTTEN"})
        with self.assertRaises(NotReserved):
            await _issue(store, "KNOWN")
        clock.advance(_MINUTE)
        self.assertEqual(_devices(await _carry_out(store)), {"OWED"})
        await _nothing_is_left(self, store, clock)

    async def test_withdraw_late(self) -> None:
        """A device that was withdrawn while it was being deleted is deleted once more.

        It may have been made after the deletion. It is kept from logins for as long as the
        deletion may last.
        """
        store, clock = await self._delegated()
        await store.reserve_device(_ALICE, "PHONE", True)
        clock.advance(_MINUTE)
        (deletion,) = await store.lease_deletions(5)
        await store.withdraw_device(_ALICE, "PHONE", True)
        await store.finish_deletion(deletion)
        self.assertFalse(await store.reserve_device(_ALICE, "PHONE", True))
        clock.advance(_CLAIM_LASTS)
        self.assertEqual(_devices(await _carry_out(store)), {"PHONE"})
        await _nothing_is_left(self, store, clock)

    async def test_withdrawn_with_session(self) -> None:
        """The device of a session is not deleted, though another login on it was withdrawn."""
        store, clock = await self._delegated()
        login = await _log_in(store)
        await store.withdraw_device(_ALICE, "PHONE", True)
        self.assertEqual(await store.owed_deletions(), OwedDeletions(0, None))
        self.assertEqual(await store.lease_deletions(5), [])
        await store.session_for_access_token(login.tokens.access_token, False)
        await store.revoke_all(_ALICE)
        self.assertEqual(_devices(await _carry_out(store)), {"PHONE"})
        await _nothing_is_left(self, store, clock)

    # Deletions.

    async def test_leases(self) -> None:
        """The devices that are due longest are leased first, each by one lease at a time."""
        store, clock = await self._delegated()
        for number in range(5):
            await store.delete_device(_ALICE, f"D{number}")
            clock.advance(1)
        await store.delete_device(_ALICE, "D0")
        self.assertEqual(_devices(await store.lease_deletions(0)), set())
        found = [await store.lease_deletions(2) for _ in range(4)]
        self.assertEqual(
            [_devices(each) for each in found], [{"D1", "D2"}, {"D3", "D4"}, {"D0"}, set()]
        )

    async def test_claim_ends(self) -> None:
        """A lease ends after half a minute, and then has no effect on the next one."""
        store, clock = await self._delegated()
        await store.delete_device(_ALICE, "PHONE")
        (first,) = await store.lease_deletions(5)
        clock.advance(_CLAIM_LASTS - 1)
        self.assertEqual(await store.lease_deletions(5), [])
        self.assertFalse(await store.reserve_device(_ALICE, "PHONE", False))
        self.assertEqual((await store.owed_deletions()).number, 1)
        clock.advance(1)
        (second,) = await store.lease_deletions(5)
        self.assertEqual((first.attempts, second.attempts), (1, 2))
        await store.finish_deletion(first)
        await store.postpone_deletion(first, 0)
        self.assertEqual(await store.lease_deletions(5), [])
        self.assertEqual((await store.owed_deletions()).number, 1)
        await store.finish_deletion(second)
        await _nothing_is_left(self, store, clock)

    async def test_postpone(self) -> None:
        """A postponed deletion is leased again after the time, and has been owed all along."""
        store, clock = await self._delegated()
        await store.delete_device(_ALICE, "PHONE")
        since = _now(clock)
        for attempts in (1, 2, 3):
            (deletion,) = await store.lease_deletions(5)
            self.assertEqual(deletion.attempts, attempts)
            await store.postpone_deletion(deletion, 2.5)
            clock.advance(2)
            self.assertEqual(await store.lease_deletions(5), [])
            self.assertEqual(await store.owed_deletions(), OwedDeletions(1, since))
            clock.advance(1)
        (deletion,) = await store.lease_deletions(5)
        await store.postpone_deletion(deletion, 3600)
        self.assertTrue(await store.reserve_device(_ALICE, "PHONE", False))
        await _issue(store)
        await _nothing_is_left(self, store, clock)

    async def test_stalled_login(self) -> None:
        """A login that stalls begins no session on a device that may have been deleted since."""
        for end in ("leased", "postponed", "finished", "over"):
            store, clock = await self._delegated()
            await store.reserve_device(_ALICE, "PHONE", True)
            clock.advance(_MINUTE)
            (deletion,) = await store.lease_deletions(5)
            if end == "postponed":
                await store.postpone_deletion(deletion, 0)
            elif end == "finished":
                await store.finish_deletion(deletion)
            elif end == "over":
                clock.advance(_CLAIM_LASTS)
            with self.assertRaises(NotReserved, msg=end):
                await _issue(store)
            self.assertEqual(await store.sessions(None), [])
            self.assertIs(await store.reserve_device(_ALICE, "PHONE", False), end != "leased")

    async def test_login_while_claimed(self) -> None:
        """Of a login and a lease at once, one gets the device, and the other knows."""
        store, clock = await self._delegated()
        for number in range(10):
            await store.reserve_device(_ALICE, f"D{number}", True)
            clock.advance(_MINUTE)
            asked: list[Deferred[Any]] = [_issue(store, f"D{number}"), store.lease_deletions(5)]
            (began, _), (_, leased) = await DeferredList(asked, consumeErrors=True)
            self.assertNotEqual(began, bool(leased))
            found = [each.device_id for each in await store.sessions(None)]
            self.assertEqual(f"D{number}" in found, began)
            for deletion in leased:
                await store.finish_deletion(deletion)


def _issue(
    store: Any, device_id: str = "PHONE", user_id: str = _ALICE, **changes: Any
) -> Deferred[Login]:
    begun: Deferred[Login] = store.issue(user_id, device_id, None, True, True, **changes)
    return begun


async def _log_in(
    store: Any, device_id: str = "PHONE", user_id: str = _ALICE, **changes: Any
) -> Login:
    await store.reserve_device(user_id, device_id, False)
    return await _issue(store, device_id, user_id, **changes)


async def _carry_out(store: Any) -> list[DeviceDeletion]:
    """Claim and finish what is due."""
    leased: list[DeviceDeletion] = await store.lease_deletions(10)
    for deletion in leased:
        await store.finish_deletion(deletion)
    return leased


async def _nothing_is_left(test: Any, store: Any, clock: Clock) -> None:
    """Check that no device is ever due."""
    clock.advance(7 * 86_400)
    test.assertEqual(await store.lease_deletions(10), [])
    test.assertEqual(await store.owed_deletions(), OwedDeletions(0, None))


def _devices(leased: list[DeviceDeletion]) -> set[str]:
    return {each.device_id for each in leased}


def _now(clock: Clock) -> int:
    return int(clock.seconds() * 1000)
