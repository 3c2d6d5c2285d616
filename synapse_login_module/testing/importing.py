"""The contract of token stores that take over sessions of a homeserver."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from synapse_login_module.errors import (
    ExpiredToken,
    ReusedToken,
    SessionMismatch,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import IDelegatedStore, IImportsSessions
from synapse_login_module.model import ImportedSession, ImportOutcome
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.testing.stores import StoreContract

ALICE = "@alice:example.com"
BOB = "@bob:example.com"
_PLAIN = "syt_alice_plain"
_ACCESS, _REFRESH = "syt_alice_paired", "syr_alice_paired"
_LATER = "syr_alice_later"
_ODD_NAME = '{"Alice\'s \\ phone", NULL}'
_START = 1_000_000_000_000


def imported_session(
    access: str,
    refresh: str | None = None,
    user_id: str = ALICE,
    device: str = "PHONE",
    **more: Any,
) -> ImportedSession:
    """Make a session with these tokens."""
    given: dict[str, Any] = {"display_name": None, "known_at": _START - 60_000, **more}
    return ImportedSession(
        user_id=user_id,
        device_id=device,
        access_expires_at=given.pop("access_expires_at", None),
        access_tokens=frozenset([_digest(access)]),
        refresh_tokens=frozenset() if refresh is None else frozenset([_digest(refresh)]),
        **given,
    )


class ImportsSessionsContract(StoreContract):
    """The contract of :class:`~synapse_login_module.interfaces.IImportsSessions`, for a store."""

    async def test_imports_interface(self) -> None:
        """It provides the interface, and its method returns a Deferred."""
        store = await self._importing()
        verifyObject(IImportsSessions, store)
        done = store.import_sessions([])
        self.assertIsInstance(done, Deferred)
        self.assertEqual(await done, [])

    async def test_session(self) -> None:
        """An imported session is listed with its device, name and time, and can be revoked."""
        store = await self._importing()
        wanted = [
            imported_session(_PLAIN, display_name=_ODD_NAME),
            imported_session(_ACCESS, _REFRESH, BOB, "TA\\BLET", known_at=_START - 70_000),
        ]
        self.assertEqual(await store.import_sessions(wanted), [ImportOutcome.TAKEN] * 2)
        later, earlier = await store.sessions(ALICE), await store.sessions(BOB)
        self.assertCountEqual(await store.sessions(None), earlier + later)
        (session,) = later
        known = session.user_id, session.device_id, session.display_name, session.created_at
        self.assertEqual(known, (ALICE, "PHONE", _ODD_NAME, _START - 60_000))
        self.assertEqual((earlier[0].device_id, earlier[0].display_name), ("TA\\BLET", None))
        await store.revoke(session)
        self.assertEqual(await store.revoke_all(BOB), 1)
        for token in (_PLAIN, _ACCESS):
            with self.assertRaises(UnknownToken):
                await store.session_for_access_token(token, True)
        with self.assertRaises(UnknownToken):
            await store.present(_REFRESH)

    async def test_access(self) -> None:
        """An imported access token finds its session until it expires, and is of no other kind."""
        store, clock = await self._importing_at()
        for token in (_PLAIN, "", "syt_é\ud800", "x" * 10_000):
            with self.assertRaises(UnknownToken):
                await store.session_for_access_token(token, False)
        clock.advance(2)
        await store.import_sessions(
            [imported_session(_PLAIN, access_expires_at=_START + 60_000)], True
        )
        for token in (_PLAIN[:-1], _PLAIN + "x", _PLAIN.upper(), ""):
            with self.assertRaises(UnknownToken):
                await store.session_for_access_token(token, False)
        for _ in range(2):
            found = await store.session_for_access_token(_PLAIN, False)
            self.assertEqual((found.user_id, found.device_id), (ALICE, "PHONE"))
        with self.assertRaises(UnknownToken):
            await store.present(_PLAIN)
        clock.advance(60)
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(_PLAIN, False)
        await store.session_for_access_token(_PLAIN, True)

    async def test_lenient(self) -> None:
        """A lenient refresh makes a pair, which a retry repeats. Its first use ends the old one."""
        store = await self._importing()
        await store.import_sessions([imported_session(_ACCESS, _REFRESH)])
        with self.assertRaises(UnknownToken):
            await store.session_for_access_token(_REFRESH, True)
        pair = await refresh(store, _REFRESH, None, False)
        await store.session_for_access_token(_ACCESS, False)
        again = await refresh(store, _REFRESH, None, False)
        self.assertEqual(again[:2], pair[:2])
        await store.session_for_access_token(_ACCESS, False)
        found = await store.session_for_access_token(pair.access_token, False)
        self.assertEqual((found.user_id, found.device_id), (ALICE, "PHONE"))
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(_ACCESS, True)
        with self.assertRaises(SupersededToken):
            await refresh(store, _REFRESH, None, False)
        await refresh(store, again.refresh_token or "", None, False)

    async def test_strict(self) -> None:
        """A strict refresh needs an access token of the same session, and ends the old pair."""
        store = await self._importing()
        await store.import_sessions(
            [imported_session(_ACCESS, _REFRESH), imported_session(_PLAIN, None, BOB)]
        )
        own = (await store.issue(BOB, None, None, True, True)).tokens
        for other in (_PLAIN, own.access_token, "syt_unknown", _REFRESH):
            with self.assertRaises(SessionMismatch):
                await refresh(store, _REFRESH, other, True)
        pair = await refresh(store, _REFRESH, _ACCESS, True)
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(_ACCESS, True)
        await refresh(store, pair.refresh_token or "", _ACCESS, True)

    async def test_reuse(self) -> None:
        """An imported refresh token that is used again later ends the session."""
        store, clock = await self._importing_at(reuse_interval=10_000)
        await store.import_sessions([imported_session(_ACCESS, _REFRESH)])
        pair = await refresh(store, _REFRESH, None, True)
        clock.advance(10)
        with self.assertRaises(ReusedToken):
            await refresh(store, _REFRESH, None, False)
        with self.assertRaises(SupersededToken):
            await refresh(store, pair.refresh_token or "", None, False)
        self.assertEqual(await store.sessions(ALICE), [])

    async def test_again(self) -> None:
        """Importing again changes nothing; what Synapse has changed since is imported."""
        store = await self._importing()
        before = [imported_session(_ACCESS, _REFRESH)]
        await store.import_sessions(before)
        listed = await store.sessions(None)
        self.assertEqual(await store.import_sessions(before), [ImportOutcome.KNOWN])
        self.assertEqual(await store.sessions(None), listed)
        now = [imported_session(_ACCESS, _LATER)]
        self.assertEqual(await store.import_sessions(now, False), [ImportOutcome.RENEWED])
        with self.assertRaises(UnknownToken):
            await store.present(_LATER)
        self.assertEqual(await store.import_sessions(now), [ImportOutcome.RENEWED])
        self.assertEqual(await store.import_sessions(now), [ImportOutcome.KNOWN])
        with self.assertRaises(UnknownToken):
            await store.present(_REFRESH)
        await store.session_for_access_token(_ACCESS, False)
        pair = await refresh(store, _LATER, None, True)
        self.assertEqual(await store.import_sessions(before), [ImportOutcome.KNOWN])
        await store.session_for_access_token(pair.access_token, False)

    async def test_renewed_without_refresh_token(self) -> None:
        """A session that has lost its refresh token at the homeserver has none here either."""
        store, clock = await self._importing_at(keep_ended=0)
        await store.import_sessions([imported_session(_ACCESS, _REFRESH)])
        now = imported_session(_PLAIN, None, access_expires_at=_START + 1000)
        self.assertEqual(await store.import_sessions([now]), [ImportOutcome.RENEWED])
        await store.session_for_access_token(_PLAIN, False)
        clock.advance(1)
        self.assertEqual(await store.sessions(None), [])

    async def test_device_in_use(self) -> None:
        """A session that began here stays, and one that has ended here does not come back."""
        store = await self._importing()
        own = (await store.issue(ALICE, "PHONE", None, True, True)).tokens
        wanted = [imported_session(_ACCESS, _REFRESH), imported_session(_PLAIN, None, BOB)]
        outcomes = [ImportOutcome.IN_USE, ImportOutcome.TAKEN]
        self.assertEqual(await store.import_sessions(wanted, False), outcomes)
        self.assertEqual(len(await store.sessions(None)), 1)
        self.assertEqual(await store.import_sessions(wanted), outcomes)
        await store.session_for_access_token(own.access_token, False)
        with self.assertRaises(UnknownToken):
            await store.session_for_access_token(_ACCESS, True)
        await store.revoke_all(BOB)
        self.assertEqual(await store.import_sessions(wanted[1:]), [ImportOutcome.ENDED])
        self.assertEqual(await store.sessions(BOB), [])

    async def test_owed_device(self) -> None:
        """No session is imported on a device that is to be deleted at the homeserver."""
        store = await self._importing()
        keeps_notes: bool = IDelegatedStore.providedBy(store)
        if not keeps_notes:
            raise SkipTest("the store keeps no notes for a homeserver")
        await store.delete_device(ALICE, "PHONE")
        wanted = [imported_session(_ACCESS, _REFRESH), imported_session(_PLAIN, None, BOB)]
        outcomes = [ImportOutcome.ENDED, ImportOutcome.TAKEN]
        self.assertEqual(await store.import_sessions(wanted), outcomes)
        self.assertEqual(await store.sessions(ALICE), [])

    async def test_new_login(self) -> None:
        """A login on the device of an imported session ends that session."""
        store = await self._importing()
        await store.import_sessions([imported_session(_ACCESS, _REFRESH)])
        await store.session_for_access_token(_ACCESS, False)
        own = (await store.issue(ALICE, "PHONE", None, True, True)).tokens
        with self.assertRaises(UnknownToken):
            await store.session_for_access_token(_ACCESS, True)
        with self.assertRaises(UnknownToken):
            await store.present(_REFRESH)
        await store.session_for_access_token(own.access_token, False)

    async def test_many(self) -> None:
        """A batch of hundreds of sessions is imported, and each token finds its own."""
        store = await self._importing()
        wanted = [
            imported_session(f"syt_{number}", f"syr_{number}", f"@user{number}:example.com")
            for number in range(300)
        ]
        self.assertEqual(set(await store.import_sessions(wanted)), {ImportOutcome.TAKEN})
        for number in (0, 1, 150, 299):
            found = await store.session_for_access_token(f"syt_{number}", False)
            self.assertEqual(found.user_id, f"@user{number}:example.com")

    async def test_prune_imported(self) -> None:
        """Pruning forgets the tokens of sessions that ended or were refreshed, and no others."""
        for scan, most in ((1000, 100), (2, 1), (1, 2)):
            store, clock = await self._importing_at(reuse_interval=10_000)
            for number in range(4):
                given = imported_session(f"syt_{number}", f"syr_{number}", device=str(number))
                await store.import_sessions([given])
                clock.advance(2)
            await refresh(store, "syr_0", None, True)
            pending = await refresh(store, "syr_1", None, False)
            (ended,) = [each for each in await store.sessions(None) if each.device_id == "2"]
            await store.revoke(ended)
            self.assertEqual(await _prune(store, scan, most), 4)
            self.assertEqual(await _prune(store, scan, most), 0)
            with self.assertRaises(UnknownToken):
                await refresh(store, "syr_2", None, False)
            for number in (1, 3):
                await store.session_for_access_token(f"syt_{number}", False)
            again = await refresh(store, "syr_1", None, False)
            self.assertEqual(again.refresh_token, pending.refresh_token)

    async def _importing(self, **policy: int | None) -> Any:
        return (await self._importing_at(**policy))[0]

    async def _importing_at(self, **policy: int | None) -> tuple[Any, Any]:
        store, clock = await self._store(**policy)
        return store, clock


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


async def _prune(store: Any, scan: int, most: int) -> int:
    """Prune one round; return how many digests of tokens were deleted."""
    number, after = 0, None
    while True:
        batch = await store.prune(after, scan, most)
        number += int(batch.imported_tokens)
        after = batch.after
        if after is None:
            return number
