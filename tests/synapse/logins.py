"""What logins must do, at Synapse's own listener and at the module's."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.task import deferLater

from tests.support.response import Response
from tests.support.synapse.profile import PASSWORD, SERVER_NAME, Profile
from tests.support.waiting import reactor
from tests.synapse.case import HomeserverCase, fresh, user_id

PLAIN = Profile("login")


class LoginCase(HomeserverCase):
    """Helpers for tests of logins."""

    async def is_registered(self, localpart: str) -> bool:
        """Whether the homeserver has an account."""
        admin = await self.administrator()
        answer = await self.client.admin("GET", f"/v2/users/{user_id(localpart)}", None, admin)
        self.assertIn(answer.status, (200, 404), str(answer))
        return answer.status == 200

    async def linked_user(self) -> tuple[str, str]:
        """A linked user of the users file with a local password; return local part and password."""
        name, password = await self.local_user()
        ((password_hash,),) = self.server.query(
            "SELECT password_hash FROM users WHERE name = ?", user_id(name)
        )
        self.set_local_hash(name, None)
        self.users = {**self.users, name: self.users["bob"]}
        self.write_users()
        answer = await self.client.login(self.client.module, name)
        self.assertEqual(answer.status, 200, str(answer))
        self.set_local_hash(name, password_hash)
        return name, password

    def set_local_hash(self, name: str, password_hash: str | None) -> None:
        """Change what Synapse keeps of a user's local password."""
        self.server.query(
            "UPDATE users SET password_hash = ? WHERE name = ?", password_hash, user_id(name)
        )

    async def profile_of(self, localpart: str) -> tuple[str | None, set[str]]:
        """The display name and the e-mail addresses of an account."""
        admin = await self.administrator()
        answer = await self.client.admin("GET", f"/v2/users/{user_id(localpart)}", None, admin)
        self.assertEqual(answer.status, 200, str(answer))
        threepids = answer.json["threepids"]
        emails = {each["address"] for each in threepids if each["medium"] == "email"}
        return answer.json["displayname"], emails

    async def bind_email(self, localpart: str) -> str:
        """Have the administrator bind an e-mail address to a user; the address."""
        admin, address = await self.administrator(), f"{localpart}@example.net"
        changed = await self.client.change_user(
            admin, localpart, threepids=[{"medium": "email", "address": address}]
        )
        self.assertEqual(changed.status, 200, str(changed))
        return address


def by_email(address: str) -> dict[str, Any]:
    """An identifier for ``/login``."""
    return {"type": "m.id.thirdparty", "medium": "email", "address": address}


class ProviderTests(LoginCase):
    """What the providers mean for a login; run at either listener.

    :cvar listener: the name of the client's attribute with its URL.
    """

    listener: ClassVar[str]
    profile = PLAIN

    async def log_in(self, user: str = "alice", password: str = PASSWORD, **more: Any) -> Response:
        """Log in at the listener."""
        return await self.client.login(getattr(self.client, self.listener), user, password, **more)

    async def assert_logs_in(self, expected: str, **login: Any) -> None:
        """A login is good, and as this user."""
        answer = await self.log_in(**login)
        self.assertEqual(answer.status, 200, str(answer))
        self.assertEqual(answer.json["user_id"], user_id(expected))
        who = await self.client.whoami(answer.json["access_token"])
        self.assertEqual(who.json["user_id"], user_id(expected), str(who))

    async def assert_forbidden(self, **login: Any) -> None:
        """A login is refused, without a word about the reason."""
        answer = await self.log_in(**login)
        self.assert_error(answer, 403, "M_FORBIDDEN")
        self.assertEqual(answer.json["error"], "Invalid username or password")

    # Names.

    async def test_names(self) -> None:
        """A user is known by the local part and by the full ID, in any case of letters."""
        for name in ("alice", "Alice", "ALICE", user_id("alice"), user_id("Alice")):
            await self.assert_logs_in("alice", user=name)

    async def test_email(self) -> None:
        """And by the e-mail address, in any case."""
        for address in ("alice@example.com", "Alice@Example.COM"):
            await self.assert_logs_in("alice", identifier=by_email(address))

    async def test_phone(self) -> None:
        """And by the telephone number, as number or as MSISDN."""
        number = {"country": "GB", "phone": "07700 900123", "number": "07700 900123"}
        for identifier in (
            {"type": "m.id.phone", **number},
            {"type": "m.id.thirdparty", "medium": "msisdn", "address": "447700900123"},
        ):
            await self.assert_logs_in("alice", identifier=identifier)

    async def test_user_of_another_server(self) -> None:
        """A user ID of another server is unknown."""
        for name in ("@alice:other.example", "@alice:", f"@alice:{SERVER_NAME}:8448"):
            await self.assert_forbidden(user=name)

    async def test_wrong(self) -> None:
        """A wrong password, an unknown user and an unknown address are all refused alike."""
        await self.assert_forbidden(password="wrong")
        await self.assert_forbidden(password="")
        await self.assert_forbidden(user=fresh("nobody"))
        await self.assert_forbidden(identifier=by_email("alice@example.com"), password="wrong")
        await self.assert_forbidden(identifier=by_email("nobody@example.com"))

    async def test_odd_passwords(self) -> None:
        """A password of any characters, and of any length, is wrong and nothing else."""
        for password in ("\0", f"{PASSWORD}\0", "\u00e9" * 36, "x" * 71, "x" * 72, "x" * 500):
            await self.assert_forbidden(password=password)

    async def test_odd_names(self) -> None:
        """A name of any characters is unknown and nothing else."""
        for name in ("\u00e9", "a b", "al\u0131ce", "%", "'", "x" * 300, "\U0001f600"):
            await self.assert_forbidden(user=name)

    # Accounts that are made.

    async def test_registered_at_first_login(self) -> None:
        """An account is made at its first login, with display name and e-mail addresses."""
        name = self.new_user(display_name="Somebody New", emails=[f"{fresh('new')}@example.com"])
        self.assertFalse(await self.is_registered(name))
        await self.assert_logs_in(name, user=name)
        self.assertEqual(
            await self.profile_of(name), ("Somebody New", set(self.users[name]["emails"]))
        )

    async def test_registered_in_lower_case(self) -> None:
        """However its name is spelled, in the file and by the client, it is one account."""
        name = fresh("spelled")
        self.users = {**self.users, name.capitalize(): self.users["bob"]}
        self.write_users()
        for spelled in (name.upper(), name.capitalize(), name, user_id(name.upper())):
            await self.assert_logs_in(name, user=spelled)

    async def test_registered_at_first_login_by_email(self) -> None:
        """So it is when the first login names the e-mail address."""
        address = f"{fresh('new')}@example.com"
        name = self.new_user(emails=[address])
        await self.assert_logs_in(name, identifier=by_email(address))
        self.assertEqual((await self.profile_of(name))[1], {address})

    async def test_not_registered_for_a_wrong_password(self) -> None:
        """No account is made for a wrong password."""
        name = self.new_user()
        await self.assert_forbidden(user=name, password="wrong")
        self.assertFalse(await self.is_registered(name))

    async def test_profile_not_synchronized(self) -> None:
        """By default a display name that changes with the provider stays as it is."""
        name = self.new_user(display_name="Before")
        await self.assert_logs_in(name, user=name)
        self.change_user(name, display_name="After", emails=[f"{name}@example.com"])
        await self.assert_logs_in(name, user=name)
        self.assertEqual(await self.profile_of(name), ("Before", set()))

    async def test_name_that_synapse_does_not_take(self) -> None:
        """A local part that is none for Synapse is refused like a wrong password."""
        self.users = {**self.users, "_under": self.users["bob"], "sp ace": self.users["bob"]}
        self.write_users()
        for name in ("_under", "sp ace"):
            await self.assert_forbidden(user=name)

    # Accounts that may not.

    async def test_locked(self) -> None:
        """Only the right password tells that an account is locked; none is registered."""
        name = self.new_user(locked=True)
        answer = await self.log_in(user=name)
        self.assert_error(answer, 401, "M_USER_LOCKED", soft_logout=True)
        await self.assert_forbidden(user=name, password="wrong")
        self.assertFalse(await self.is_registered(name))

    async def test_deactivated(self) -> None:
        """The same holds for a deactivated account."""
        name = self.new_user(deactivated=True)
        self.assert_error(await self.log_in(user=name), 403, "M_USER_DEACTIVATED")
        await self.assert_forbidden(user=name, password="wrong")
        self.assertFalse(await self.is_registered(name))

    async def test_locked_in_synapse(self) -> None:
        """An account that the homeserver's administrator locked is told so too."""
        name = self.new_user()
        await self.assert_logs_in(name, user=name)
        admin = await self.administrator()
        await self.client.change_user(admin, name, locked=True)
        answer = await self.log_in(user=name)
        self.assert_error(answer, 401, "M_USER_LOCKED", soft_logout=True)

    async def test_deactivated_in_synapse(self) -> None:
        """And so is one that was deactivated there: it is not made again."""
        name = self.new_user()
        await self.assert_logs_in(name, user=name)
        admin = await self.administrator()
        await self.client.admin("POST", f"/v1/deactivate/{user_id(name)}", {}, admin)
        self.assert_error(await self.log_in(user=name), 403, "M_USER_DEACTIVATED")

    async def test_status_is_not_asked_for(self) -> None:
        """A login brings the account's status with it: no provider is asked for it once more."""
        name, password = await self.local_user()
        for login in (
            {"user": "alice"},
            {"identifier": by_email("alice@example.com")},
            {"user": name, "password": password},
        ):
            before = await self.settled_questions()
            self.assertEqual((await self.log_in(**login)).status, 200)
            self.assertEqual(await self.status_questions(), before, login)

    async def settled_questions(self) -> float:
        """How often, once the accounts of a file that has changed have been looked at."""
        before = -1.0
        while (now := await self.status_questions()) != before:
            before = now
            await deferLater(reactor, 2.0)
        return now

    async def status_questions(self) -> float:
        """How often providers were asked for a status."""
        outcomes = await self.outcomes("provider_outcomes")
        return sum(
            count for labels, count in outcomes.items() if 'operation="account_status"' in labels
        )

    # Synapse's own passwords.

    async def test_local_passwords(self) -> None:
        """A user unknown to all providers logs in with a local password, by name and by e-mail."""
        name, password = await self.local_user()
        address = await self.bind_email(name)
        await self.assert_logs_in(name, user=name, password=password)
        await self.assert_logs_in(name, identifier=by_email(address), password=password)
        await self.assert_forbidden(user=name, password="wrong")

    async def test_second_password(self) -> None:
        """A user has one password: the provider's if the account is linked, else the local one."""
        name, password = await self.local_user()
        self.users = {**self.users, name: self.users["bob"]}
        self.write_users()
        await self.assert_logs_in(name, user=name, password=password)
        self.assert_error(await self.log_in(user=name), 403, "M_FORBIDDEN")
        name, password = await self.linked_user()
        await self.assert_forbidden(user=name, password=password)
        await self.assert_logs_in(name, user=name)

    # Outages.

    async def test_unavailable(self) -> None:
        """While a provider cannot be reached, logins are 503, and no password counts as wrong."""
        for fault in ("unavailable", "hang"):
            self.server.set_fault(fault)
            for login in (
                {"user": "alice"},
                {"user": "alice", "password": "wrong"},
                {"identifier": by_email("alice@example.com")},
            ):
                answer = await self.log_in(**login)
                self.assert_error(answer, 503, "M_UNKNOWN")
                self.assertTrue(answer.header("Retry-After"))
        self.server.set_fault("")
        await self.assert_logs_in("alice")

    async def test_slow(self) -> None:
        """A provider that takes its time is waited for."""
        self.server.set_fault("slow")
        await self.assert_logs_in("alice")
        await self.assert_forbidden(password="wrong")
