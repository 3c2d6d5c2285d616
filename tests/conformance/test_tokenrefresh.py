"""``/tokenrefresh``: the strict refresh of the seed specification."""

from __future__ import annotations

from tests.conformance import paths
from tests.conformance.case import ConformanceTestCase, cases, needs
from tests.conformance.profiles import NO_ACCESS_TOKEN
from tests.conformance.target import Feature

_TOKENREFRESH = paths.at(paths.TOKENREFRESH)


class TokenRefreshTests(ConformanceTestCase):
    """A refresh that succeeds."""

    features = (Feature.TOKENREFRESH,)

    @needs(Feature.PREFIXES)
    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, a refresh token is exchanged for a new pair."""
        old = await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(old["refresh_token"], old["access_token"], prefix)
        )
        self.assertNotEqual(new["access_token"], old["access_token"])
        self.assertNotEqual(new["refresh_token"], old["refresh_token"])

    async def test_new_access_token(self) -> None:
        """The new access token is good, for the same user and device."""
        old = await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        )
        answer = self.succeeded(await self.client.whoami(new["access_token"]))
        self.assertEqual(answer["user_id"], old["user_id"])
        self.assertEqual(answer["device_id"], old["device_id"])

    async def test_old_access_token(self) -> None:
        """The old access token is dead at once, though it had not expired."""
        old = await self.logged_in()
        self.succeeded(await self.client.tokenrefresh(old["refresh_token"], old["access_token"]))
        await self.assert_dead(old["access_token"], soft=True)

    async def test_old_refresh_token(self) -> None:
        """The old refresh token is refused at once, and the session lives."""
        old = await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        )
        answer = await self.client.tokenrefresh(old["refresh_token"], new["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        await self.assert_alive(new["access_token"])

    @needs(Feature.REFRESH)
    async def test_old_refresh_token_lenient(self) -> None:
        """The old refresh token is refused by /refresh too, and the session lives."""
        old = await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        )
        answer = await self.client.refresh(old["refresh_token"])
        self.assertIn(answer.status, (401, 403), str(answer))
        await self.assert_alive(new["access_token"])

    async def test_chain(self) -> None:
        """A session can be refreshed any number of times, and only one pair is alive."""
        pair = await self.logged_in()
        seen = [pair["access_token"]]
        for _ in range(20):
            pair = self.succeeded(
                await self.client.tokenrefresh(pair["refresh_token"], pair["access_token"])
            )
            seen.append(pair["access_token"])
        self.assertEqual(len(set(seen)), 21)
        for token in seen[:-1]:
            await self.assert_dead(token, soft=True)
        await self.assert_alive(seen[-1])

    async def test_query(self) -> None:
        """The access token may be in the query."""
        old = await self.logged_in()
        answer = await self.client.send(
            "POST",
            _TOKENREFRESH,
            f'{{"refresh_token": "{old["refresh_token"]}"}}'.encode(),
            query={"access_token": old["access_token"]},
        )
        self.succeeded(answer)

    async def test_superseded_access_token(self) -> None:
        """A superseded access token is accepted with the newest refresh token."""
        old = await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        )
        newer = self.succeeded(
            await self.client.tokenrefresh(new["refresh_token"], old["access_token"])
        )
        await self.assert_alive(newer["access_token"])

    @needs(Feature.STRICT_HTTP)
    async def test_no_store(self) -> None:
        """The answer may not be stored by caches."""
        old = await self.logged_in()
        answer = await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        self.succeeded(answer)
        self.assertIn("no-store", answer.header("Cache-Control"))

    async def test_expires(self) -> None:
        """The answer says when the new access token expires."""
        old = await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(old["refresh_token"], old["access_token"])
        )
        self.assertTrue(new["expires_in_ms"] > 0)

    async def test_sessions_apart(self) -> None:
        """A refresh does not affect another session of the user."""
        one, other = await self.logged_in(), await self.logged_in()
        self.succeeded(await self.client.tokenrefresh(one["refresh_token"], one["access_token"]))
        await self.assert_alive(other["access_token"])
        self.succeeded(
            await self.client.tokenrefresh(other["refresh_token"], other["access_token"])
        )


class RefusedTokenRefreshTests(ConformanceTestCase):
    """A refresh that is refused; nothing is consumed by it."""

    features = (Feature.TOKENREFRESH,)

    async def test_unknown(self) -> None:
        """A refresh token that was never issued is rejected."""
        login = await self.logged_in()
        for token in ("no such token", "", "slmrt_", "\x00", "\ud800", "x" * 50_000):
            answer = await self.client.tokenrefresh(token, login["access_token"])
            self.refused(answer, 403, "M_FORBIDDEN")
        self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )

    async def test_tampered(self) -> None:
        """A refresh token of which one character is changed is refused."""
        login = await self.logged_in()
        token = login["refresh_token"]
        for at in range(0, len(token), 3):
            changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            answer = await self.client.tokenrefresh(changed, login["access_token"])
            self.refused(answer, 403, "M_FORBIDDEN")
        for changed in (token[:-1], token + "A", token + "=", f" {token}", f"{token}\n"):
            answer = await self.client.tokenrefresh(changed, login["access_token"])
            self.refused(answer, 403, "M_FORBIDDEN")
        self.succeeded(await self.client.tokenrefresh(token, login["access_token"]))

    async def test_access_token_as_refresh_token(self) -> None:
        """An access token is no refresh token."""
        login = await self.logged_in()
        answer = await self.client.tokenrefresh(login["access_token"], login["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        await self.assert_alive(login["access_token"])

    async def test_other_session(self) -> None:
        """A refresh token of another session of the user is refused; both sessions live."""
        one, other = await self.logged_in(), await self.logged_in()
        answer = await self.client.tokenrefresh(other["refresh_token"], one["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        for login in (one, other):
            await self.assert_alive(login["access_token"])
            self.succeeded(
                await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
            )

    async def test_other_user(self) -> None:
        """A refresh token of another user is refused; both sessions live."""
        one, other = await self.logged_in(), await self.logged_in(self.second_account())
        answer = await self.client.tokenrefresh(other["refresh_token"], one["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        for login in (one, other):
            await self.assert_alive(login["access_token"])
            self.succeeded(
                await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
            )

    @needs(Feature.STRICT_ERRORS)
    async def test_used_with_other_session(self) -> None:
        """A used refresh token with another session's access token is refused in the same way."""
        one, other = await self.logged_in(), await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(one["refresh_token"], one["access_token"])
        )
        answer = await self.client.tokenrefresh(one["refresh_token"], other["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        await self.assert_alive(new["access_token"])
        await self.assert_alive(other["access_token"])

    async def test_no_access_token(self) -> None:
        """Without an access token the refresh is refused, and the refresh token stays good."""
        login = await self.logged_in()
        answer = await self.client.tokenrefresh(login["refresh_token"], None)
        self.refused(answer, 401, "M_MISSING_TOKEN")
        self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )

    async def test_no_access_token_bad_refresh_token(self) -> None:
        """A missing access token is reported before the refresh token is checked."""
        answer = await self.client.tokenrefresh("no such token", None)
        self.refused(answer, 401, "M_MISSING_TOKEN")

    async def test_unknown_access_token(self) -> None:
        """With an access token that was never issued the refresh is rejected, nothing consumed."""
        login = await self.logged_in()
        for token in ("no such token", login["refresh_token"], login["access_token"] + "A"):
            answer = await self.client.tokenrefresh(login["refresh_token"], token)
            self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        await self.assert_alive(login["access_token"])
        self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )

    async def test_both_unknown(self) -> None:
        """When neither token is known, the refresh token decides the answer."""
        answer = await self.client.tokenrefresh("no such token", "no such token")
        self.refused(answer, 403, "M_FORBIDDEN")

    @needs(Feature.LOGOUT)
    async def test_after_logout(self) -> None:
        """After the logout a refresh is rejected."""
        login = await self.logged_in()
        self.succeeded(await self.client.logout(login["access_token"]))
        answer = await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")

    @needs(Feature.LOGOUT)
    async def test_access_token_of_ended_session(self) -> None:
        """An access token of an ended session is unknown."""
        login, over = await self.logged_in(), await self.logged_in()
        self.succeeded(await self.client.logout(over["access_token"]))
        answer = await self.client.tokenrefresh(login["refresh_token"], over["access_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )

    async def test_answers_alike(self) -> None:
        """Used, unknown and another session's refresh tokens get the same answer."""
        one, other = await self.logged_in(), await self.logged_in()
        new = self.succeeded(
            await self.client.tokenrefresh(one["refresh_token"], one["access_token"])
        )
        bodies = set()
        for token in (one["refresh_token"], other["refresh_token"], "no such token"):
            answer = await self.client.tokenrefresh(token, new["access_token"])
            self.refused(answer, 403, "M_FORBIDDEN")
            bodies.add(answer.body)
        self.assertEqual(len(bodies), 1, bodies)


class NoAccessTokenTests(ConformanceTestCase):
    """``/tokenrefresh`` where it does not require an access token."""

    profile = NO_ACCESS_TOKEN

    async def test_without(self) -> None:
        """The refresh token alone is enough, and the old pair is dead."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.tokenrefresh(old["refresh_token"], None))
        await self.assert_dead(old["access_token"], soft=True)
        await self.assert_alive(new["access_token"])

    async def test_with(self) -> None:
        """An access token may be sent along."""
        old = await self.logged_in()
        self.succeeded(await self.client.tokenrefresh(old["refresh_token"], old["access_token"]))

    async def test_other_session(self) -> None:
        """An access token that is sent along must be of the same session."""
        one, other = await self.logged_in(), await self.logged_in()
        answer = await self.client.tokenrefresh(other["refresh_token"], one["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        self.succeeded(await self.client.tokenrefresh(other["refresh_token"], None))

    async def test_unknown(self) -> None:
        """A refresh token that was never issued is rejected."""
        answer = await self.client.tokenrefresh("no such token", None)
        self.refused(answer, 403, "M_FORBIDDEN")
