"""A homeserver in memory, and the contract of homeservers that delegate authentication."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from synapse_login_module.errors import AccountRefused, HomeserverUnavailable
from synapse_login_module.interfaces import IHomeserver
from synapse_login_module.model import (
    MAX_HOMESERVER_DEVICE_ID,
    HomeserverAccount,
    HomeserverPolicy,
    NameStatus,
)

T = TypeVar("T")

_USER_ID = re.compile(r"@[a-z0-9._=/+-]+:\S+")

FAKE_SECRET = b"secret-of-the-fake-homeserver"
"""The secret with which a :class:`FakeHomeserver` asks about tokens."""


@implementer(IHomeserver)
class FakeHomeserver:
    """A homeserver in memory. Each call is carried out and answered at once, unless told otherwise.

    :param policy: what the server does for it.
    :ivar accounts: the accounts by user ID.
    :ivar devices: the display names of the devices, by user ID and device ID.
    :ivar reserved: the user IDs that are reserved for application services.
    :ivar application_services: the user IDs that an application service acts as, by its token.
    :ivar calls: the calls so far: the method's name and its arguments.
    :ivar forgotten: the arguments of ``forget_tokens`` so far.
    :ivar resets: the users that may replace their keys of cross-signing.
    :ivar failure: while it is set, calls fail with it and are not carried out.
    :ivar loses_answers: while it is true, calls are carried out, and fail all the same.
    :ivar held: while it is a list, calls wait in it and are not carried out; see :meth:`release`.
    :ivar problem: what ``check`` fires with.
    """

    def __init__(self, policy: HomeserverPolicy | None = None) -> None:
        self.policy = policy or HomeserverPolicy()
        self.accounts: dict[str, HomeserverAccount] = {}
        self.devices: dict[tuple[str, str], str | None] = {}
        self.reserved: set[str] = set()
        self.application_services: dict[str, set[str]] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.forgotten: list[tuple[str, str | None]] = []
        self.resets: list[str] = []
        self.failure: HomeserverUnavailable | None = None
        self.loses_answers = False
        self.held: list[Deferred[None]] | None = None
        self.problem: str | None = None

    def release(self) -> None:
        """Carry out the calls that wait, in their order, and let later ones wait no more."""
        held, self.held = self.held or [], None
        for each in held:
            each.callback(None)

    def has_secret(self, given: bytes) -> bool:
        """Compare with the only secret, which is ``FAKE_SECRET``."""
        return given == FAKE_SECRET

    def find_account(self, user_id: str) -> Deferred[HomeserverAccount | None]:
        """Look it up."""
        return self._answer("find_account", user_id)

    def name_status(self, user_id: str) -> Deferred[NameStatus]:
        """Compare the user ID with those in use, and those that are reserved."""
        return self._answer("name_status", user_id)

    def make_account(self, user_id: str, display_name: str | None) -> Deferred[bool]:
        """Add it."""
        return self._answer("make_account", user_id, display_name)

    def set_display_name(self, user_id: str, display_name: str) -> Deferred[None]:
        """Replace the name."""
        return self._answer("set_display_name", user_id, display_name)

    def make_device(self, user_id: str, device_id: str, display_name: str | None) -> Deferred[bool]:
        """Add it, or rename it."""
        return self._answer("make_device", user_id, device_id, display_name)

    def delete_device(self, user_id: str, device_id: str) -> Deferred[None]:
        """Remove it."""
        return self._answer("delete_device", user_id, device_id)

    def allow_cross_signing_reset(self, user_id: str) -> Deferred[None]:
        """Record the user."""
        return self._answer("allow_cross_signing_reset", user_id)

    def owns_user(self, as_token: str, user_id: str) -> Deferred[bool]:
        """Look up the token."""
        return self._answer("owns_user", as_token, user_id)

    def forget_tokens(self, user_id: str, device_id: str | None) -> Deferred[None]:
        """Record the arguments."""
        return self._answer("forget_tokens", user_id, device_id)

    def check(self) -> Deferred[str | None]:
        """Fire with the ``problem``, or with what is wrong at the moment."""
        if self.failure is not None:
            return succeed(str(self.failure))
        return succeed(self.problem)

    def _answer(self, call: str, *arguments: Any) -> Deferred[Any]:
        self.calls.append((call, *arguments))
        if self.failure is not None:
            return fail(self.failure)
        if self.held is None:
            return maybeDeferred(self._carry_out, call, *arguments)
        waiting: Deferred[None] = Deferred()
        self.held.append(waiting)
        return waiting.addCallback(lambda _: self._carry_out(call, *arguments))

    def _carry_out(self, call: str, *arguments: Any) -> Any:
        result = getattr(self, f"_{call}")(*arguments)
        if self.loses_answers:
            raise HomeserverUnavailable("the answer was lost")
        return result

    def _find_account(self, user_id: str) -> HomeserverAccount | None:
        return self.accounts.get(user_id)

    def _name_status(self, user_id: str) -> NameStatus:
        if not _USER_ID.fullmatch(user_id):
            return NameStatus.INVALID
        if user_id in self.accounts:
            return NameStatus.IN_USE
        return NameStatus.RESERVED if user_id in self.reserved else NameStatus.FREE

    def _make_account(self, user_id: str, display_name: str | None) -> bool:
        status = self._name_status(user_id)
        if status is NameStatus.FREE:
            self.accounts[user_id] = HomeserverAccount(user_id, display_name)
        elif status is not NameStatus.IN_USE:
            raise AccountRefused(403, "M_FORBIDDEN", f"this name is {status.value}")
        return status is NameStatus.FREE

    def _set_display_name(self, user_id: str, display_name: str) -> None:
        self.accounts[user_id] = self._existing(user_id)._replace(display_name=display_name)

    def _make_device(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        if len(device_id) > MAX_HOMESERVER_DEVICE_ID:
            raise AccountRefused(400, "M_INVALID_PARAM", "this device ID is too long")
        self._existing(user_id)
        device = user_id, device_id
        is_new = device not in self.devices
        if is_new or display_name is not None:
            self.devices[device] = display_name
        return is_new

    def _delete_device(self, user_id: str, device_id: str) -> None:
        self.devices.pop((user_id, device_id), None)

    def _allow_cross_signing_reset(self, user_id: str) -> None:
        self.resets.append(self._existing(user_id).user_id)

    def _owns_user(self, as_token: str, user_id: str) -> bool:
        users = self.application_services.get(as_token, set())
        return user_id in users and user_id in self.accounts

    def _forget_tokens(self, user_id: str, device_id: str | None) -> None:
        self.forgotten.append((user_id, device_id))

    def _existing(self, user_id: str) -> HomeserverAccount:
        account = self.accounts.get(user_id)
        if account is None:
            raise HomeserverUnavailable("there is no such account")
        return account


class HomeserverContract:
    """The contract of :class:`~synapse_login_module.interfaces.IHomeserver`.

    It may run on a homeserver with other accounts, and leaves its own there. Define the methods
    that raise ``NotImplementedError``. Those that set something up may return a Deferred or be
    coroutines.

    :cvar server_name: the server name of its user IDs.
    :cvar as_token: the token of an application service, which has the users that
        :meth:`make_bridged_user` makes.
    """

    server_name = "example.com"
    as_token = "as-token"
    assertEqual: Any
    assertIs: Any
    assertIsNone: Any
    assertRaises: Any

    def make_homeserver(self) -> IHomeserver:
        """Return the homeserver, with the policy's defaults."""
        raise NotImplementedError

    async def deactivate(self, user_id: str) -> None:
        """Deactivate an account at the homeserver."""
        raise NotImplementedError

    async def devices_of(self, user_id: str) -> Mapping[str, str | None]:
        """Return the display names of a user's devices at the homeserver, by device ID."""
        raise NotImplementedError

    async def make_bridged_user(self, localpart: str) -> str:
        """Make a user of the application service; return its user ID."""
        raise NotImplementedError

    async def reserved_user_id(self) -> str:
        """Return a user ID without an account that is reserved for an application service."""
        raise NotImplementedError

    async def test_homeserver_interface(self) -> None:
        """It provides the interface and has a policy, and nothing is wrong with it."""
        homeserver = self.make_homeserver()
        verifyObject(IHomeserver, homeserver)
        self.assertEqual(homeserver.policy, HomeserverPolicy())
        self.assertIsNone(await homeserver.check())

    async def test_accounts(self) -> None:
        """An account is found once it is made, with its display name."""
        homeserver, alice = self.make_homeserver(), self._new_user_id()
        self.assertIsNone(await homeserver.find_account(alice))
        self.assertIs(await homeserver.make_account(alice, "Alice Ä. \U0001f916"), True)
        found = HomeserverAccount(alice, "Alice Ä. \U0001f916")
        self.assertEqual(await homeserver.find_account(alice), found)

    async def test_account_without_a_name(self) -> None:
        """An account is made without a display name too."""
        homeserver, alice = self.make_homeserver(), self._new_user_id()
        self.assertIs(await homeserver.make_account(alice, None), True)
        account = await homeserver.find_account(alice)
        assert account is not None
        self.assertEqual((account.user_id, account.is_deactivated), (alice, False))

    async def test_account_made_again(self) -> None:
        """An account that exists is not new, and stays as it is."""
        homeserver, alice = self.make_homeserver(), self._new_user_id()
        await homeserver.make_account(alice, "Alice")
        for name in ("Mallory", None, ""):
            self.assertIs(await homeserver.make_account(alice, name), False)
        self.assertEqual(await homeserver.find_account(alice), HomeserverAccount(alice, "Alice"))

    async def test_deactivated_account(self) -> None:
        """A deactivated account is found as such. Its name stays in use."""
        homeserver, alice = self.make_homeserver(), self._new_user_id()
        await homeserver.make_account(alice, None)
        await self.deactivate(alice)
        account = await homeserver.find_account(alice)
        assert account is not None
        self.assertIs(account.is_deactivated, True)
        self.assertIs(await homeserver.name_status(alice), NameStatus.IN_USE)
        self.assertIs(await homeserver.make_account(alice, None), False)

    async def test_names(self) -> None:
        """A name is free, in use, reserved, or makes no user ID."""
        homeserver, alice = self.make_homeserver(), self._new_user_id()
        self.assertIs(await homeserver.name_status(alice), NameStatus.FREE)
        await homeserver.make_account(alice, None)
        self.assertIs(await homeserver.name_status(alice), NameStatus.IN_USE)
        reserved = await self.reserved_user_id()
        self.assertIs(await homeserver.name_status(reserved), NameStatus.RESERVED)
        for name in ("Alice", "al ice", "aliçe", "a&localpart=b", "a#b"):
            status = await homeserver.name_status(f"@{name}:{self.server_name}")
            self.assertIs(status, NameStatus.INVALID, name)

    async def test_impossible_accounts(self) -> None:
        """An account whose name is reserved or makes no user ID is not made."""
        homeserver = self.make_homeserver()
        impossible = (f"@{name}:{self.server_name}" for name in ("al ice", "aliçe"))
        for user_id in (await self.reserved_user_id(), *impossible):
            with self.assertRaises(AccountRefused):
                await homeserver.make_account(user_id, "Alice")
            self.assertIsNone(await homeserver.find_account(user_id))

    async def test_display_name(self) -> None:
        """A display name is replaced, and a very long one is no error."""
        homeserver, alice = self.make_homeserver(), self._new_user_id()
        await homeserver.make_account(alice, "Alice")
        await homeserver.set_display_name(alice, "Alice Liddell")
        found = HomeserverAccount(alice, "Alice Liddell")
        self.assertEqual(await homeserver.find_account(alice), found)
        await homeserver.set_display_name(alice, "y" * 1000)
        account = await homeserver.find_account(alice)
        assert account is not None
        self.assertEqual((account.display_name or "")[:100], "y" * 100)

    async def test_odd_names(self) -> None:
        """Display names that a database may not take, with NUL or no Unicode text, are no error."""
        homeserver = self.make_homeserver()
        for name in ("A\0lice", "A\ud800lice", "\0"):
            alice = self._new_user_id()
            self.assertIs(await homeserver.make_account(alice, name), True)
            await homeserver.set_display_name(alice, name)
            self.assertIs(await homeserver.make_device(alice, "PHONE", name), True)
            self.assertIs(await homeserver.make_device(alice, "PHONE", name), False)

    async def test_devices(self) -> None:
        """A device is new once. It is renamed by a name, and keeps its name otherwise."""
        homeserver, alice = self.make_homeserver(), await self._new_user()
        self.assertIs(await homeserver.make_device(alice, "PHONE", "Phone"), True)
        self.assertIs(await homeserver.make_device(alice, "PHONE", None), False)
        self.assertEqual(await self.devices_of(alice), {"PHONE": "Phone"})
        self.assertIs(await homeserver.make_device(alice, "PHONE", "Alice's phone"), False)
        self.assertIs(await homeserver.make_device(alice, "a/b?c=d ü", None), True)
        self.assertEqual(
            await self.devices_of(alice), {"PHONE": "Alice's phone", "a/b?c=d ü": None}
        )

    async def test_long_device_name(self) -> None:
        """A device whose name is very long is made all the same."""
        homeserver, alice = self.make_homeserver(), await self._new_user()
        self.assertIs(await homeserver.make_device(alice, "PHONE", "y" * 1000), True)
        name = (await self.devices_of(alice))["PHONE"]
        self.assertEqual((name or "")[:50], "y" * 50)

    async def test_long_device_id(self) -> None:
        """A device ID that is too long is refused, and no device is made."""
        homeserver, alice = self.make_homeserver(), await self._new_user()
        longest = "x" * MAX_HOMESERVER_DEVICE_ID
        self.assertIs(await homeserver.make_device(alice, longest, None), True)
        with self.assertRaises(AccountRefused) as raised:
            await homeserver.make_device(alice, f"{longest}x", None)
        refused = raised.exception
        self.assertEqual((refused.status, refused.errcode), (400, "M_INVALID_PARAM"))
        self.assertEqual(set(await self.devices_of(alice)), {longest})

    async def test_deleted_device(self) -> None:
        """A device is deleted, and it is no error when there is none, nor such a user."""
        homeserver, alice = self.make_homeserver(), await self._new_user()
        await homeserver.make_device(alice, "PHONE", None)
        await homeserver.make_device(alice, "TABLET", None)
        for _ in range(2):
            await homeserver.delete_device(alice, "PHONE")
            self.assertEqual(set(await self.devices_of(alice)), {"TABLET"})
        await homeserver.delete_device(self._new_user_id(), "PHONE")

    async def test_no_account(self) -> None:
        """Without an account there is no device, display name or reset of cross-signing."""
        homeserver, alice = self.make_homeserver(), self._new_user_id()
        for call in (
            lambda: homeserver.make_device(alice, "PHONE", None),
            lambda: homeserver.set_display_name(alice, "Alice"),
            lambda: homeserver.allow_cross_signing_reset(alice),
        ):
            with self.assertRaises(HomeserverUnavailable):
                await call()
        self.assertIsNone(await homeserver.find_account(alice))

    async def test_cross_signing_reset(self) -> None:
        """A user may be allowed it, again and again."""
        homeserver, alice = self.make_homeserver(), await self._new_user()
        for _ in range(2):
            await homeserver.allow_cross_signing_reset(alice)

    async def test_application_service(self) -> None:
        """An application service owns the users that it has made, and no others."""
        homeserver, alice = self.make_homeserver(), await self._new_user()
        bridged = await self.make_bridged_user(secrets.token_hex(8))
        for token, user_id, owns in (
            (self.as_token, bridged, True),
            (self.as_token, alice, False),
            (self.as_token, self._new_user_id(), False),
            (self.as_token, "@alice:elsewhere.example", False),
            (self.as_token, "alice", False),
            (self.as_token, "", False),
            (f"{self.as_token}x", bridged, False),
            ("", bridged, False),
            (f"{self.as_token}\r\nX-More: 1", bridged, False),
            (f"{self.as_token}\u212a", bridged, False),
        ):
            self.assertIs(await homeserver.owns_user(token, user_id), owns, (token, user_id))

    async def test_forgotten_tokens(self) -> None:
        """Tokens of one device and of all devices may be forgotten, also when there are none."""
        homeserver, alice = self.make_homeserver(), await self._new_user()
        await homeserver.make_device(alice, "PHONE", None)
        for device_id in ("PHONE", "TABLET", None):
            await homeserver.forget_tokens(alice, device_id)
        self.assertEqual(set(await self.devices_of(alice)), {"PHONE"})

    def _new_user_id(self) -> str:
        return f"@u{secrets.token_hex(8)}:{self.server_name}"

    async def _new_user(self) -> str:
        user_id = self._new_user_id()
        await self.make_homeserver().make_account(user_id, None)
        return user_id
