"""Logging in to a real Synapse: at its own ``/login`` and at the module's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.support.response import Response
from tests.support.synapse.profile import BCRYPT, PASSWORD, SERVER_NAME, Profile
from tests.synapse import logins
from tests.synapse.case import fresh, user_id

_PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")


class OwnLoginTests(logins.ProviderTests):
    """At Synapse's own ``/login``."""

    listener = "own"

    async def test_half_characters(self) -> None:
        """Half a character is no reason for the providers to fail."""
        for password in ("\ud800", "\udfff" * 80):
            await self.assert_forbidden(password=password)


class ModuleLoginTests(logins.ProviderTests):
    """At the module's."""

    listener = "module"

    async def test_half_characters(self) -> None:
        """Half a character is refused as such."""
        self.assert_error(await self.log_in(password="\ud800"), 400, "M_BAD_JSON")

    async def test_deactivated_as_wrong(self) -> None:
        """The refusals of wrong passwords and of unknown users are the same to the byte."""
        bodies = {
            (await self.log_in(password="wrong")).body,
            (await self.log_in(user=fresh("nobody"))).body,
            (await self.log_in(user="gone", password="wrong")).body,
            (await self.log_in(user="@alice:other.example")).body,
            (await self.log_in(type="m.login.token", token="syl_nothing")).body,
        }
        self.assertEqual(len(bodies), 1, bodies)

    async def test_answer(self) -> None:
        """The answer has the keys of the contract, and no cache may keep it."""
        answer = await self.log_in(device_id=fresh("DEVICE"), refresh_token=True)
        self.assertEqual(
            set(answer.json),
            {
                *("user_id", "access_token", "home_server", "device_id"),
                *("refresh_token", "expires_in_ms", "well_known"),
            },
        )
        self.assertEqual(answer.json["home_server"], SERVER_NAME)
        self.assertEqual(answer.header("Cache-Control"), "no-store")

    async def test_device_name(self) -> None:
        """The device has the name that the client gave, in Synapse's own list."""
        device = fresh("DEVICE")
        answer = await self.log_in(device_id=device, initial_device_display_name="A name")
        url = f"{self.client.own}/_matrix/client/v3/devices/{device}"
        shown = await self.client.send("GET", url, token=answer.json["access_token"])
        self.assertEqual(shown.json["display_name"], "A name")

    async def test_every_prefix(self) -> None:
        """The three paths are there under every prefix, with CORS."""
        for prefix in _PREFIXES:
            for name in ("login", "tokenrefresh", "refresh"):
                url = f"{self.client.module}/_matrix/client/{prefix}/{name}"
                options = await self.client.send("OPTIONS", url)
                self.assertIn(options.status, (200, 204), str(options))
                answer = await self.client.send("POST", url, b"{")
                self.assert_error(answer, 400, "M_NOT_JSON")
                self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")
                wrong = await self.client.send("DELETE", url)
                self.assert_error(wrong, 405, "M_UNRECOGNIZED")
        url = f"{self.client.module}/_matrix/client/unstable/org.matrix.msc2918/refresh"
        self.assert_error(await self.client.send("POST", url, b"{"), 400, "M_NOT_JSON")

    async def test_below_a_path(self) -> None:
        """Paths below are unknown, in JSON with CORS; OPTIONS is still answered."""
        for path in ("login/x", "tokenrefresh/x/y", "login/", "refresh/"):
            url = f"{self.client.module}/_matrix/client/v3/{path}"
            answer = await self.client.send("POST", url, {})
            self.assert_error(answer, 404, "M_UNRECOGNIZED")
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")
            options = await self.client.send("OPTIONS", url)
            self.assertIn(options.status, (200, 204), str(options))

    async def test_own_listener(self) -> None:
        """On a listener with Synapse's client API, Synapse's own paths stay as they are."""
        answer = await self.client.post(self.client.own, "/tokenrefresh", {"refresh_token": "x"})
        self.assert_error(answer, 403, "M_FORBIDDEN")
        self.assertIn("no longer supported", answer.json["error"])
        flows = await self.client.send("GET", f"{self.client.own}/_matrix/client/v3/login")
        kinds = {flow["type"] for flow in flows.json["flows"]}
        self.assertIn("m.login.password", kinds)

    async def test_login_token(self) -> None:
        """A login token that Synapse made is good once; a refused login does not use it up."""
        first = await self.client.pair()
        path = "/login/get_token"
        made = await self.client.post(self.client.own, path, {}, first.access, prefix="v1")
        self.assertEqual(made.status, 200, str(made))
        body = {"type": "m.login.token", "token": made.json["login_token"], "refresh_token": True}
        self.change_user("alice", locked=True)
        locked = await self.client.post(self.client.module, "/login", body)
        self.assert_error(locked, 401, "M_USER_LOCKED")
        self.change_user("alice", locked=False)
        answer = await self.client.post(self.client.module, "/login", body)
        self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(answer.json["user_id"], user_id("alice"))
        again = await self.client.post(self.client.module, "/login", body)
        self.assert_error(again, 403, "M_FORBIDDEN")

    async def test_bug_in_a_provider(self) -> None:
        """A provider with a bug is a 500 without details."""
        self.complaints = "Traceback"
        self.server.set_fault("crash")
        answer = await self.log_in()
        self.assert_error(answer, 500, "M_UNKNOWN")
        self.assertEqual(answer.json["error"], "Internal server error")


class UserInteractiveTests(logins.LoginCase):
    """Synapse's user-interactive authentication asks the providers."""

    profile = logins.PLAIN

    async def test_right_password(self) -> None:
        """A device is deleted with the provider's password."""
        pair = await self.client.pair()
        other = await self.client.pair()
        await self.delete(other.device_id, pair.access, PASSWORD, 200)
        self.assertNotIn(other.device_id, await self.client.devices(pair.access))

    async def test_wrong_password(self) -> None:
        """A wrong one is 401, with the flows again, and the device stays."""
        pair = await self.client.pair()
        answer = await self.delete(pair.device_id, pair.access, "wrong", 401)
        self.assertEqual(answer.errcode, "M_FORBIDDEN")
        self.assertIn({"stages": ["m.login.password"]}, answer.json["flows"])
        self.assertIn(pair.device_id, await self.client.devices(pair.access))

    async def test_outage(self) -> None:
        """While the provider cannot be reached it is 503, and good again afterwards."""
        pair = await self.client.pair()
        self.server.set_fault("unavailable")
        answer = await self.delete(pair.device_id, pair.access, PASSWORD, 503)
        self.assertEqual(answer.errcode, "M_UNKNOWN")
        self.server.set_fault("")
        self.assertIn(pair.device_id, await self.client.devices(pair.access))
        await self.delete(pair.device_id, pair.access, PASSWORD, 200)

    async def test_password_of_another_user(self) -> None:
        """Another user's password is no good."""
        await self.client.pair("bob")
        pair = await self.client.pair()
        await self.delete(pair.device_id, pair.access, PASSWORD, 403, user="bob")
        self.assertIn(pair.device_id, await self.client.devices(pair.access))

    async def delete(
        self, device: str, access: str, password: str, expected: int, user: str = "alice"
    ) -> Response:
        """Delete a device in two steps."""
        answer = await self.client.delete_device(device, access, user, password)
        self.assertEqual(answer.status, expected, str(answer))
        return answer


class NoFallBackTests(logins.LoginCase):
    """``fall_back_to_local: false``, with ``register_users: false``, ``sync_profile: true`` and
    ``existing_accounts: all``.

    Synapse's local passwords are enabled, as they are by default: they are refused all the same.
    """

    profile = Profile(
        "no-fall-back",
        module={
            "fall_back_to_local": False,
            "register_users": False,
            "sync_profile": True,
            "existing_accounts": "all",
        },
    )

    async def test_local_password(self) -> None:
        """A local password is refused at both listeners, by name and by e-mail address."""
        name, password = await self.local_user()
        address = await self.bind_email(name)
        for base in (self.client.own, self.client.module):
            by_name = await self.client.login(base, name, password)
            self.assert_error(by_name, 403, "M_FORBIDDEN")
            answer = await self.client.login(
                base, password=password, identifier=logins.by_email(address)
            )
            self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_second_password(self) -> None:
        """A user of the provider has the provider's password alone."""
        name, password = await self.linked_user()
        for base in (self.client.own, self.client.module):
            refused = await self.client.login(base, name, password)
            self.assert_error(refused, 403, "M_FORBIDDEN")
            good = await self.client.login(base, name)
            self.assertEqual(good.status, 200, str(good))

    async def test_local_password_in_user_interaction(self) -> None:
        """Nor is a local password good for user-interactive authentication."""
        name, password = await self.linked_user()
        pair = await self.client.pair(name)
        for given, expected in ((password, 401), (PASSWORD, 200)):
            answer = await self.client.delete_device(pair.device_id, pair.access, name, given)
            self.assertEqual(answer.status, expected, str(answer))

    async def test_not_registered(self) -> None:
        """With register_users off, a user must be there already."""
        name = self.new_user()
        for base in (self.client.own, self.client.module):
            self.assert_error(await self.client.login(base, name), 403, "M_FORBIDDEN")
        self.assertFalse(await self.is_registered(name))

    async def test_profile_synchronized(self) -> None:
        """With sync_profile the display name and the addresses follow the provider."""
        for base in (self.client.own, self.client.module):
            name, _ = await self.local_user()
            address = f"{name}@Example.com"
            self.users = {
                **self.users,
                name: {**self.users["bob"], "display_name": "Synced", "emails": [address]},
            }
            self.write_users()
            for _ in range(2):
                answer = await self.client.login(base, name)
                self.assertEqual(answer.status, 200, str(answer))
                self.assertEqual(await self.profile_of(name), ("Synced", {address.lower()}))

    async def test_odd_profile(self) -> None:
        """A display name that is too long is cut, and characters that no database takes are left
        out. The login succeeds.
        """
        for base in (self.client.own, self.client.module):
            name, _ = await self.local_user()
            address = f"{name}@example.com"
            odd = {
                "display_name": f"Al\0ice {'x' * 300}",
                "emails": [address],
            }
            self.users = {**self.users, name: {**self.users["bob"], **odd}}
            self.write_users()
            answer = await self.client.login(base, name)
            self.assertEqual(answer.status, 200, str(answer))
            expected = f"Alice {'x' * 250}"
            self.assertEqual(await self.profile_of(name), (expected, {address}))


class LimitTests(logins.LoginCase):
    """What counts as a failed attempt, at Synapse's own limits and at the module's."""

    profile = Profile(
        "limits",
        module={
            "fall_back_to_local": False,
            "rate_limits": {
                "address": None,
                "account": None,
                "failed_attempts": {"per_second": 0.001, "burst_count": 3},
            },
        },
        synapse={
            "rc_login": {
                "address": {"per_second": 1000, "burst_count": 1000},
                "account": {"per_second": 1000, "burst_count": 1000},
                "failed_attempts": {"per_second": 0.001, "burst_count": 3},
            }
        },
    )

    async def each(self, test: Callable[[str, str], Awaitable[None]]) -> None:
        """Run a test at both listeners, with a user that exists for it alone."""
        for base in (self.client.own, self.client.module):
            await test(base, self.new_user())

    async def test_final_reject(self) -> None:
        """A wrong password counts, though Synapse asks no local password after it."""

        async def test(base: str, name: str) -> None:
            for _ in range(3):
                answer = await self.client.login(base, name, "wrong")
                self.assert_error(answer, 403, "M_FORBIDDEN")
            answer = await self.client.login(base, name, "wrong")
            self.assert_error(answer, 429, "M_LIMIT_EXCEEDED")
            self.assertGreater(answer.json["retry_after_ms"], 0)
            self.assert_error(await self.client.login(base, name), 429, "M_LIMIT_EXCEEDED")
            said = f' limit=failures whose="@{name}:hs.example 127.0.0.1" until='
            lines = [line for line in self.logged().splitlines() if said in line]
            self.assertEqual(len(lines), 2, lines)
            for line in lines:
                self.assertIn("login outcome=limited reason=rate address=127.0.0.1 ", line)

        await self.each(test)

    async def test_outage(self) -> None:
        """An outage does not count."""

        async def test(base: str, name: str) -> None:
            self.server.set_fault("unavailable")
            for _ in range(5):
                self.assert_error(await self.client.login(base, name), 503, "M_UNKNOWN")
            self.server.set_fault("")
            answer = await self.client.login(base, name)
            self.assertEqual(answer.status, 200, str(answer))

        await self.each(test)

    async def test_locked(self) -> None:
        """Nor does a locked account with the right password."""

        async def test(base: str, name: str) -> None:
            self.change_user(name, locked=True)
            for _ in range(5):
                self.assert_error(await self.client.login(base, name), 401, "M_USER_LOCKED")
            self.change_user(name, locked=False)
            answer = await self.client.login(base, name)
            self.assertEqual(answer.status, 200, str(answer))

        await self.each(test)

    async def test_not_linked(self) -> None:
        """Nor does an account that is not linked."""

        async def test(base: str, name: str) -> None:
            await self.server.register(name, f"{name}-has-this-password")
            for _ in range(5):
                self.assert_error(await self.client.login(base, name), 403, "M_FORBIDDEN")
            self.set_local_hash(name, None)
            answer = await self.client.login(base, name)
            self.assertEqual(answer.status, 200, str(answer))

        await self.each(test)


class OwnAccountsTests(logins.LoginCase):
    """Synapse's own accounts, as the last provider of the chain, under another name, and with a
    pepper.
    """

    profile = Profile(
        "own-accounts",
        module={
            "fall_back_to_local": False,
            "password_providers": [
                {"module": BCRYPT, "name": "file", "config": {"path": "users.yaml"}},
                {"module": "synapse_login_module.providers.SynapsePasswordProvider", "name": "own"},
            ],
        },
        synapse={"password_config": {"pepper": "pepper of the tests"}},
    )

    async def test_local_password(self) -> None:
        """A local user logs in by name, in any case, and by e-mail address, and can refresh."""
        name, password = await self.local_user()
        address = await self.bind_email(name)
        for base in (self.client.own, self.client.module):
            for login in (
                {"user": name},
                {"user": name.upper()},
                {"user": user_id(name)},
                {"identifier": logins.by_email(address.upper())},
            ):
                answer = await self.client.login(base, password=password, **login)
                self.assertEqual(answer.status, 200, str(answer))
                self.assertEqual(answer.json["user_id"], user_id(name))
            wrong = await self.client.login(base, name, "wrong")
            self.assert_error(wrong, 403, "M_FORBIDDEN")
        pair = await self.client.pair_with(name, password)
        await self.assert_live(await self.client.rotate(pair))

    async def test_first_provider(self) -> None:
        """The users file still comes first, and its reject is final."""
        name, password = await self.linked_user()
        for base in (self.client.own, self.client.module):
            self.assert_error(await self.client.login(base, name, password), 403, "M_FORBIDDEN")
            self.assertEqual((await self.client.login(base, name)).status, 200)

    async def test_not_taken_for_an_account_of_elsewhere(self) -> None:
        """A local user is not linked; one of the file is, under the name that its provider has."""
        name, password = await self.local_user()
        await self.client.pair_with(name, password)
        theirs = self.new_user()
        await self.client.pair(theirs)
        for user, links in ((name, []), (theirs, [("file",)])):
            found = self.server.query(
                "SELECT provider FROM synapse_login_links WHERE user_id = ?", user_id(user)
            )
            self.assertEqual(found, links)
            marks = self.server.query(
                "SELECT auth_provider FROM user_external_ids WHERE user_id = ?", user_id(user)
            )
            self.assertEqual(marks, [])
