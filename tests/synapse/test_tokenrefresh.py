"""Refreshing inside a real Synapse, on SQLite: the rules, and the lifetimes of homeserver.yaml."""

from __future__ import annotations

from typing import Any

from tests.support.synapse.profile import Profile
from tests.synapse import tokens
from tests.synapse.client import Pair

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


class SQLiteTokenTests(tokens.TokenTests):
    """The tokens, with SQLite behind Synapse."""

    profile = Profile("sqlite")

    async def test_always(self) -> None:
        """By default a client that did not ask gets a refresh token, and lasting access."""
        answer = await self.client.login(self.client.module)
        self.assertEqual(answer.status, 200, str(answer))
        given = answer.json
        self.assertNotIn("expires_in_ms", given)
        self.assertEqual(await self.expiry_of(given["access_token"]), None)
        pair = Pair(
            given["user_id"], given["device_id"], given["access_token"], given["refresh_token"]
        )
        await self.assert_live(pair)
        refreshed = await self.client.tokenrefresh(pair)
        self.assertLessEqual(refreshed.json["expires_in_ms"], 5 * _MINUTE)
        await self.assert_live(pair.then(refreshed))
        await self.assert_dead(pair.access, soft_logout=True)

    async def test_asked(self) -> None:
        """A client that asked gets an access token of refreshable_access_token_lifetime."""
        answer = await self.client.login(self.client.module, refresh_token=True)
        self.assertIn("refresh_token", answer.json)
        self.assertGreater(answer.json["expires_in_ms"], 0)
        self.assertLessEqual(answer.json["expires_in_ms"], 5 * _MINUTE)

    async def test_expired_access_token_of_the_successor(self) -> None:
        """A pair that is handed out again is good again, however long the first answer is lost."""
        old = await self.client.pair()
        first = old.then(await self.client.refresh(old))
        self.server.query(
            "UPDATE access_tokens SET valid_until_ms = ? WHERE token = ?", 1, first.access
        )
        answer = await self.client.refresh(old)
        self.assertEqual(old.then(answer), first)
        self.assertGreater(answer.json["expires_in_ms"], 0)
        await self.assert_live(first)

    async def expiry_of(self, access: str) -> Any:
        """When Synapse has an access token end."""
        ((expiry,),) = self.server.query(
            "SELECT valid_until_ms FROM access_tokens WHERE token = ?", access
        )
        return expiry


class LifetimesTests(tokens.TokenCase):
    """The lifetimes of homeserver.yaml, and refresh tokens on request alone."""

    profile = Profile(
        "lifetimes",
        module={"tokens": {"refresh_token": "on_request"}},
        synapse={
            "refreshable_access_token_lifetime": "10m",
            "nonrefreshable_access_token_lifetime": "2h",
            "refresh_token_lifetime": "12h",
            "session_lifetime": "1d",
        },
    )

    async def test_not_asked(self) -> None:
        """A client that did not ask gets no refresh token, and an access token that lasts."""
        given = (await self.client.login(self.client.module)).json
        self.assertNotIn("refresh_token", given)
        self.assertGreater(given["expires_in_ms"], _HOUR)
        self.assertLessEqual(given["expires_in_ms"], 2 * _HOUR)

    async def test_asked(self) -> None:
        """A client that asked gets both tokens."""
        given = (await self.client.login(self.client.module, refresh_token=True)).json
        self.assertIn("refresh_token", given)
        self.assertLessEqual(given["expires_in_ms"], 10 * _MINUTE)

    async def test_session_does_not_grow(self) -> None:
        """The end of a session stays where the login has put it, whatever is refreshed."""
        pair = await self.client.pair()
        end = self.ends(pair)
        idle = end[0] - end[1]
        self.assertEqual(_DAY - 12 * _HOUR, idle)
        for step in (self.client.tokenrefresh, self.client.refresh, self.client.tokenrefresh):
            answer = await step(pair)
            pair = pair.then(answer)
            self.assertLessEqual(answer.json["expires_in_ms"], 10 * _MINUTE)
            now = self.ends(pair)
            self.assertEqual(now[0], end[0])
            self.assertGreater(now[1], end[1])
            self.assertLess(now[1], now[0])

    async def test_idle(self) -> None:
        """After refresh_token_lifetime a refresh token is refused, and its access token is not."""
        pair = await self.client.rotate(await self.client.pair())
        self.server.query("UPDATE refresh_tokens SET expiry_ts = 1 WHERE token = ?", pair.refresh)
        await self.assert_expired(pair)
        await self.assert_live(pair)

    async def test_session_over(self) -> None:
        """After session_lifetime the refresh token is refused."""
        pair = await self.client.rotate(await self.client.pair())
        self.end_session(pair, 1)
        await self.assert_expired(pair)

    async def test_end_of_the_session_caps(self) -> None:
        """No token is said to live longer than its session."""
        for step in (self.client.tokenrefresh, self.client.refresh):
            pair = await self.client.pair()
            end = self.ends(pair)[0] - _DAY + 5 * _MINUTE
            self.end_session(pair, end)
            answer = await step(pair)
            self.assertLessEqual(answer.json["expires_in_ms"], 5 * _MINUTE)
            self.assertEqual(self.ends(pair.then(answer)), (end, end))

    def ends(self, pair: Pair) -> tuple[int, int]:
        """When the session of a pair ends, and when its refresh token does."""
        ((session, idle),) = self.server.query(
            "SELECT ultimate_session_expiry_ts, expiry_ts FROM refresh_tokens WHERE token = ?",
            pair.refresh,
        )
        return session, idle

    def end_session(self, pair: Pair, end: int) -> None:
        """Have a session end at some moment."""
        self.server.query(
            "UPDATE refresh_tokens SET ultimate_session_expiry_ts = ? WHERE token = ?",
            end,
            pair.refresh,
        )

    async def assert_expired(self, pair: Pair) -> None:
        """Every endpoint refuses the refresh token, and /refresh says that the device lives on."""
        self.assert_error(await self.client.tokenrefresh(pair), 403, "M_FORBIDDEN")
        lenient = await self.client.refresh(pair)
        self.assert_error(lenient, 401, "M_UNKNOWN_TOKEN", soft_logout=True)
        self.assert_error(await self.client.own_refresh(pair), 403, "M_FORBIDDEN")


class LastingTests(tokens.TokenCase):
    """Refresh tokens for everybody, along with an end for access tokens that are not refreshed."""

    profile = Profile(
        "lasting",
        module={"tokenrefresh": {"require_access_token": False}},
        synapse={"nonrefreshable_access_token_lifetime": "2h"},
    )

    async def test_not_asked(self) -> None:
        """A client that did not ask gets nonrefreshable_access_token_lifetime."""
        given = (await self.client.login(self.client.module)).json
        self.assertIn("refresh_token", given)
        self.assertGreater(given["expires_in_ms"], _HOUR)
        self.assertLessEqual(given["expires_in_ms"], 2 * _HOUR)

    async def test_no_access_token_needed(self) -> None:
        """With require_access_token off, /tokenrefresh goes by the refresh token alone."""
        old = await self.client.pair()
        body = {"refresh_token": old.refresh}
        answer = await self.client.post(self.client.module, "/tokenrefresh", body)
        await self.assert_live(old.then(answer))
        await self.assert_dead(old.access, soft_logout=True)

    async def test_access_row_gone(self) -> None:
        """A refresh token whose access token was taken out of the database is refused."""
        pair = await self.client.pair()
        self.server.query("DELETE FROM access_tokens WHERE token = ?", pair.access)
        body = {"refresh_token": pair.refresh}
        answer = await self.client.post(self.client.module, "/tokenrefresh", body)
        self.assert_error(answer, 403, "M_FORBIDDEN")
