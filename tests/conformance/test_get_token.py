"""``/login/get_token``, and logins with its login tokens."""

from __future__ import annotations

from typing import Any

from tests.conformance import paths
from tests.conformance.case import ConformanceTestCase, Named, cases, named, pause
from tests.conformance.profiles import SHORT_LOGIN_TOKEN
from tests.conformance.target import Feature, TestAccount
from tests.support.response import Response
from tests.support.waiting import together

_GET_TOKEN = paths.at(paths.GET_TOKEN)


class _LoginTokenTestCase(ConformanceTestCase):
    features = (Feature.GET_TOKEN,)

    async def ask(self, access_token: str, auth: object = None, path: str = _GET_TOKEN) -> Response:
        """Ask for a login token, with or without authentication."""
        return await self.client.post(path, {} if auth is None else {"auth": auth}, access_token)

    async def begin(self, access_token: str) -> str:
        """Ask for a login token; return the session in which to authenticate."""
        answer = await self.ask(access_token)
        self.assertEqual(answer.status, 401, str(answer))
        session: str = answer.json["session"]
        return session

    def auth(self, session: str, account: TestAccount | None = None) -> dict[str, Any]:
        """Return the ``auth`` object with a password."""
        account = account or self.target.account
        return {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": account.user},
            "password": account.password,
            "session": session,
        }

    async def login_token(self, access_token: str) -> str:
        """Ask for a login token, authenticate and return it."""
        session = await self.begin(access_token)
        answer = self.succeeded(await self.ask(access_token, self.auth(session)))
        token: str = answer["login_token"]
        return token

    async def use(self, token: str, **extra: object) -> Response:
        """Log in with a login token."""
        body = {"type": "m.login.token", "token": token, **extra}
        return await self.client.post(paths.at(paths.LOGIN), body)


class GetTokenTests(_LoginTokenTestCase):
    """Asking for a login token."""

    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, the server asks for the password, and then returns a login token."""
        self.need(Feature.PREFIXES)
        login, path = await self.logged_in(), paths.at(paths.GET_TOKEN, prefix)
        first = await self.ask(login["access_token"], path=path)
        self.assertEqual(first.status, 401)
        auth = self.auth(first.json["session"])
        answer = self.succeeded(await self.ask(login["access_token"], auth, path))
        self.assertTrue(answer["login_token"])

    async def test_asked_for_password(self) -> None:
        """Without authentication, the response asks for a password and has no error."""
        login = await self.logged_in()
        answer = await self.ask(login["access_token"])
        self.assertEqual(answer.status, 401)
        self.assertIn(["m.login.password"], [flow["stages"] for flow in answer.json["flows"]])
        self.assertTrue(answer.json["session"])
        self.assertNotIn("errcode", answer.json)

    async def test_no_body(self) -> None:
        """Without a body, the answer is the same."""
        login = await self.logged_in()
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        for body in (None, b""):
            answer = await self.client.send("POST", _GET_TOKEN, body, headers)
            self.assertEqual(answer.status, 401)
            self.assertTrue(answer.json["session"])

    async def test_sessions_differ(self) -> None:
        """Each request begins another session."""
        login = await self.logged_in()
        sessions = {await self.begin(login["access_token"]) for _ in range(4)}
        self.assertEqual(len(sessions), 4)

    async def test_lifetime(self) -> None:
        """By default a login token lives for two minutes."""
        self.own_server()
        login = await self.logged_in()
        session = await self.begin(login["access_token"])
        answer = self.succeeded(await self.ask(login["access_token"], self.auth(session)))
        self.assertEqual(answer["expires_in_ms"], 2 * 60_000)

    async def test_legacy_user(self) -> None:
        """The user may be named in the legacy way."""
        login = await self.logged_in()
        session = await self.begin(login["access_token"])
        account = self.target.account
        auth = {
            "type": "m.login.password",
            "user": self.target.user_id(account),
            "password": account.password,
            "session": session,
        }
        self.succeeded(await self.ask(login["access_token"], auth))

    async def test_no_store(self) -> None:
        """The answer may not be stored by caches."""
        self.need(Feature.STRICT_HTTP)
        login = await self.logged_in()
        session = await self.begin(login["access_token"])
        answer = await self.ask(login["access_token"], self.auth(session))
        self.succeeded(answer)
        self.assertIn("no-store", answer.header("Cache-Control"))

    async def test_wrong_password(self) -> None:
        """A wrong password gets no token, and the right one does afterwards."""
        login = await self.logged_in()
        session = await self.begin(login["access_token"])
        wrong = TestAccount(self.target.account.user, "not the password")
        answer = await self.ask(login["access_token"], self.auth(session, wrong))
        self.refused(answer, 401, "M_FORBIDDEN")
        session = answer.json["session"]
        self.succeeded(await self.ask(login["access_token"], self.auth(session)))

    async def test_other_user(self) -> None:
        """Another user's password, right as it is, gets no token."""
        login = await self.logged_in()
        session = await self.begin(login["access_token"])
        answer = await self.ask(login["access_token"], self.auth(session, self.second_account()))
        self.refused(answer, answer.status, "M_FORBIDDEN")
        self.assertIn(answer.status, (401, 403))

    async def test_other_users_session(self) -> None:
        """A session that another user began does not stand in for the password."""
        one, other = await self.logged_in(), await self.logged_in(self.second_account())
        session = await self.begin(one["access_token"])
        self.succeeded(await self.ask(one["access_token"], self.auth(session)))
        answer = await self.ask(other["access_token"], self.auth(session))
        self.assertIn(answer.status, (400, 401, 403), str(answer))

    async def test_used_session(self) -> None:
        """A session in which the password was given once does not stand in for it again."""
        login = await self.logged_in()
        session = await self.begin(login["access_token"])
        self.succeeded(await self.ask(login["access_token"], self.auth(session)))
        for auth in ({"session": session}, {"type": "m.login.password", "session": session}):
            answer = await self.ask(login["access_token"], auth)
            self.assertIn(answer.status, (400, 401, 403), str(answer))

    async def test_unknown_session(self) -> None:
        """In a UIA session that was never begun, a wrong password returns a usable session."""
        login = await self.logged_in()
        wrong = TestAccount(self.target.account.user, "not the password")
        for unknown in ("no such session", "", "\x00", "s" * 10_000):
            answer = await self.ask(login["access_token"], self.auth(unknown, wrong))
            self.assertIn(answer.status, (400, 401, 403), str(answer))
            if answer.status == 401:
                self.assertTrue(answer.json["session"], str(answer))

    async def test_no_access_token(self) -> None:
        """The password alone is not enough."""
        login = await self.logged_in()
        session = await self.begin(login["access_token"])
        answer = await self.client.post(_GET_TOKEN, {"auth": self.auth(session)})
        self.refused(answer, 401, "M_MISSING_TOKEN")

    @cases(
        *named(
            [
                ("string", "m.login.password"),
                ("array", []),
                ("number", 1),
                ("type", {"type": 1, "session": "x"}),
                ("session", {"type": "m.login.password", "session": {}, "password": "x"}),
                ("password", {"type": "m.login.password", "session": "x", "password": []}),
                ("identifier", {"type": "m.login.password", "session": "x", "identifier": "x"}),
                ("nothing", {}),
                ("unknown type", {"type": "m.login.recaptcha", "session": "x"}),
                ("surrogate", {"type": "m.login.password", "session": "\ud800"}),
            ]
        )
    )
    async def test_malformed(self, auth: Named) -> None:
        """Authentication of the wrong shape ({}) is the client's error."""
        login = await self.logged_in()
        answer = await self.ask(login["access_token"], auth.value)
        self.assertIn(answer.status, (400, 401, 403), str(answer))


class LoginTokenTests(_LoginTokenTestCase):
    """Logging in with a login token."""

    async def test_logs_in(self) -> None:
        """A login token logs the same user in, on another device."""
        login = await self.logged_in()
        other = self.succeeded(await self.use(await self.login_token(login["access_token"])))
        self.assertEqual(other["user_id"], login["user_id"])
        self.assertNotEqual(other["device_id"], login["device_id"])
        await self.assert_alive(other["access_token"])
        await self.assert_alive(login["access_token"])

    async def test_refresh_token(self) -> None:
        """Such a login gets a refresh token and a device like any other."""
        login = await self.logged_in()
        token = await self.login_token(login["access_token"])
        other = self.succeeded(await self.use(token, refresh_token=True, device_id="CONFORMANCE8"))
        self.assertEqual(other["device_id"], "CONFORMANCE8")
        self.assertTrue(other["expires_in_ms"] > 0)
        self.succeeded(
            await self.client.tokenrefresh(other["refresh_token"], other["access_token"])
        )

    async def test_once(self) -> None:
        """A login token can be used once; then it is refused like a wrong password."""
        login = await self.logged_in()
        token = await self.login_token(login["access_token"])
        other = self.succeeded(await self.use(token))
        used = await self.use(token)
        self.refused(used, 403, "M_FORBIDDEN")
        wrong = await self.client.login(TestAccount(self.target.account.user, "not the password"))
        self.assertEqual(used.body, wrong.body)
        await self.assert_alive(other["access_token"])

    async def test_at_once(self) -> None:
        """Of many uses at the same time one succeeds."""
        login = await self.logged_in()
        token = await self.login_token(login["access_token"])
        answers = await together(*(self.use(token) for _ in range(8)))
        self.assertEqual(sorted(answer.status for answer in answers), [200] + [403] * 7)

    async def test_as_other_tokens(self) -> None:
        """A login token is neither an access nor a refresh token, and is not used up by a try."""
        login = await self.logged_in()
        token = await self.login_token(login["access_token"])
        await self.assert_dead(token, soft=False)
        self.refused(await self.client.refresh(token), 401, "M_UNKNOWN_TOKEN")
        answer = await self.client.tokenrefresh(token, login["access_token"])
        self.refused(answer, 403, "M_FORBIDDEN")
        self.succeeded(await self.use(token))

    async def test_tampered(self) -> None:
        """A login token of which a character is changed is refused, and not used up."""
        login = await self.logged_in()
        token = await self.login_token(login["access_token"])
        for at in range(0, len(token), 5):
            changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            self.refused(await self.use(changed), 403, "M_FORBIDDEN")
        self.succeeded(await self.use(token))

    async def test_malformed_login(self) -> None:
        """A login that is refused for its shape does not use the token up."""
        login = await self.logged_in()
        token = await self.login_token(login["access_token"])
        self.refused(await self.use(token, device_id="d" * 513), 400, "M_BAD_JSON")
        self.succeeded(await self.use(token))

    async def test_many(self) -> None:
        """Login tokens live side by side."""
        login = await self.logged_in()
        tokens = [await self.login_token(login["access_token"]) for _ in range(3)]
        for token in reversed(tokens):
            self.succeeded(await self.use(token))


class LoginTokenLifetimeTests(_LoginTokenTestCase):
    """Login tokens that live for a second."""

    profile = SHORT_LOGIN_TOKEN

    async def test_in_time(self) -> None:
        """Within its life a login token logs in."""
        login = await self.logged_in()
        self.succeeded(await self.use(await self.login_token(login["access_token"])))

    async def test_expired(self) -> None:
        """After its life it is refused like a wrong password."""
        login = await self.logged_in()
        token = await self.login_token(login["access_token"])
        await pause(1.1)
        expired = await self.use(token)
        self.refused(expired, 403, "M_FORBIDDEN")
        wrong = await self.client.login(TestAccount(self.target.account.user, "not the password"))
        self.assertEqual(expired.body, wrong.body)
