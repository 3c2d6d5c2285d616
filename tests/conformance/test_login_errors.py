"""``/login``: the responses to logins that fail."""

from __future__ import annotations

from typing import Any

from tests.conformance import accounts, paths
from tests.conformance.case import ConformanceTestCase, Named, cases, named, needs
from tests.conformance.target import Feature, TestAccount
from tests.support.response import Response

_LOGIN = paths.at(paths.LOGIN)


class RefusalTests(ConformanceTestCase):
    """The 403 of a rejected login does not reveal the reason."""

    features = (Feature.STRICT_ERRORS,)

    def _password_login(self, **naming: object) -> dict[str, object]:
        return {"type": "m.login.password", "password": "not the password", **naming}

    async def _refusal(self, body: dict[str, object]) -> Response:
        answer = await self.client.post(_LOGIN, body)
        self.refused(answer, 403, "M_FORBIDDEN")
        return answer

    async def _model(self) -> Response:
        return await self._refusal(self._password_login(user=self.target.account.user))

    async def _assert_like_model(self, answer: Response) -> None:
        model = await self._model()
        self.assertEqual(answer.body, model.body)
        names, model_names = (
            sorted(name for name, _ in one.headers.getAllRawHeaders()) for one in (answer, model)
        )
        self.assertEqual(names, model_names)

    @cases(
        *named(
            [
                ("unknown user", {"user": "nobody_of_this_name"}),
                ("unknown user ID", {"user": "@nobody_of_this_name:{server}"}),
                ("other server", {"user": "@{user}:other.example"}),
                ("other server by port", {"user": "@{user}:{server}:8448"}),
                ("no server", {"user": "@{user}"}),
                ("identifier", {"identifier": {"type": "m.id.user", "user": "nobody"}}),
                (
                    "identifier other server",
                    {"identifier": {"type": "m.id.user", "user": "@{user}:other.example"}},
                ),
                ("unknown email", {"medium": "email", "address": "nobody@example.org"}),
                (
                    "unknown thirdparty",
                    {
                        "identifier": {
                            "type": "m.id.thirdparty",
                            "medium": "email",
                            "address": "nobody@example.org",
                        }
                    },
                ),
                (
                    "unknown phone",
                    {"identifier": {"type": "m.id.phone", "country": "GB", "phone": "07700900999"}},
                ),
            ]
        )
    )
    async def test_naming(self, naming: Named) -> None:
        """An unknown user ({}) is rejected like a wrong password."""
        body = self._password_login(**self._filled_in(naming.value))
        await self._assert_like_model(await self._refusal(body))

    async def test_other_server_right_password(self) -> None:
        """The password of a user is wrong for the same name on another server."""
        user = f"@{self.target.account.user}:other.example"
        body = self._password_login(user=user)
        body["password"] = self.target.account.password
        await self._assert_like_model(await self._refusal(body))

    async def test_other_users_password(self) -> None:
        """Another user's password is a wrong one."""
        body = self._password_login(user=self.target.account.user)
        body["password"] = self.second_account().password
        await self._assert_like_model(await self._refusal(body))

    async def test_bad_login_token(self) -> None:
        """A login token that was never issued is rejected like a wrong password."""
        answer = await self._refusal({"type": "m.login.token", "token": "no such token"})
        await self._assert_like_model(answer)

    @needs(Feature.GET_TOKEN)
    async def test_access_token_as_login_token(self) -> None:
        """A token of another kind is no login token."""
        login = await self.logged_in()
        for key in ("access_token", "refresh_token"):
            answer = await self._refusal({"type": "m.login.token", "token": login[key]})
            await self._assert_like_model(answer)

    async def test_locked_wrong_password(self) -> None:
        """A wrong password does not reveal that an account is locked."""
        body = self._password_login(user=self._account(self.target.locked).user)
        await self._assert_like_model(await self._refusal(body))

    async def test_deactivated_wrong_password(self) -> None:
        """A wrong password does not reveal that an account is deactivated."""
        body = self._password_login(user=self._account(self.target.deactivated).user)
        await self._assert_like_model(await self._refusal(body))

    def _account(self, account: TestAccount | None) -> TestAccount:
        if account is None:
            self.skipTest("the target has no such account")
        return account

    def _filled_in(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled_in(inner) for key, inner in value.items()}
        user, name = self.target.account.user, self.target.server_name
        return value.replace("{user}", user).replace("{server}", name)


class AccountStateTests(ConformanceTestCase):
    """Accounts that may not log in."""

    async def test_deactivated(self) -> None:
        """The right password reveals that an account is deactivated."""
        if self.target.deactivated is None:
            self.skipTest("the target has no deactivated account")
        answer = await self.client.login(self.target.deactivated)
        self.refused(answer, 403, "M_USER_DEACTIVATED")

    async def test_locked(self) -> None:
        """The right password reveals that an account is locked, with ``soft_logout``."""
        if self.target.locked is None:
            self.skipTest("the target has no locked account")
        answer = await self.client.login(self.target.locked)
        self.refused(answer, 401, "M_USER_LOCKED")
        self.assertTrue(answer.soft_logout)


class LoginTypeTests(ConformanceTestCase):
    """Login types, media and identifiers that are not known."""

    @needs(Feature.STRICT_ERRORS)
    async def test_unknown_type(self) -> None:
        """An unknown login type is rejected in the words of the seed specification."""
        answer = await self.client.post(_LOGIN, {"type": "m.login.carrier_pigeon"})
        self.refused(answer, 400, "M_UNKNOWN")
        self.assertEqual(answer.json["error"], "Bad login type.")

    @needs(Feature.STRICT_ERRORS)
    @cases("", "M.LOGIN.PASSWORD", "m.login.password ", "m.login.sso", "m.login.dummy")
    async def test_near_type(self, login_type: str) -> None:
        """The login type '{}' is not known."""
        body = {
            "type": login_type,
            "user": self.target.account.user,
            "password": self.target.account.password,
        }
        answer = await self.client.post(_LOGIN, body)
        self.refused(answer, 400, "M_UNKNOWN")
        self.assertEqual(answer.json["error"], "Bad login type.")

    @needs(Feature.STRICT_ERRORS)
    @cases("msisdn", "carrier-pigeon", "EMAIL", "")
    async def test_medium(self, medium: str) -> None:
        """The medium '{}' of the legacy request is refused, and the error says what is wrong."""
        body = {
            "type": "m.login.password",
            "medium": medium,
            "address": "447700900123",
            "password": "x",
        }
        answer = await self.client.post(_LOGIN, body)
        self.refused(answer, 400, "M_UNKNOWN")
        self.assertIn("medium", answer.json["error"].lower())

    @needs(Feature.STRICT_ERRORS)
    async def test_thirdparty_medium(self) -> None:
        """The medium of an identifier is rejected too."""
        identifier = {"type": "m.id.thirdparty", "medium": "carrier-pigeon", "address": "coo"}
        body = {"type": "m.login.password", "identifier": identifier, "password": "x"}
        answer = await self.client.post(_LOGIN, body)
        self.refused(answer, 400, "M_UNKNOWN", "M_INVALID_PARAM")
        self.assertIn("medium", answer.json["error"].lower())

    @needs(Feature.STRICT_ERRORS)
    @cases("m.id.carrier_pigeon", "", "m.id.USER")
    async def test_identifier_type(self, identifier_type: str) -> None:
        """The identifier type '{}' is refused, and the error says what is wrong."""
        identifier = {"type": identifier_type, "user": self.target.account.user}
        body = {"type": "m.login.password", "identifier": identifier, "password": "x"}
        answer = await self.client.post(_LOGIN, body)
        self.refused(answer, 400, "M_INVALID_PARAM")
        self.assertIn("identifier", answer.json["error"].lower())


class OddUserTests(ConformanceTestCase):
    """Names that no user can have are rejected like unknown ones, and are never a server error."""

    features = (Feature.STRICT_ERRORS,)

    @cases(
        *named(
            [
                ("empty", ""),
                ("sigil", "@"),
                ("sigil and colon", "@:"),
                ("no local part", f"@:{accounts.SERVER_NAME}"),
                ("colons", ":::"),
                ("NUL", "cheeky\x00monkey"),
                ("newline", "cheeky\nmonkey"),
                ("lone surrogate", "\ud800"),
                ("long", "a" * 10_000),
                ("astral", "\U0001f435"),
                ("quote", "'; DROP TABLE sessions; --"),
                ("path", "../../etc/passwd"),
                ("brackets", "@monkey:[::1]"),
                ("ldap", "*)(uid=*"),
            ]
        )
    )
    async def test_user(self, user: Named) -> None:
        """Odd name: {}."""
        for naming in (
            {"user": user.value},
            {"identifier": {"type": "m.id.user", "user": user.value}},
            {"medium": "email", "address": user.value},
        ):
            body = {"type": "m.login.password", "password": "x", **naming}
            answer = await self.client.post(_LOGIN, body)
            self.assertIn(answer.status, (400, 403), str(answer))

    @cases(
        *named(
            [
                ("NUL", "ilove\x00bananas"),
                ("lone surrogate", "\udfff"),
                ("long", "p" * 60_000),
                ("astral", "\U0001f34c" * 100),
            ]
        )
    )
    async def test_password(self, password: Named) -> None:
        """Odd password: {}."""
        body = {
            "type": "m.login.password",
            "user": self.target.account.user,
            "password": password.value,
        }
        answer = await self.client.post(_LOGIN, body)
        self.assertIn(answer.status, (400, 403), str(answer))

    @needs(Feature.GET_TOKEN)
    @cases(
        *named(
            [
                ("empty", ""),
                ("NUL", "\x00"),
                ("lone surrogate", "\ud800"),
                ("long", "t" * 60_000),
                ("underscores", "___"),
            ]
        )
    )
    async def test_token(self, token: Named) -> None:
        """Odd login token: {}."""
        answer = await self.client.post(_LOGIN, {"type": "m.login.token", "token": token.value})
        self.assertIn(answer.status, (400, 403), str(answer))

    @cases(
        *named(
            [
                ("no country", {"phone": "07700900123"}),
                ("unknown country", {"country": "ZZ", "phone": "07700900123"}),
                ("lower case", {"country": "gb", "phone": "nonsense"}),
                ("no number", {"country": "GB", "phone": ""}),
                ("letters", {"country": "GB", "phone": "call me"}),
                ("long", {"country": "GB", "phone": "1" * 5000}),
                ("other digits", {"country": "GB", "phone": "\u0660\u0667\u0667"}),
            ]
        )
    )
    async def test_phone(self, phone: Named) -> None:
        """Odd telephone number: {}."""
        identifier = {"type": "m.id.phone", **phone.value}
        body = {"type": "m.login.password", "identifier": identifier, "password": "x"}
        answer = await self.client.post(_LOGIN, body)
        self.assertIn(answer.status, (400, 403), str(answer))
