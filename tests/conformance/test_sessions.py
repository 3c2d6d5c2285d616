"""``/account/whoami``, ``/logout`` and ``/logout/all``, and how access tokens are sent."""

from __future__ import annotations

from tests.conformance import paths
from tests.conformance.case import ConformanceTestCase, Named, cases, named, needs
from tests.conformance.target import Feature
from tests.support.waiting import together

_WHOAMI = paths.at(paths.WHOAMI)
_WITH_ACCESS_TOKEN = (
    "GET account/whoami",
    "POST logout",
    "POST logout/all",
    "POST login/get_token",
)


class WhoAmITests(ConformanceTestCase):
    """The user and device of an access token."""

    features = (Feature.WHOAMI,)

    @needs(Feature.PREFIXES)
    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, the user and device of an access token are returned."""
        login = await self.logged_in()
        answer = self.succeeded(await self.client.whoami(login["access_token"], prefix))
        self.assertEqual(answer["user_id"], login["user_id"])
        self.assertEqual(answer["device_id"], login["device_id"])

    async def test_query(self) -> None:
        """The access token may be in the query."""
        login = await self.logged_in()
        answer = await self.client.send(
            "GET", _WHOAMI, query={"access_token": login["access_token"]}
        )
        self.assertEqual(self.succeeded(answer)["user_id"], login["user_id"])

    @needs(Feature.STRICT_ERRORS)
    async def test_head(self) -> None:
        """HEAD is answered like GET, without the body."""
        login = await self.logged_in()
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        answer = await self.client.send("HEAD", _WHOAMI, headers=headers)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.body, b"")


class AccessTokenTests(ConformanceTestCase):
    """Requests without a valid access token."""

    features = (Feature.STRICT_ERRORS, Feature.WHOAMI, Feature.LOGOUT, Feature.GET_TOKEN)

    @cases(*_WITH_ACCESS_TOKEN)
    async def test_missing(self, operation: str) -> None:
        """Without an access token, {} says that it is missing."""
        method, path = operation.split(" ")
        body = b"{}" if method == "POST" else None
        answer = await self.client.send(method, paths.at(path), body)
        self.refused(answer, 401, "M_MISSING_TOKEN")
        self.assertFalse(answer.soft_logout, str(answer))

    @cases(*_WITH_ACCESS_TOKEN)
    async def test_unknown(self, operation: str) -> None:
        """With an access token that was never issued, {} says that it is unknown."""
        method, path = operation.split(" ")
        body = b"{}" if method == "POST" else None
        for token in ("no_such_token", "slmat_" + "A" * 64, "?", "x" * 8000, "\u2603"):
            headers = {"Authorization": f"Bearer {token}"}
            answer = await self.client.send(method, paths.at(path), body, headers)
            self.refused(answer, 401, "M_UNKNOWN_TOKEN")
            self.assertFalse(answer.soft_logout, str(answer))

    @cases(*_WITH_ACCESS_TOKEN)
    async def test_unknown_in_query(self, operation: str) -> None:
        """The same goes for one in the query, with {}."""
        method, path = operation.split(" ")
        body = b"{}" if method == "POST" else None
        for token in ("no_such_token", "\x00", "\u2603"):
            answer = await self.client.send(
                method, paths.at(path), body, query={"access_token": token}
            )
            self.refused(answer, 401, "M_UNKNOWN_TOKEN")

    async def test_query_not_utf8(self) -> None:
        """Bytes in the query that are no text are an unknown token."""
        answer = await self.client.send("GET", _WHOAMI, query={"access_token": "x"})
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        connection = await self.connect()
        connection.send(
            f"GET {_WHOAMI}?access_token=%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        (raw,) = await connection.answers(("GET", _WHOAMI))
        self.client.check(raw)
        self.refused(raw, 401, "M_UNKNOWN_TOKEN")

    @cases("GET account/whoami", "POST login/get_token")
    async def test_superseded(self, operation: str) -> None:
        """With a superseded access token, {} says that the session lives on."""
        method, path = operation.split(" ")
        old = await self.logged_in()
        self.succeeded(await self.client.tokenrefresh(old["refresh_token"], old["access_token"]))
        headers = {"Authorization": f"Bearer {old['access_token']}"}
        body = b"{}" if method == "POST" else None
        answer = await self.client.send(method, paths.at(path), body, headers)
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")
        self.assertTrue(answer.soft_logout, str(answer))

    @cases(
        *named(
            [
                ("basic", "Basic dXNlcjpwYXNz"),
                ("scheme alone", "Bearer"),
                ("scheme and blank", "Bearer "),
                ("empty", ""),
                ("other scheme", "Token abc"),
            ]
        )
    )
    async def test_no_bearer(self, header: Named) -> None:
        """An Authorization header without a bearer token ({}) is refused."""
        answer = await self.client.send("GET", _WHOAMI, headers={"Authorization": header.value})
        self.refused(answer, 401, "M_MISSING_TOKEN", "M_UNKNOWN_TOKEN")

    async def test_refresh_token_as_access_token(self) -> None:
        """A refresh token is no access token."""
        login = await self.logged_in()
        await self.assert_dead(login["refresh_token"], soft=False)

    async def test_tampered(self) -> None:
        """An access token of which one character is changed is not known."""
        login = await self.logged_in()
        token = login["access_token"]
        for at in range(0, len(token), 3):
            changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            await self.assert_dead(changed, soft=False)
        await self.assert_alive(token)


class LogoutTests(ConformanceTestCase):
    """The end of one session."""

    features = (Feature.LOGOUT,)

    @needs(Feature.PREFIXES)
    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, a session can be ended."""
        login = await self.logged_in()
        path = paths.at(paths.LOGOUT, prefix)
        answer = await self.client.post(path, {}, login["access_token"])
        self.assertEqual(self.succeeded(answer), {})
        await self.assert_dead(login["access_token"], soft=False)

    async def test_no_body(self) -> None:
        """No body is needed."""
        login = await self.logged_in()
        self.assertEqual(self.succeeded(await self.client.logout(login["access_token"])), {})

    @needs(Feature.STRICT_HTTP)
    async def test_any_body(self) -> None:
        """Any body is ignored, and the session ends."""
        login = await self.logged_in()
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        answer = await self.client.send("POST", paths.at(paths.LOGOUT), b"nonsense", headers)
        self.assertEqual(self.succeeded(answer), {})

    async def test_again(self) -> None:
        """After the logout the access token is unknown, also to /logout."""
        login = await self.logged_in()
        self.succeeded(await self.client.logout(login["access_token"]))
        answer = await self.client.logout(login["access_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")

    async def test_other_sessions(self) -> None:
        """Other sessions of the user live on."""
        one, other = await self.logged_in(), await self.logged_in()
        self.succeeded(await self.client.logout(one["access_token"]))
        await self.assert_alive(other["access_token"])

    @needs(Feature.STRICT_HTTP)
    async def test_query(self) -> None:
        """The access token may be in the query."""
        login = await self.logged_in()
        answer = await self.client.send(
            "POST", paths.at(paths.LOGOUT), query={"access_token": login["access_token"]}
        )
        self.succeeded(answer)
        await self.assert_dead(login["access_token"], soft=False)

    @needs(Feature.REFRESH)
    async def test_refreshed(self) -> None:
        """After a refresh, the new access token ends the session with all its tokens."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        self.succeeded(await self.client.logout(new["access_token"]))
        await self.assert_dead(old["access_token"], soft=False)
        await self.assert_dead(new["access_token"], soft=False)

    @needs(Feature.REFRESH, Feature.REFRESH_LENIENT)
    async def test_unconfirmed(self) -> None:
        """The old access token that still lives ends the session too."""
        old = await self.logged_in()
        new = self.succeeded(await self.client.refresh(old["refresh_token"]))
        self.succeeded(await self.client.logout(old["access_token"]))
        await self.assert_dead(new["access_token"], soft=False)
        answer = await self.client.refresh(new["refresh_token"])
        self.refused(answer, 401, "M_UNKNOWN_TOKEN")

    async def test_device_again(self) -> None:
        """The device can log in again after its logout."""
        login = await self.logged_in(device_id="CONFORMANCE7")
        self.succeeded(await self.client.logout(login["access_token"]))
        again = await self.logged_in(device_id="CONFORMANCE7")
        await self.assert_alive(again["access_token"])
        await self.assert_dead(login["access_token"], soft=False)


class LogoutAllTests(ConformanceTestCase):
    """The end of all sessions of a user."""

    features = (Feature.LOGOUT,)

    @needs(Feature.PREFIXES)
    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, all sessions can be ended."""
        login = await self.logged_in()
        path = paths.at(paths.LOGOUT_ALL, prefix)
        answer = await self.client.post(path, {}, login["access_token"])
        self.assertEqual(self.succeeded(answer), {})
        await self.assert_dead(login["access_token"], soft=False)

    async def test_all(self) -> None:
        """All sessions of the user end."""
        logins = await together(*(self.logged_in() for _ in range(4)))
        answer = await self.client.logout(logins[2]["access_token"], everywhere=True)
        self.assertEqual(self.succeeded(answer), {})
        for login in logins:
            await self.assert_dead(login["access_token"], soft=False)

    @needs(Feature.REFRESH)
    async def test_refresh_tokens(self) -> None:
        """The refresh tokens end with their sessions."""
        one, other = await self.logged_in(), await self.logged_in()
        self.succeeded(await self.client.logout(one["access_token"], everywhere=True))
        for login in (one, other):
            answer = await self.client.refresh(login["refresh_token"])
            self.assertIn(answer.status, (401, 403))

    async def test_other_users(self) -> None:
        """Other users' sessions live on."""
        one, other = await self.logged_in(), await self.logged_in(self.second_account())
        self.succeeded(await self.client.logout(one["access_token"], everywhere=True))
        await self.assert_alive(other["access_token"])
