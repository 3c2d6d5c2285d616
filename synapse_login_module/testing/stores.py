"""The contract of token stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from synapse_login_module.errors import (
    ExpiredToken,
    ReusedToken,
    SessionMismatch,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import Login, SessionInfo, TokenPair, TokenPolicy
from synapse_login_module.testing.sessions import refresh

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

_USERS = ("@alice:example.com", "@bob:example.com")


class StoreContract(TestCase):
    """The base class of contracts of stores."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore | Deferred[ITokenStore]:
        """Make an empty store.

        :param policy: the lifetimes of its tokens and sessions.
        :param clock: the wall clock, which only the tests advance.
        """
        raise NotImplementedError

    async def _store(self, **policy: int | None) -> tuple[ITokenStore, Clock]:
        clock = Clock()
        clock.advance(1_000_000_000)
        store: Any = self.make_store(TokenPolicy(**policy), clock)  # type: ignore[arg-type]
        return (await store if isinstance(store, Deferred) else store), clock


class TokenStoreContract(StoreContract):
    """The contract of :class:`~synapse_login_module.interfaces.ITokenStore`."""

    async def test_interface(self) -> None:
        """It provides the interface, and its methods return Deferreds."""
        store, _ = await self._store()
        verifyObject(ITokenStore, store)
        ping = store.ping()
        self.assertIsInstance(ping, Deferred)
        await ping

    async def test_issue(self) -> None:
        """A login without a device gets one, and its access token is valid."""
        store, _ = await self._store()
        login = await _issue(store)
        self.assertTrue(login.device_id)
        session = await store.session_for_access_token(login.tokens.access_token, False)
        self.assertEqual((session.user_id, session.device_id), (login.user_id, login.device_id))

    async def test_lifetimes(self) -> None:
        """By default only the access token of a client that refreshes expires."""
        store, clock = await self._store(refreshable_access_token=5000)
        lasting = await _issue(store, refreshable=False)
        brief = await _issue(store)
        self.assertIsNone(lasting.tokens.expires_in_ms)
        self.assertEqual(brief.tokens.expires_in_ms, 5000)
        clock.advance(5)
        await store.session_for_access_token(lasting.tokens.access_token, False)
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(brief.tokens.access_token, False)
        await store.session_for_access_token(brief.tokens.access_token, True)

    async def test_no_refresh_token(self) -> None:
        """A login without a refresh token has none."""
        store, _ = await self._store()
        login = await store.issue("@alice:example.com", None, None, False, False)
        self.assertIsNone(login.tokens.refresh_token)

    async def test_same_device(self) -> None:
        """A second login on a device ends the first, and no session of another device."""
        store, _ = await self._store()
        first = await _issue(store, "PHONE")
        other = await _issue(store, "TABLET")
        second = await _issue(store, "PHONE")
        with self.assertRaises(UnknownToken):
            await store.session_for_access_token(first.tokens.access_token, False)
        with self.assertRaises(UnknownToken):
            await refresh(store, _refresh_token(first.tokens), None, False)
        for login in (other, second):
            await store.session_for_access_token(login.tokens.access_token, False)

    async def test_strict_refresh(self) -> None:
        """A strict refresh makes the old pair invalid at once."""
        store, _ = await self._store()
        login = await _issue(store)
        pair = await refresh(store, _refresh_token(login.tokens), login.tokens.access_token, True)
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(login.tokens.access_token, False)
        with self.assertRaises(SupersededToken):
            await refresh(store, _refresh_token(login.tokens), login.tokens.access_token, True)
        await store.session_for_access_token(pair.access_token, False)
        await refresh(store, _refresh_token(pair), pair.access_token, True)

    async def test_lenient_refresh(self) -> None:
        """A lenient refresh keeps the old pair valid until the new one is first used."""
        store, _ = await self._store()
        login = await _issue(store)
        old = _refresh_token(login.tokens)
        pair = await refresh(store, old, None, False)
        await store.session_for_access_token(login.tokens.access_token, False)
        again = await refresh(store, old, None, False)
        self.assertEqual(
            (again.access_token, again.refresh_token), (pair.access_token, pair.refresh_token)
        )
        await store.session_for_access_token(pair.access_token, False)
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(login.tokens.access_token, False)
        with self.assertRaises(SupersededToken):
            await refresh(store, old, None, False)
        await store.session_for_access_token(pair.access_token, False)

    async def test_reuse(self) -> None:
        """Reuse of a refresh token that was replaced long ago ends its session.

        Then all its tokens are superseded, no more reuse is reported, and it is not listed.
        """
        for strict in (True, False):
            store, clock = await self._store(reuse_interval=10_000)
            login = await _issue(store)
            old = _refresh_token(login.tokens)
            pair = await refresh(store, old, login.tokens.access_token, True)
            clock.advance(11)
            with self.assertRaises(ReusedToken):
                await refresh(store, old, login.tokens.access_token if strict else None, strict)
            for access_token in (pair.access_token, login.tokens.access_token):
                with self.assertRaises(ExpiredToken):
                    await store.session_for_access_token(access_token, True)
            for each in (pair, login.tokens):
                with self.assertRaises(SupersededToken) as caught:
                    await refresh(store, _refresh_token(each), None, False)
                self.assertNotIsInstance(caught.exception, ReusedToken)
            self.assertEqual(await store.sessions(login.user_id), [])

    async def test_after_reuse(self) -> None:
        """The row of a session that reuse has ended goes with a new login or ``revoke_all``.

        It does not count as a session.
        """
        store, _ = await self._store(reuse_interval=0)
        ended = []
        for device in ("PHONE", "TABLET"):
            login = await _issue(store, device)
            await refresh(store, _refresh_token(login.tokens), None, True)
            with self.assertRaises(ReusedToken):
                await refresh(store, _refresh_token(login.tokens), None, True)
            ended.append(login.tokens)
        again = await _issue(store, "PHONE")
        with self.assertRaises(UnknownToken):
            await store.session_for_access_token(ended[0].access_token, True)
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(ended[1].access_token, True)
        self.assertEqual(await store.revoke_all(again.user_id), 1)
        for each in ended:
            with self.assertRaises(UnknownToken):
                await store.session_for_access_token(each.access_token, True)
            with self.assertRaises(UnknownToken):
                await refresh(store, _refresh_token(each), None, True)

    async def test_over_is_not_listed(self) -> None:
        """A session whose tokens have all expired is not listed, and does not count."""
        store, clock = await self._store(
            refreshable_access_token=5000, nonrefreshable_access_token=90_000, refresh_token=60_000
        )
        await _issue(store, "PHONE")
        await store.issue("@alice:example.com", "BOT", None, False, False)
        clock.advance(60)
        (bot,) = await store.sessions(None)
        self.assertEqual(bot.device_id, "BOT")
        clock.advance(30)
        self.assertEqual(await store.sessions("@alice:example.com"), [])
        self.assertEqual(await store.revoke_all("@alice:example.com"), 0)

    async def test_clock_steps_back(self) -> None:
        """After the clock was set back, no replaced token becomes valid and no session ends.

        A pair that was replaced in what is now the future is superseded. Reuse is detected again
        from the next refresh on.
        """
        store, clock = await self._store(
            refreshable_access_token=5000, refresh_token=5000, session=5000, reuse_interval=1000
        )
        first = (await _issue(store)).tokens
        second = await refresh(store, _refresh_token(first), first.access_token, True)
        clock.advance(-3600)
        with self.assertRaises(ExpiredToken):
            await store.session_for_access_token(first.access_token, False)
        with self.assertRaises(SupersededToken):
            await refresh(store, _refresh_token(first), first.access_token, True)
        await store.session_for_access_token(second.access_token, False)
        third = await refresh(store, _refresh_token(second), None, False)
        again = await refresh(store, _refresh_token(second), None, False)
        self.assertEqual(again.access_token, third.access_token)
        self.assertEqual(again.expires_in_ms, 5000)
        await store.session_for_access_token(third.access_token, False)
        clock.advance(2)
        with self.assertRaises(ReusedToken):
            await refresh(store, _refresh_token(second), None, False)

    async def test_race(self) -> None:
        """Of two concurrent strict refreshes one succeeds, and the session lives."""
        store, _ = await self._store()
        login = await _issue(store)
        old = _refresh_token(login.tokens)
        won: list[TokenPair] = []
        for racing in [refresh(store, old, login.tokens.access_token, True) for _ in range(2)]:
            try:
                won.append(await racing)
            except SupersededToken:
                continue
        self.assertEqual(len(won), 1)
        await store.session_for_access_token(won[0].access_token, False)
        await refresh(store, _refresh_token(won[0]), won[0].access_token, True)

    async def test_other_session(self) -> None:
        """A refresh with an access token of another session is rejected, consuming nothing."""
        store, _ = await self._store()
        login, other = await _issue(store), await _issue(store)
        for access_token in (other.tokens.access_token, "nonsense", ""):
            with self.assertRaises(SessionMismatch):
                await refresh(store, _refresh_token(login.tokens), access_token, True)
        await refresh(store, _refresh_token(login.tokens), login.tokens.access_token, True)

    async def test_unknown_tokens(self) -> None:
        """Text that was never issued as a token is unknown, whatever it looks like."""
        store, _ = await self._store()
        login = await _issue(store)
        good = login.tokens
        altered = good.access_token[:-1] + ("A" if good.access_token[-1] != "A" else "B")
        for token in ("", "x", "\0", "é", "a" * 10_000, altered, _refresh_token(good)):
            with self.assertRaises(UnknownToken, msg=repr(token)):
                await store.session_for_access_token(token, True)
        for token in ("", "x", "\0", "é", "a" * 10_000, good.access_token):
            with self.assertRaises(UnknownToken, msg=repr(token)):
                await refresh(store, token, None, False)
            with self.assertRaises(UnknownToken, msg=repr(token)):
                await store.present(token)

    async def test_idle_and_absolute_lifetime(self) -> None:
        """A session that was idle too long or is too old cannot be refreshed."""
        store, clock = await self._store(refresh_token=60_000, session=100_000)
        login = await _issue(store)
        clock.advance(59)
        pair = await refresh(store, _refresh_token(login.tokens), None, False)
        clock.advance(41)
        with self.assertRaises(ExpiredToken):
            await refresh(store, _refresh_token(pair), None, False)
        idle = await _issue(store)
        clock.advance(60)
        with self.assertRaises(ExpiredToken):
            await refresh(store, _refresh_token(idle.tokens), None, False)

    async def test_owner(self) -> None:
        """Presenting a refresh token finds its session and changes nothing."""
        store, _ = await self._store()
        login = await _issue(store, "PHONE")
        for _ in range(2):
            owner = (await store.present(_refresh_token(login.tokens))).session
            self.assertEqual((owner.user_id, owner.device_id), (login.user_id, "PHONE"))
        await refresh(store, _refresh_token(login.tokens), login.tokens.access_token, True)

    async def test_ended_since_it_was_presented(self) -> None:
        """A refresh token that was presented is unknown once its session has been revoked."""
        store, _ = await self._store()
        login = await _issue(store)
        presented = await store.present(_refresh_token(login.tokens))
        await store.revoke(presented.session)
        with self.assertRaises(UnknownToken):
            await store.refresh(presented, None, False)

    async def test_revoke(self) -> None:
        """The tokens of a revoked session are unknown. Revoking it again succeeds."""
        store, _ = await self._store()
        login, other = await _issue(store), await _issue(store)
        session = await store.session_for_access_token(login.tokens.access_token, False)
        await store.revoke(session)
        await store.revoke(session)
        with self.assertRaises(UnknownToken):
            await store.session_for_access_token(login.tokens.access_token, True)
        with self.assertRaises(UnknownToken):
            await refresh(store, _refresh_token(login.tokens), None, False)
        await store.session_for_access_token(other.tokens.access_token, False)

    async def test_revoke_all(self) -> None:
        """Revoking all sessions of a user ends no session of another user."""
        store, _ = await self._store()
        mine = [await _issue(store), await _issue(store)]
        other = await store.issue("@bob:example.com", None, None, True, True)
        self.assertEqual(await store.revoke_all("@alice:example.com"), 2)
        self.assertEqual(await store.revoke_all("@alice:example.com"), 0)
        for login in mine:
            with self.assertRaises(UnknownToken):
                await store.session_for_access_token(login.tokens.access_token, True)
        await store.session_for_access_token(other.tokens.access_token, False)

    async def test_sessions(self) -> None:
        """The sessions of one user or of all users are listed."""
        store, _ = await self._store()
        for user, device in (("alice", "PHONE"), ("alice", "TABLET"), ("bob", "PHONE")):
            await store.issue(f"@{user}:example.com", device, "mine", True, True)
        mine = await store.sessions("@alice:example.com")
        self.assertEqual(sorted(each.device_id for each in mine), ["PHONE", "TABLET"])
        self.assertEqual({each.display_name for each in mine}, {"mine"})
        self.assertEqual(len(await store.sessions(None)), 3)

    async def test_pages(self) -> None:
        """Pages have each session once, and the last is not full, also if sessions are over."""
        store, clock = await self._store(session=100_000)
        for number in range(5):
            await store.issue(_USERS[number % 2], f"OVER{number}", None, True, True)
        clock.advance(90)
        for number in range(7):
            await store.issue(_USERS[number % 2], f"{number}", None, True, True)
        clock.advance(20)
        for user_id, devices in (
            (None, set("0123456")),
            (_USERS[0], set("0246")),
            (_USERS[1], set("135")),
        ):
            for most in (1, 2, 3, 7, 8):
                found = [page async for page in _pages(store, user_id, most)]
                self.assertTrue(all(len(page) == most for page in found[:-1]), found)
                self.assertLess(len(found[-1]), most)
                listed = [each.device_id for page in found for each in page]
                self.assertEqual((len(listed), set(listed)), (len(devices), devices))

    async def test_pages_beside_changes(self) -> None:
        """After the last session of a page has ended, the next page goes on behind it."""
        store, _ = await self._store()
        for number in range(4):
            await store.issue("@alice:example.com", f"{number}", None, True, True)
        first = await store.sessions(None, most=2)
        await store.revoke(first[-1])
        second = await store.sessions(None, first[-1], 2)
        third = await store.sessions(None, second[-1], 2)
        listed = {each.device_id for each in (*first, *second, *third)}
        self.assertEqual((len(second), third, listed), (2, [], set("0123")))

    async def test_login_token(self) -> None:
        """A login token is valid once, until it expires."""
        store, clock = await self._store(login_token=120_000)
        made = await store.make_login_token("@alice:example.com")
        self.assertEqual(made.expires_in_ms, 120_000)
        late = await store.make_login_token("@alice:example.com")
        for _ in range(2):
            self.assertEqual(await store.login_token_owner(made.token), "@alice:example.com")
        await _issue(store, login_token=made.token)
        clock.advance(120)
        for token in (made.token, late.token, "", "x", made.token[:-1]):
            with self.assertRaises(UnknownToken):
                await store.login_token_owner(token)
            with self.assertRaises(UnknownToken):
                await _issue(store, login_token=token)
        self.assertEqual(len(await store.sessions(None)), 1)

    async def test_login_tokens_user(self) -> None:
        """A login token begins no session of another user, and the attempt does not consume it."""
        store, _ = await self._store()
        made = await store.make_login_token("@bob:example.com")
        with self.assertRaises(UnknownToken):
            await _issue(store, login_token=made.token)
        self.assertEqual(await store.sessions(None), [])
        self.assertEqual(await store.login_token_owner(made.token), "@bob:example.com")

    async def test_login_tokens_revoked(self) -> None:
        """Revoking all sessions of a user revokes the user's login tokens too."""
        store, _ = await self._store()
        lost = await store.make_login_token("@alice:example.com")
        kept = await store.make_login_token("@bob:example.com")
        # The user has no session.
        self.assertEqual(await store.revoke_all("@alice:example.com"), 0)
        with self.assertRaises(UnknownToken):
            await store.login_token_owner(lost.token)
        with self.assertRaises(UnknownToken):
            await _issue(store, login_token=lost.token)
        self.assertEqual(await store.sessions(None), [])
        self.assertEqual(await store.login_token_owner(kept.token), "@bob:example.com")

    async def test_login_token_race(self) -> None:
        """Of concurrent logins with one login token, one begins a session."""
        store, _ = await self._store()
        made = await store.make_login_token("@alice:example.com")
        racing = [_issue(store, login_token=made.token) for _ in range(5)]
        won = []
        for each in [Deferred.fromCoroutine(login) for login in racing]:
            try:
                won.append(await each)
            except UnknownToken:
                continue
        self.assertEqual(len(won), 1)
        (session,) = await store.sessions(None)
        self.assertEqual(session.device_id, won[0].device_id)


async def _pages(
    store: ITokenStore, user_id: str | None, most: int
) -> AsyncIterator[list[SessionInfo]]:
    after: SessionInfo | None = None
    while True:
        page = await store.sessions(user_id, after, most)
        yield page
        if len(page) < most:
            return
        after = page[-1]


async def _issue(
    store: ITokenStore,
    device_id: str | None = None,
    refreshable: bool = True,
    login_token: str | None = None,
) -> Login:
    return await store.issue("@alice:example.com", device_id, None, refreshable, True, login_token)


def _refresh_token(pair: TokenPair) -> str:
    assert pair.refresh_token is not None
    return pair.refresh_token
