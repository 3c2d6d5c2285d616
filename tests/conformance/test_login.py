"""``/login``: successful logins, the ways to name the user, and the response."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Any

from tests.conformance import accounts, paths
from tests.conformance.case import ConformanceTestCase, cases, needs
from tests.conformance.profiles import ALWAYS, NONREFRESHABLE, PEPPER
from tests.conformance.target import Feature, TestAccount
from tests.support.waiting import together

_FIVE_MINUTES = 5 * 60_000
_HOUR = 60 * 60_000


class FlowTests(ConformanceTestCase):
    """The response to ``GET /login``."""

    @needs(Feature.PREFIXES)
    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, the login types are listed, the password among them."""
        answer = self.succeeded(await self.client.get(paths.at(paths.LOGIN, prefix)))
        self.assertIn({"type": "m.login.password"}, answer["flows"])

    async def test_password(self) -> None:
        """The password is among the login types."""
        answer = self.succeeded(await self.client.get(paths.at(paths.LOGIN)))
        self.assertIn("m.login.password", [flow["type"] for flow in answer["flows"]])

    @needs(Feature.GET_TOKEN)
    async def test_token(self) -> None:
        """Login tokens are among the login types if the server supports them."""
        answer = self.succeeded(await self.client.get(paths.at(paths.LOGIN)))
        self.assertIn("m.login.token", [flow["type"] for flow in answer["flows"]])


class PasswordLoginTests(ConformanceTestCase):
    """A login with the right password."""

    @needs(Feature.PREFIXES)
    @cases(*paths.PREFIXES)
    async def test_served(self, prefix: str) -> None:
        """Under {}, the right password logs in."""
        answer = self.succeeded(await self.client.login(prefix=prefix))
        self.assertEqual(answer["user_id"], self.target.user_id(self.target.account))

    @needs(Feature.HOME_SERVER)
    async def test_seed_example(self) -> None:
        """The request of the seed specification gets the keys of its answer."""
        account = self.target.account
        body = {"type": "m.login.password", "user": account.user, "password": account.password}
        answer = self.succeeded(await self.client.post(paths.at(paths.LOGIN), body))
        self.assertEqual(answer["user_id"], self.target.user_id(account))
        self.assertEqual(answer["home_server"], self.target.server_name)
        self.assertTrue(answer["access_token"])

    @needs(Feature.WHOAMI)
    async def test_access_token(self) -> None:
        """The access token is good for the user and device that the answer names."""
        login = self.succeeded(await self.client.login())
        answer = self.succeeded(await self.client.whoami(login["access_token"]))
        self.assertEqual(answer["user_id"], login["user_id"])
        self.assertEqual(answer["device_id"], login["device_id"])

    @needs(Feature.STRICT_HTTP)
    async def test_token_form(self) -> None:
        """Tokens are a prefix that tells the kind, an underscore and base64url."""
        login = await self.logged_in()
        prefixes = set()
        for token in (login["access_token"], login["refresh_token"]):
            match = re.fullmatch(r"([a-z]+)_[A-Za-z0-9_-]+", token)
            assert match is not None, token
            prefixes.add(match[1])
        self.assertEqual(len(prefixes), 2)

    async def test_tokens_differ(self) -> None:
        """No two logins get the same device or token."""
        logins = await together(*(self.logged_in() for _ in range(5)))
        for key in ("access_token", "refresh_token", "device_id"):
            self.assertEqual(len({login[key] for login in logins}), 5, key)

    @needs(Feature.STRICT_HTTP)
    async def test_no_store(self) -> None:
        """The answer may not be stored by caches."""
        answer = await self.client.login()
        self.assertIn("no-store", answer.header("Cache-Control"))

    @needs(Feature.STRICT_ERRORS)
    async def test_unknown_keys(self) -> None:
        """Unknown keys are ignored."""
        extra: dict[str, Any] = {"org.example.extra": {"deep": [1, None]}}
        self.succeeded(await self.client.login(None, **extra))

    async def test_null_device_id(self) -> None:
        """A null device_id is rejected, or treated as a missing one."""
        answer = await self.client.login(device_id=None)
        self.assertIn(answer.status, (200, 400))


class NamingTests(ConformanceTestCase):
    """The ways to name the user."""

    async def _logs_in(self, **naming: object) -> None:
        account = self.target.account
        body = {"type": "m.login.password", "password": account.password, **naming}
        answer = self.succeeded(await self.client.post(paths.at(paths.LOGIN), body))
        self.assertEqual(answer["user_id"], self.target.user_id(account))

    async def test_user(self) -> None:
        """The legacy user may be a local part."""
        await self._logs_in(user=self.target.account.user)

    async def test_user_full(self) -> None:
        """The legacy user may be a full user ID."""
        await self._logs_in(user=self.target.user_id(self.target.account))

    async def test_identifier(self) -> None:
        """The identifier may be m.id.user with a local part."""
        await self._logs_in(identifier={"type": "m.id.user", "user": self.target.account.user})

    async def test_identifier_full(self) -> None:
        """The identifier may be m.id.user with a full user ID."""
        user_id = self.target.user_id(self.target.account)
        await self._logs_in(identifier={"type": "m.id.user", "user": user_id})

    async def test_email(self) -> None:
        """The legacy medium and address may name an e-mail address."""
        await self._logs_in(medium="email", address=self._email())

    async def test_email_case(self) -> None:
        """The case of an e-mail address does not matter."""
        await self._logs_in(medium="email", address=self._email().upper())

    async def test_thirdparty(self) -> None:
        """The identifier may be m.id.thirdparty with an e-mail address."""
        identifier = {"type": "m.id.thirdparty", "medium": "email", "address": self._email()}
        await self._logs_in(identifier=identifier)

    async def test_phone(self) -> None:
        """The identifier may be m.id.phone with a number as it is dialled in its country."""
        phone = self.target.account.phone
        if phone is None or not phone.startswith("44"):
            self.skipTest("the target's account has no British telephone number")
        identifier = {"type": "m.id.phone", "country": "GB", "phone": f"0{phone[2:]}"}
        await self._logs_in(identifier=identifier)

    async def test_phone_international(self) -> None:
        """The identifier may be m.id.phone with a number in its international form."""
        phone = self.target.account.phone
        if phone is None or not phone.startswith("44"):
            self.skipTest("the target's account has no British telephone number")
        identifier = {"type": "m.id.phone", "country": "GB", "phone": f"+{phone}"}
        await self._logs_in(identifier=identifier)

    @needs(Feature.STRICT_ERRORS)
    async def test_identifier_wins(self) -> None:
        """When there is an identifier, the legacy user does not count."""
        identifier = {"type": "m.id.user", "user": self.target.account.user}
        await self._logs_in(identifier=identifier, user="somebody_else")

    async def test_stored_spelling(self) -> None:
        """A name stored with capitals makes a lower-case user ID, whatever case was typed. The
        account is found again at a refresh.
        """
        self.own_server()
        for typed in ("Upper", "upper", "UPPER"):
            account = replace(accounts.UPPER, user=typed)
            login = await self.logged_in(account)
            self.assertEqual(login["user_id"], f"@upper:{self.target.server_name}")
            self.succeeded(await self.client.refresh(login["refresh_token"]))

    def _email(self) -> str:
        email = self.target.account.email
        if email is None:
            self.skipTest("the target's account has no e-mail address")
        return email


class PasswordFormTests(ConformanceTestCase):
    """Passwords are treated as Synapse treats them."""

    async def _status(self, account: TestAccount, password: str) -> int:
        identifier = {"type": "m.id.user", "user": account.user}
        body = {"type": "m.login.password", "identifier": identifier, "password": password}
        return (await self.client.post(paths.at(paths.LOGIN), body)).status

    async def test_beyond_72_bytes(self) -> None:
        """Bytes beyond bcrypt's 72 are ignored, and are no error."""
        self.own_server()
        for length, status in ((71, 403), (72, 200), (73, 200), (100, 200)):
            password = accounts.LONG.password[:length]
            self.assertEqual(await self._status(accounts.LONG, password), status, length)

    async def test_cut_within_character(self) -> None:
        """A long password of which byte 72 is within a character is no error."""
        password = "x" + "\u00e9" * 50
        self.assertEqual(await self._status(self.target.account, password), 403)

    async def test_normal_form(self) -> None:
        """A password matches in any Unicode normal form."""
        self.own_server()
        decomposed = unicodedata.normalize("NFD", accounts.COMPOSED.password)
        self.assertNotEqual(decomposed, accounts.COMPOSED.password)
        self.assertEqual(await self._status(accounts.COMPOSED, decomposed), 200)

    async def test_empty(self) -> None:
        """An empty password is a wrong one."""
        self.assertIn(await self._status(self.target.account, ""), (400, 403))


class PepperTests(ConformanceTestCase):
    """Hashes that were made with a pepper."""

    profile = PEPPER

    async def test_right(self) -> None:
        """The right password logs in."""
        self.succeeded(await self.client.login())

    async def test_wrong(self) -> None:
        """A wrong password does not."""
        account = TestAccount(self.target.account.user, "salt and")
        self.refused(await self.client.login(account), 403, "M_FORBIDDEN")


class DeviceTests(ConformanceTestCase):
    """The device that a login is for."""

    async def test_given(self) -> None:
        """A device_id that the client gives is the session's."""
        login = await self.logged_in(device_id="CONFORMANCE1")
        self.assertEqual(login["device_id"], "CONFORMANCE1")

    async def test_display_name(self) -> None:
        """A display name for the device is accepted."""
        await self.logged_in(initial_device_display_name="A \u2603 of a device")

    @needs(Feature.STRICT_ERRORS)
    async def test_longest(self) -> None:
        """A device_id of 512 characters is accepted."""
        login = await self.logged_in(device_id="d" * 512)
        self.assertEqual(login["device_id"], "d" * 512)

    @needs(Feature.STRICT_ERRORS)
    async def test_too_long(self) -> None:
        """A device_id of 513 characters is refused, and named."""
        answer = await self.client.login(device_id="d" * 513)
        self.refused(answer, 400, "M_BAD_JSON")
        self.assertIn("device_id", answer.json["error"])

    @needs(Feature.WHOAMI, Feature.RELOGIN_ENDS_OLD)
    async def test_again(self) -> None:
        """Logging in again with the same device_id ends the device's earlier session."""
        earlier = await self.logged_in(device_id="CONFORMANCE2")
        later = await self.logged_in(device_id="CONFORMANCE2")
        await self.assert_dead(earlier["access_token"], soft=False)
        await self.assert_alive(later["access_token"])

    @needs(Feature.REFRESH, Feature.RELOGIN_ENDS_OLD)
    async def test_again_ends_refresh_token(self) -> None:
        """Logging in again with the same device_id ends the earlier refresh token."""
        earlier = await self.logged_in(device_id="CONFORMANCE3")
        later = await self.logged_in(device_id="CONFORMANCE3")
        answer = await self.client.refresh(earlier["refresh_token"])
        self.assertIn(answer.status, (401, 403))
        self.succeeded(await self.client.refresh(later["refresh_token"]))

    @needs(Feature.WHOAMI)
    async def test_failed_again(self) -> None:
        """A login that fails ends nothing, whatever its device_id."""
        login = await self.logged_in(device_id="CONFORMANCE4")
        wrong = TestAccount(self.target.account.user, "not the password")
        self.assertEqual((await self.client.login(wrong, device_id="CONFORMANCE4")).status, 403)
        await self.assert_alive(login["access_token"])

    @needs(Feature.WHOAMI)
    async def test_devices_apart(self) -> None:
        """Sessions on different devices live side by side."""
        one, other = await together(self.logged_in(), self.logged_in())
        await self.assert_alive(one["access_token"])
        await self.assert_alive(other["access_token"])

    @needs(Feature.WHOAMI)
    async def test_users_apart(self) -> None:
        """Another user's device of the same name is another device."""
        one = await self.logged_in(device_id="CONFORMANCE5")
        await self.logged_in(self.second_account(), device_id="CONFORMANCE5")
        await self.assert_alive(one["access_token"])

    @needs(Feature.WHOAMI, Feature.RELOGIN_ENDS_OLD)
    async def test_at_once(self) -> None:
        """Of logins on one device at the same time, one session is left."""
        logins = await together(*(self.logged_in(device_id="CONFORMANCE6") for _ in range(8)))
        answers = [await self.client.whoami(login["access_token"]) for login in logins]
        statuses = sorted(answer.status for answer in answers)
        self.assertEqual(statuses, [200] + [401] * 7)


class RefreshTokenPolicyTests(ConformanceTestCase):
    """By default only clients that ask get a refresh token and an access token that expires."""

    @needs(Feature.REFRESH_ON_REQUEST)
    async def test_not_asked(self) -> None:
        """A client that did not ask gets no refresh token, and an access token that stays."""
        login = self.succeeded(await self.client.login())
        self.assertNotIn("refresh_token", login)
        self.assertNotIn("expires_in_ms", login)

    @needs(Feature.REFRESH_ON_REQUEST)
    async def test_declined(self) -> None:
        """A client that says false counts as one that did not ask."""
        login = self.succeeded(await self.client.login(refresh_token=False))
        self.assertNotIn("refresh_token", login)
        self.assertNotIn("expires_in_ms", login)

    @needs(Feature.REFRESH)
    async def test_asked(self) -> None:
        """A client that asked gets a refresh token, and an access token that expires."""
        login = await self.logged_in()
        self.assertIn("refresh_token", login)
        self.assertTrue(login["expires_in_ms"] > 0)

    async def test_lifetime(self) -> None:
        """By default an access token of a client that refreshes lives for five minutes."""
        self.own_server()
        login = await self.logged_in()
        self.assertEqual(login["expires_in_ms"], _FIVE_MINUTES)


class AlwaysPolicyTests(ConformanceTestCase):
    """The policy ``always``."""

    profile = ALWAYS

    async def test_not_asked(self) -> None:
        """A client that did not ask gets a refresh token, and an access token that stays."""
        login = self.succeeded(await self.client.login())
        self.assertIn("refresh_token", login)
        self.assertNotIn("expires_in_ms", login)
        await self.assert_alive(login["access_token"])

    async def test_declined(self) -> None:
        """A client that says false counts as one that did not ask."""
        login = self.succeeded(await self.client.login(refresh_token=False))
        self.assertIn("refresh_token", login)
        self.assertNotIn("expires_in_ms", login)

    async def test_after_refresh(self) -> None:
        """A client that has refreshed keeps refreshing: the next access token expires."""
        login = self.succeeded(await self.client.login())
        pair = self.succeeded(await self.client.refresh(login["refresh_token"]))
        self.assertEqual(pair["expires_in_ms"], _FIVE_MINUTES)

    async def test_after_tokenrefresh(self) -> None:
        """The same goes for the strict refresh."""
        login = self.succeeded(await self.client.login())
        pair = self.succeeded(
            await self.client.tokenrefresh(login["refresh_token"], login["access_token"])
        )
        self.assertEqual(pair["expires_in_ms"], _FIVE_MINUTES)

    async def test_asked(self) -> None:
        """A client that asked gets a refresh token, and an access token that expires."""
        login = await self.logged_in()
        self.assertEqual(login["expires_in_ms"], _FIVE_MINUTES)
        self.succeeded(await self.client.refresh(login["refresh_token"]))


class NonrefreshableLifetimeTests(ConformanceTestCase):
    """Access tokens of clients that do not refresh may be made to expire."""

    profile = NONREFRESHABLE

    async def test_not_asked(self) -> None:
        """A client that did not ask is told when its access token expires."""
        login = self.succeeded(await self.client.login())
        self.assertEqual(login["expires_in_ms"], _HOUR)

    async def test_asked(self) -> None:
        """A client that asked gets the shorter lifetime."""
        login = await self.logged_in()
        self.assertEqual(login["expires_in_ms"], _FIVE_MINUTES)
