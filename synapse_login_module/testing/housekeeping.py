"""The contract of token stores with background work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from zope.interface.verify import verifyObject

from synapse_login_module.errors import (
    ExpiredToken,
    ReusedToken,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import IHousekeeping, ILinkWatch, ITokenStore
from synapse_login_module.model import (
    Claim,
    EndedBatch,
    Link,
    Login,
    Pruned,
    SessionCounts,
    TokenPair,
    WatchedLink,
)
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.testing.stores import StoreContract

_SOON = 60.0


class HousekeepingContract(StoreContract):
    """The contract of :class:`~synapse_login_module.interfaces.IHousekeeping`, for a token store.

    It covers the links for the sweep too.
    """

    async def test_housekeeping_interface(self) -> None:
        """It provides the interfaces."""
        store, _ = await self._housekept()
        verifyObject(IHousekeeping, store)
        verifyObject(ILinkWatch, store.link_watch)

    # Pruning.

    async def test_prune(self) -> None:
        """Sessions and login tokens that ended ``keep_ended`` ago are deleted, and no others."""
        store, clock = await self._housekept(
            refresh_token=60_000,
            session=600_000,
            login_token=1000,
            refreshable_access_token=5000,
            keep_ended=10_000,
            reuse_interval=0,
        )
        await store.make_login_token("@alice:example.com")
        idle, lasting = await _issue(store, 0), await _issue(store, 1)
        clock.advance(30)
        reused = await _issue(store, 2)
        await refresh(store, _refresh_token(reused.tokens), None, True)
        with self.assertRaises(ReusedToken):
            await refresh(store, _refresh_token(reused.tokens), None, True)
        pair = await refresh(store, _refresh_token(lasting.tokens), None, True)
        self.assertEqual(await _prune(store), Pruned(0, 1, None))
        clock.advance(9)
        self.assertEqual(await _prune(store), Pruned(0, 0, None))
        with self.assertRaises(SupersededToken):
            await refresh(store, _refresh_token(reused.tokens), None, True)
        clock.advance(1)
        self.assertEqual(await _prune(store), Pruned(1, 0, None))
        with self.assertRaises(UnknownToken):
            await refresh(store, _refresh_token(reused.tokens), None, True)
        clock.advance(29)
        with self.assertRaises(ExpiredToken):
            await refresh(store, _refresh_token(idle.tokens), None, False)
        self.assertEqual(await _prune(store), Pruned(0, 0, None))
        clock.advance(1)
        self.assertEqual(await _prune(store), Pruned(1, 0, None))
        with self.assertRaises(UnknownToken):
            await refresh(store, _refresh_token(idle.tokens), None, False)
        await refresh(store, _refresh_token(pair), None, False)

    async def test_expire(self) -> None:
        """``expire`` ends every session with a soft logout, in batches; later sessions live."""
        store, _ = await self._housekept()
        logins = [await _issue(store, number) for number in range(3)]
        self.assertEqual(await _in_batches(store.expire), [2, 1])
        self.assertEqual(await _in_batches(store.expire), [0, 0])
        for login in logins:
            with self.assertRaises(ExpiredToken):
                await store.session_for_access_token(login.tokens.access_token, True)
            with self.assertRaises(SupersededToken):
                await refresh(store, _refresh_token(login.tokens), None, False)
        self.assertEqual(await store.sessions(None), [])
        later = await _issue(store, 1)
        await store.session_for_access_token(later.tokens.access_token, False)
        await refresh(store, _refresh_token(later.tokens), None, False)

    async def test_revoke_everybody(self) -> None:
        """All sessions and login tokens are revoked in batches, and sessions that are over go."""
        store, clock = await self._housekept(session=100_000, login_token=1_000_000)
        await _issue(store, 0)
        clock.advance(90)
        logins = [
            await store.issue(user_id, f"D{number}", None, True, True)
            for number in range(2)
            for user_id in ("@alice:example.com", "@bob:example.com")
        ]
        made = await store.make_login_token("@carol:example.com")
        clock.advance(20)
        self.assertEqual(sum(await _in_batches(store.revoke_everybody)), 4)
        self.assertEqual(await _in_batches(store.revoke_everybody), [0])
        for login in logins:
            with self.assertRaises(UnknownToken):
                await store.session_for_access_token(login.tokens.access_token, True)
            with self.assertRaises(UnknownToken):
                await refresh(store, _refresh_token(login.tokens), None, False)
        with self.assertRaises(UnknownToken):
            await store.login_token_owner(made.token)
        self.assertEqual(await store.sessions(None), [])
        later = await _issue(store, 1)
        await refresh(store, _refresh_token(later.tokens), None, False)

    async def test_count_sessions(self) -> None:
        """Living sessions are counted, and those that pruning would remove."""
        store, clock = await self._housekept(session=100_000, keep_ended=10_000, reuse_interval=0)
        self.assertEqual(await store.count_sessions(), SessionCounts(0, 0))
        await _issue(store, 0)
        clock.advance(90)
        for number in range(1, 5):
            login = await _issue(store, number)
        await refresh(store, _refresh_token(login.tokens), None, True)
        with self.assertRaises(ReusedToken):
            await refresh(store, _refresh_token(login.tokens), None, True)
        self.assertEqual(await store.count_sessions(), SessionCounts(4, 0))
        clock.advance(15)
        self.assertEqual(await store.count_sessions(), SessionCounts(3, 1))
        clock.advance(5)
        self.assertEqual(await store.count_sessions(), SessionCounts(3, 2))
        self.assertEqual((await _prune(store)).sessions, 2)
        lasting, clock = await self._housekept(session=1000, keep_ended=None)
        await _issue(lasting, 0)
        clock.advance(1_000_000)
        self.assertEqual(await lasting.count_sessions(), SessionCounts(0, 0))

    async def test_users_alike(self) -> None:
        """Users are found by any spelling that differs only in the case of ASCII letters."""
        store, _ = await self._housekept()
        spellings = ["@kate:example.com", "@Kate:example.com", "@KATE:example.com"]
        strangers = ["@\u212aate:example.com", "@kat_:example.com", "@katee:example.com"]
        for user_id in (*spellings[:2], *strangers):
            await store.issue(user_id, "PHONE", None, False, True)
            await store.issue(user_id, "LAPTOP", None, False, True)
        for user_id in spellings[1:]:
            await store.link(Link(user_id, "ldap", user_id), False)
        for given in ("@kate:example.com", "@kAtE:EXAMPLE.com"):
            self.assertEqual(sorted(await store.users_alike(given)), sorted(spellings))
        self.assertEqual(await store.users_alike("@nobody:example.com"), [])
        (stranger,) = await store.users_alike(strangers[0])
        self.assertEqual(stranger, strangers[0])

    async def test_prune_nothing(self) -> None:
        """Without ``keep_ended``, nothing is ever deleted."""
        store, clock = await self._housekept(session=1000, login_token=1000, keep_ended=None)
        login = await _issue(store, 0)
        await store.make_login_token("@alice:example.com")
        clock.advance(1_000_000)
        self.assertEqual(await _prune(store), Pruned(0, 0, None))
        with self.assertRaises(ExpiredToken):
            await refresh(store, _refresh_token(login.tokens), None, False)

    async def test_prune_access_token_alone(self) -> None:
        """A session without a refresh token is over when its access token expires."""
        store, clock = await self._housekept(nonrefreshable_access_token=5000, keep_ended=0)
        await store.issue("@alice:example.com", "BOT", None, False, False)
        both = await store.issue("@alice:example.com", "PHONE", None, False, True)
        clock.advance(5)
        self.assertEqual(await _prune(store), Pruned(1, 0, None))
        await refresh(store, _refresh_token(both.tokens), None, False)
        lasting, clock = await self._housekept(keep_ended=0, refresh_token=1000)
        login = await lasting.issue("@alice:example.com", "BOT", None, False, False)
        clock.advance(1_000_000)
        self.assertEqual(await _prune(lasting), Pruned(0, 0, None))
        await lasting.session_for_access_token(login.tokens.access_token, False)

    async def test_prune_in_batches(self) -> None:
        """A batch keeps to ``scan`` and ``most``; all batches together look at every row."""
        store, clock = await self._housekept(session=10_000, keep_ended=0)
        for number in range(7):
            await _issue(store, number)
            await store.make_login_token("@alice:example.com")
        clock.advance(200)
        lasting = [await _issue(store, number) for number in range(7, 12)]
        for scan, most in ((3, 2), (2, 3), (5, 5)):
            total, tokens, after = 0, 0, None
            while True:
                batch = await store.prune(after, scan, most)
                self.assertLessEqual(max(batch.sessions, batch.login_tokens), most)
                total, tokens, after = (
                    total + batch.sessions,
                    tokens + batch.login_tokens,
                    batch.after,
                )
                if after is None:
                    break
            self.assertEqual((total, tokens), (7, 7) if scan == 3 else (0, 0))
        self.assertEqual(len(await store.sessions(None)), 5)
        for login in lasting:
            await store.session_for_access_token(login.tokens.access_token, False)

    # The links, for the sweep.

    async def test_watch(self) -> None:
        """A link is found by its user and its provider, and is alive while it has a session."""
        store, _ = await self._housekept()
        await _link(store, "ldap", 3)
        await _link(store, "file", 1)
        watch = store.link_watch
        (alice,) = await watch.find(["@ldap0:example.com", "@nobody:example.com"])
        self.assertEqual(alice.link, Link("@ldap0:example.com", "ldap", "ldap-0"))
        self.assertTrue(alice.alive)
        self.assertFalse(alice.is_marked or alice.is_admin or alice.is_locked)
        await store.revoke_all("@ldap0:example.com")
        self.assertEqual(
            [(row.user_id, row.alive) for row in await watch.page(["ldap"], "", 2)],
            [("@ldap0:example.com", False), ("@ldap1:example.com", True)],
        )
        self.assertEqual(
            _users(await watch.page(["ldap"], "@ldap1:example.com", 5)), ["@ldap2:example.com"]
        )
        self.assertEqual(len(await watch.page([], "", 9)), 4)
        self.assertEqual(len(await watch.sample("ldap", 2)), 2)
        self.assertEqual(
            await watch.sample("file", 9), [Link("@file0:example.com", "file", "file-0")]
        )
        counts = await watch.counts(0)
        self.assertEqual(counts.by_provider, {"ldap": 3, "file": 1})
        self.assertEqual((counts.present, counts.vanished, counts.held), (4, 0, 0))

    async def test_due_clock_set_back(self) -> None:
        """Links that were looked at in the future come first, because the clock was set back."""
        store, clock = await self._housekept()
        users = await _link(store, "ldap", 5)
        watch, now = store.link_watch, int(clock.seconds() * 1000)
        await watch.due("ldap", 5, now + 3_600_000)
        seen: list[str] = []
        for at in range(5):
            seen += _users(await watch.due("ldap", 1, now + at))
        self.assertEqual(sorted(seen), sorted(users))

    async def test_due(self) -> None:
        """Links with the oldest looks come first. After a look they come last."""
        store, clock = await self._housekept()
        users = await _link(store, "ldap", 3)
        watch, now = store.link_watch, int(clock.seconds() * 1000)
        self.assertEqual(
            {user for at in (1, 2, 3) for user in _users(await watch.due("ldap", 1, now + at))},
            set(users),
        )
        (first,) = await watch.due("ldap", 1, now + 4)
        self.assertEqual(first.looked_at, now + 1)
        self.assertEqual((await watch.counts(0)).oldest_look, now + 2)
        self.assertEqual(await watch.due("file", 9, now), [])

    async def test_marks(self) -> None:
        """The marks of a link stay until they are removed, or the link is replaced."""
        store, _ = await self._housekept()
        users = await _link(store, "ldap", 3)
        watch = store.link_watch
        await watch.mark(users[:2], gone_since=5000, held=True)
        await watch.mark(users[:1], gone_since=5000, held=False)
        (locked,) = await watch.find(users[2:])
        self.assertTrue(await watch.mark_locked(locked.link, True))
        self.assertFalse(await watch.mark_locked(Link("@x:example.com", "ldap", "x"), True))
        self.assertEqual(sorted(await watch.marked()), users)
        (locked,) = await watch.find(users[2:])
        self.assertTrue(locked.locked and locked.is_locked)
        self.assertEqual(_users(await watch.page((), "", 9, held=True)), [users[1]])
        self.assertEqual([link.user_id for link in await watch.sample("ldap", 9)], [users[2]])
        counts = await watch.counts(4999)
        self.assertEqual(
            (counts.living, counts.present, counts.vanished, counts.held, counts.newest_held),
            ({"ldap": 1}, 3, 2, 1, 5000),
        )
        past = await watch.counts(5000)
        self.assertEqual((past.present, past.vanished, past.held), (2, 1, 1))
        await watch.mark(users[:2], gone_since=None, held=False)
        await watch.mark_locked(locked.link, False)
        self.assertEqual(await watch.marked(), [])
        await watch.mark(users[:1], gone_since=5000, held=True)
        await store.link(Link(users[0], "ldap", "another"), True)
        self.assertEqual(await watch.marked(), [])

    async def test_mark_many(self) -> None:
        """Any number of links can be marked in one call."""
        store, _ = await self._housekept()
        for number in range(450):
            await store.link(Link(f"@{number:03}:example.com", "ldap", str(number)), False)
        watch = store.link_watch
        users = _users(await watch.page((), "", 1000))
        await watch.mark(users, gone_since=1, held=True)
        self.assertEqual((await watch.counts(0)).held, 450)
        self.assertEqual(len(await watch.due("ldap", 450, 10**13)), 450)
        self.assertEqual((await watch.counts(0)).oldest_look, 10**13)

    async def _housekept(self, **policy: int | None) -> tuple[Any, Any]:
        """Make a store, which provides both ``ITokenStore`` and ``IHousekeeping``."""
        return await self._store(**policy)


class LeasesContract(StoreContract):
    """The contract of the leases of a store that several servers share."""

    async def test_lease(self) -> None:
        """One holder has a lease, until it gives it up or the lease ends."""
        given, _ = await self._store()
        store: Any = given
        self.assertTrue(await store.hold("sweep", "one", _SOON))
        self.assertFalse(await store.hold("sweep", "two", _SOON))
        self.assertTrue(await store.hold("other", "two", _SOON))
        self.assertTrue(await store.hold("sweep", "one", _SOON))
        await store.release("sweep", "two")
        self.assertFalse(await store.hold("sweep", "two", _SOON))
        await store.release("sweep", "one")
        self.assertTrue(await store.hold("sweep", "two", 0))
        self.assertTrue(await store.hold("sweep", "one", _SOON))
        self.assertFalse(await store.hold("sweep", "two", _SOON))

    async def test_lease_from_before_the_clock_stepped_back(self) -> None:
        """A lease that lasts longer than a new one would does not count."""
        given, _ = await self._store()
        store: Any = given
        self.assertTrue(await store.hold("sweep", "one", 3600))
        self.assertTrue(await store.hold("sweep", "two", _SOON))


async def _issue(store: ITokenStore, number: int) -> Login:
    return await store.issue("@alice:example.com", f"DEVICE{number}", None, True, True)


async def _in_batches(
    end: Callable[[int | None, int], Awaitable[EndedBatch]],
) -> list[int]:
    """End all sessions in batches of two rows; return how many each batch ended."""
    ended: list[int] = []
    after: int | None = None
    while True:
        batch = await end(after, 2)
        ended.append(batch.sessions)
        after = batch.after
        if after is None:
            return ended


async def _prune(store: Any) -> Pruned:
    pruned: Pruned = await store.prune(None, 100, 100)
    return pruned


async def _link(store: ITokenStore, provider: str, number: int) -> list[str]:
    users = [f"@{provider}{index}:example.com" for index in range(number)]
    for index, user in enumerate(users):
        claim = Claim((provider,), f"{provider}-{index}")
        await store.issue(user, None, None, True, True, claim=claim)
    return users


def _users(rows: list[WatchedLink]) -> list[str]:
    return [row.user_id for row in rows]


def _refresh_token(pair: TokenPair) -> str:
    assert pair.refresh_token is not None
    return pair.refresh_token
