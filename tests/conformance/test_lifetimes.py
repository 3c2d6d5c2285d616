"""Tokens and sessions that end by themselves."""

from __future__ import annotations

from tests.conformance import paths
from tests.conformance.case import ConformanceTestCase, cases, pause
from tests.conformance.profiles import SHORT_ACCESS, SHORT_IDLE, SHORT_SESSION


class AccessTokenLifetimeTests(ConformanceTestCase):
    """Access tokens that live for a second."""

    profile = SHORT_ACCESS

    async def test_expires(self) -> None:
        """An expired access token is refused, and the client is told to keep its session."""
        login = await self.logged_in()
        self.assertEqual(login["expires_in_ms"], 1000)
        await self.assert_alive(login["access_token"])
        await pause(1.1)
        await self.assert_dead(login["access_token"], soft=True)

    async def test_not_asked(self) -> None:
        """A client that does not refresh keeps its access token."""
        login = self.succeeded(await self.client.login())
        self.assertNotIn("expires_in_ms", login)
        await pause(1.1)
        await self.assert_alive(login["access_token"])

    async def test_refresh(self) -> None:
        """After the access token has expired, the session goes on with a refresh."""
        login = await self.logged_in()
        await pause(1.1)
        pair = self.succeeded(await self.client.refresh(login["refresh_token"]))
        self.assertEqual(pair["expires_in_ms"], 1000)
        await self.assert_alive(pair["access_token"])

    async def test_tokenrefresh(self) -> None:
        """/tokenrefresh accepts an expired access token."""
        login = await self.logged_in()
        await pause(1.1)
        pair = self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )
        await self.assert_alive(pair["access_token"])

    async def test_expired_while_unconfirmed(self) -> None:
        """An old access token expires while the new pair is unused; asking again still works."""
        login = await self.logged_in()
        pair = self.succeeded(await self.client.refresh(login["refresh_token"]))
        await pause(1.1)
        await self.assert_dead(login["access_token"], soft=True)
        again = self.succeeded(await self.client.refresh(login["refresh_token"]))
        self.assertEqual(again["refresh_token"], pair["refresh_token"])
        await self.assert_alive(again["access_token"])

    async def test_logout(self) -> None:
        """An expired access token can log out."""
        login = await self.logged_in()
        await pause(1.1)
        self.succeeded(await self.client.logout(login["access_token"]))
        answer = await self.client.refresh(login["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        await self.assert_dead(login["access_token"], soft=False)

    async def test_logout_all(self) -> None:
        """An expired access token can log out everywhere."""
        expired, other = await self.logged_in(), self.succeeded(await self.client.login())
        await pause(1.1)
        self.succeeded(await self.client.logout(expired["access_token"], everywhere=True))
        await self.assert_dead(other["access_token"], soft=False)

    async def test_get_token(self) -> None:
        """An expired access token cannot get a login token."""
        login = await self.logged_in()
        await pause(1.1)
        answer = await self.client.post(paths.at(paths.GET_TOKEN), {}, login["access_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertTrue(answer.soft_logout)


class IdleLifetimeTests(ConformanceTestCase):
    """Sessions that end when they are not refreshed for two seconds."""

    profile = SHORT_IDLE

    async def test_refresh(self) -> None:
        """/refresh refuses an expired refresh token, and says that the session may be kept."""
        login = await self.logged_in()
        await pause(2.1)
        answer = await self.client.refresh(login["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertTrue(answer.soft_logout, str(answer))

    async def test_tokenrefresh(self) -> None:
        """/tokenrefresh refuses an expired refresh token."""
        login = await self.logged_in()
        await pause(2.1)
        answer = await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")

    @cases("refresh", "tokenrefresh")
    async def test_renewed(self, path: str) -> None:
        """Each /{} restarts the lifetime."""
        pair = await self.logged_in()
        for _ in range(3):
            await pause(1.0)
            if path == "refresh":
                answer = await self.client.refresh(pair["refresh_token"])
            else:
                answer = await self.client.tokenrefresh(pair["refresh_token"], pair["access_token"])
            pair = self.succeeded(answer)
        await self.assert_alive(pair["access_token"])


class SessionLifetimeTests(ConformanceTestCase):
    """Sessions that end two seconds after the login."""

    profile = SHORT_SESSION

    async def test_refresh(self) -> None:
        """A session is over at its time, refreshed or not; /refresh calls that a soft logout."""
        pair = await self.logged_in()
        await pause(1.0)
        pair = self.succeeded(await self.client.refresh(pair["refresh_token"]))
        await self.assert_alive(pair["access_token"])
        await pause(1.2)
        answer = await self.client.refresh(pair["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertTrue(answer.soft_logout, str(answer))

    async def test_tokenrefresh(self) -> None:
        """A session is over at its time, refreshed or not; /tokenrefresh refuses."""
        pair = await self.logged_in()
        await pause(1.0)
        pair = self.succeeded(
            await self.client.tokenrefresh(pair["refresh_token"], pair["access_token"])
        )
        await pause(1.2)
        answer = await self.client.tokenrefresh(pair["refresh_token"], pair["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")

    async def test_access_token(self) -> None:
        """The access token ends with its session, and ``expires_in_ms`` is not later."""
        pair = await self.logged_in()
        self.assertTrue(pair["expires_in_ms"] <= 2000)
        await pause(2.1)
        self.refused(await self.client.whoami(pair["access_token"]), 401, "M_UNKNOWN_TOKEN")

    async def test_nonrefreshable(self) -> None:
        """The access token of a client that does not refresh ends with its session too."""
        login = self.succeeded(await self.client.login())
        await pause(2.1)
        self.refused(await self.client.whoami(login["access_token"]), 401, "M_UNKNOWN_TOKEN")
