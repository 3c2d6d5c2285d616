"""Repeated refresh tokens: races, and tokens that count as stolen."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import ConformanceTestCase, cases, needs, pause
from tests.conformance.profiles import NO_REUSE, SHORT_REUSE
from tests.conformance.target import Feature
from tests.support.response import Response
from tests.support.waiting import together

_ROUNDS = 8


class _ReuseTestCase(ConformanceTestCase):
    """A test case for both kinds of refresh."""

    async def refresh(self, path: str, pair: dict[str, Any]) -> Response:
        """Refresh by a path."""
        if path == "tokenrefresh":
            return await self.client.tokenrefresh(pair["refresh_token"], pair["access_token"])
        return await self.client.refresh(pair["refresh_token"])

    async def refreshed(self, path: str, pair: dict[str, Any]) -> dict[str, Any]:
        """Refresh by a path successfully; return the new pair."""
        return self.succeeded(await self.refresh(path, pair))

    def assert_refused(self, path: str, answer: Response) -> None:
        """Assert that a refresh was rejected in the manner of its path, and that the device lives
        on, so that the client may keep its keys.
        """
        if path == "tokenrefresh":
            self.refused(answer, 403, "M_FORBIDDEN")
        else:
            self.refused(answer, 401, "M_UNKNOWN_TOKEN")
            self.assertTrue(answer.soft_logout, str(answer))

    async def assert_revoked(self, *pairs: dict[str, Any]) -> None:
        """Assert that all of a session's pairs are dead, and that its device lives on."""
        for pair in pairs:
            await self.assert_dead(pair["access_token"], soft=True)
            self.assert_refused("refresh", await self.refresh("refresh", pair))
            self.assert_refused("tokenrefresh", await self.refresh("tokenrefresh", pair))


class RaceTests(_ReuseTestCase):
    """Concurrent refreshes with the same refresh token."""

    @needs(Feature.TOKENREFRESH)
    async def test_two_strict(self) -> None:
        """Of two strict refreshes one succeeds, and its pair is good."""
        for _ in range(_ROUNDS):
            pair = await self.logged_in()
            answers = await together(
                self.refresh("tokenrefresh", pair), self.refresh("tokenrefresh", pair)
            )
            winner, loser = sorted(answers, key=lambda answer: answer.status)
            new = self.succeeded(winner)
            self.assert_refused("tokenrefresh", loser)
            await self.assert_alive(new["access_token"])
            await self.assert_dead(pair["access_token"], soft=True)
            await self.refreshed("tokenrefresh", new)

    @needs(Feature.TOKENREFRESH)
    async def test_many_strict(self) -> None:
        """Of many strict refreshes one succeeds, and its pair is good."""
        pair = await self.logged_in()
        answers = await together(*(self.refresh("tokenrefresh", pair) for _ in range(16)))
        winners = [answer.json for answer in answers if answer.status == 200]
        self.assertEqual(len(winners), 1)
        self.assertEqual({answer.status for answer in answers}, {200, 403})
        await self.refreshed("tokenrefresh", winners[0])

    @needs(Feature.REFRESH, Feature.REFRESH_LENIENT)
    async def test_two_lenient(self) -> None:
        """Two lenient refreshes return the same pair, and it works."""
        for _ in range(_ROUNDS):
            pair = await self.logged_in()
            one, other = await together(
                self.refreshed("refresh", pair), self.refreshed("refresh", pair)
            )
            self.assertEqual(one["access_token"], other["access_token"])
            self.assertEqual(one["refresh_token"], other["refresh_token"])
            await self.assert_alive(one["access_token"])
            if Feature.REFRESH_ENDS_OLD in self.target.features:
                await self.assert_dead(pair["access_token"], soft=True)
            await self.refreshed("refresh", one)

    @needs(Feature.REFRESH, Feature.REFRESH_LENIENT)
    async def test_many_lenient(self) -> None:
        """Many lenient refreshes return the same pair."""
        pair = await self.logged_in()
        pairs = await together(*(self.refreshed("refresh", pair) for _ in range(16)))
        self.assertEqual(len({one["access_token"] for one in pairs}), 1)
        self.assertEqual(len({one["refresh_token"] for one in pairs}), 1)
        await self.refreshed("refresh", pairs[0])

    @needs(Feature.TOKENREFRESH, Feature.REFRESH, Feature.REFRESH_LENIENT)
    async def test_mixed(self) -> None:
        """All strict and lenient refreshes that succeed return the same pair."""
        for _ in range(_ROUNDS):
            pair = await self.logged_in()
            answers = await together(
                self.refresh("refresh", pair),
                self.refresh("tokenrefresh", pair),
                self.refresh("refresh", pair),
                self.refresh("tokenrefresh", pair),
            )
            winners = [answer.json for answer in answers if answer.status == 200]
            self.assertEqual(len({new["access_token"] for new in winners}), 1)
            self.assertEqual(len({new["refresh_token"] for new in winners}), 1)
            strict = [answers[1].status, answers[3].status]
            self.assertEqual(sorted(strict), [200, 403])
            await self.assert_dead(pair["access_token"], soft=True)
            await self.refreshed("refresh", winners[0])

    @needs(Feature.REFRESH, Feature.REFRESH_LENIENT, Feature.WHOAMI)
    async def test_use_while_repeated(self) -> None:
        """A use of the new access token and a repeated refresh leave one chain."""
        for _ in range(_ROUNDS):
            pair = await self.logged_in()
            new = await self.refreshed("refresh", pair)
            answer, _ = await together(
                self.refresh("refresh", pair), self.client.whoami(new["access_token"])
            )
            if answer.status == 200:
                self.assertEqual(answer.json["access_token"], new["access_token"])
            else:
                self.assert_refused("refresh", answer)
            await self.assert_alive(new["access_token"])
            await self.refreshed("refresh", new)

    @needs(Feature.REFRESH, Feature.LOGOUT)
    async def test_logout_while_refreshing(self) -> None:
        """After a logout and a refresh at the same time the session is over."""
        for _ in range(_ROUNDS):
            pair = await self.logged_in()
            answer, logout = await together(
                self.refresh("refresh", pair), self.client.logout(pair["access_token"])
            )
            self.succeeded(logout)
            await self.assert_dead(pair["access_token"], soft=False)
            if answer.status == 200:
                await self.assert_dead(answer.json["access_token"], soft=False)


class ReuseWithinIntervalTests(_ReuseTestCase):
    """A refresh token that was just replaced may be the loser of a race."""

    @needs(Feature.REFRESH, Feature.TOKENREFRESH, Feature.REUSE_REVOKES)
    @cases("tokenrefresh", "refresh")
    async def test_previous(self, path: str) -> None:
        """The previous token is rejected by /{} every time; the session lives."""
        old = await self.logged_in()
        new = await self.refreshed("tokenrefresh", old)
        for _ in range(3):
            self.assert_refused(path, await self.refresh(path, old))
        await self.assert_alive(new["access_token"])
        await self.refreshed("tokenrefresh", new)

    @needs(Feature.REFRESH, Feature.TOKENREFRESH, Feature.REUSE_REVOKES)
    @cases("tokenrefresh", "refresh")
    async def test_older(self, path: str) -> None:
        """An older token counts as stolen: /{} revokes the session."""
        first = await self.logged_in()
        second = await self.refreshed("tokenrefresh", first)
        third = await self.refreshed("tokenrefresh", second)
        await self.assert_alive(third["access_token"])
        self.assert_refused(path, await self.refresh(path, first))
        await self.assert_revoked(third, second, first)

    @needs(Feature.REFRESH, Feature.TOKENREFRESH, Feature.REUSE_REVOKES)
    @cases("tokenrefresh", "refresh")
    async def test_older_unconfirmed(self, path: str) -> None:
        """So does one while the newest pair is not confirmed; /{} revokes the session."""
        first = await self.logged_in()
        second = await self.refreshed("refresh", first)
        third = await self.refreshed("refresh", second)
        self.assert_refused(path, await self.refresh(path, first))
        await self.assert_revoked(third, second, first)

    @needs(Feature.REFRESH, Feature.TOKENREFRESH, Feature.REUSE_REVOKES)
    async def test_very_old(self) -> None:
        """A replayed token of any age is recognised."""
        first = pair = await self.logged_in()
        for _ in range(10):
            pair = await self.refreshed("tokenrefresh", pair)
        self.assert_refused("refresh", await self.refresh("refresh", first))
        await self.assert_revoked(pair)

    @needs(Feature.REFRESH, Feature.TOKENREFRESH, Feature.REUSE_REVOKES)
    async def test_other_sessions(self) -> None:
        """Only the session of the stolen token is revoked."""
        first, other = await self.logged_in(), await self.logged_in()
        second = await self.refreshed("tokenrefresh", first)
        await self.refreshed("tokenrefresh", second)
        self.assert_refused("refresh", await self.refresh("refresh", first))
        await self.assert_alive(other["access_token"])
        await self.refreshed("tokenrefresh", other)

    @needs(Feature.TOKENREFRESH, Feature.STRICT_ERRORS)
    async def test_dead_access_token(self) -> None:
        """An old access token is rejected every time, and never revokes."""
        first = await self.logged_in()
        second = await self.refreshed("tokenrefresh", first)
        third = await self.refreshed("tokenrefresh", second)
        for _ in range(3):
            await self.assert_dead(first["access_token"], soft=True)
            await self.assert_dead(second["access_token"], soft=True)
        await self.assert_alive(third["access_token"])
        await self.refreshed("tokenrefresh", third)

    @needs(Feature.TOKENREFRESH, Feature.STRICT_ERRORS)
    async def test_forged(self) -> None:
        """A forged token of an earlier generation revokes nothing."""
        first = await self.logged_in()
        second = await self.refreshed("tokenrefresh", first)
        third = await self.refreshed("tokenrefresh", second)
        forged = first["refresh_token"][:-8] + second["refresh_token"][-8:]
        self.refused(await self.client.refresh(forged), 401, "M_UNKNOWN_TOKEN")
        await self.assert_alive(third["access_token"])


class ReuseAfterIntervalTests(_ReuseTestCase):
    """A refresh token that was replaced longer ago than ``reuse_interval``."""

    profile = SHORT_REUSE

    @cases("tokenrefresh", "refresh")
    async def test_confirmed_strictly(self, path: str) -> None:
        """After a strict refresh it counts as stolen: /{} revokes the session."""
        old = await self.logged_in()
        new = await self.refreshed("tokenrefresh", old)
        self.assert_refused(path, await self.refresh(path, old))
        await self.assert_alive(new["access_token"])
        await pause(1.2)
        self.assert_refused(path, await self.refresh(path, old))
        await self.assert_revoked(new, old)

    @cases("tokenrefresh", "refresh")
    async def test_confirmed_by_use(self, path: str) -> None:
        """After a use of the new access token it counts as stolen: /{} revokes the session."""
        old = await self.logged_in()
        new = await self.refreshed("refresh", old)
        await self.assert_alive(new["access_token"])
        self.assert_refused(path, await self.refresh(path, old))
        await self.assert_alive(new["access_token"])
        await pause(1.2)
        self.assert_refused(path, await self.refresh(path, old))
        await self.assert_revoked(new, old)

    async def test_unconfirmed(self) -> None:
        """While the new pair is unused, the refresh may be repeated at any time."""
        old = await self.logged_in()
        new = await self.refreshed("refresh", old)
        await pause(1.2)
        again = await self.refreshed("refresh", old)
        self.assertEqual(again["access_token"], new["access_token"])
        self.assertEqual(again["refresh_token"], new["refresh_token"])
        await self.assert_alive(new["access_token"])

    async def test_new_pair(self) -> None:
        """The newest refresh token works at any time."""
        old = await self.logged_in()
        new = await self.refreshed("tokenrefresh", old)
        await pause(1.2)
        await self.refreshed("tokenrefresh", new)


class NoReuseTests(_ReuseTestCase):
    """A ``reuse_interval`` of 0."""

    profile = NO_REUSE

    @cases("tokenrefresh", "refresh")
    async def test_previous(self, path: str) -> None:
        """A refresh token that was strictly replaced counts as stolen at once: /{} revokes."""
        old = await self.logged_in()
        new = await self.refreshed("tokenrefresh", old)
        self.assert_refused(path, await self.refresh(path, old))
        await self.assert_revoked(new, old)

    async def test_unconfirmed(self) -> None:
        """A refresh whose response was lost can be repeated all the same."""
        old = await self.logged_in()
        new = await self.refreshed("refresh", old)
        again = await self.refreshed("refresh", old)
        self.assertEqual(again["refresh_token"], new["refresh_token"])

    async def test_logged(self) -> None:
        """A stolen token is logged with the user whose session is revoked."""
        own = self.own_server()
        old = await self.logged_in()
        await self.refreshed("tokenrefresh", old)
        start = own.folder.log_size()
        await self.refresh("refresh", old)
        self.assertIn(old["user_id"], own.folder.log(start))
