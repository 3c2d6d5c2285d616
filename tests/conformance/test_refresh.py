"""``/refresh``: the lenient refresh of today's Matrix specification."""

from __future__ import annotations

from typing import Any

from tests.conformance import paths
from tests.conformance.case import ConformanceTestCase, Named, cases, named, needs
from tests.conformance.target import Feature


class RefreshTests(ConformanceTestCase):
    """A refresh that succeeds."""

    features = (Feature.REFRESH,)

    @needs(Feature.PREFIXES)
    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, a refresh token is exchanged for a new pair."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"], prefix))
        self.assertNotEqual(new["access_token"], old["access_token"])
        self.assertNotEqual(new["refresh_token"], old["refresh_token"])
        self.assertTrue(new["expires_in_ms"] > 0)

    @needs(Feature.PREFIXES)
    async def test_served_msc2918(self) -> None:
        """Under the unstable prefix of its proposal, a refresh token is exchanged too."""
        old = await self.logged_in()
        body = {"refresh_token": old["refresh_token"]}
        new = self.succeeded(await self.client.post(paths.MSC2918_REFRESH, body))
        self.assertNotEqual(new["access_token"], old["access_token"])

    async def test_new_access_token(self) -> None:
        """The new access token is good, for the same user and device."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        answer = self.succeeded(await self.client.whoami(new["access_token"]))
        self.assertEqual(answer["user_id"], old["user_id"])
        self.assertEqual(answer["device_id"], old["device_id"])

    @cases(
        *named(
            [
                ("unknown", "Bearer no such token"),
                ("empty", "Bearer "),
                ("not ASCII", "Bearer \u2603"),
                ("basic", "Basic dXNlcjpwYXNz"),
                ("nonsense", "?"),
            ]
        )
    )
    async def test_authorization_ignored(self, header: Named) -> None:
        """An Authorization header ({}) is ignored."""
        old = await self.logged_in()
        body = {"refresh_token": old["refresh_token"]}
        headers = {"Authorization": header.value}
        self.succeeded(await self.client.post(paths.at(paths.REFRESH), body, headers=headers))

    async def test_other_sessions_access_token_ignored(self) -> None:
        """Another session's access token is ignored, and unharmed."""
        one, other = await self.logged_in(), await self.logged_in()
        body = {"refresh_token": one["refresh_token"]}
        self.succeeded(await self.client.post(paths.at(paths.REFRESH), body, other["access_token"]))
        await self.assert_alive(other["access_token"])

    @needs(Feature.STRICT_HTTP)
    async def test_no_store(self) -> None:
        """The answer may not be stored by caches."""
        old = await self.logged_in()
        answer = await self.client.refresh(old["refresh_token"])
        self.succeeded(answer)
        self.assertIn("no-store", answer.header("Cache-Control"))

    @needs(Feature.REFRESH_ENDS_OLD)
    async def test_old_access_token(self) -> None:
        """The old access token lives until the new one is first used."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        await self.assert_alive(old["access_token"])
        await self.assert_alive(old["access_token"])
        await self.assert_alive(new["access_token"])
        await self.assert_dead(old["access_token"], soft=True)
        await self.assert_alive(new["access_token"])

    @needs(Feature.REFRESH_ENDS_OLD)
    async def test_chain(self) -> None:
        """A session can be refreshed any number of times."""
        pair = await self.logged_in()
        seen = [pair["access_token"]]
        for _ in range(20):
            pair = self.succeeded(await self.client.refresh(pair["refresh_token"]))
            seen.append(pair["access_token"])
        self.assertEqual(len(set(seen)), 21)
        for token in seen[:-2]:
            await self.assert_dead(token, soft=True)
        await self.assert_alive(seen[-2])
        await self.assert_alive(seen[-1])
        await self.assert_dead(seen[-2], soft=True)


class LostAnswerTests(ConformanceTestCase):
    """A client that did not get the response repeats the refresh."""

    features = (Feature.REFRESH, Feature.REFRESH_LENIENT)

    async def test_again(self) -> None:
        """Every repetition returns the same pair."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        for _ in range(5):
            again = self.succeeded(await self.client.refresh(old["refresh_token"]))
            self._assert_same(again, new)
        await self.assert_alive(new["access_token"])

    async def test_between(self) -> None:
        """Use of the old access token in between does not change that."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        await self.assert_alive(old["access_token"])
        self._assert_same(self.succeeded(await self.client.refresh(old["refresh_token"])), new)
        await self.assert_alive(old["access_token"])

    async def test_later_in_chain(self) -> None:
        """Responses may be lost at any point of a session, repeatedly."""
        pair = await self.logged_in()
        for _ in range(5):
            lost = self.succeeded(await self.client.refresh(pair["refresh_token"]))
            new = self.succeeded(await self.client.refresh(pair["refresh_token"]))
            self._assert_same(new, lost)
            pair = new
        await self.assert_alive(pair["access_token"])

    async def test_other_path_prefix(self) -> None:
        """The repetition may use another prefix."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"], "v3"))
        again = self.succeeded(await self.client.refresh(old["refresh_token"], "r0"))
        self._assert_same(again, new)

    async def test_after_use(self) -> None:
        """Once the new access token was used, a repetition is rejected; the session lives."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        await self.assert_alive(new["access_token"])
        answer = await self.client.refresh(old["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertTrue(answer.soft_logout, str(answer))
        await self.assert_alive(new["access_token"])
        self.succeeded(await self.client.refresh(new["refresh_token"]))

    @needs(Feature.TOKENREFRESH)
    async def test_strictly_again(self) -> None:
        """A strict repetition returns the same pair, and ends the old one."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        again = self.succeeded(
            await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        )
        self._assert_same(again, new)
        await self.assert_dead(old["access_token"], soft=True)
        await self.assert_alive(new["access_token"])
        answer = await self.client.tokenrefresh(old["refresh_token"], new["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        await self.assert_alive(new["access_token"])

    @needs(Feature.TOKENREFRESH)
    async def test_strictly_again_then_leniently(self) -> None:
        """After a strict repetition, a lenient one is rejected; the session lives."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        self.succeeded(await self.client.tokenrefresh(old["refresh_token"], old["access_token"]))
        self.refused(await self.client.refresh(old["refresh_token"]), 401, "M_UNKNOWN_TOKEN")
        await self.assert_alive(new["access_token"])

    @needs(Feature.TOKENREFRESH)
    async def test_strictly_after_use(self) -> None:
        """Once the new access token was used, a strict repetition is rejected as well."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        await self.assert_alive(new["access_token"])
        answer = await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        await self.assert_alive(new["access_token"])

    @needs(Feature.TOKENREFRESH)
    async def test_strictly_from_unconfirmed(self) -> None:
        """A pair that was never used can be refreshed strictly; nothing before it lives on."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        newer = self.succeeded(
            await self.client.tokenrefresh(new["refresh_token"], new["access_token"])
        )
        await self.assert_dead(old["access_token"], soft=True)
        await self.assert_dead(new["access_token"], soft=True)
        await self.assert_alive(newer["access_token"])

    def _assert_same(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        for key in ("access_token", "refresh_token"):
            self.assertEqual(one[key], other[key])


class RefusedRefreshTests(ConformanceTestCase):
    """A refresh that is refused."""

    features = (Feature.REFRESH, Feature.STRICT_ERRORS)

    @cases(
        *named(
            [
                ("words", "no such token"),
                ("empty", ""),
                ("prefix", "slmrt_"),
                ("not base64", "slmrt_!!!"),
                ("zeros", "slmrt_" + "A" * 64),
                ("long", "x" * 50_000),
                ("snowman", "\u2603"),
                ("NUL", "\x00"),
                ("lone surrogate", "\ud800"),
                ("newline", "\n"),
            ]
        )
    )
    async def test_unknown(self, token: Named) -> None:
        """A refresh token that was never issued ({}) is rejected, and no retry helps."""
        answer = await self.client.refresh(token.value)
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertFalse(answer.soft_logout, str(answer))

    async def test_tampered(self) -> None:
        """A refresh token of which one character is changed is refused, nothing consumed."""
        login = await self.logged_in()
        token = login["refresh_token"]
        for at in range(0, len(token), 3):
            changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            self.refused(await self.client.refresh(changed), 401, "M_UNKNOWN_TOKEN")
        for changed in (token[:-1], token + "A", token + "=", f" {token}", f"{token}\n"):
            self.refused(await self.client.refresh(changed), 401, "M_UNKNOWN_TOKEN")
        self.succeeded(await self.client.refresh(token))

    async def test_access_token_as_refresh_token(self) -> None:
        """An access token is no refresh token."""
        login = await self.logged_in()
        self.refused(await self.client.refresh(login["access_token"]), 401, "M_UNKNOWN_TOKEN")
        await self.assert_alive(login["access_token"])

    async def test_access_token_alone(self) -> None:
        """An access token in the header does not make up for a bad refresh token."""
        login = await self.logged_in()
        body = {"refresh_token": "no such token"}
        answer = await self.client.post(paths.at(paths.REFRESH), body, login["access_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")

    @needs(Feature.LOGOUT)
    async def test_after_logout(self) -> None:
        """After the logout a refresh is rejected for good."""
        login = await self.logged_in()
        self.succeeded(await self.client.logout(login["access_token"]))
        answer = await self.client.refresh(login["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertFalse(answer.soft_logout, str(answer))
